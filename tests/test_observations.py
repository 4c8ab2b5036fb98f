"""Observations that several checks share: when they are made again, how long they watch, and what begins after them."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lkagents import calls
from pytest_lkagents.callers.caller import Call
from pytest_lkagents.calls import Calls
from pytest_lkagents.checks import Evidence, StageError, Unproven
from pytest_lkagents.clock import Ledger
from pytest_lkagents.selection import packaged_suites
from pytest_lkagents.stage import Stage
from pytest_lkagents.starts import Starts
from pytest_lkagents.wire.model import Answer, Entry
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker
from suites import accepted, observations, pool, reconnecting
from suites import test_registration as registration
from suites.compared import judge_without_calls
from suites.observations import FirstCall, Stop
from suites.pool import ENDS, GOODBYE_SECONDS, STAYS, Pair
from suites.scenario import CHECK_SECONDS
from suites.shared import Ahead

WELL, AILING = Stop("SIGTERM", 1, 0.1, 0.3, 0), Stop("SIGTERM", 1, 0.1, 0.3, 1)


@pytest.mark.parametrize(
    ("had_before", "first", "looks"),
    [(["crashing"], WELL, 1), (["crashing"], AILING, 2), (["crashing"], Stop("SIGTERM", 1, 0.1), 2), ([], AILING, 1)],
)
def test_a_worker_that_had_a_crashed_job_is_not_accused_of_how_it_ends(
    had_before: list[str], first: Stop, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [first, WELL]
    monkeypatch.setattr(observations, "_idle_after_a_call", lambda _stage: (None, 1))
    monkeypatch.setattr(observations, "_stop", lambda *_: seen.pop(0))
    stage = cast(Stage, SimpleNamespace(had_before=lambda _role: had_before, raise_if_closing=lambda: None))
    assert observations.stop(stage) is (WELL if looks == 2 else first)
    assert len(seen) == 2 - looks


@pytest.mark.parametrize(("busy", "raised"), [(None, AssertionError), ("this run did not get the CPU for 5 s", StageError)])
def test_a_worker_without_calls_that_takes_one_may_not_know_of_its_signal(
    busy: str | None, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observations, "STOPS_SECONDS", 0.1)
    monkeypatch.setattr(observations, "too_busy", lambda *_: busy)
    log = Transcript()
    log.add(Entry(1.0, 1, "worker", "registered", {}, 0))
    wire = SimpleNamespace(transcript=log, ask=lambda *_, **__: Answer("AJ_1", True, 0.1))
    worker: Any = SimpleNamespace(name="w", wire=wire, ledger=Ledger(), is_running=True, first_pid=1, exit_code=None)
    worker.snapshot = worker.reading = lambda: None
    worker.registered_by, worker.signal, worker.kill = lambda _seen: [1], lambda _name: None, lambda: None
    settings = SimpleNamespace(image=None, exit_timeout=0.2)
    stage: Any = SimpleNamespace(settings=settings, raise_if_too_busy=lambda *_: None)
    seen = observations._stop(stage, worker, 0)
    with pytest.raises(raised, match="without calls it accepts a job"):
        judge_without_calls(lambda: seen, Evidence())


def test_a_new_worker_of_a_role_had_no_other_before() -> None:
    took_over: list[str] = []
    roles = ("crashing", "stopped")
    began: list[str] = []

    def start(_begin: object, _role: str, name: str, /) -> Future[Any]:
        made: Future[Any] = Future()
        made.set_result(SimpleNamespace(name=name, is_running=True, wire=SimpleNamespace(transcript=Transcript())))
        made.result().wire.transcript.add(Entry(0.0, 1, "worker", "registered", {}, 0))
        return made

    starts = Starts(
        lambda _role, _name: cast(Worker, None), start, lambda role, worker: took_over.append(f"{worker.name}: {role}")
    )
    starts.warm(roles)
    starts.when_ready("stopped", lambda: began.append(starts.worker("stopped").name))
    assert not began
    starts.release("crashing", in_order=True)
    assert (took_over, began) == (["crashing: stopped"], ["crashing"])
    assert starts.had_before("stopped") == ["crashing"]
    assert starts.renew("stopped").name == "stopped"
    assert starts.renew("stopped").name == "stopped-2"
    assert starts.had_before("stopped") == []


def test_agents_have_as_long_to_leave_beside_a_call_that_stays_as_beside_one_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[dict[str, Any]] = []

    def look(_stage: Stage, _alone: float = 0.0, **how: Any) -> Pair:
        looked.append(how)
        ended = None if how.get("newer") == STAYS else 30.0
        return Pair(cast(Any, None), cast(Any, None), cast(Any, None), [], [], 0.0, 2, ended, ENDS, 10.0 + 8 * len(looked))

    monkeypatch.setattr(pool, "_pair", look)
    assert pool.pair(cast(Stage, None)).ended_after is not None
    assert [how.get("newer") for how in looked] == [None, None, STAYS]
    assert looked[-1]["stays_s"] > 26.0 > GOODBYE_SECONDS


class TwoAtOnce:
    """Two calls of one instant, of which the worker takes the first, and refuses the other one if it is to; ``ended_waiting``:
    whether nobody need wait any longer for the other one, before the first one has its agent and after."""

    def __init__(self, *, refuses: bool) -> None:
        self.rooms = [SimpleNamespace(room_name=str(at), agents={}, leave=lambda: None) for at in range(2)]
        self.calls, self.server, self._refuses = self, None, refuses
        self.ended_waiting: list[bool] = []
        # Whoever is waited for alone breaks these.
        self._begun, self._looked, self._served = (threading.Barrier(2, timeout=10) for _ in range(3))

    def join(self) -> object:
        return self.rooms.pop()

    def refused(self, call: Any, _server: object) -> bool:
        return self._refuses and call.room_name == "0"

    def wait_settled(self, call: Any, _server: object, *, is_over: Callable[[], bool]) -> None:
        self._begun.wait()
        if call.room_name == "0":
            self.ended_waiting.append(is_over())
        self._looked.wait()
        if call.room_name == "1":
            call.agents["agent"] = 1
        self._served.wait()
        if call.room_name == "0":
            self.ended_waiting.append(is_over())


@pytest.mark.parametrize("refuses", [True, False])
def test_two_calls_of_one_instant_are_waited_for_at_the_same_time(refuses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether the machine had time is known from the beginning of a wait on only.
    monkeypatch.setattr(accepted, "settle", lambda *_: None)
    two = TwoAtOnce(refuses=refuses)
    stage = SimpleNamespace(calls=two, worker=lambda _role: None)
    accepted._at_once(cast(Stage, stage), cast(Any, two))
    assert two.ended_waiting == [False, refuses]


def test_nobody_waits_for_what_is_over() -> None:
    stage: Any = SimpleNamespace(workers=list, raise_if_closing=lambda: None, ledger=Ledger())
    call: Any = SimpleNamespace(room_name="call", joined=time.monotonic(), agents={})
    began = time.monotonic()
    Calls(stage).wait_settled(call, cast(Any, SimpleNamespace(controllable=True)), is_over=lambda: True)
    assert time.monotonic() - began < 1


def test_a_check_that_waits_for_a_drain_has_the_time_for_it() -> None:
    modules = [importlib.import_module(f"suites.test_{name}") for name in packaged_suites()]
    drains = {"lk_emptying", "lk_drain", "lk_several", "lk_interrupt", "lk_late_drain"}
    for function in (value for module in modules for value in vars(module).values() if hasattr(value, "__lk_check__")):
        if drains & set(inspect.signature(function).parameters):
            assert function.__lk_check__.seconds >= CHECK_SECONDS, function.__lk_check__.id


@pytest.mark.parametrize("before", [0, 4])
def test_a_server_stays_away_until_a_try_that_comes_after_it_went(before: int) -> None:
    tries = [before]
    worker: Any = SimpleNamespace(name="w", ledger=Ledger(), is_running=True, count_attempts=lambda: None)
    worker.attempts = lambda: tries[0]
    threading.Timer(0.4, lambda: tries.append(tries.pop() + 1)).start()
    began = time.monotonic()
    reconnecting.lose_server(worker, lambda: None)
    assert 0.3 < time.monotonic() - began < reconnecting.TRY_SECONDS


def test_an_agent_that_is_not_heard_once_behind_a_firewall_may_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "VOICE_SECONDS", 0.2)
    stage: Any = SimpleNamespace(raise_if_closing=lambda: None, raise_if_too_busy=lambda *_: None)
    worker: Any = SimpleNamespace(name="w", ledger=Ledger(), reading=lambda: None, dropped_inbound=lambda: 0)
    now = time.monotonic()
    silent = Call("room", None, Ledger(), now, {"agent": now})  # type: ignore[arg-type]
    stage.calls, stage.worker = Calls(stage), lambda _role: worker
    stage.calls.caller = lambda _worker: SimpleNamespace(close=lambda: None)
    stage.calls.served = lambda _caller: silent
    judged: list[type[Exception]] = [Unproven, AssertionError]
    for expected in judged:
        with pytest.raises(expected):
            registration.test_outbound_only(cast(Stage, stage), Evidence(), lambda: FirstCall(0.2, 4.9))


def test_what_is_seen_for_the_first_time_in_peace_is_looked_at_again() -> None:
    """The look before had ended without it, as this machine was too busy."""
    peace = SimpleNamespace(in_peace=contextlib.nullcontext)
    stage: Any = SimpleNamespace(background=peace, calls=SimpleNamespace(ceased=None), raise_if_closing=lambda: None)
    looks = iter([StageError("too busy"), Unproven("an agent was not heard, which may be chance"), None])

    def observe(_stage: Stage) -> str:
        if (error := next(looks)) is not None:
            raise error
        return "seen"

    def at_once(look: Any) -> Future[str]:
        future: Future[str] = Future()
        try:
            future.set_result(look(stage))
        except StageError as error:
            future.set_exception(error)
        return future

    stage.observe_ahead = at_once
    ahead = Ahead(cast(Stage, stage), observe)
    assert ahead() == "seen"
    assert ahead.again_because == "an agent was not heard, which may be chance"
