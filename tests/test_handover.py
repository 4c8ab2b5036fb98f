"""Calls that one agent hands over to another, as a receptionist does; and how those of a replacement end."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import Ledger
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Entry, Question
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker
from suites import assignment, observations, replacement
from suites.placed import Placed

GAP_SECONDS = 0.2


def call_with(*agents: str) -> Call:
    now = time.monotonic()
    return Call("room", None, Ledger(), now, dict.fromkeys(agents, now))  # type: ignore[arg-type]


def comes(call: Call) -> None:
    call.agents["specialist"] = time.monotonic()


def leaves(call: Call) -> None:
    call.left["receptionist"] = time.monotonic()


def stage_of(call: Call) -> Stage:
    calls = SimpleNamespace(served=lambda _caller: call, caller=lambda _worker: None, leave_by_themselves=False)
    return cast(Stage, SimpleNamespace(calls=calls, workers=list))


@pytest.mark.parametrize("handed_over", [True, False])
def test_a_first_agent_that_says_nothing(handed_over: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "SOUND_SECONDS", 0.3)
    monkeypatch.setattr(observations, "HANDOVER_SECONDS", 1.0)
    call = call_with("receptionist")
    leaves(call)
    if handed_over:
        threading.Timer(GAP_SECONDS, comes, [call]).start()
    seen = observations._one_call(stage_of(call), cast(Caller, None))
    assert (seen.left_s is None) is handed_over


@pytest.mark.parametrize(
    ("there", "later", "agents", "lost"),
    [
        (["receptionist"], comes, 1, False),
        (["receptionist", "specialist"], leaves, 1, False),
        (["receptionist", "specialist"], None, 2, False),
        (["receptionist"], None, 1, True),
    ],
    ids=["a gap", "an overlap", "two agents", "nobody comes"],
)
def test_a_call_that_arrives_is_handed_over(
    there: list[str], later: object, agents: int, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = call_with(*there)
    call.leave = lambda: None  # type: ignore[method-assign]
    if len(there) == 1:
        leaves(call)
    monkeypatch.setattr(replacement, "STAY_SECONDS", 0.0)
    monkeypatch.setattr(replacement, "HANDOVER_SECONDS", 1.0)
    monkeypatch.setattr(replacement, "place", lambda _stage, _caller: Placed(call, {}, "old"))
    if callable(later):
        threading.Timer(GAP_SECONDS, later, [call]).start()
    arrival = replacement.Arrivals(stage_of(call), cast(Worker, None))._one(cast(Caller, None))
    assert (arrival.agents, arrival.fault is not None) == (agents, lost)


def test_calls_that_arrive_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    call = call_with()
    call.leave = lambda: None  # type: ignore[method-assign]
    monkeypatch.setattr(replacement, "REFUSAL_PAUSE", 30)
    monkeypatch.setattr(replacement, "place", lambda _stage, _caller: Placed(call, {}, None))
    arrivals = replacement.Arrivals(stage_of(call), cast(Worker, None))
    threading.Timer(GAP_SECONDS, arrivals.give_up).start()
    began = time.monotonic()
    assert arrivals._one(cast(Caller, None)).served_by is None
    assert time.monotonic() - began < 10


def test_a_call_of_which_nothing_is_known_at_the_end_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(replacement, "LAST_SECONDS", 0.1)
    monkeypatch.setattr(replacement.Arrivals, "_run", lambda _self, _number: release.wait(30))
    arrivals = replacement.Arrivals(cast(Stage, None), cast(Worker, None))
    arrivals.start(1)
    with pytest.raises(StageError, match="is not known"):
        arrivals.stop()
    release.set()
    arrivals.stop()


@pytest.mark.parametrize(
    ("agents", "left", "together"),
    [
        ({"A": 0.0}, {}, 1),
        ({"A": 0.0}, {"A": 3.0}, 1),
        ({"A": 0.0, "B": 10.0}, {"A": 11.5}, 1),  # handed over
        ({"A": 0.0, "B": 0.1}, {"B": 5.0}, 2),  # it noticed the other one, and left
        ({"A": 0.0, "B": 0.1, "C": 0.2}, {}, 3),
        ({"A": 0.0, "B": 5.0, "C": 20.0}, {"B": 10.0}, 2),
    ],
)
def test_how_many_agents_a_call_had_at_once(agents: dict[str, float], left: dict[str, float], together: int) -> None:
    call = SimpleNamespace(agents=agents, left=left)
    assert assignment.together(cast(Call, call)) == together


@pytest.mark.parametrize(("closed", "lost"), [(None, True), (105.0, True), (100.4, False)])
def test_a_call_that_comes_as_the_old_workers_connection_ends_is_not_lost_by_that_one(closed: float | None, lost: bool) -> None:
    log = Transcript()
    log.add(Entry(1.0, 1, "server", "registered", {}, 0))
    if closed is not None:
        log.add(Entry(closed, 1, "worker", "closed", {}, 0))
    old = SimpleNamespace(name="old", wire=SimpleNamespace(transcript=log))
    asked = {
        "old": Question("AJ_1", "room", "", 100.0, connection=1),
        "new": Question("AJ_1", "room", "", 100.1, ((100.2, False),)),
    }
    arrivals = replacement.Arrivals(cast(Stage, SimpleNamespace(workers=lambda: [old])), cast(Worker, None))
    assert (arrivals._fault(Placed(call_with(), asked, None)) is not None) is lost
