"""An ordinary call, and a worker without calls that is asked to stop."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from pytest_lkagents.busyness import too_busy
from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.calls import ANSWER_SECONDS
from pytest_lkagents.checks import NotJudgeable, StageError, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Answer
from pytest_lkagents.worker.base import Worker

from .judging import exit_codes
from .offers import STOPS_SECONDS, offered_nothing_since
from .pool import settle

# A reaction to a signal (deregistration, exit) takes well under a second where the signal arrives.
REACTION_SECONDS = 10
# An agent that talks first says something by then.
SOUND_SECONDS = 5
# One that hands the call over to another may leave before that one is there, or after.
HANDOVER_SECONDS = 2.0
# For a job to end whose caller has hung up, and for the process to get ready that takes its place.
REST_SECONDS = 12.0


@dataclass
class FirstCall:
    """An ordinary call: seconds to the agent and to its first sound (None: it says nothing); ``left_s``: how long the agent
    stayed that left its caller without a word."""

    agent_s: float
    sound_s: float | None
    left_s: float | None = None


@dataclass
class Stop:
    """An idle worker that was asked to stop. ``calls`` is how many it had had. Seconds count from the signal."""

    signal: str
    calls: int = 0
    deregistered_s: float | None = None
    exited_s: float | None = None
    exit_code: int | None = None
    direct_signal_worked: bool | None = None
    # What it says to a job some seconds after the signal, if it is still registered and not full.
    asked: Answer | None = None
    asked_s: float | None = None
    # Why it may have had no time to heed the signal before it was asked, in words.
    busy: str | None = None

    @property
    def ended_well(self) -> bool:
        """Whether it took nothing new and ended in time, with a code that says that the signal did it."""
        took_job = self.asked is not None and self.asked.available
        return self.exited_s is not None and self.exit_code in exit_codes(self.signal) and not took_job


def stop_signal(stage: Stage) -> str:
    """The signal that engines and orchestrators send to this image; to a process, SIGTERM."""
    if stage.settings.image is None:
        return "SIGTERM"
    named = str(stage.contents.attrs["Config"].get("StopSignal") or "SIGTERM").upper()
    return named if named.startswith("SIG") or named.isdigit() else f"SIG{named}"


def first_call(stage: Stage) -> FirstCall:
    worker = stage.worker("shared")
    caller = stage.calls.caller(worker)
    try:
        seen = _one_call(stage, caller)
        # Once may be chance.
        return seen if seen.left_s is None else _one_call(stage, caller)
    finally:
        caller.close()


def _one_call(stage: Stage, caller: Caller) -> FirstCall:
    call = stage.calls.served(caller)
    wait_sound(call)
    if not call.agents_present:
        with contextlib.suppress(DeadlineMissed):
            poll(lambda: bool(call.agents_present), what="another agent", seconds=HANDOVER_SECONDS, every=0.05)
            wait_sound(call)
    wordless = call.sound_after is None and not call.written
    return FirstCall(call.agent_after, call.sound_after, call.stayed if wordless else None)


def wait_sound(call: Call) -> None:
    """Until its agent is heard, or has left, or should have said something."""
    with contextlib.suppress(DeadlineMissed):
        poll(lambda: call.heard.first is not None or not call.agents_present, what="sound", seconds=SOUND_SECONDS, every=0.05)


def stop(stage: Stage) -> Stop:
    """Of a worker that had a call before, if one is served. One that another check had, and that does not end as it should, may
    be the worse for that, or tell of a job that crashed: then one is looked at that none had."""
    seen = _stop(stage, *_idle_after_a_call(stage))
    if seen.ended_well or not stage.had_before("stopped"):
        return seen
    stage.raise_if_closing()
    return _stop(stage, *_idle_after_a_call(stage))


def stop_uncalled(stage: Stage) -> Stop:
    """Of one that never had a call, as after a scale-up for which there was no need."""
    worker = stage.untouched("uncalled")
    settle(stage, worker, set(), REST_SECONDS)
    return _stop(stage, worker, 0)


def stop_unassigned(stage: Stage) -> Stop:
    """Of one that has just accepted a job which it is not given. Raises NotJudgeable if it accepts none."""
    worker = stage.untouched("unassigned")
    settle(stage, worker, set(), REST_SECONDS)
    if not worker.wire.ask(ANSWER_SECONDS).available:
        raise NotJudgeable("it does not accept a job although it has none")
    return _stop(stage, worker, 0)


def _stop(stage: Stage, worker: Worker, calls: int) -> Stop:
    """Send the stop signal to an idle worker and watch it go; if nothing happens, find out where the signal ended."""
    seen = Stop(stop_signal(stage), calls)
    holders = worker.registered_by(worker.snapshot())
    before, limit = worker.reading(), stage.settings.exit_timeout
    sent = time.monotonic()
    worker.signal(seen.signal)
    with worker.ledger.waiting(worker.name):
        # It may go on for a while, as servers do for their load balancer's sake, and be gone in time all the same.
        if not _reacts(worker, min(STOPS_SECONDS, limit)):
            _ask(worker, seen, sent)
            if seen.asked is not None and seen.asked.available:
                seen.busy = too_busy(before, worker.reading())
        if _reacts(worker, max(limit - (time.monotonic() - sent), 0.1)):
            seen.deregistered_s = round(time.monotonic() - sent, 2)
            if worker.wait_exit(max(limit - (time.monotonic() - sent), 1)) is not None:
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


def _idle_after_a_call(stage: Stage) -> tuple[Worker, int]:
    """A worker at rest, and how many calls it has served: what a call leaves behind may keep it from ending. It may have
    taken over a worker that had one. One that serves none, or has a job that does not end, is replaced by a new one."""
    worker = stage.untouched("stopped")
    stuck = False
    if not _jobs(worker) and not stage.calls.all_in_vain:
        caller = stage.calls.caller(worker)
        try:
            stage.calls.served(caller, tries=1)
        except (WorkerFault, StageError):
            if not worker.is_running:
                raise worker.ended() from None
            # A job to which no agent came may go on unseen.
            stuck = bool(_jobs(worker))
        finally:
            caller.close()
    if stuck or not _rests(stage, worker):
        return stage.untouched("stopped"), 0
    return worker, _jobs(worker)


def _jobs(worker: Worker) -> int:
    return sum(asked.assigned is not None and not asked.probe for asked in worker.wire.transcript.questions())


def _rests(stage: Stage, worker: Worker) -> bool:
    """Whether its jobs have ended. What starts in their place is given time: SDKs ignore a signal while they start one."""
    try:
        stage.calls.wait_idle(worker, REST_SECONDS)
    except StageError:
        return False
    settle(stage, worker, set(), REST_SECONDS)
    return True


def _ask(worker: Worker, seen: Stop, sent: float) -> None:
    log = worker.wire.transcript
    if worker.is_running and log.live() and offered_nothing_since(log, sent) is None:
        seen.asked_s = round(time.monotonic() - sent, 1)
        with contextlib.suppress(StageError):
            seen.asked = worker.wire.ask(ANSWER_SECONDS, free=True)


def _reacts(worker: Worker, seconds: float) -> bool:
    def gone() -> bool:
        return not worker.is_running or not worker.wire.transcript.live()

    try:
        return poll(gone, what="reaction", seconds=seconds, every=0.05)
    except DeadlineMissed:
        return False
