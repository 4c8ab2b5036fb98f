"""Agents that leave by themselves, and agents that fail where there is another call."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.checks import Evidence, StageError, TooBusy, WorkerFault
from pytest_lkagents.clock import Ledger
from pytest_lkagents.settings import Settings
from pytest_lkagents.stage import Stage
from suites import accepted, departures
from suites import test_jobs as jobs
from suites.departures import BESIDE, Contrast, left_after, observe

ALL, ALONE = sum(BESIDE), 1 + len(BESIDE)

# Seconds after which the agent of the call of this number leaves, beside another call or not; None: it stays.
Habit = Callable[[int, bool], float | None]


class Looked:
    """A stage with a worker whose agents have this habit, of whom one left after ``known`` seconds, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, habit: Habit, known: float | None = 8.0) -> None:
        self.placed = self.open = 0
        self.now = 1000.0
        self.stays: dict[str, float | None] = {}
        self.habit, self.takes, self.busy, self.hands_over = habit, 2, False, False
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(departures, "left_after", self._left_after)
        wire = SimpleNamespace(calls_to=lambda _room: set())
        worker = SimpleNamespace(wire=wire, reading=lambda: None)
        calls = SimpleNamespace(
            longest_stay=known,
            wait_idle=lambda _worker: None,
            caller=lambda _worker: SimpleNamespace(close=self._close),
            served=lambda _caller: self._call(),
            further=lambda _caller: self._call() if self.takes > 1 else None,
        )
        self.stage = cast(
            Stage,
            SimpleNamespace(
                calls=calls,
                worker=lambda _role: worker,
                background=SimpleNamespace(in_peace=contextlib.nullcontext),
                settings=Settings(exit_timeout=1.0),
                raise_if_closing=lambda: None,
                raise_if_too_busy=self._raise_if_too_busy,
            ),
        )

    def _call(self) -> Call:
        self.placed += 1
        call = Call(str(self.placed), SimpleNamespace(leave=self._leave), Ledger(), self.now)  # type: ignore[arg-type]
        call.agents["agent"] = self.now
        if self.hands_over:
            call.agents["specialist"] = self.now + 1
        self.stays[call.room_name] = self.habit(self.placed, self.open > 0)
        self.open += 1
        return call

    def _leave(self, _call: Call) -> None:
        self.open -= 1

    def _close(self) -> None:
        self.open = 0

    def _left_after(self, _stage: Stage, call: Call, seconds: float) -> float | None:
        stay = self.stays[call.room_name]
        if stay is None or stay > seconds:
            self.now += seconds
            return None
        self.now += stay
        return stay

    def _raise_if_too_busy(self, *_: object) -> None:
        if self.busy:
            raise TooBusy("this machine is too busy to judge")


def fails_beside(_number: int, beside: bool) -> float | None:
    return 7.5 if beside else None


def test_agents_that_leave_beside_another_call_and_never_alone_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Looked(monkeypatch, fails_beside)
    seen = observe(look.stage)
    assert seen is not None
    assert (len(seen.alone), seen.beside, look.placed) == (ALONE, [7.5] * ALL, ALONE + ALL)
    assert seen.problem == (
        "in each of 5 calls beside another the agent left after 7.5 s at the latest; in each of 4 calls that were alone it "
        "stayed for the 19.0 s or more of the watch"
    )


def test_nothing_is_placed_where_no_agent_left_or_one_only_late(monkeypatch: pytest.MonkeyPatch) -> None:
    for known in (None, departures.LONGEST_SECONDS + 1):
        look = Looked(monkeypatch, fails_beside, known)
        assert observe(look.stage) is None
        assert look.placed == 0


