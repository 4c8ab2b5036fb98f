"""A worker that ends instead of registering: whose fault that is, and what is said of it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lkagents.busyness import Reading
from pytest_lkagents.checks import StageError, TooBusy, WorkerFault
from pytest_lkagents.clock import Ledger
from pytest_lkagents.settings import Settings
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Entry
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker
from suites import early


class Ended(Worker):
    """One that ended with exit code 1 before anybody looked."""

    exit_code = 1
    kept_away = False

    def probe(self) -> None: ...

    def reading(self) -> Reading:
        return Reading.now()

    def logs(self) -> str:
        return "its last line"

    def explain_absence(self) -> None:
        if self.kept_away:
            raise StageError("a container cannot reach the server")


Ended.__abstractmethods__ = frozenset()


def ended(*kinds: str) -> Ended:
    """With these entries on its wire."""
    seen = Transcript()
    for kind in kinds:
        seen.add(Entry(time.monotonic(), 1, "worker", kind, {}, 0))
    tap: Any = SimpleNamespace(transcript=seen, disturbed=False)
    return Ended("shared", Settings(image="agent:1"), SimpleNamespace(), tap, Ledger())  # type: ignore[arg-type]


def test_a_worker_that_ends_as_it_is_kept_from_its_server_is_not_to_blame() -> None:
    worker = ended()
    worker.kept_away = True
    with pytest.raises(StageError, match="cannot reach the server"):
        worker.wait_registered(1)
    # One that came there was not.
    worker = ended("opened")
    worker.kept_away = True
    with pytest.raises(WorkerFault, match="exited with code 1 before it registered\n"):
        worker.wait_registered(1)


def test_it_is_said_when_it_ended() -> None:
    alive = ("opened", "register", "registered")
    with pytest.raises(WorkerFault, match="exited with code 1 before it registered\n"):
        ended().wait_registered(1)
    with pytest.raises(WorkerFault, match="exited with code 1 as soon as it had registered\n"):
        ended(*alive, "closed").wait_registered(1)
    with pytest.raises(WorkerFault, match="exited with code 1 before it registered again\n"):
        ended(*alive, "closed").wait_registered(1, more_than=1)


@pytest.mark.parametrize(("waited_s", "accused"), [(30, True), (170, False)])
def test_a_worker_that_waited_in_vain_for_our_turn_is_begun_with_again(waited_s: float, accused: bool) -> None:
    """SDKs give up after two minutes or so, and an earlier check may have taken those."""
    worker: Any = ended()
    worker.started, worker.attempts = time.monotonic() - waited_s, lambda: 5
    roles = {"early": worker, "shared": ended()}
    stage = SimpleNamespace(
        controllable=True, takes_turns=False, settings=Settings(), worker=roles.__getitem__, untouched=roles.__getitem__
    )

    def look() -> early.Early:
        return early.observe(cast(Stage, stage), lambda: None, last=False)

    if accused:
        assert "while the server was down" in str(look().problem)
    else:
        with pytest.raises(TooBusy, match="had waited for 170 s"):
            look()
