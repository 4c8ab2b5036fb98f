"""One event loop in a background thread, so that suites and users' tests are plain functions."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_lkagents.checks import StageError

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

# What runs there has bounds of its own, all shorter; these keep a library that never answers from holding up a run.
RUN_SECONDS = 60
CLOSE_SECONDS = 10
# A loop that does not get to its next step in this time is held by a call that does not return.
STEP_SECONDS = 10


class EventLoop:
    """Started at its first use, closed by the stage. ``what`` names its work in errors."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._hangs = False

    def run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> T:
        """Run a coroutine function there and return its result. Raises StageError if it never ends, at once if one before
        it has hung up the loop for good, or after close."""
        import asyncio

        with self._lock:
            if self._closed:
                raise StageError(f"{self._what} is closed")
            if self._hangs:
                raise StageError(self._hung)
            if self._loop is None:
                self._loop = self._start()
            loop = self._loop
            future = asyncio.run_coroutine_threadsafe(function(*arguments), loop)
        # Nothing here waits for the loop but with a limit: a native library may hold it for ever.
        done, _ = concurrent.futures.wait([future], RUN_SECONDS)
        if not done:
            future.cancel()
            stepped = threading.Event()
            loop.call_soon_threadsafe(stepped.set)
            if not stepped.wait(STEP_SECONDS):
                self._hangs = True
                raise StageError(self._hung)
            raise StageError(f"{self._what} did not answer within {RUN_SECONDS} s")
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise StageError(f"{self._what} is closed") from None

    @property
    def _hung(self) -> str:
        return f"{self._what} hangs, nothing more can be judged in this run: run again"

    def _start(self) -> asyncio.AbstractEventLoop:
        import asyncio

        started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()

        async def stay() -> None:
            self._stop = asyncio.Event()
            started.set_result(asyncio.get_running_loop())
            await self._stop.wait()

        # ``asyncio.run`` ends what is left when the loop is closed. A daemon, so that a loop that hangs ends with the process.
        self._thread = threading.Thread(target=lambda: asyncio.run(stay()), name="lk-loop", daemon=True)
        self._thread.start()
        return started.result()

    def close(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
            self._closed = True
            if loop is None or self._stop is None or self._thread is None:
                return
            loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(0 if self._hangs else CLOSE_SECONDS)
