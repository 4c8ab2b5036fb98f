"""When a worker that refuses its calls is said to do so for good."""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lkagents.checks import Evidence, NotJudgeable, StageError, TooBusy
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Question
from suites import placed
from suites import test_availability as availability
from suites.loaded import Loaded

YES, NO = True, False


class Machine:
    """A stage with one shared worker, which answered its calls so and says this to whom asks it again, the last for ever."""

    def __init__(self, calls: list[bool | None], says: list[bool | None], **worker: Any) -> None:
        self.asked = self.called = 0
        self.busy = self.jobs_left = False
        known = [
            Question(str(number), "room", "", float(number), () if answer is None else ((number + 0.1, answer),))
            for number, answer in enumerate(calls)
        ]
        # What the tap asked before is no call.
        known.append(Question("probe", "room", "", 99.0, ((99.1, YES),), probe=True))
        self.worker = SimpleNamespace(
            is_running=worker.get("is_running", True),
            reading=lambda: None,
            wire=SimpleNamespace(
                ask=lambda _seconds: SimpleNamespace(available=self._say(says)),
                transcript=SimpleNamespace(
                    answers=lambda: [asked.available for asked in known if not asked.probe],
                    live=lambda: [SimpleNamespace(connection=1)] * worker.get("live", 1),
                    says_full=lambda _connection: worker.get("full", False),
                    lines=lambda *_, **__: ["a line"],
                ),
            ),
        )
        self.background = SimpleNamespace(in_peace=nullcontext)
        self.calls = SimpleNamespace(
            wait_idle=self._wait_idle,
            caller=lambda _worker: SimpleNamespace(server=None, join=self._join, close=lambda: None),
            wait_settled=lambda *_, **__: None,
            refused=lambda *_: worker.get("refuses_calls", True),
        )

    def _join(self) -> Any:
        self.called += 1
        return SimpleNamespace(agents={})

    def _say(self, says: list[bool | None]) -> bool | None:
        self.asked += 1
        return says[min(self.asked, len(says)) - 1]

    def _wait_idle(self, _worker: object) -> None:
        if self.jobs_left:
            raise StageError("the worker never came to rest")

    def workers(self, role: str) -> list[Any]:
        return [self.worker] if role == "shared" else []

    def raise_if_filled_by_others(self, _worker: object, _before: object) -> None: ...

    def raise_if_too_busy(self, _worker: object, _before: object) -> None:
        if self.busy:
            raise TooBusy("this machine is too busy to judge")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed, "RECOVER_SECONDS", 0.2)
    monkeypatch.setattr(placed, "poll", lambda probe, **how: real(probe, **{**how, "every": 0.01}))


real = placed.poll


def judged(machine: Machine) -> Evidence:
    evidence = Evidence()
    seen = Loaded("w", "", 0.0, 1.0, moved_by="cpu", full_after=1.0, recovered_after=0.5, ended=time.monotonic())
    availability.test_recovers(cast(Stage, machine), evidence, lambda: seen)
    return evidence


def test_one_that_never_takes_a_call_again() -> None:
    machine = Machine([YES, YES, NO, NO, NO], [NO])
    with pytest.raises(AssertionError, match=r"took 2 calls and refused the 3 after these; .* refuses all of \d+ jobs"):
        judged(machine)
    assert machine.asked > 3
    assert machine.called == 1


def test_one_that_takes_the_next_job() -> None:
    machine = Machine([YES, NO, NO, NO, NO], [NO, NO, YES])
    judged(machine)
    assert machine.asked == 3


@pytest.mark.parametrize(
    ("calls", "worker"),
    [
        ([YES, NO, NO], {}),
        ([YES, NO, NO, NO, YES], {}),
        ([YES, NO, NO, NO, None], {}),
        ([NO, NO, NO], {}),  # perhaps not meant for it
        ([], {}),
        ([YES, NO, NO, NO], {"full": True}),
        ([YES, NO, NO, NO], {"live": 0}),
        ([YES, NO, NO, NO], {"is_running": False}),
    ],
)
def test_where_nothing_speaks_for_it_nobody_is_asked(calls: list[bool | None], worker: dict[str, Any]) -> None:
    machine = Machine(calls, [NO], **worker)
    judged(machine)
    assert machine.asked == 0


def test_one_that_refuses_only_jobs_that_do_not_exist() -> None:
    """Or another of whose registrations takes the call."""
    machine = Machine([YES, NO, NO, NO], [NO], refuses_calls=False)
    judged(machine)
    assert machine.called == 1


def test_silence_is_another_checks_business() -> None:
    judged(Machine([YES, NO, NO, NO], [NO, None]))


def test_a_job_that_does_not_end_keeps_its_place() -> None:
    machine = Machine([YES, NO, NO, NO], [NO])
    machine.jobs_left = True
    judged(machine)
    assert machine.asked == 0


def test_a_busy_machine_may_be_why() -> None:
    machine = Machine([YES, NO, NO, NO], [NO])
    machine.busy = True
    with pytest.raises(TooBusy):
        judged(machine)


def test_it_is_found_where_its_load_cannot_be_moved() -> None:
    def unmoved() -> Loaded:
        raise NotJudgeable("nothing moves its load")

    machine = Machine([YES, NO, NO, NO], [NO])
    with pytest.raises(AssertionError, match="refuses all of"):
        availability.test_recovers(cast(Stage, machine), Evidence(), unmoved)
