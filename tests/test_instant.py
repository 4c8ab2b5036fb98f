"""The call that comes in the same instant as a worker's stop signal: what it shows, and what it does not."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, Ledger
from pytest_lkagents.wire.model import Entry, Question
from pytest_lkagents.wire.transcript import Transcript
from suites import drainage, instant
from suites.drainage import Drainage
from suites.drained import Drain, Together
from suites.instant import Instant
from suites.scenario import GOODBYE_SECONDS, Scenario

SENT = 100.0
NOBODY = cast(Any, SimpleNamespace(leave=lambda _call: None))


class Scene:
    """A worker whose signal was sent ``SENT``, when it had been asked for the call ``asked``; ``busy``: this machine had no
    time; ``ours``: the server is."""

    def __init__(self, asked: Question | None, *, closed: float | None = None, busy: bool = False, ours: bool = True) -> None:
        self.call = Call("room", NOBODY, Ledger(), SENT - 0.2)
        log = Transcript()
        log.add(Entry(1.0, 1, "server", "registered", {}, 0))
        if closed is not None:
            log.add(Entry(closed, 1, "worker", "closed", {}, 0))
        wire = SimpleNamespace(transcript=log, calls_at=set())
        worker: Any = SimpleNamespace(name="w", server=None, wire=wire, ledger=Ledger(), is_running=True)
        calls = SimpleNamespace(questions=lambda *_: {} if asked is None else {"w": asked})
        stage: Any = SimpleNamespace(
            calls=calls,
            history=SimpleNamespace(had_no_time=lambda *_: busy, held_up=lambda *_: busy),
            controllable=ours,
            settings=SimpleNamespace(exit_timeout=30),
        )
        self.seen = Drain("SIGTERM", None, [])
        self.instant = Instant(stage, worker, self.seen)
        self.instant._call = self.call
        self.watched: list[float] = []

    def settle(self) -> str | None:
        self.seen.together = Together()
        self.instant.settle(SENT, lambda seconds, _enough: self.watched.append(seconds))
        return self.seen.together.trouble


def asked(*answers: tuple[float, bool]) -> Question:
    return Question("AJ_1", "room", "", SENT - 0.1, tuple((SENT - 0.1 + after, yes) for after, yes in answers), connection=1)


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: SENT + 8.0)


@pytest.mark.parametrize(
    ("question", "closed", "trouble"),
    [
        (asked(), None, "the worker did not answer"),
        (asked(), SENT + 6.0, "the worker did not answer"),  # the server had given up by then
        (asked(), SENT + 1.0, None),  # it asks another worker
        (asked((0.1, False)), None, None),
        (asked((3.4, False)), None, "the worker refused it only after 3.4 s"),
        (None, None, None),  # full
    ],
)
def test_a_job_that_is_not_answered_is_lost(question: Question | None, closed: float | None, trouble: str | None) -> None:
    scene = Scene(question, closed=closed)
    assert scene.settle() == trouble
    assert scene.seen.doubt is None
    assert Scene(question, closed=closed, ours=False).settle() is None


GIVEN = dataclasses.replace(asked((0.1, True)), assigned=SENT + 0.1)


@pytest.mark.parametrize(("question", "to"), [(asked(), "answer"), (asked((2.8, True)), "answer"), (GIVEN, "serve it")])
@pytest.mark.parametrize("busy", [True, False])
def test_a_busy_machine_may_keep_a_worker_from_serving(question: Question, to: str, busy: bool) -> None:
    scene = Scene(question, busy=busy)
    assert scene.settle() is not None
    assert scene.seen.doubt == (f"it had no time while the worker was to {to}" if busy else None)


def test_what_the_machine_does_when_the_agent_is_due_no_more_does_not_matter() -> None:
    scene = Scene(GIVEN)
    cast(Any, scene.instant.stage).history.had_no_time = lambda _since, until: until < SENT + 16.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: SENT + 40.0)
        scene.settle()
    assert scene.seen.doubt is not None


def test_one_that_may_answer_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: SENT + 1.0)
    scene = Scene(asked())
    assert scene.settle() is None, "as long as the server waits"
    assert scene.watched == [pytest.approx(1.9)]


@pytest.mark.parametrize("runs", [True, False])
def test_a_caller_whose_own_connection_broke_sees_nobody(runs: bool) -> None:
    scene = Scene(asked((0.1, True)))
    scene.seen.together = late = Together(True, assigned=True, agent_s=0.5)
    scene.call.agents, scene.call.left, scene.call.interruptions = {"agent": SENT}, {"agent": SENT + 7.0}, [SENT + 6.9]
    cast(Any, scene.instant.worker).is_running = runs
    scene.seen.kept = [cast(Any, SimpleNamespace(continuity=SimpleNamespace(stays=True), trouble_s=None))]
    if runs:
        with pytest.raises(StageError, match="connection to the server was interrupted"):
            scene.instant.finish()
    else:
        scene.instant.finish()
    assert (late.trouble is None) is runs


def test_a_drain_that_waits_for_what_it_knew_is_seen_however_long_that_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    scene = Scene(asked((0.1, True)))
    worker: Any = scene.instant.worker
    scene.instant._kept_at, worker.wire.calls_at = {1}, {1, 2}
    scene.call.agents = {"agent": time.monotonic()}
    scene.seen.together = late = Together(True, assigned=True, agent_s=0.5)
    scene.seen.kept = [cast(Any, SimpleNamespace(continuity=SimpleNamespace(stays=True), trouble_s=None))]

    def drained_late(is_over: Callable[[], bool], *, seconds: float, **_: object) -> None:
        if seconds > GOODBYE_SECONDS + 1:
            worker.wire.calls_at, worker.is_running = set(), False
        if not is_over():
            raise DeadlineMissed("it", seconds)

    monkeypatch.setattr(instant, "poll", drained_late)
    scene.instant.finish()
    assert late.trouble == "the worker ended with it in progress, when the others had ended"


@pytest.mark.parametrize("told", [True, False])
def test_a_call_of_the_same_instant_may_not_be_over_for_the_server(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drainage, "too_busy", lambda *_: None)
    transcript = SimpleNamespace(wait=lambda *_: None, latest_status=lambda _since: None)
    worker: Any = SimpleNamespace(name="w", ledger=Ledger(), is_running=True, wire=SimpleNamespace(transcript=transcript))
    worker.reading, worker.wait_exit = lambda: None, lambda _seconds: None
    stage: Any = SimpleNamespace(calls=SimpleNamespace(caller=lambda _worker: None), settings=SimpleNamespace(exit_timeout=30))
    drain = Drainage(stage, worker, Scenario("SIGTERM", together=True))
    drain.seen.stopped_s = 0.2
    drain._instant._call = Call("room", NOBODY, Ledger(), SENT, hung_up=told)
    drain._wait_exit()
    assert drain.seen.outlasted
    assert (drain.seen.busy is None) is told


@pytest.mark.parametrize("is_full", [True, False])
def test_the_signal_waits_for_a_question_that_a_busy_machine_holds_up(is_full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(instant, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(instant, "wait_free", lambda *_: None)
    scene = Scene(None)
    log, acts = scene.instant.worker.wire.transcript, list[str]()

    def join() -> Call:
        time.sleep(1.5)
        if not is_full:
            acts.append("asked")
            log.add(Entry(time.monotonic(), 1, "server", "question", {"job": {"id": "AJ_1", "room": {"name": "room"}}}, 0))
        return scene.call

    scene.instant.place(cast(Any, SimpleNamespace(join=join)), lambda: acts.append("stop"))
    assert acts == (["stop"] if is_full else ["asked", "stop"])
