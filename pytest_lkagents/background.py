"""What goes on beside the checks: starts of workers, observations that mostly wait, and who has the machine for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from pytest_lkagents import limits
from pytest_lkagents.busyness import is_calm
from pytest_lkagents.cache import cache_dir
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, poll

T = TypeVar("T")

# Observations that mostly wait run beside the checks, this many at a time: as many as the profile core has, of which some only
# wait for their worker.
OBSERVERS = 6
# Two workers start at a time: each needs a core for some seconds, and the checks that run meanwhile need one too.
STARTERS = 2
# Whoever has the machine alone may have it for a climb of 240 s, and what comes before and after; the contents of a large image
# are read for minutes; every start has a deadline of its own.
TURN_SECONDS = 600
# For observations that merely watch, where nothing at all is to be under way; a call may be held for an hour.
QUIET_SECONDS = 120
# The load average of a minute falls to two fifths in this time.
CALM_SECONDS = 60


class Background:
    """``elsewhere`` lists what else of this run uses CPU in the background."""

    def __init__(self, elsewhere: Callable[[], Iterable[Future[Any]]]) -> None:
        self._elsewhere = elsewhere
        self._starters = ThreadPoolExecutor(STARTERS, thread_name_prefix="lk-start")
        self._observers = ThreadPoolExecutor(OBSERVERS, thread_name_prefix="lk-observe")
        self._starts: list[Future[Any]] = []
        self._observed: list[Future[Any]] = []
        # Done when an observation is over, or merely watches; ``_mine.calm`` is that of the observation in this thread.
        self._calm: list[Future[None]] = []
        self._mine = threading.local()
        # A check that is tried again may ask for it a second time.
        self._alone = FileLock(str(cache_dir() / "load.lock"))
        self._cancelled = False
        self._lock = threading.Lock()

    def start(self, begin: Callable[..., T], *arguments: object) -> Future[T]:
        """Call ``begin`` when those before it have been started. Raises StageError after ``cancel``."""
        with self._lock:
            self._raise_if_cancelled()
            future = self._starters.submit(begin, *arguments)
            self._starts.append(future)
            return future

    def observe(self, observe: Callable[[], T]) -> Future[T]:
        """Begin an observation that mostly waits; checks which burn CPU wait until it is over, or merely watches.
        Raises StageError after ``cancel``."""
        calm: Future[None] = Future()

        def observed() -> T:
            self._mine.calm = calm
            try:
                return observe()
            finally:
                self.merely_watches()

        with self._lock:
            self._raise_if_cancelled()
            future = self._observers.submit(observed)
            self._observed.append(future)
            self._calm.append(calm)
            return future

    def merely_watches(self) -> None:
        """An observation says that from now on it needs next to no CPU, and that a core burnt by others does no harm."""
        calm: Future[None] | None = getattr(self._mine, "calm", None)
        if calm is not None and not calm.done():
            calm.set_result(None)

    @contextmanager
    def alone_on_the_machine(self, *, beside_watches: bool = False) -> Iterator[None]:
        """A context for what burns CPU and measures it: nothing of our own starts or reads in the background, and
        sessions side by side take turns. Observations that merely watch may go on: at once with ``beside_watches``, else
        after two minutes. The wait for it does not count for a check's time limit. Raises StageError if the turn never
        comes."""
        with limits.paused():
            try:
                self._alone.acquire(timeout=TURN_SECONDS)
            except Timeout:
                raise StageError("this machine is too busy to judge: another session loads it all the time") from None
        try:
            with limits.paused():
                self._wait_for_ours(beside_watches)
            yield
        finally:
            self._alone.release()

    def _wait_for_ours(self, beside_watches: bool) -> None:
        with self._lock:
            busy, watching = [*self._starts, *self._calm, *self._elsewhere()], list(self._observed)
        if wait(busy, timeout=TURN_SECONDS).not_done:
            raise StageError(f"this machine is too busy to judge: what this run began is not over after {TURN_SECONDS} s")
        if not beside_watches:
            wait(watching, timeout=QUIET_SECONDS)

    @contextmanager
    def in_peace(self) -> Iterator[None]:
        """A context for a second look at what may have had another cause than the worker. Raises StageError as above."""
        with self.alone_on_the_machine():
            with suppress(DeadlineMissed):
                poll(is_calm, what="calm", seconds=CALM_SECONDS, every=1)
            yield

    def cancel(self) -> None:
        """Begin nothing more."""
        with self._lock:
            self._cancelled = True
        self._starters.shutdown(wait=False, cancel_futures=True)
        self._observers.shutdown(wait=False, cancel_futures=True)

    def is_over(self, seconds: float) -> bool:
        """Whether everything that has begun is over by then."""
        # A future that was cancelled before anybody took it up is done, but would be waited for.
        with self._lock:
            under_way = [future for future in (*self._starts, *self._observed) if not future.done()]
        return not wait(under_way, timeout=seconds).not_done

    def _raise_if_cancelled(self) -> None:
        if self._cancelled:
            raise StageError("the stage is closing")