@pytest.mark.parametrize("stay", [5.0, 10.0, 16.0])
def test_agents_that_leave_by_themselves_take_one_call_to_be_known(stay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an announcement, or a limit of an idle caller's, which may be longer than it was before."""
    look = Looked(monkeypatch, lambda _number, _beside: stay)
    assert observe(look.stage) is None
    assert look.placed == 1


def every(period: int, leaving: set[int]) -> Habit:
    return lambda number, _beside: 7.5 if number % period in leaving else None


@pytest.mark.parametrize("period", range(2, 6))
def test_agents_of_every_second_third_call_leave_by_themselves(period: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for which in range(1, 2**period):
        look = Looked(monkeypatch, every(period, {number for number in range(period) if which >> number & 1}))
        assert observe(look.stage) is None


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_agents_that_leave_by_chance(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    failed = 0
    for _ in range(1000):
        look = Looked(monkeypatch, lambda _number, _beside: 7.5 if chance.random() < share else None)
        seen = observe(look.stage)
        failed += seen is not None and seen.problem is not None
    assert failed <= 1000 / 500


def test_announcements_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    for _ in range(1000):
        look = Looked(monkeypatch, lambda _number, _beside: chance.uniform(4.0, 40.0))
        seen = observe(look.stage)
        assert seen is None or seen.problem is None


def test_a_first_call_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    for first in (None, 7.5):
        for others in (None, 7.5):
            look = Looked(monkeypatch, lambda number, _beside, first=first, others=others: first if number == 1 else others)
            assert observe(look.stage) is None


@pytest.mark.parametrize("told", [Settings(metadata="customer 7"), Settings(attributes={"sip.phoneNumber": "+15550100"})])
def test_a_customer_may_have_one_call_at_a_time(told: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Looked(monkeypatch, fails_beside)
    look.stage.settings = told
    assert observe(look.stage) is None
    assert look.placed == 0


def later_and_later(number: int, beside: bool) -> float | None:
    return 8.0 + number if beside else None


@pytest.mark.parametrize(
    ("habit", "takes", "hands_over"), [(fails_beside, 1, False), (fails_beside, 2, True), (later_and_later, 2, False)]
)
def test_what_does_not_tell(habit: Habit, takes: int, hands_over: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Looked(monkeypatch, habit)
    look.takes, look.hands_over = takes, hands_over
    assert observe(look.stage) is None


def test_a_busy_machine_or_calls_that_are_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Looked(monkeypatch, fails_beside)
    look.busy = True
    with pytest.raises(TooBusy):
        observe(look.stage)

    def at_call(number: int, error: Exception) -> Habit:
        def habit(placed: int, beside: bool) -> float | None:
            if placed == number:
                raise error
            return fails_beside(placed, beside)

        return habit

    cut_off = StageError("the caller lost its server")
    assert observe(Looked(monkeypatch, at_call(1, cut_off)).stage) is None
    with pytest.raises(StageError, match="lost its server"):
        observe(Looked(monkeypatch, at_call(5, cut_off)).stage)
    assert observe(Looked(monkeypatch, at_call(5, WorkerFault("no agent came"))).stage) is None


@pytest.mark.parametrize(
    ("alone", "beside"),
    [
        ([19.0] * (ALONE - 1), [7.5] * ALL),
        ([19.0] * ALONE, [7.5] * (ALL - 1)),
        # One that left later asks for more of those that were alone.
        ([19.0] * ALONE, [7.5] * (ALL - 1) + [11.0]),
    ],
)
def test_less_than_all_proves_nothing(alone: list[float], beside: list[float]) -> None:
    assert Contrast(8.0, [19.0] * ALONE, [7.5] * ALL).problem is not None
    assert Contrast(8.0, alone, beside).problem is None


def test_the_check_says_so_of_calls_that_all_got_their_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    served = accepted.Accepted("shared", "room", "job", 0.0, 0.5)
    monkeypatch.setattr(accepted, "observe", lambda _stage, how: accepted.Seen([served], how))
    evidence = Evidence()
    jobs.test_serves_every_call(Looked(monkeypatch, fails_beside, None).stage, dict, evidence)
    assert evidence.summary == "1 calls accepted; all got their agent, within 0.5 s"
    with pytest.raises(AssertionError, match="in each of 5 calls beside another the agent left"):
        jobs.test_serves_every_call(Looked(monkeypatch, fails_beside).stage, dict, evidence)
    assert evidence["left_beside_another_call_after_s"] == [7.5] * ALL
    assert evidence["alone_stayed_s"] == [19.0] * ALONE


def a_call() -> Call:
    now = time.monotonic()
    return Call("room", None, Ledger(), now, {"agent": now})  # type: ignore[arg-type]


def watched(call: Call) -> float | None:
    return left_after(cast(Stage, SimpleNamespace(raise_if_closing=lambda: None)), call, 1.0)


def test_an_agent_that_stays_leaves_or_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "HANDOVER_SECONDS", 0.4)
    assert watched(a_call()) is None
    gone, followed = a_call(), a_call()
    for call in (gone, followed):
        call.left["agent"] = call.agents["agent"] + 0.5
    assert watched(gone) == pytest.approx(0.5)
    threading.Timer(0.2, lambda: followed.agents.update(other=time.monotonic())).start()
    assert watched(followed) is None


def test_a_caller_that_was_cut_off_sees_no_leave() -> None:
    for left in (False, True):
        call = a_call()
        if left:
            call.left["agent"] = time.monotonic()
        call.interruptions.append(time.monotonic())
        with pytest.raises(StageError, match="the caller's own connection"):
            watched(call)
