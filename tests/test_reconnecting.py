"""What the loss of a worker's connection did to its calls, before anything else is done to it."""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.callers.continuity import AGENT_LEFT, Continuity
from pytest_lkagents.checks import Evidence, NotJudgeable, TooBusy, Unproven
from pytest_lkagents.clock import Ledger
from pytest_lkagents.settings import Settings
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Entry
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker
from suites import reconnecting
from suites import test_rollout as rollout
from suites.kept import Kept
from suites.reconnecting import CallsEnded, Reconnection
from suites.reports import pauses
from suites.scenario import Scenario

ROOMS = {1: "old", 2: "new"}
SILENT = "the agent fell silent for 3.0 s"


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnecting, "KEPT_SECONDS", 0.2)
    monkeypatch.setattr(reconnecting, "FOR_GOOD_SECONDS", 0.6)


def call(room: str, trouble: str | None = None, unproven: str | None = None, *, stalled: float = 0.0) -> Kept:
    pause = 3.0 if trouble == SILENT else 0.0
    continuity = SimpleNamespace(trouble=lambda: trouble, gap=lambda: pause, left_as_usual=False, unproven_leave=unproven)
    continuity.note_leave, continuity.stalled = lambda: None, stalled
    return Kept(cast(Call, SimpleNamespace(room_name=room)), cast(Continuity, continuity))


def lose(*calls: Kept, ends: set[int], rooms: dict[int, str] = ROOMS, busy: bool = False) -> None:
    """The connections of the jobs in ``ends`` are gone afterwards."""
    open_at = dict(rooms)
    wire = SimpleNamespace(calls_to=lambda room: {port for port, of in open_at.items() if of == room})
    worker: Any = SimpleNamespace(name="w", wire=wire, ledger=Ledger(), reading=lambda: None)

    def raise_if_too_busy(*_: object) -> None:
        if busy:
            raise TooBusy("this machine is too busy to judge")

    class Drainage:
        def __init__(self, _stage: Stage, _worker: Worker, scenario: Scenario) -> None:
            assert scenario.placed is not None
            self._placed = scenario.placed

        def observe(self) -> None:
            wire.calls_at = set(open_at)
            self._placed([one.call for one in calls])

    def cut(_worker: Worker) -> None:
        for port in ends:
            del open_at[port]
        wire.calls_at = set(open_at)

    stage: Any = SimpleNamespace(
        settings=Settings(),
        untouched=lambda _role: worker,
        calls=SimpleNamespace(continuity=lambda known: next(one.continuity for one in calls if one.call is known)),
        raise_if_closing=lambda: None,
        raise_if_too_busy=raise_if_too_busy,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconnecting, "Drainage", Drainage)
        patch.setattr(reconnecting, "cut_and_return", cut)
        reconnecting.drain_after_loss(stage)


def test_calls_that_go_on_are_not_harmed() -> None:
    lose(call("old"), call("new"), ends=set())


@pytest.mark.parametrize(
    ("calls", "ends", "ended"),
    [
        ([call("old"), call("new")], {1}, 1),  # killed: the server has not noticed yet
        ([call("old"), call("new")], {1, 2}, 2),
        ([call("old", AGENT_LEFT), call("new")], {1}, 1),
        ([call("old", AGENT_LEFT), call("new")], set(), 1),
    ],
)
def test_calls_that_are_over(calls: list[Kept], ends: set[int], ended: int) -> None:
    with pytest.raises(CallsEnded) as harmed:
        lose(*calls, ends=ends)
    assert (harmed.value.ended, harmed.value.calls) == (ended, 2)


@pytest.mark.parametrize(
    ("calls", "how"),
    [
        ([call("old", SILENT), call("new")], {"ends": set()}),
        ([call("old"), call("new")], {"ends": {1}, "rooms": {1: "", 2: "new"}}),  # whose it is is not known
    ],
)
def test_what_harms_a_call_does_not_always_end_it(calls: list[Kept], how: dict[str, Any]) -> None:
    with pytest.raises(NotJudgeable, match="harmed a call") as harmed:
        lose(*calls, **how)
    assert not isinstance(harmed.value, CallsEnded)


@pytest.mark.parametrize(("busy", "stalled"), [(True, 0.0), (False, 2.0)])
def test_a_pause_on_a_busy_machine_is_not_the_losss_doing(busy: bool, stalled: float) -> None:
    with pytest.raises(TooBusy):
        lose(call("old", SILENT, stalled=stalled), call("new"), ends=set(), busy=busy)


def test_an_agent_may_leave_by_itself_when_the_connection_is_lost() -> None:
    with pytest.raises(Unproven, match="its habit"):
        lose(call("old", AGENT_LEFT, "which may be its habit"), call("new"), ends={1})


def single(**seen: Any) -> Reconnection:
    continuity = SimpleNamespace(stalled=0.0)
    return Reconnection(kept=Kept(cast(Call, None), cast(Continuity, continuity), **seen))


@pytest.mark.parametrize(
    ("alone", "accused"),
    [
        (single(hung_up_s=5.0), True),
        (single(trouble=AGENT_LEFT, trouble_s=1.0), False),  # registration.keeps-calls says so
        (single(hung_up_s=5.0, missed=4.0), False),
        (single(), False),
        (Reconnection(), False),
        (None, False),
    ],
)
def test_who_says_that_a_loss_ends_calls(alone: Reconnection | None, accused: bool) -> None:
    def lost() -> Any:
        raise CallsEnded(1, 2)

    def unasked() -> Any:
        raise AssertionError("nobody asks")

    with pytest.raises(AssertionError if accused else NotJudgeable, match="1 of 2 calls ended" if accused else "keeps-calls"):
        rollout.test_drains_after_loss(cast(Stage, None), Evidence(), lost, unasked, unasked, unasked, lambda: alone)


@pytest.mark.parametrize(
    ("at", "busy", "judged"),
    [
        ([2.0, 4.0], False, None),
        ([11.5, 13.0], True, None),  # it reports again, when it has the time
        ([11.5, 13.0], False, AssertionError),
        ([], True, TooBusy),
        ([], False, AssertionError),
    ],
)
def test_a_worker_reports_again_after_a_loss(at: list[float], busy: bool, judged: type[Exception] | None) -> None:
    back, log = time.monotonic() - 13.5, Transcript()
    for moment in at:
        log.add(Entry(back + moment, 1, "worker", "status", {"load": 0.1}, 0))
    made: Any = SimpleNamespace(wire=SimpleNamespace(transcript=log), reading=lambda: None)
    history = SimpleNamespace(stood_still=lambda *_: 0.0, had_no_time=lambda *_: busy)
    stage: Any = SimpleNamespace(history=history, raise_if_too_busy=lambda *_: None)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(judged) if judged else nullcontext():
        patch.setattr(reconnecting, "pauses", lambda stage, worker, _since, enough: pauses(stage, worker, back, enough))
        reconnecting._wait_reports(stage, made)
