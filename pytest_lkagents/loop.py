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

# What runs there has bounds of its own, all shorter; these keep what never answers from holding up a run.
RUN_SECONDS = 60
CLOSE_SECONDS = 10


class EventLoop:
    """Started at its first use, closed by the stage. ``what`` names its work in errors."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._lock = threading.Lock()
        self._closed = False

    def run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> T:
        """Run a coroutine function there and return its result. Raises StageError if there can be no loop (a machine without
        open files left), if it never ends, or after close."""
        import asyncio

        with self._lock:
            if self._closed:
                raise StageError(f"{self._what} is closed")
            if self._loop is None:
                self._loop = self._start()
            future = asyncio.run_coroutine_threadsafe(function(*arguments), self._loop)
        done, _ = concurrent.futures.wait([future], RUN_SECONDS)
        if not done:
            future.cancel()
            raise StageError(f"{self._what} did not answer within {RUN_SECONDS} s")
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise StageError(f"{self._what} is closed") from None

    def _start(self) -> asyncio.AbstractEventLoop:
        import asyncio

        started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()

        async def stay() -> None:
            self._stop = asyncio.Event()
            started.set_result(asyncio.get_running_loop())
            await self._stop.wait()

        def live() -> None:
            staying = stay()
            try:
                # It ends what is left when the loop is closed.
                asyncio.run(staying)
            except BaseException as error:
                if started.done():
                    raise
                started.set_exception(error)
            finally:
                staying.close()

        # A daemon, so that a loop that hangs ends with the process.
        self._thread = threading.Thread(target=live, name="lk-loop", daemon=True)
        try:
            self._thread.start()
            return started.result()
        except (OSError, RuntimeError) as error:  # no more descriptors, no more threads
            why = getattr(error, "strerror", None) or error
            raise StageError(f"{self._what} cannot be started on this machine: {why}") from error

    def close(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
            self._closed = True
            if loop is None or self._stop is None or self._thread is None:
                return
            loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(CLOSE_SECONDS)
