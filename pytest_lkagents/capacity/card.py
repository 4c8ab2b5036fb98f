"""The capacity card: what a measured worker can carry, and how many of them are needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_lkagents.capacity.fit import Line, errors_of_95, line

# What may give way first, in words for the card.
REASONS = {
    "threshold": "the worker takes no more calls (its load threshold)",
    "quality": "the quality of the calls",
    "memory": "memory",
    "worker": "the worker itself",
    "bound": "nothing yet: the most calls that were tried",
    "machine": "this machine, which was too busy to go on",
}
# The guide scales up at 0.50 where the threshold is 0.75.
SCALE_UP_SHARE = 0.50 / 0.75
# What a limit leaves above the expected need: a call's peak over its mean, and the error of the fit.
HEADROOM = 1.25
CALLS = (10, 50, 100, 500)
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Step:
    """A level that was held: calls in progress, mean cores and bytes of the whole worker, its reported load (0 to 1)."""

    sessions: int
    cores: float
    memory_bytes: int
    load: float | None = None


@dataclass(frozen=True)
class Card:
    """``sessions``: the most calls at which all was well; ``limit_cores`` and ``limit_bytes`` are the worker's, if any;
    ``levels``: how many the lines go through; ``most_cores`` and ``most_bytes``: what was used at most at one of them."""

    sessions: int
    gave_way: str
    detail: str
    cores: Line
    memory: Line
    limit_cores: float | None
    limit_bytes: int | None
    threshold: float | None
    levels: int
    most_cores: float
    most_bytes: float

    @property
    def suggested_cores(self) -> float:
        """For this many sessions, in quarters of a core: by the line, or by what they used where it bends upwards."""
        expected = max(self.cores.at(self.sessions), self.most_cores)
        return max(math.ceil(expected * HEADROOM * 4) / 4, 0.25)

    @property
    def suggested_bytes(self) -> int:
        """For this many sessions, in steps of 64 MB, likewise."""
        step = 64 * MEGABYTE
        expected = max(self.memory.at(self.sessions), self.most_bytes)
        return max(math.ceil(expected * HEADROOM / step), 1) * step

    @property
    def scale_up(self) -> float | None:
        """The load at which to add a worker: as far below the threshold as the guide's example."""
        return None if self.threshold is None else round(self.threshold * SCALE_UP_SHARE, 2)

    @property
    def sessions_at_scale_up(self) -> int:
        """With what an autoscaler keeps a worker at, on average; at least 1."""
        return max(math.floor(self.sessions * SCALE_UP_SHARE), 1)

    def replicas(self, calls: int) -> int:
        """Workers for so many calls at once, each at the scale-up target."""
        return math.ceil(calls / self.sessions_at_scale_up)

    def evidence(self) -> dict[str, Any]:
        return {
            "sessions_per_worker": self.sessions,
            "gave_way_first": self.gave_way,
            "gave_way_detail": self.detail,
            "cores_at_rest": round(self.cores.base, 3),
            "cores_per_session": round(self.cores.slope, 4),
            "cores_per_session_stderr": round(self.cores.stderr, 4),
            "memory_at_rest_bytes": round(self.memory.base),
            "memory_per_session_bytes": round(self.memory.slope),
            "memory_per_session_stderr_bytes": round(self.memory.stderr),
            "limit_cores": self.limit_cores,
            "limit_memory_bytes": self.limit_bytes,
            "load_threshold": self.threshold,
            "scale_up_at": self.scale_up,
            "sessions_at_scale_up": self.sessions_at_scale_up,
            "suggested_cores": self.suggested_cores,
            "suggested_memory_bytes": self.suggested_bytes,
            "replicas_for_calls": {str(calls): self.replicas(calls) for calls in CALLS},
        }

    def lines(self) -> list[str]:
        """For people, ready to print: of ``detail`` its first line, as what follows are a worker's own last words."""
        detail = self.detail.partition("\n")[0]
        limits = [
            "no CPU limit" if self.limit_cores is None else f"{self.limit_cores:g} cores",
            "no memory limit" if self.limit_bytes is None else f"{self.limit_bytes / MEGABYTE:.0f} MB",
        ]
        more = " or more" if self.gave_way in ("bound", "machine") else ""
        threshold = (
            f"below its load threshold of {self.threshold:g}: scale up at {self.scale_up:g}, as the guide's example does"
            if self.threshold is not None
            else "its load threshold was not met: scale up where two thirds of these sessions are in progress"
        )
        errors = errors_of_95(self.levels)
        needed = ", ".join(f"{self.replicas(calls)} for {calls}" for calls in CALLS)
        return [
            f"sessions per worker   {self.sessions}{more} ({limits[0]}, {limits[1]})",
            f"gives way first       {REASONS[self.gave_way]}{': ' if detail else ''}{detail}",
            f"per session           {self.cores.slope:.3f} ± {errors * self.cores.stderr:.3f} cores, "
            f"{self.memory.slope / MEGABYTE:.0f} ± {errors * self.memory.stderr / MEGABYTE:.0f} MB (95 %)",
            f"at rest               {self.cores.base:.3f} cores, {self.memory.base / MEGABYTE:.0f} MB",
            f"suggested limits      {self.suggested_cores:g} cores, {self.suggested_bytes / MEGABYTE:.0f} MB "
            f"for {self.sessions} sessions",
            f"autoscaling           {threshold}",
            f"replicas              {needed} calls at once, with {self.sessions_at_scale_up} on each",
        ]


def make(
    steps: Sequence[Step],
    gave_way: str,
    detail: str,
    *,
    limit_cores: float | None,
    limit_bytes: int | None,
    threshold: float | None,
) -> Card:
    """From at least three levels at which all was well (the one at rest counts). Raises ValueError for fewer."""
    counts = [step.sessions for step in steps]
    return Card(
        max(counts),
        gave_way,
        detail,
        line(counts, [step.cores for step in steps]),
        line(counts, [step.memory_bytes for step in steps]),
        limit_cores,
        limit_bytes,
        threshold,
        len(steps),
        max(step.cores for step in steps),
        max(step.memory_bytes for step in steps),
    )
