"""One job misbehaves, the worker and its other calls go on: shown with a user's own test; and how leftovers are judged."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.calls import SEE_JOINS, Accepted
from pytest_lkagents.checks import Evidence, NotJudgeable, StageError, TooBusy, WorkerFault
from pytest_lkagents.clock import Ledger
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.processes import SEPARATOR, Connection, Process, Snapshot, parse
from suites import leftovers, losses
from suites import test_jobs as jobs
from suites.accepted import enough
from suites.ended import judge_apart
from suites.leftovers import MOUNTS, Held, Leftovers, Rest, trend
from suites.losses import Losses
from suites.pool import Apart, Pair, end_apart, require_no_relay, require_own_processes

from .test_workers import image

USERS_TEST = """
import time

import pytest


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
    return condition()


def jobs(worker):
    return worker.snapshot().holders_of(worker.server_peer)[1:]


def misbehaves(how, worker, call, pid):
    if how == "raises":
        return until(lambda: not call.agents_present, 20)
    if how == "blocks":
        return until(lambda: call.silence > 3, 20)
    call.leave()
    time.sleep(5)
    return pid in worker.snapshot().living()


def test_other_calls_go_on(lk_worker, lk_caller):
    first = lk_caller.join()
    assert first.wait_until_agent_talks(20) is not None
    [pid] = jobs(lk_worker)
    other = lk_caller.join()
    assert other.wait_until_agent_talks(20) is not None
    assert misbehaves(lk_worker.environment["MISBEHAVE"], lk_worker, first, pid)
    time.sleep(5)
    assert other.agents_present
    # A call that is cut stays silent for good.
    assert until(lambda: other.silence < 2.5, 8)
    with lk_caller.join() as late:
        assert late.wait_until_agent_talks(20) is not None
    other.leave()
    assert lk_worker.is_running
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["raises", "never-ends", "blocks"])
def test_a_job_that_misbehaves_harms_nobody_else(how: str, lk, tmp_path: Path) -> None:
    tag, _ = image("good", "odd-first-job")
    (tmp_path / "test_mine.py").write_text(USERS_TEST)
    run = lk("--lk-image", tag, "--lk-env", f"MISBEHAVE={how}", "test_mine.py")
    assert run.code == 0, run.output
    assert re.search(r"\b1 passed\b", run.output), run.output


@pytest.mark.parametrize(
    ("values", "slope", "exceeds"),
    [
        ((5, 7, 9, 11, 13), 1.0, True),  # one each
        ((5, 6, 7, 8, 9), 0.5, False),  # exactly the bound
        ((4, 8, 8, 8, 8), 0.4, False),  # a pool that grew once
        ((10, 0, 20, 5, 30), 2.25, False),  # too noisy to tell
        ((9, 7, 5, 3, 1), -1.0, False),
    ],
)
def test_only_growth_beyond_doubt_is_a_leftover(values: tuple[int, ...], slope: float, exceeds: bool) -> None:
    found = trend([2, 4, 6, 8, 10], values)
    assert found.slope == pytest.approx(slope)
    assert found.exceeds(0.5) is exceeds


def rested(calls: int, threads: int) -> Rest:
    return Rest(calls, {1: Process(1, 0, 0, "worker")}, {1: Held(10, threads, 10**7)}, {}, 0)


@pytest.mark.parametrize(
    ("threads", "says"),
    [
        ((8, 10, 12, 14, 16), "each of 8 calls leaves 1.0 threads behind"),
        ((8, 8, 8, 40, 40), None),  # a library began to use all cores
        ((8, 24, 24, 40, 40), None),  # two did
    ],
)
def test_threads_of_a_pool_that_began_later_are_left_by_no_call(threads: tuple[int, ...], says: str | None) -> None:
    seen = Leftovers([rested(2 * pair + 2, count) for pair, count in enumerate(threads)])
    if says is None:
        jobs.test_no_leftovers(Evidence(), lambda: seen)
    else:
        with pytest.raises(AssertionError, match=says):
            jobs.test_no_leftovers(Evidence(), lambda: seen)


