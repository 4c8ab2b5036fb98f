"""What a drain shows: whether it is worth another look, and whether a call was cut before or after another one ended."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.callers.continuity import AGENT_LEFT, Continuity
from pytest_lkagents.callers.habit import Stay
from pytest_lkagents.checks import Evidence, NotJudgeable, StageError, TooBusy, Unproven, WorkerFault
from pytest_lkagents.clock import Ledger
from pytest_lkagents.settings import Settings
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Answer, Entry, Question
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.health import Health
from suites import connections as connections_module
from suites import deserted, drains
from suites import test_rollout as rollout
from suites.connections import JOB_GONE, Connections
from suites.drainage import Drainage
from suites.drained import Drain
from suites.judging import exit_codes, judge_exit, stops_in_time
from suites.kept import Kept
from suites.long_call import LongCall
from suites.offers import offered_nothing_since, refused_for_all
from suites.placement import Placement
from suites.scenario import Ends, Scenario

STAGE = cast(Stage, SimpleNamespace(settings=Settings(), untouched=lambda _role: SimpleNamespace(signal=lambda _name: None)))


@pytest.mark.parametrize(
    ("health", "ended", "again"),
    [
        ([200, None, None, 200, None], None, False),  # single ones get lost
        ([200, 200, None, None, None], None, True),
        ([200, 503, None, None, 200], None, False),  # it did answer
        ([200, None, None, None], 4.0, False),  # nobody was there to answer
    ],
)
def test_probes_that_a_busy_machine_may_have_missed(health: list[int | None], ended: float | None, again: bool) -> None:
    seen = Drain("SIGTERM", 8081, [], health=health, stopped_s=0.1, ended_early_s=ended, busy="load 9 on 2 cores")
    assert seen.doubt == ("its health probes were not answered, load 9 on 2 cores" if again else None)


@pytest.mark.parametrize(("cut", "hung_up", "while_held"), [(3.2, 3.5, True), (3.5, 3.5, False), (3.9, 3.5, False)])
def test_a_call_that_is_cut_as_another_one_ends(cut: float, hung_up: float, while_held: bool) -> None:
    def kept(**seen: object) -> Kept:
        return Kept(cast(Call, None), cast(Continuity, None), **seen)  # type: ignore[arg-type]

    ended, lost = kept(hung_up_s=hung_up), kept(trouble=AGENT_LEFT, trouble_s=cut)
    drain = Drain("SIGTERM", None, [], kept=[ended, lost], ended_early_s=cut)
    assert drain.cut is lost
    assert (drain.cut_while_held is lost) is while_held
    assert (drain.ended_while_held is not None) is while_held


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("15", 143), ("SIGRTMIN+3", 128 + signal.SIGRTMIN + 3)])
def test_codes_of_a_worker_that_its_stop_signal_ended(name: str, code: int) -> None:
    assert exit_codes(name) == {0, code, 130, 143}


def test_what_is_refused_for_everybody_because_of_the_signal() -> None:
    def asked(at: float, terminated: bool = True) -> Question:
        return Question("AJ_1", "room", "", at, ((at, False),), terminated=terminated)

    assert refused_for_all([asked(1, False), asked(6)], [], sent=5)
    assert not refused_for_all([asked(1, False), asked(6, False)], [], sent=5)
    assert not refused_for_all([asked(1), asked(6)], [], sent=5)
    assert not refused_for_all([asked(6)], [asked(1)], sent=5)


def test_a_signal_that_was_lost_on_a_worker_that_its_call_fills() -> None:
    seen = Drain("SIGINT", None, [], stopped_s=1.2, asked_at_end=Answer("AJ_1", True, 0.1), outlasted=True, heeds_second=True)
    assert seen.heeded
    assert seen.doubt == "SIGINT was lost, perhaps by chance"
    assert seen.lost_signal == ", but heeds a second one"


def watched(usual: Stay | None = None, *, there: bool = True, **seen: Any) -> Kept:
    continuity = SimpleNamespace(usual=usual, lost_from_sight=False, agents_are_there=there, stalled=0.0)
    return Kept(cast(Call, None), cast(Continuity, continuity), evidence={"agents": 1}, **seen)


@pytest.mark.parametrize(
    ("usual", "held", "judged"),
    [(None, 600.1, True), (Stay(9.0, 1.0), 9.3, False), (Stay(700.0, 1.0), 700.2, True), (None, 12.0, False)],
)
def test_a_call_that_its_agent_ends_shows_no_grace_period(usual: Stay | None, held: float, judged: bool) -> None:
    seen = Drain("SIGTERM", None, [], [watched(usual, hung_up_s=held)], held_s=held, exited_s=0.4, exit_code=0)
    evidence = Evidence()
    if judged:
        rollout.test_drains_a_long_call(STAGE, evidence, lambda: LongCall(seen, []))
        assert evidence.summary == f"a call went on for {held:.0f} s after SIGTERM"
    else:
        with pytest.raises(NotJudgeable, match=f"lasted for {held:.0f} s after SIGTERM and not for 600 s"):
            rollout.test_drains_a_long_call(STAGE, evidence, lambda: LongCall(seen, []))


@pytest.mark.parametrize(
    ("kept", "ended", "says"),
    [
        (watched(hung_up_s=8.0), None, "changes nothing"),
        (watched(hung_up_s=8.0), 2.1, "ends the worker at once"),
        (watched(trouble=AGENT_LEFT, trouble_s=2.3, there=False), None, "ends its calls: the agent left"),
        (watched(trouble=AGENT_LEFT, trouble_s=5.0, there=False, unproven="it may do so"), None, Unproven),
        (watched(trouble="the agent fell silent for 8.0 s", trouble_s=3.0, unproven="it may listen"), None, Unproven),
        (watched(trouble="no packet came from the agent for 8.0 s", trouble_s=0.4), None, NotJudgeable),
    ],
)
def test_what_a_second_signal_did(
    kept: Kept, ended: float | None, says: str | type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Drain("SIGTERM", None, [], [kept], ended_early_s=ended)

    def drainage(_stage: Stage, worker: Any, scenario: Scenario) -> object:
        assert scenario.disturb is not None
        scenario.disturb(worker)
        return SimpleNamespace(observe=lambda: seen)

    monkeypatch.setattr(drains, "Drainage", drainage)
    evidence = Evidence()
    if isinstance(says, str):
        rollout.test_second_signal(STAGE, evidence)
        assert says in (evidence.summary or "")
    else:
        with pytest.raises(says):
            rollout.test_second_signal(STAGE, evidence)


SENT = 10.0


@pytest.mark.parametrize(
    ("said", "since"),
    [
        ([(10.2, 1, "full")], 10.2),
        ([(9.0, 1, "full")], None),
        ([], None),
        ([(10.2, 1, "full"), (12.5, 1, "free")], None),
        ([(10.2, 1, "full"), (12.5, 1, "free"), (14.0, 1, "full")], 14.0),
        ([(10.4, 1, "closed")], 10.4),
        ([(10.2, 1, "full"), (11.0, 1, "closed")], 10.2),
        # Two workers, or one with two registrations.
        ([(1.0, 2, "registered"), (10.2, 1, "full")], None),
        ([(1.0, 2, "registered"), (10.2, 1, "full"), (10.3, 2, "full")], 10.3),
        ([(1.0, 2, "registered"), (10.2, 1, "full"), (16.0, 2, "closed")], 16.0),
        ([(1.0, 2, "registered"), (9.0, 2, "closed"), (10.2, 1, "full")], 10.2),
        # Lost, and there again.
        ([(10.2, 1, "full"), (11.0, 1, "closed"), (12.0, 2, "registered")], 10.2),
        ([(10.2, 1, "full"), (11.0, 1, "closed"), (12.0, 2, "registered"), (19.0, 2, "full")], 10.2),
        ([(10.2, 1, "full"), (11.0, 1, "closed"), (12.0, 2, "registered"), (19.0, 2, "free")], None),
        ([(10.2, 1, "full"), (12.0, 2, "registered"), (12.1, 1, "closed")], 10.2),
        ([(10.2, 1, "full"), (11.0, 1, "free"), (12.0, 1, "closed"), (13.0, 2, "registered")], None),
        ([(1.0, 2, "registered"), (10.2, 1, "full"), (10.4, 2, "closed"), (11.0, 3, "registered")], None),
        ([(10.2, 1, "full"), (11.0, 2, "registered"), (20.0, 1, "closed")], None),
        ([(10.2, 1, "closed"), (15.0, 2, "registered")], None),
        ([(10.2, 1, "closed"), (15.0, 2, "registered"), (15.1, 2, "full")], 15.1),
    ],
)
def test_since_when_a_server_offers_a_worker_nothing(said: list[tuple[float, int, str]], since: float | None) -> None:
    transcript = Transcript()
    for at, connection, kind in [(0.0, 1, "registered"), *said]:
        data = {"status": "full" if kind == "full" else "available"} if kind in ("full", "free") else {}
        transcript.add(Entry(at, connection, "worker", "status" if data else kind, data, 0))
    assert offered_nothing_since(transcript, SENT) == since


def worker_with(*ports: int) -> Worker:
    """``ports`` of the open connections of its jobs."""
    wire = SimpleNamespace(calls_at=set(ports), transcript=None)
    return cast(Worker, SimpleNamespace(name="w", wire=wire, is_running=True, wait_health=lambda: None))


@pytest.mark.parametrize("probed", [False, True])
def test_only_where_its_health_is_judged_a_draining_worker_is_probed(probed: bool) -> None:
    worker: Any = worker_with(1)
    worker.wait_health = lambda: Health(8081, loopback=False)
    stage = cast(Stage, SimpleNamespace(calls=SimpleNamespace(caller=lambda _worker: None)))
    drainage = Drainage(stage, worker, Scenario("SIGINT", probed=probed))
    assert (drainage.health is not None, drainage.seen.health_port) == (probed, 8081 if probed else None)


def gone(worker: Worker, known: int, *left: int, calls: int = 1) -> float | None:
    connections = Connections(worker, known)
    worker.wire.calls_at.intersection_update(left)  # it is the fake's own set
    assert connections.look(calls, 1.0) is None
    return connections.look(calls, 9.5)


def test_jobs_whose_connections_are_gone() -> None:
    assert gone(worker_with(1), 1) == 1.0
    assert gone(worker_with(1, 2), 1) == 1.0, "one call, and an avatar"
    assert gone(worker_with(1, 2), 1, 2) is None, "the avatar's"
    assert gone(worker_with(1, 2, 3), 2, 2, calls=2) is None, "whose they are cannot be told"
    assert gone(worker_with(1, 2), 2, 2, calls=2) == 1.0
    assert gone(worker_with(1, 2), 2, 2) is None, "packets come in the other call"
    assert gone(worker_with(), 1) is None, "they were not seen before either"


@pytest.mark.parametrize(("packets", "cut"), [([9.0, 9.0], 2), ([0.1, 9.0], 1), ([0.1, 0.1], 0)])
def test_calls_whose_jobs_were_killed_at_the_signal(packets: list[float], cut: int) -> None:
    worker = worker_with(1, 2)
    stage = cast(Stage, SimpleNamespace(calls=SimpleNamespace(caller=lambda _worker: None)))
    drainage = Drainage(stage, worker, Scenario("SIGTERM", send=lambda _worker: worker.wire.calls_at.clear()))
    drainage.seen.kept = [Kept(cast(Call, SimpleNamespace(packet_gap=gap)), cast(Continuity, None)) for gap in packets]
    drainage._stop()
    for passed in (0.1, 4.0, 8.2, 8.4):
        drainage._look_for_jobs(passed)
        assert drainage._suspicious is (cut > 0) or passed > 8
    assert [kept.trouble for kept in drainage.seen.kept].count(JOB_GONE) == cut


RELAY = 40


@pytest.mark.parametrize(
    ("before", "now", "killed"),
    [
        ([7], [7, 9], 9),
        ([7], [1, 7], None),
        ([7], [7], None),
        ([7], [7, 7], None),
        ([], [7, 9], None),
        ([7], [9, 8], None),
        ([7], [7, 8, 9], None),
        ([7], [7, RELAY], None),
    ],
)
def test_the_newest_calls_job_crashes_if_it_has_a_process_of_its_own(
    before: list[int], now: list[int], killed: int | None
) -> None:
    ended: list[int] = []
    snapshot = SimpleNamespace(without_children=lambda pids: pids, is_relay=lambda pid: pid == RELAY)
    worker: Any = worker_with(1, 2)
    worker.snapshot, worker.jobs_of, worker.registered_by = lambda: snapshot, lambda _seen: now, lambda _seen: [1]
    worker.signal_processes = lambda pids, _name: ended.extend(pids)
    scenario = Scenario("SIGTERM", calls=2, ends=Ends.NEWEST_CRASHES)
    placement = Placement(cast(Stage, None), worker, cast(Caller, None), scenario)
    placement.oldest, placement.all = before, now
    assert placement.crash_newest() is bool(killed)
    assert ended == ([killed] if killed else [])


@pytest.mark.parametrize("crashed", [True, False])
def test_an_exit_code_that_tells_of_a_crashed_job(crashed: bool) -> None:
    seen = Drain("SIGTERM", None, [], [watched(hung_up_s=20.0)], exited_s=0.4, exit_code=1, crashed=crashed)
    if crashed:
        judge_exit(seen, 30, Evidence())
    else:
        with pytest.raises(AssertionError, match="exit code 1 after SIGTERM"):
            judge_exit(seen, 30, Evidence())


def test_an_agent_that_falls_silent_is_looked_at_once_more() -> None:
    silent = watched(trouble="the agent fell silent for 8.0 s", trouble_s=1.0)
    assert Drain("SIGTERM", None, [], [silent]).doubt == "the agent fell silent for 8.0 s, perhaps by chance"
    left = watched(trouble=AGENT_LEFT, trouble_s=1.0, there=False)
    assert Drain("SIGTERM", None, [], [left]).doubt is None
    ended = Drain("SIGTERM", None, [], [silent], ended_early_s=1.0)
    assert ended.doubt is None, "nobody is there who could speak"


@pytest.mark.parametrize("killed", [True, False])
def test_a_call_whose_job_is_killed_while_its_server_is_away(killed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "FOR_GOOD_SECONDS", 0.5)
    monkeypatch.setattr(deserted, "DRAIN_SECONDS", 0.3)
    worker = worker_with(1)
    worker.ledger = Ledger()
    continuity = SimpleNamespace(trouble=lambda: None, gap=lambda: 0.0)
    kept, connections = Kept(cast(Call, None), cast(Continuity, continuity)), Connections(worker, 1)
    if killed:
        worker.wire.calls_at.clear()
    ended = deserted._ended_with_its_call(worker, kept, connections, time.monotonic())
    assert (ended is not None) is killed
    assert (kept.trouble == JOB_GONE) is killed


@pytest.mark.parametrize(
    ("heard", "again", "kept_s", "cleared"),
    [
        (True, {"steady": True}, 8.0, True),
        (True, {"steady": False, "sending": True}, 8.0, False),  # a silence of a voice is not seen in packets
        (False, {"steady": False, "sending": True}, 8.0, True),
        (True, {"steady": True}, 2.0, False),  # hung up before
    ],
)
def test_what_a_look_in_peace_clears(heard: bool, again: dict[str, bool], kept_s: float, cleared: bool) -> None:
    def drain(*, trouble: str | None = None, **listened: bool) -> Drain:
        told = SimpleNamespace(**{"steady": False, "sending": False, "agents_are_there": True, **listened})
        at = 3.0 if trouble else None
        one = Kept(
            cast(Call, None), cast(Continuity, told), trouble=trouble, trouble_s=at, hung_up_s=None if trouble else kept_s
        )
        return Drain("SIGTERM", None, [], [one], held_s=kept_s)

    before, seen = drain(trouble="the agent fell silent for 9.0 s", steady=heard), drain(**again)
    seen.look_again_at(before)
    if cleared:
        seen.raise_if_not_cleared()
    else:
        with pytest.raises(StageError, match=r"silent for 9\.0 s, and another one paused too soon"):
            seen.raise_if_not_cleared()


def test_a_worker_has_had_a_call_before_it_drains() -> None:
    acts: list[str] = []
    living = {1: "worker", 7: "job"}

    def served(_caller: object) -> object:
        acts.append(f"served beside {len(living) - 1} jobs")
        return SimpleNamespace(leave=lambda: living.pop(7))

    calls = SimpleNamespace(
        leave_by_themselves=False,
        served=served,
        wait_idle=lambda _worker, _seconds: None,
        wait_heard=lambda _calls, steady: None,
        continuity=lambda _call: None,
    )
    worker: Any = worker_with()
    worker.snapshot = lambda: SimpleNamespace(living=lambda: living)
    worker.jobs_of, worker.registered_by, worker.ledger = lambda _seen: [7], lambda _seen: [1], Ledger()
    scenario = Scenario("SIGTERM", calls=2, after_a_call=True)
    placement = Placement(cast(Stage, SimpleNamespace(calls=calls)), worker, cast(Caller, None), scenario)
    assert len(placement.place()) == 2
    assert acts == ["served beside 1 jobs", "served beside 0 jobs", "served beside 0 jobs"]


@pytest.mark.parametrize(
    ("refuses", "says"),
    [
        (WorkerFault("no agent came to any of 3 calls within 15 s"), "takes only one call at a time"),
        (TooBusy("this machine is too busy to judge: load 9.0 on 2 cores"), "took only one call, and this machine is too busy"),
    ],
)
def test_a_worker_takes_one_call_at_a_time_only_if_it_had_time_for_more(refuses: Exception, says: str) -> None:
    first = [SimpleNamespace(room_name="first")]

    def served(_caller: object) -> object:
        if first:
            return first.pop()
        raise refuses

    stage = cast(Stage, SimpleNamespace(calls=SimpleNamespace(served=served)))
    placement = Placement(stage, worker_with(), cast(Caller, None), Scenario("SIGTERM", calls=4))
    assert len(placement._serve()) == 1
    seen = Drain("SIGTERM", None, [], [watched(hung_up_s=20.0)], fewer=placement.fewer)
    with pytest.raises(NotJudgeable, match=says):
        rollout.test_drains_every_call(Evidence(), lambda: seen, lambda: seen)


@pytest.mark.parametrize(
    ("stopped", "asked", "after", "in_time"),
    [(0.1, 0.2, 0.0, True), (9.1, 7.0, 2.1, False), (9.1, 7.0, 0.1, True), (None, 5.0, 2.9, True), (None, 5.0, None, False)],
)
def test_one_that_heeds_nothing_for_some_seconds_does_not_stop_in_time(
    stopped: float | None, asked: float, after: float | None, in_time: bool
) -> None:
    seen = Drain("SIGTERM", None, [])
    seen.stopped_s, seen.asked_s = stopped, asked
    seen.asked = Answer("job", None if after is None else False, after)
    assert stops_in_time(seen) is in_time
