"""This machine's memory: whether there is room for one more worker, and whom the kernel killed for want of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import psutil

from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.worker.base import Worker

# What callers, servers and the system need beside the workers.
SPARE_BYTES = 500_000_000
# Workers end when they were judged; some are there to the end, so that waiting may be in vain.
ROOM_SECONDS = 60.0
LOOK_SECONDS = 0.5


class Memory:
    """``workers`` are those of the run; ``look`` is to be called regularly."""

    def __init__(self, workers: Callable[[], Sequence[Worker]], raise_if_closing: Callable[[], None]) -> None:
        self._workers, self._raise_if_closing = workers, raise_if_closing
        # Bytes of the largest worker so far that had no call yet.
        self._largest = 0
        self._starting = 0
        self._in_vain = False
        self._lock = threading.Lock()

    def look(self) -> None:
        for worker in self._workers():
            used = worker.look_at_memory()
            if used > self._largest and not worker.wire.transcript.answers():
                self._largest = used

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """Entered once one more worker fits beside those that run and those that start, or after a minute (at once, if the last
        one waited in vain): it may fit yet. To be left when it has started."""
        seconds = LOOK_SECONDS if self._in_vain else ROOM_SECONDS
        try:
            poll(self._fits, what="memory for one more worker", seconds=seconds, every=LOOK_SECONDS)
            self._in_vain = False
        except DeadlineMissed:
            self._in_vain = True
        with self._lock:
            self._starting += 1
        try:
            yield
        finally:
            with self._lock:
                self._starting -= 1

    def _fits(self) -> bool:
        self._raise_if_closing()
        if not self._largest:
            return True
        return psutil.virtual_memory().available > (self._starting + 1) * self._largest + SPARE_BYTES


def why_killed(workers: Iterable[Worker]) -> str | None:
    """That the kernel killed processes of one of these, which no limit of ours took memory from, in words; None: of none."""
    killed = next((worker for worker in workers if worker.killed), None)
    if killed is None:
        return None
    many = f"{killed.killed} processes" if killed.killed > 1 else "a process"
    return f"this machine is out of memory: the kernel killed {many} of worker {killed.name}; --lk-memory sets a limit"
