"""The load from which on a worker says that it is full, looked for with its CPU burnt."""

from __future__ import annotations

import time

from pytest_lkagents.checks import StageError
from pytest_lkagents.worker.base import Worker

from .load import next_status
from .placed import wait_free
from .reports import REPORT_SECONDS

# Two updates at the SDKs' pace, after the seconds over which they average.
SETTLE_SECONDS = 6
STEPS = 6


def by_halves(worker: Worker) -> list[tuple[float, bool]]:
    """(load, full) at several degrees of CPU load, halving the interval in which the threshold lies."""
    low, high = 0.3, 1.0
    points: list[tuple[float, bool]] = []
    for _ in range(STEPS):
        share = (low + high) / 2
        wait_free(worker)
        with worker.burn(share):
            began = time.monotonic()
            settled = next_status(worker, began + SETTLE_SECONDS, SETTLE_SECONDS + REPORT_SECONDS)
        if settled is None:
            raise StageError("no status came while the threshold was looked for")
        points.append((round(settled.load, 3), settled.full))
        low, high = (low, share) if settled.full else (share, high)
    return points
