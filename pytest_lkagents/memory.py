"""This machine's memory: whether there is room for one more worker, and whom the kernel killed for want of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence

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
        # Bytes of the largest worker so far.
        self._largest = 0

    def look(self) -> None:
        for worker in self._workers():
            self._largest = max(self._largest, worker.look_at_memory())

    def wait_for_room(self) -> None:
        """Until one more worker fits beside those that run and those that start, or for a minute: it may fit yet."""

        def fits() -> bool:
            self._raise_if_closing()
            starting = sum(worker.is_running and not worker.wire.transcript.registrations() for worker in self._workers())
            return psutil.virtual_memory().available > (starting + 1) * self._largest + SPARE_BYTES

        if self._largest:
            with contextlib.suppress(DeadlineMissed):
                poll(fits, what="memory for one more worker", seconds=ROOM_SECONDS, every=LOOK_SECONDS)


def why_killed(workers: Iterable[Worker]) -> str | None:
    """That the kernel killed processes of one of these, which no limit of ours took memory from, in words; None: of none."""
    killed = next((worker for worker in workers if worker.killed), None)
    if killed is None:
        return None
    many = f"{killed.killed} processes" if killed.killed > 1 else "a process"
    return f"this machine is out of memory: the kernel killed {many} of worker {killed.name}; --lk-memory sets a limit"
