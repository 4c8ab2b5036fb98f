"""What the simulation is told about the worker and about the LiveKit server. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pytest_lkagents.guide import TEST_CORES, TEST_LIMIT

GUIDE_SLOPE = TEST_CORES / TEST_LIMIT


@dataclass(frozen=True)
class WorkerModel:
    """One worker: with n calls its load is ``base + slope * n``, at most 1.

    The worker samples its load every ``sample_s``, averages over ``window_s`` (0: it counts its calls instead, and knows
    at once) and reports every ``report_s``. A question is answered with no if the averaged load is at or above
    ``threshold``. ``start_s`` passes from the decision to have one more until it has registered.

    The defaults are livekit-agents 1.8.9's (0.5 s, 2.5 s, 2.5 s, 0.7), with the load curve of the guide's load test and
    half a minute to start; give what was measured instead. Raises ValueError.
    """

    base: float = 0.0
    slope: float = GUIDE_SLOPE
    threshold: float = 0.7
    start_s: float = 30.0
    window_s: float = 2.5
    report_s: float = 2.5
    sample_s: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.base < 1 or not 0 < self.slope < math.inf:
            raise ValueError(f"a load of {self.base:g} + {self.slope:g} per call: wanted are 0 <= base < 1 and a slope above 0")
        if not self.threshold > 0 or self.start_s < 0 or self.window_s < 0:
            raise ValueError("wanted are a threshold above 0, and no negative times")
        if not 0 < self.sample_s <= self.report_s:
            raise ValueError(f"a sample every {self.sample_s:g} s and a report every {self.report_s:g} s: one sample at least")

    @property
    def capacity(self) -> int:
        """Calls at a time until it refuses one more, where its load is known at once."""
        highest = min(self.threshold, 1.0)
        return max(1, math.ceil((highest - self.base) / self.slope - 1e-9))

    def load(self, calls: float) -> float:
        """From 0 to 1."""
        return min(1.0, self.base + self.slope * calls)


@dataclass(frozen=True)
class ServerModel:
    """livekit-server: a node bids for a call only while one of its available workers has a load below ``target_load``
    (agents.target_load, 0.7 from 1.11 on)."""

    target_load: float = 0.7
