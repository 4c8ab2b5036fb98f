"""Whether agents that leave calls which nothing disturbs do so by themselves, or for want of what another call has.

An agent that says what it has to say and leaves does so whoever else calls. One that fails, some seconds after it spoke, on
what another call of its worker has (a lock, a service's only session) leaves beside that call only. Which of the two it is
shows where a call is alone for longer than others had their agents, and beside one that stays.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.callers.habit import STAY_CONTROL, STAY_SECONDS
from pytest_lkagents.checks import NotJudgeable, StageError, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .observations import HANDOVER_SECONDS
from .scenario import LIMIT_SECONDS

# How many calls come, one after the other, beside each of those that are alone until then: with the call before these, which is
# alone throughout, four and five. Of agents that stay or leave by chance, or at every second, third, ... call, one worker
# in 484 at most has exactly these leave (5/9 to the fifth by 4/9 to the fourth power).
BESIDE = (2, 1, 2)
# No call of core is watched for longer while nothing disturbs it, and nine of them are to end within the check's time.
LONGEST_SECONDS = LIMIT_SECONDS
# Those that are alone are watched for longer than they have to stay: agents that leave are not equally quick.
WATCH_CONTROL = 2.0


@dataclass
class Contrast:
    """Seconds. ``known``: the longest stay of an agent of this worker that left; ``alone``: how long agents of calls without
    another one were there, which did not leave; ``beside``: after which those beside such a call left."""

    known: float
    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)

    @property
    def longest(self) -> float:
        return max([self.known, *self.beside])

    @property
    def hold(self) -> float:
        """How long an agent has to stay that does not leave by itself."""
        return STAY_CONTROL * self.longest + STAY_SECONDS

    @property
    def watch(self) -> float:
        """For how long it is watched."""
        return WATCH_CONTROL * self.longest + STAY_SECONDS

    @property
    def differs(self) -> bool:
        """Whether all that were alone so far stayed for clearly longer than those that left."""
        return min(self.alone, default=0.0) >= self.hold

    @property
    def problem(self) -> str | None:
        """What is wrong, in words; None where agents may leave by themselves."""
        if len(self.beside) < sum(BESIDE) or len(self.alone) <= len(BESIDE) or not self.differs:
            return None
        return (
            f"in each of {len(self.beside)} calls beside another the agent left after {max(self.beside):.1f} s at the latest; "
            f"in each of {len(self.alone)} calls that were alone it stayed for the {min(self.alone):.1f} s or more of the watch"
        )


def observe(stage: Stage) -> Contrast | None:
    """None where no agent was seen to leave a call that nothing disturbed, where those of calls that are alone leave, too, and
    where no second call is served, or may not be. Raises TooBusy where this machine may be the reason, and StageError where it
    cannot be told."""
    known, settings = stage.calls.longest_stay, stage.settings
    if known is None or known > LONGEST_SECONDS:
        return None
    # By these the callers may all be the same customer, who is not to have two calls at once.
    if settings.metadata or settings.attributes:
        return None
    seen = Contrast(known)
    try:
        worker = stage.worker("shared")
        if not _look(stage, worker, seen, 0):
            return None
        with stage.background.in_peace():
            before = worker.reading()
            if not all(_look(stage, worker, seen, further) for further in BESIDE):
                return None
            if seen.problem is not None:
                stage.raise_if_too_busy(worker, before)
    except (NotJudgeable, WorkerFault):
        return None  # other checks say why calls are not served
    except StageError:
        stage.raise_if_closing()
        if not seen.beside:
            return None
        raise
    return seen


def _look(stage: Stage, worker: Worker, seen: Contrast, further: int) -> bool:
    """One call alone, and so many beside it: whether it stayed, and they all left."""
    stage.calls.wait_idle(worker)
    with contextlib.closing(stage.calls.caller(worker)) as caller:
        first = stage.calls.served(caller)
        # Where calls are handed over, it may be the next agent that a second call wants in vain, of this worker alone.
        if left_after(stage, first, seen.watch) is not None or len(first.agents) > 1:
            return False
        seen.alone.append(time.monotonic() - min(first.agents.values()))
        for _ in range(further):
            other = stage.calls.further(caller)
            stayed = left_after(stage, other, seen.watch) if other is not None else None
            # Where that of the first one left, too, nobody knows which of the two is the other's reason.
            if other is None or stayed is None or not first.agents_present:
                return False
            seen.beside.append(stayed)
            _end(stage, worker, other)
        return seen.differs


def _end(stage: Stage, worker: Worker, call: Call) -> None:
    """Hang up, and wait for the end of its job, which may hold yet what the next one needs."""
    call.leave()
    with contextlib.suppress(DeadlineMissed):
        poll(lambda: not worker.wire.calls_to(call.room_name), what="end of a job", seconds=stage.settings.exit_timeout)


def left_after(stage: Stage, call: Call, seconds: float) -> float | None:
    """Seconds after which its agent left, with nobody in its place; None: it is there after so many from now on. Raises
    StageError if the caller was cut off."""

    def left() -> bool:
        stage.raise_if_closing()
        return call.stayed is not None

    end = time.monotonic() + seconds
    while True:
        try:
            poll(left, what="leave", seconds=max(end - time.monotonic(), 0.1))
        except DeadlineMissed:
            call.raise_if_cut_off()
            return None
        stayed = call.stayed
        with contextlib.suppress(DeadlineMissed):
            poll(lambda: call.stayed is None, what="another agent", seconds=HANDOVER_SECONDS)
        call.raise_if_cut_off()
        if call.stayed is not None:
            return stayed
