"""A call of minutes that a worker keeps after its stop signal: whether it lives, and what it takes meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_lkagents.capacity import fit
from pytest_lkagents.guide import RULE_BYTES
from pytest_lkagents.settings import Settings
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.usage import Usage

from .drainage import Drainage
from .drained import Drain
from .observations import stop_signal
from .sampling import Sampler
from .scenario import Scenario

# The guide's "10 minutes or more".
GRACE_SECONDS = 600.0
# Calls that are replaced with their worker are minutes old: past the minute that comes to mind as a bound.
AGE_SECONDS = 75.0
READ_SECONDS = 2.0
# Until then buffers, caches and the allocator grow to their size, and what the signal ended gives its memory back.
WARM_SECONDS = 120.0
# As long again: a shorter trend is one of noise.
TREND_SECONDS = 120.0
# A call of an hour would take all of the guide's memory for a call by its growth alone.
MOST_PER_SECOND = RULE_BYTES / 3600


@dataclass(frozen=True)
class LongCall:
    """``usage`` was read while the call lasted, from WARM_SECONDS after the signal on."""

    drain: Drain
    usage: list[Usage]

    @property
    def unproven(self) -> str | None:
        return self.drain.unproven

    def growth(self) -> fit.Line | None:
        """The worker's memory in bytes over the seconds; None: the call was too short to tell."""
        if not self.usage or self.usage[-1].at - self.usage[0].at < TREND_SECONDS:
            return None
        began = self.usage[0].at
        return fit.line([usage.at - began for usage in self.usage], [usage.memory_bytes for usage in self.usage])


def hold(settings: Settings) -> float:
    """For how long the call is kept after the signal."""
    return settings.drain_hold or GRACE_SECONDS


def observe(stage: Stage) -> LongCall:
    """Raises WorkerFault if the call is not served, StageError when the stage breaks."""
    worker = stage.untouched("patient")
    drainage = Drainage(stage, worker, Scenario(stop_signal(stage), hold=hold(stage.settings), aged=AGE_SECONDS))
    with Sampler(worker, READ_SECONDS) as sampler:
        seen = drainage.observe()
    since, until = drainage.sent + WARM_SECONDS, drainage.sent + seen.held_s
    return LongCall(seen, [usage for usage in sampler.seen if since <= usage.at <= until])