@pytest.mark.parametrize(("most", "pairs", "grows"), [(4, 4, False), (12, 8, False), (1000, 15, True)])
def test_more_calls_tell_a_pool_that_fills_up_from_a_leak(
    most: int, pairs: int, grows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_two_calls", lambda *_: (2, set()))
    monkeypatch.setattr(leftovers, "measure", lambda _stage, _worker, calls, _jobs: rested(calls, 8 + min(calls, most)))
    calls = SimpleNamespace(wait_idle=lambda _worker: None)
    stage = cast(Stage, SimpleNamespace(worker=lambda _role: None, calls=calls))
    seen = leftovers.observe(stage, 4, lambda _text: None)
    assert len(seen.rests) <= pairs + 1
    assert seen.threads_grow is grows


@pytest.mark.parametrize(
    ("threads", "says"),
    [((0, 3, 10), ["a thread"]), ((0, 0, 40), []), ((0, 40, 40), []), ((0, 6, 20), ["a thread"]), ((0, 1, 1), [])],
    ids=["each leaves one", "a pool began later", "a pool began sooner", "each leaves two", "none"],
)
def test_what_is_left_by_each_loss_is_left_by_the_first_and_by_the_others(threads: tuple[int, ...], says: list[str]) -> None:
    def rest(cuts: int, more: int) -> losses.Rest:
        return losses.Rest(cuts, 2, {1: Held(10, 8 + more, 0), 2: Held(5, 1, 0)})

    assert Losses([0.4] * 10, [rest(cuts, more) for cuts, more in zip((0, 3, 10), threads, strict=True)]).left_behind == says


@pytest.mark.parametrize(("slow", "cuts"), [(0.5, (0, 3, 10)), (40.0, (0, 3, 4)), (80.0, (0,))])
def test_a_worker_rests_before_its_losses_after_the_first_and_after_all(
    slow: float, cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "cut_and_return", lambda _worker: slow)
    monkeypatch.setattr(losses, "settle", lambda *_: SimpleNamespace(processes=[]))
    monkeypatch.setattr(leftovers, "held_by", lambda *_: {})
    seen = losses.observe(cast(Stage, SimpleNamespace(raise_if_closing=lambda: None)), cast(Worker, None))
    assert tuple(rest.cuts for rest in seen.rests) == cuts


@pytest.mark.parametrize("kind", ["overlay", "zfs", "btrfs", "fuse.fuse-overlayfs"])
def test_the_images_own_files_are_none_of_the_workers(kind: str, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        f"90 80 0:50 / / rw,relatime master:1 - {kind} pool/layer rw\n"
        "91 90 0:51 / /proc rw - proc proc rw\n"
        "92 90 0:52 / /dev/shm rw - tmpfs shm rw\n"
        f"93 90 0:53 /volume /data rw,relatime - {'ext4' if kind == 'overlay' else kind} pool/volume rw\n"
    )
    told = subprocess.run(f"{MOUNTS} {table}", shell=True, capture_output=True, text=True, check=True).stdout.split()
    assert told == ["/dev/shm", "/data"]


def test_a_trend_needs_three_points() -> None:
    with pytest.raises(ValueError, match="three points"):
        trend([1, 2], [0, 0])


OUTPUT = f"""\
    1     0 10001 Ssl  80000 2 python agent.py start
   13     1 10001 S    30000 0 python -c from multiprocessing.forkserver import main
   17    13 10001 Sl   90000 1 python -c from multiprocessing.forkserver import main
   21    17 10001 S    1000 0 cat
   22     1 10001 Z    0 0 [cat] <defunct>
{SEPARATOR}
0 0 10.0.0.2:1 10.0.0.1:7880 users:(("python",pid=1,fd=9))
0 0 10.0.0.2:2 10.0.0.1:7880 users:(("python",pid=17,fd=9))
0 0 10.0.0.2:3 10.0.0.9:443 users:(("python",pid=17,fd=10))
{SEPARATOR}
"""


def test_a_snapshot_knows_who_lives() -> None:
    seen = parse(OUTPUT)
    assert seen.zombies() == {22}
    assert set(seen.living()) == {1, 13, 17, 21}
    assert seen.living()[17].state == "Sl"
    assert (seen.living()[17].resident_bytes, seen.living()[17].cpu_s) == (90000 * 1024, 1)


def test_a_proxy_in_the_container_serves_no_call_itself() -> None:
    """Many connections are one process's, which holds no socket for media, while the jobs do."""
    forwarded = OUTPUT.replace('"python",pid=17,fd=9', '"python",pid=1,fd=10')
    media = 'udp UNCONN 0 0 10.0.0.2:40000 0.0.0.0:* users:(("python",pid=17,fd=11))\n'
    seen = parse(forwarded + media)
    with pytest.raises(NotJudgeable, match=r"sends no media: python agent\.py start"):
        require_no_relay(seen, [], seen.holders_of("10.0.0.1:7880"))
    # One process that serves both, and one of which nothing is known.
    require_no_relay(parse(OUTPUT + media), [], [17, 17])
    require_no_relay(parse(forwarded), [1], [1, 1])
    with pytest.raises(NotJudgeable, match="sends no media"):
        require_no_relay(seen, [], [13, 21])
    # Several processes, one of which has only just joined its call.
    require_no_relay(seen, [], [1, 17])


def test_an_avatar_is_its_agents_child() -> None:
    seen = parse(OUTPUT)
    assert seen.without_children([17, 21]) == [17]
    assert seen.without_children([21, 17, 13]) == [13]
    assert seen.without_children([17, 17]) == [17, 17]


def test_a_connection_is_known_by_its_port() -> None:
    seen = parse(OUTPUT)
    assert seen.holders_of("10.0.0.1:7880") == [1, 17]
    assert seen.holders_of("10.0.0.1:7880", {2, 3}) == [17]


@pytest.mark.parametrize(("own", "jobs"), [([1], [1, 17]), ([1], [17, 17]), ([1], [17])])
def test_jobs_that_share_a_process_are_not_judged_twice(own: list[int], jobs: list[int]) -> None:
    with pytest.raises(NotJudgeable):
        require_own_processes(parse(OUTPUT), own, jobs)


def test_a_lost_call_is_chance_only_if_enough_were_served_since() -> None:
    served, lost = Accepted("shared", "room", "job", 0.0, 1.0), Accepted("shared", "room", "job", 0.0, None)
    assert not enough([served] * 5)
    assert enough([served] * 6)
    assert not enough([served] * 5 + [Accepted("peer", "room", "job", 0.0, 1.0)] * 5), "each counts its own calls"
    assert not enough([served] * 6 + [lost])
    assert not enough([served] * 6 + [lost] + [served] * 7)
    assert enough([lost] + [served] * 8)
    assert enough([lost, lost])
    late, busy = Accepted("shared", "room", "job", 0.0, 18.0), Accepted("shared", "room", "job", 0.0, 18.0, busy=True)
    assert enough([lost, late])
    assert not enough([busy, busy]), "in a moment of peace it may be in time"
    assert not enough([busy, busy] + [served] * 7)
    assert enough([busy, busy] + [served] * 8)
    assert not enough([served] + [busy] * 9), "nobody was served since"
    gone = Accepted("shared", "room", "job", 0.0, None, busy=True)
    assert enough([gone] + [served] * 8)
    assert not enough([served, served, gone] * 5), "a busy machine may be why each was lost, and is not why every third"
    assert enough([served, served, gone] * 5 + [served] * 8)


SERVER = "10.0.0.1:7880"
OLDER, NEWER, AVATAR, SHARED = 7, 8, 9, 10


class TwoCalls:
    """A worker with two calls; ``serves`` says by port to which room and by whose process a connection is, ``leave`` which
    ports and processes are gone when the newer caller has hung up."""

    name, server_peer = "w", SERVER

    def __init__(
        self, serves: dict[int, tuple[str, int]], leave: set[int], *, hung_up: bool = True, busy: bool = False
    ) -> None:
        self.serves, self._leave, self.ledger, self._busy = serves, leave, Ledger(), busy
        self.pids = {1, *(pid for _, pid in serves.values())}
        self.call = cast(Call, SimpleNamespace(room_name="new", leave=self._hang_up, hung_up=hung_up))
        self.wire, self.settings = self, SimpleNamespace(exit_timeout=0.3)

    def _hang_up(self) -> None:
        self.serves = {port: of for port, of in self.serves.items() if not {port, of[1]} & self._leave}
        self.pids -= self._leave

    @property
    def calls_at(self) -> set[int]:
        return set(self.serves)

    def calls_to(self, room: str) -> set[int]:
        return {port for port, (where, _) in self.serves.items() if where == room}

    def snapshot(self) -> Snapshot:
        connections = [Connection(SERVER, (pid,), port) for port, (_, pid) in self.serves.items()]
        return Snapshot(tuple(Process(pid, 1, 0, "job") for pid in self.pids), tuple(connections), "")

    def jobs_of(self, seen: Snapshot) -> list[int]:
        return seen.holders_of(SERVER, self.calls_at)

    def registered_by(self, _seen: Snapshot) -> list[int]:
        return [1]

    def reading(self) -> None: ...

    def raise_if_closing(self) -> None: ...

    def raise_if_too_busy(self, *_: object) -> None:
        if self._busy:
            raise TooBusy("this machine is too busy to judge")

    def end_apart(self) -> Apart | None:
        return end_apart(cast(Stage, self), cast(Worker, self), self.call, self.snapshot(), {OLDER})


TWO = {101: ("old", OLDER), 102: ("new", NEWER)}


def test_a_job_has_to_end_while_another_call_goes_on() -> None:
    ended = TwoCalls(TWO, {NEWER}).end_apart()
    assert ended is not None
    assert (ended.pids, ended.staying, ended.connected) == ([NEWER], [], 0)
    evidence = Evidence()
    judge_apart(30, evidence, ended)
    assert evidence["first_job_ended_after_s"] is not None

    stays = TwoCalls(TWO, set()).end_apart()
    with pytest.raises(AssertionError, match=r"a job's process is still there 30 s after .* while another call goes on"):
        judge_apart(30, Evidence(), stays)

    connected = TwoCalls({**TWO, 103: ("new", OLDER)}, {NEWER}).end_apart()
    with pytest.raises(AssertionError, match="a job's connection to the server is still open"):
        judge_apart(30, Evidence(), connected)
    judge_apart(30, Evidence(), None)


def whole(two: TwoCalls) -> list[int]:
    """The processes of a job that ended as a whole."""
    seen = two.end_apart()
    assert seen is not None
    assert not seen.staying
    assert not seen.connected
    return seen.pids


def test_what_serves_the_other_call_has_not_to_end_with_this_one() -> None:
    """An avatar that joined the older call late, and a process that serves both."""
    late = {**TWO, 103: ("old", AVATAR)}
    assert whole(TwoCalls(late, {NEWER})) == [NEWER]
    shared = {**TWO, 103: ("old", SHARED), 104: ("new", SHARED)}
    assert whole(TwoCalls(shared, {NEWER, 104})) == [NEWER]


def test_a_job_is_judged_only_if_the_other_one_goes_on_and_it_is_known() -> None:
    assert TwoCalls(TWO, {OLDER}).end_apart() is None
    assert TwoCalls({101: ("old", OLDER), 102: ("", NEWER)}, {NEWER}).end_apart() is None


@pytest.mark.parametrize(("hung_up", "busy"), [(False, False), (True, True)])
def test_a_job_that_had_no_time_to_end_is_not_judged(hung_up: bool, busy: bool) -> None:
    with pytest.raises(TooBusy):
        TwoCalls(TWO, set(), hung_up=hung_up, busy=busy).end_apart()


@pytest.mark.parametrize("told", [True, False])
def test_jobs_of_callers_that_could_not_hang_up_are_not_judged(told: bool) -> None:
    two = TwoCalls(TWO, set())
    stage, worker = cast(Stage, two), cast(Worker, two)
    before = Snapshot((Process(1, 0, 0, "worker"),), (), "")
    seen = Pair(worker, before, two.snapshot(), [1], [OLDER, NEWER], time.monotonic(), told=told)
    with pytest.raises(AssertionError if told else TooBusy, match="2 of 2 jobs" if told else "could not hang up"):
        jobs.test_ends_with_call(stage, Evidence(), lambda: seen, lambda: None)


def test_jobs_that_are_gone_when_they_are_looked_at_again_may_have_ended_too_late() -> None:
    two, now = TwoCalls(TWO, {OLDER, NEWER}), time.monotonic()
    before = two.snapshot()
    two._hang_up()
    stage, worker = cast(Stage, two), cast(Worker, two)
    jobs.test_ends_with_call(stage, Evidence(), lambda: Pair(worker, before, before, [1], [OLDER, NEWER], now), lambda: None)
    late = Pair(worker, before, before, [1], [OLDER, NEWER], now - 40)
    with pytest.raises(StageError, match="only 40 s after the callers left"):
        jobs.test_ends_with_call(stage, Evidence(), lambda: late, lambda: None)


def test_a_check_does_not_refer_to_itself() -> None:
    stage = cast(Stage, SimpleNamespace(worker=lambda _role: SimpleNamespace(last_words=lambda text: text)))

    def nobody() -> jobs.FirstCall:
        raise WorkerFault(f"no agent came to any call to 2 workers{SEE_JOINS}")

    with pytest.raises(AssertionError, match=r"^no agent came to any call to 2 workers$"):
        jobs.test_joins(stage, Evidence(), nobody)
