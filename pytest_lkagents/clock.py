"""Waiting for events with a deadline, and the ledger of waits from which the floor of a run is computed."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class DeadlineMissed(Exception):
    """An awaited event did not come in time. Who is to blame is decided by the caller."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what}: not within {seconds:g} s")
        self.what = what
        self.seconds = seconds


class Ledger:
    """Seconds spent on waits that no faster tool could avoid, by chain (one worker's life is one chain).

    Waits of one chain follow each other, chains run side by side: the longest chain is the floor of the wall time.
    """

    def __init__(self) -> None:
        self._chains: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def waiting(self, chain: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._chains[chain] += time.monotonic() - started

    def floor(self) -> float:
        """Seconds of the longest chain; 0.0 when nothing was awaited."""
        with self._lock:
            return max(self._chains.values(), default=0.0)


def poll(probe: Callable[[], T | None], *, what: str, seconds: float, every: float = 0.1) -> T:
    """Return the first value of ``probe`` that is neither None nor False.

    Raises DeadlineMissed after ``seconds``. ``every`` is the pause between two probes, in seconds.
    """
    from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay
    from tenacity.wait import wait_fixed

    # An exception of the probe is not retried: it passes through.
    trying = Retrying(
        retry=retry_if_result(lambda value: value is None or value is False),
        stop=stop_after_delay(seconds),
        wait=wait_fixed(min(every, seconds)),
    )
    try:
        value = trying(probe)
    except RetryError:
        raise DeadlineMissed(what, seconds) from None
    assert value is not None
    return value


def holds(probe: Callable[[], bool], *, seconds: float, every: float = 0.2) -> bool:
    """True if ``probe`` stays true for ``seconds``; returns at the first false."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not probe():
            return False
        time.sleep(every)
    return probe()
