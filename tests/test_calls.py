"""Calls that a worker takes and does not serve: how many are placed until that is known."""

from __future__ import annotations

import contextlib
import itertools
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lkagents import calls
from pytest_lkagents.busyness import Reading
from pytest_lkagents.calls import IN_A_ROW, Calls
from pytest_lkagents.checks import Blame, NotJudgeable, TooBusy, WorkerFailed, WorkerFault
from pytest_lkagents.clock import Ledger
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Entry
from pytest_lkagents.wire.transcript import Transcript
from suites.shared import Ahead

pytestmark = pytest.mark.timeout(20)

SERVED, LOST, REFUSED = "served", "taken, and no agent comes", "refused"


class Worker:
    """One that does with each of its calls as it is told, and serves none after these; its own caller, too."""

    _jobs = itertools.count()

    def __init__(self, name: str, *does: str, last: str = LOST) -> None:
        self.name, self.does, self._last, self.placed = name, list(does), last, 0
        self.server = SimpleNamespace(controllable=True)
        self.cpus, self.disturbed, self.is_running, self.blame = None, False, True, Blame()
        self.wire = SimpleNamespace(transcript=Transcript(), disturbed=False, calls_at=set())

    def reading(self) -> Reading:
        return Reading.now()

    def failed(self, what: str) -> WorkerFault:
        return WorkerFailed(what, self.blame)

    def join(self) -> Any:
        self.placed += 1
        now, room, does = time.monotonic(), f"call-{next(self._jobs)}", self.does.pop(0) if self.does else self._last
        job = {"id": f"AJ_{room}", "room": {"name": room}}
        self._saw("question", "server", job=job)
        self._saw("answer", "worker", job_id=job["id"], available=does != REFUSED)
        if does != REFUSED:
            self._saw("assignment", "server", job=job)
        agents = {"agent": now} if does == SERVED else {}
        return SimpleNamespace(
            room_name=room,
            joined=now,
            agents=agents,
            agent_after=0.0,
            others=set(),
            disconnected=None,
            interruptions=[],
            leave=lambda: None,
            raise_if_cut_off=lambda: None,
        )

    def _saw(self, kind: str, source: str, **data: object) -> None:
        self.wire.transcript.add(Entry(time.monotonic(), 1, source, kind, data, 0))


