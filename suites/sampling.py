"""What a worker uses while so many calls are in progress, read every so many seconds."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

from pytest_lkagents.checks import StageError, WorkerFault
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.usage import Usage

from .quality import Quality

# A worker at rest, measured before the first call.
REST_SECONDS = 4.0
SAMPLE_SECONDS = 0.5


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _rounded(value) if isinstance(value, dict) else round(value, 3) if isinstance(value, float) else value
        for name, value in values.items()
    }


@dataclass(frozen=True)
class Level:
    """Means and peaks over a stretch of time with so many sessions. Cores and bytes of the whole worker."""

    sessions: int
    cores: float
    cores_peak: float
    memory_bytes: int
    memory_peak_bytes: int
    quality: Quality | None = None

    def evidence(self) -> dict[str, Any]:
        return _rounded(asdict(self))


class Sampler:
    """Reads a worker's usage every so many seconds while it is entered."""

    def __init__(self, worker: Worker, every: float = SAMPLE_SECONDS) -> None:
        self._worker, self._every = worker, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lk-usage", daemon=True)
        self.seen: list[Usage] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self.seen.append(self._worker.usage())
            except (WorkerFault, StageError):
                return  # it ended, which others notice
            self._over.wait(self._every)

    def level(self, sessions: int, since: float, quality: Quality | None = None) -> Level:
        """Over the time since then. Raises WorkerFault if the worker was gone."""
        seen = [usage for usage in self.seen if usage.at >= since]
        if len(seen) < 3:
            raise StageError("the worker's usage cannot be read") if self._worker.is_running else self._worker.ended()
        # Peaks over a second: shorter ones are how the scheduler deals out time.
        pairs = list(zip(seen, seen[2:], strict=False))
        cores = (seen[-1].cpu_s - seen[0].cpu_s) / (seen[-1].at - seen[0].at)
        peak = max((later.cpu_s - usage.cpu_s) / (later.at - usage.at) for usage, later in pairs)
        memory = [usage.memory_bytes for usage in seen]
        return Level(sessions, cores, max(peak, cores), sum(memory) // len(memory), max(memory), quality)

    def cores_used(self, since: float, until: float) -> float:
        """By the worker between two moments (monotonic seconds), on average, as far as it was read."""
        seen = [usage for usage in self.seen if since - self._every <= usage.at <= until + self._every]
        return (seen[-1].cpu_s - seen[0].cpu_s) / (seen[-1].at - seen[0].at) if len(seen) > 1 else 0.0

    def series(self) -> list[list[float]]:
        """Of every other reading: seconds since the first one, cores since the one before, bytes."""
        if not self.seen:
            return []
        kept = self.seen[::2]
        return [
            [round(now.at - self.seen[0].at, 1), round((now.cpu_s - last.cpu_s) / (now.at - last.at), 3), now.memory_bytes]
            for last, now in itertools.pairwise(kept)
        ]


def rest(sampler: Sampler) -> Level:
    began = time.monotonic()
    time.sleep(REST_SECONDS)
    return sampler.level(0, began)
