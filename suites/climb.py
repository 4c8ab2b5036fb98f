"""More and more calls on one worker, until something gives way: the curve that the capacity card is made from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pytest_lkagents.capacity import card
from pytest_lkagents.capacity.card import Card, Step
from pytest_lkagents.checks import StageError, Unproven, WorkerFault
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import KILLED, Worker

from .crowds import QUIET_SECONDS, Audience, Say
from .pool import settle, still
from .quality import bounds_broken
from .sampling import Level, Sampler, rest

# Up to what the guide's rule has on one worker; in steps that stay about a quarter, as the line through them is straight.
LEVELS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25)
HOLD_SECONDS = 8.0
# For the climb; what is reached by then is the answer.
CLIMB_SECONDS = 240
# Of the memory limit: beyond it the kernel takes pages away from the worker, and the next peak ends it.
FULL_MEMORY = 0.9
# The level at rest counts as one.
LEAST_LEVELS = 3


@dataclass
class Climb:
    """``levels``, the first at rest, are those at which all was well; then ``gave_way`` (card.REASONS) with its ``detail``."""

    levels: list[Level] = field(default_factory=list)
    loads: list[float | None] = field(default_factory=list)
    gave_way: str = "bound"
    detail: str = ""
    threshold: float | None = None
    series: list[list[float]] = field(default_factory=list)

    def card(self, worker: Worker) -> Card:
        steps = [
            Step(level.sessions, level.cores, level.memory_bytes, load)
            for level, load in zip(self.levels, self.loads, strict=True)
        ]
        return card.make(
            steps,
            self.gave_way,
            self.detail,
            limit_cores=worker.cpus,
            limit_bytes=worker.settings.memory_bytes,
            threshold=self.threshold,
        )


def climb(stage: Stage, say: Say) -> Climb:
    """Raises WorkerFault when not even one call is served, StageError when the machine is too busy for that, or agents may
    leave by themselves."""
    worker = stage.renewed("crowded")
    done = Climb()
    with stage.background.alone_on_the_machine(), Sampler(worker) as sampler:
        settle(stage, worker, set(), QUIET_SECONDS)
        began = time.monotonic()
        say("capacity: the worker at rest")
        _keep(done, worker, rest(sampler))
        audience = Audience(stage, worker, say)
        try:
            audience.open()
            for sessions in LEVELS:
                if not _step(done, audience, sampler, sessions, began):
                    break
            # So that there are enough for a line: the last one at which all was well, once more.
            if 1 < len(done.levels) < LEAST_LEVELS and worker.is_running:
                audience.shrink(done.levels[-1].sessions)
                # What jobs hold that have just ended is no call's.
                still(stage, worker, set(), QUIET_SECONDS)
            while 1 < len(done.levels) < LEAST_LEVELS and worker.is_running:
                _keep(done, worker, audience.hold(sampler, HOLD_SECONDS))
        finally:
            done.series = sampler.series()
            audience.close()
    done.threshold = _threshold(worker, began)
    return done


def _step(done: Climb, audience: Audience, sampler: Sampler, sessions: int, began: float) -> bool:
    """Whether all was well with so many calls; otherwise what gave way is noted."""
    left = CLIMB_SECONDS - (time.monotonic() - began)
    worker = audience.worker
    if left <= 0:
        done.detail = f"after {CLIMB_SECONDS} s"
        return False
    audience.say(f"capacity: {sessions} calls (at most {LEVELS[-1]}, at most {left:.0f} s left)")
    unsure = audience.unsure
    try:
        grown = audience.grow(sessions)
        if audience.unserved:
            done.gave_way, done.detail = "worker", f"beside {audience.served} calls it took one to which no agent came"
            return False
        if not grown and audience.unsure > unsure:
            done.gave_way, done.detail = "machine", "it had no time while a user waited for an agent"
            return False
        if not grown and audience.served <= done.levels[-1].sessions:
            done.gave_way = "threshold"
            return False
        level = audience.hold(sampler, HOLD_SECONDS)
    except Unproven:
        raise
    except StageError as error:
        if len(done.levels) == 1:
            raise
        done.gave_way, done.detail = "machine", str(error)
        return False
    except WorkerFault as fault:
        if len(done.levels) == 1:
            raise
        limited = worker.exit_code == KILLED and worker.settings.memory_bytes is not None
        done.gave_way, done.detail = "memory" if limited else "worker", str(fault)
        return False
    assert level.quality is not None
    limit = worker.settings.memory_bytes
    if wrong := bounds_broken(level.quality):
        done.gave_way, done.detail = "quality", "; ".join(wrong)
        return False
    if limit is not None and level.memory_peak_bytes > FULL_MEMORY * limit:
        done.gave_way, done.detail = "memory", f"{level.memory_peak_bytes / 1e6:.0f} of {limit / 1e6:.0f} MB in use"
        return False
    _keep(done, worker, level)
    if not grown:
        done.gave_way = "threshold"
    return grown


def _keep(done: Climb, worker: Worker, level: Level) -> None:
    loads = [status.load for status in worker.wire.transcript.statuses(time.monotonic() - HOLD_SECONDS)]
    done.levels.append(level)
    done.loads.append(round(sum(loads) / len(loads), 3) if loads else None)


def _threshold(worker: Worker, began: float) -> float | None:
    """The user's word for it, or the highest load that it reported while still available, if it was full at all."""
    if worker.settings.load_threshold is not None:
        return worker.settings.load_threshold
    seen = worker.wire.transcript.statuses(began)
    full = [status.load for status in seen if status.full]
    below = [status.load for status in seen if not status.full and (not full or status.load <= max(full))]
    return round(max(below), 2) if full and below and max(below) > 0 else None
