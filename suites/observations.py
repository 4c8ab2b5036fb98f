"""Observations that serve several checks; conftest.py makes each of them once per run."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

# A reaction to a signal (deregistration, exit) takes well under a second where the signal arrives.
REACTION_SECONDS = 10


@dataclass
class FirstCall:
    """An ordinary call: seconds to the agent and to its first sound (None: it says nothing)."""

    agent_s: float
    sound_s: float | None


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
    named = str(stage.contents.attrs["Config"].get("StopSignal") or "SIGTERM")
    return named if named.startswith("SIG") or named.isdigit() else f"SIG{named}"


def first_call(stage: Stage) -> FirstCall:
    worker = stage.worker("shared")
    caller = stage.calls.caller(worker)
    try:
        call = stage.calls.served(caller)
        agent_s = call.agent_after
        return FirstCall(agent_s, call.wait_until_agent_talks(5))
    finally:
        caller.close()


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
