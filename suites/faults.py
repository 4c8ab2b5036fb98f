"""A network that falls silent between a worker and its server, or everything: what is left of the worker afterwards."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from pytest_lkagents.callers.caller import Caller
from pytest_lkagents.callers.continuity import AGENT_LEFT, Continuity
from pytest_lkagents.checks import NotJudgeable, StageError, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, holds, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.protocol import WORKER
from pytest_lkagents.worker.base import Worker

from .healthy import answers, stays_unhealthy
from .reconnecting import RECONNECT_SECONDS, SINGLE_SECONDS

# Longer than the 15 s after which the SDKs take a call's signalling for dead, so that they act; much shorter than the
# 80 s and more after which they give up.
SILENT_SECONDS = 20
# Calls that a job which is still at its end may cost, each followed by 3 s of patience.
CALL_TRIES = 5
# ICE is tried anew every few seconds, a full reconnection takes some more.
RECOVER_SECONDS = 15
UNKNOWN = "not known"
# Entries of a connection's beginning and end, which need no worker that is well.
CONNECTING = ("opened", "request", "closed")


@dataclass
class Aftermath:
    """What became of a worker with a call. Seconds count from the end of the fault; None: it did not happen.

    ``problem`` is the worker's failure in words. ``call_trouble`` is what was wrong with the call that was in progress,
    first during the fault and then at the end of all.
    """

    registrations_before: int
    problem: str | None = None
    lost_packets: int | None = None
    heard_s: float | None = None
    registered_again: bool = False
    registrations_after: int = 0
    joined_s: float | None = None
    call_trouble: list[str | None] = field(default_factory=list)
    call: dict[str, object] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def evidence(self) -> dict[str, object]:
        packets = {} if self.lost_packets is None else {"lost_packets": self.lost_packets}
        return {
            "fault_s": SILENT_SECONDS,
            **packets,
            "heard_again_after_s": self.heard_s,
            "registered_again": self.registered_again,
            "registrations_before": self.registrations_before,
            "registrations_after": self.registrations_after,
            "agent_joined_after_s": self.joined_s,
            "call_in_progress": self.call_story,
            **{f"call_{name}": value for name, value in self.call.items()},
            "transcript": self.lines,
        }

    @property
    def call_story(self) -> str:
        if len(self.call_trouble) < 2:
            return "ended with the worker"
        during, after = self.call_trouble
        if after is not None:
            return after if after.startswith(UNKNOWN) else f"lost: {after}"
        return "undisturbed" if during is None else "recovered"

    def summary(self, what: str) -> str:
        how = "registered again" if self.registered_again else "its registration lasted"
        return f"after {SILENT_SECONDS} s without {what} {how}, a new call was served; the call in progress: {self.call_story}"


def half_open(stage: Stage) -> Aftermath:
    """Nothing passes between the worker and its server, and no end of a connection either. Media goes on."""
    worker = stage.untouched("half-open")
    return _observe(stage, worker, worker.wire.half_open())


def partition(stage: Stage) -> Aftermath:
    """Nothing at all passes."""
    worker = stage.untouched("partitioned")
    return _observe(stage, worker, worker.partition())


def _observe(stage: Stage, worker: Worker, fault: AbstractContextManager[Callable[[], int] | None]) -> Aftermath:
    caller = stage.calls.caller(worker)
    try:
        before, health = _call_in_progress(stage, caller), answers(worker)
        seen = Aftermath(len(worker.wire.transcript.live()))
        ever = len(worker.wire.transcript.registrations())
        began = time.monotonic()
        with fault as lost:
            with worker.ledger.waiting(worker.name):
                alive = holds(lambda: _alive(stage, worker), seconds=SILENT_SECONDS, every=0.5)
            seen.call_trouble.append(_trouble(before))
            seen.lost_packets = lost() if lost is not None else None
        if not alive:
            passed = time.monotonic() - began
            seen.problem = worker.last_words(f"it exited with code {worker.exit_code} {passed:.0f} s after the fault began")
            return seen
        _watch_return(stage, worker, seen, ever, before)
        # Another voice track, after a call was rebuilt, begins its counters anew: its share would be nonsense.
        seen.call = {name: value for name, value in before.evidence().items() if name != "concealed_share"}
        # A worker may take one call at a time.
        before.call.leave()
        try:
            call = stage.calls.served(caller, tries=CALL_TRIES)
            seen.joined_s = round(call.agent_after, 2)
        except WorkerFault as nobody:
            seen.problem = worker.last_words(f"the network is back, but {nobody}")
            return seen
        unhealthy = stays_unhealthy(stage, worker, health)
        if unhealthy is not None:
            seen.problem = f"the network is back and it serves calls, but {unhealthy}"
        return seen
    finally:
        caller.close()


def _alive(stage: Stage, worker: Worker) -> bool:
    stage.raise_if_closing()
    return worker.is_running


def _call_in_progress(stage: Stage, caller: Caller) -> Continuity:
    """A call whose agent has talked for long enough that its silence would mean something, if it talks at all."""
    call = stage.calls.served(caller)
    # What becomes of this call is a story, and not judged.
    with contextlib.suppress(NotJudgeable):
        stage.calls.wait_heard([call])
    return stage.calls.continuity(call)


def _trouble(before: Continuity) -> str | None:
    """The call in progress is not judged here: where it cannot be told how it is, that is all there is to say."""
    try:
        return before.trouble()
    except StageError as error:
        return f"{UNKNOWN}: {error}" if before.agents_are_there else AGENT_LEFT


def _watch_return(stage: Stage, worker: Worker, seen: Aftermath, ever: int, before: Continuity) -> None:
    """Until the worker talks to its server over as many registrations as before, and its call has recovered; or until
    there was time enough for that."""
    log = worker.wire.transcript
    ended = time.monotonic()

    def settled() -> bool:
        if seen.heard_s is None:
            heard = [entry for entry in log.entries(source=WORKER, since=ended) if entry.kind not in CONNECTING]
            seen.heard_s = round(heard[0].at - ended, 2) if heard else None
        return seen.heard_s is not None and len(log.live()) == seen.registrations_before

    def returned() -> bool:
        # What the worker had ended meanwhile ends only now, and a second registration may follow.
        return not _alive(stage, worker) or (settled() and holds(settled, seconds=SINGLE_SECONDS))

    reading = worker.reading()
    with worker.ledger.waiting(worker.name):
        try:
            poll(returned, what="return", seconds=RECONNECT_SECONDS)
        except DeadlineMissed:
            stage.raise_if_too_busy(worker, reading)
        with contextlib.suppress(DeadlineMissed):
            poll(lambda: _trouble(before) is None, what="recovery", seconds=RECOVER_SECONDS)
    seen.call_trouble.append(_trouble(before))
    seen.registrations_after = len(log.live())
    seen.registered_again = len(log.registrations()) > ever
    seen.lines = log.lines(ended, kinds=("register", "registered", "closed"), last=6)
