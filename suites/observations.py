"""Observations that serve several checks; conftest.py makes each of them once per run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, holds, poll
from pytest_lkagents.stage import ANSWER_SECONDS, Stage
from pytest_lkagents.wire.model import Answer
from pytest_lkagents.worker.base import Worker

# What a call shows while its worker drains is decided in the first seconds: a worker that does not drain cuts it at once
# or after a short grace of its own; Node waits 5 s for its job processes.
DRAIN_SECONDS = 8
# Speech pauses and a busy machine stay below this; a cut call stays silent for good.
CUT_SILENCE = 2.5
FOR_GOOD_SECONDS = 8
# A worker that was asked to stop takes no new job after this time.
STOPS_SECONDS = 5
# A reaction to a signal (deregistration, exit) takes well under a second where the signal arrives.
REACTION_SECONDS = 10


@dataclass
class FirstCall:
    """An ordinary call: seconds to the agent and to its first sound (None: it says nothing)."""

    agent_s: float
    sound_s: float | None


@dataclass
class Drain:
    """A worker with a call that was asked to stop. Seconds count from the signal; None: it did not happen."""

    signal: str
    health_port: int | None
    arguments: list[str]
    cut_s: float | None = None
    cut_how: str = ""
    exit_code: int | None = None
    health: list[int | None] = field(default_factory=list)
    # What it says when it is asked for one more job while it drains; None: it could not be asked any more.
    asked: Answer | None = None
    lines: list[str] = field(default_factory=list)


@dataclass
class Stop:
    """An idle worker that was asked to stop. Seconds count from the signal."""

    signal: str
    deregistered_s: float | None = None
    exited_s: float | None = None
    exit_code: int | None = None
    direct_signal_worked: bool | None = None


def stop_signal(stage: Stage) -> str:
    """The signal that engines and orchestrators send to this image; to a process, SIGTERM."""
    if stage.settings.image is None:
        return "SIGTERM"
    named = str(stage.image_attrs["Config"].get("StopSignal") or "SIGTERM")
    return named if named.startswith("SIG") or named.isdigit() else f"SIG{named}"


def first_call(stage: Stage) -> FirstCall:
    worker = stage.worker("shared")
    caller = stage.caller(worker)
    try:
        call = stage.served_call(caller)
        agent_s = min(call.agents.values()) - call.joined
        return FirstCall(agent_s, call.wait_until_agent_talks(5))
    finally:
        caller.close()


def drain(stage: Stage) -> Drain:
    """Place a call, send the stop signal, watch the call and the health endpoint, hang up."""
    worker = stage.worker("draining")
    caller = stage.caller(worker)
    try:
        call = stage.served_call(caller)
        talks = call.wait_until_agent_talks(5) is not None
        health = worker.wait_health()
        arguments = [process.args for process in worker.snapshot().processes]
        seen = Drain(stop_signal(stage), health.port if health else None, arguments)
        sent = time.monotonic()
        worker.signal(seen.signal)
        transcript = worker.wire.transcript
        while time.monotonic() - sent < DRAIN_SECONDS:
            if not call.agents_present:
                seen.cut_how = "the agent left the call"
            elif call.disconnected is not None:
                raise StageError("the caller lost its server")
            elif talks and call.silence > CUT_SILENCE and _stays_silent(call):
                seen.cut_how = f"the agent fell silent for {call.silence:.1f} s"
            elif not worker.is_running:
                seen.cut_how = "the worker ended with the call in progress"
            if seen.cut_how:
                seen.cut_s = round(time.monotonic() - sent, 1)
                break
            if health is not None:
                seen.health.append(worker.health_status(health))
            draining = any(status.full for status in transcript.statuses(sent)) or time.monotonic() - sent > STOPS_SECONDS
            if seen.asked is None and draining and transcript.live():
                seen.asked = worker.wire.ask(ANSWER_SECONDS)
            time.sleep(0.5)
        seen.lines = transcript.lines(sent, kinds=("status", "question", "answer", "closed"))
        seen.exit_code = worker.exit_code
        return seen
    finally:
        caller.close()
        worker.kill()


def _stays_silent(call: Call) -> bool:
    """Whether the silence lasts: a machine that stalls for seconds goes on afterwards, a cut call does not."""
    return holds(lambda: call.silence > CUT_SILENCE, seconds=FOR_GOOD_SECONDS)


def stop(stage: Stage) -> Stop:
    """Send the stop signal to an idle worker and watch it go; if nothing happens, find out where the signal ended."""
    worker = stage.worker("stopped")
    seen = Stop(stop_signal(stage))
    holders = worker.snapshot().holders_of(worker.server_peer)
    before = worker.reading()
    sent = time.monotonic()
    worker.signal(seen.signal)
    with worker.ledger.waiting(worker.name):
        if _reacts(worker, REACTION_SECONDS):
            seen.deregistered_s = round(time.monotonic() - sent, 2)
            if worker.wait_exit(max(stage.settings.exit_timeout - (time.monotonic() - sent), 1)) is not None:
                seen.exited_s = round(time.monotonic() - sent, 2)
            else:
                stage.raise_if_too_busy(worker, before)
        else:
            stage.raise_if_too_busy(worker, before)
            main = min(holders, default=None)
            if main is not None and main != worker.first_pid:
                worker.signal_process(main, "SIGTERM")
                seen.direct_signal_worked = _reacts(worker, REACTION_SECONDS)
            elif main == worker.first_pid:
                seen.direct_signal_worked = False
    seen.exit_code = worker.exit_code if seen.exited_s is not None else None
    worker.kill()
    return seen


def _reacts(worker: Worker, seconds: float) -> bool:
    def gone() -> bool:
        return not worker.is_running or not worker.wire.transcript.live()

    try:
        return poll(gone, what="reaction", seconds=seconds, every=0.05)
    except DeadlineMissed:
        return False