class Scene:
    """The calls of a run with these workers. ``busy``: whether this machine is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *workers: Worker) -> None:
        self.busy = False
        for name in ("AGENT_SECONDS", "LATE_SECONDS", "REFUSAL_PAUSE"):
            monkeypatch.setattr(calls, name, 0.01)
        monkeypatch.setattr(calls, "too_busy", lambda *_: "load 10.5 on 2 cores" if self.busy else None)
        self.stage: Any = SimpleNamespace(
            workers=lambda: workers,
            settings=SimpleNamespace(image=None),
            ledger=Ledger(),
            history=SimpleNamespace(stood_still=lambda *_: 0.0, held_up=lambda *_: False),
            raise_if_closing=lambda: None,
            raise_if_too_busy=self._raise_if_too_busy,
            raise_if_filled_by_others=lambda *_: None,
            background=SimpleNamespace(in_peace=contextlib.nullcontext),
        )
        self.stage.calls = Calls(self.stage)

    def _raise_if_too_busy(self, *_: object) -> None:
        if self.busy:
            raise TooBusy("this machine is too busy to judge")

    def placed(self, worker: Worker, raises: type[Exception] | None, says: str | None = None) -> int:
        """How many calls it takes to have one that is served, or to know that none is."""
        before = worker.placed
        with pytest.raises(raises, match=says) if raises is not None else contextlib.nullcontext():
            self.stage.calls.served(cast(Any, worker))
        return worker.placed - before


def test_a_worker_that_has_ceased_to_serve_is_given_one_more_call(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker("shared", SERVED)
    scene = Scene(monkeypatch, worker)
    assert scene.placed(worker, None) == 1
    assert scene.placed(worker, WorkerFailed, "any of 3 calls .*, which it had accepted") == IN_A_ROW
    assert scene.placed(worker, WorkerFailed, "any of the last 4 calls .*, which it had accepted") == 1
    # It may have recovered, and break again.
    worker.does = [SERVED]
    assert scene.placed(worker, None) == 1
    assert scene.placed(worker, WorkerFailed, "any of 3 calls") == IN_A_ROW


def test_a_refused_call_is_repeated_also_with_a_worker_that_has_ceased_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker("shared", SERVED)
    scene = Scene(monkeypatch, worker)
    scene.placed(worker, None)
    scene.placed(worker, WorkerFailed)
    worker.does = [REFUSED, REFUSED, SERVED]
    assert scene.placed(worker, None) == 3
    scene.placed(worker, WorkerFailed)
    worker.does = [REFUSED]
    assert scene.placed(worker, WorkerFault, "any of 2 calls") == 2


@pytest.mark.parametrize("why", ["busy", "beside a call", "disturbed before", "disturbed since", "loses but two", "refuses"])
def test_what_may_have_another_reason_is_tried_as_often_as_ever(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker("shared", SERVED, *([LOST, LOST, SERVED] * 2 if why == "loses but two" else ()))
    scene = Scene(monkeypatch, worker)
    scene.placed(worker, None)
    scene.busy = why == "busy"
    worker.disturbed = why == "disturbed before"
    if why == "beside a call":
        worker.wire.calls_at = {40001}
    if why == "refuses":
        worker.does = [REFUSED] * IN_A_ROW
    raises = {"busy": TooBusy, "loses but two": None, "refuses": WorkerFault}.get(why, WorkerFailed)
    assert scene.placed(worker, raises) == IN_A_ROW
    scene.busy, worker.wire.calls_at = False, set()
    worker.wire.disturbed = why == "disturbed since"
    assert scene.placed(worker, None if why == "loses but two" else WorkerFailed) == IN_A_ROW


@pytest.mark.parametrize("reported", [False, True])
def test_once_a_check_has_failed_for_it_no_lost_call_is_repeated(reported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, other, well = Worker("shared", SERVED), Worker("draining", SERVED), Worker("peer", REFUSED, REFUSED, last=SERVED)
    scene = Scene(monkeypatch, worker, other, well)
    scene.placed(worker, None)
    scene.placed(worker, WorkerFailed)
    worker.blame.check = "jobs.ends-with-call" if reported else None
    assert scene.placed(other, None) == 1
    if reported:
        assert scene.placed(other, NotJudgeable, r"^worker shared .*: see jobs\.ends-with-call$") == 1
        # The check that failed does so again when it is run again.
        assert scene.placed(worker, WorkerFailed) == 1
    else:
        assert scene.placed(other, WorkerFailed) == IN_A_ROW
    assert scene.placed(well, None) == IN_A_ROW
    worker.does = [SERVED]
    scene.placed(worker, None)
    # It has lost one already.
    assert scene.placed(other, WorkerFailed) == (IN_A_ROW - 1 if reported else 1)


@pytest.mark.parametrize("reported", [False, True])
def test_another_worker_is_not_looked_at_where_it_would_cease_to_serve_too(
    reported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker("shared", SERVED)
    scene, looks = Scene(monkeypatch, worker), 0
    scene.placed(worker, None)
    scene.placed(worker, WorkerFailed)
    worker.blame.check = "jobs.ends-with-call" if reported else None

    def observe(_stage: object) -> object:
        nonlocal looks
        looks += 1
        return SimpleNamespace(doubt="load 10.5 on 2 cores" if looks == 1 else None)

    def at_once(look: Any) -> Future[object]:
        future: Future[object] = Future()
        future.set_result(look(scene.stage))
        return future

    scene.stage.observe_ahead = at_once
    ahead = Ahead(cast(Stage, scene.stage), observe)
    if reported:
        with pytest.raises(NotJudgeable, match=r"see jobs\.ends-with-call; seen before: load 10\.5"):
            ahead()
        assert ahead.again_because is None
    else:
        ahead()
    assert looks == (1 if reported else 2)
