"""One event loop in a background thread, so that suites and users' tests are plain functions."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, TypeVar

from pytest_lkagents.checks import StageError

T = TypeVar("T")

# What runs there has bounds of its own, all shorter; these keep a library that never answers from holding up a run.
RUN_SECONDS = 60
CLOSE_SECONDS = 10


class EventLoop:
    """Started at its first use, closed by the stage. ``what`` names its work in errors."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._stack = ExitStack()
        self._portal: Any = None
        self._lock = threading.Lock()
        self._closed = False

    def run(self, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Run a coroutine function there and return its result. Raises StageError if it never ends, or after close."""
        with self._lock:
            if self._closed:
                raise StageError(f"{self._what} is closed")
            if self._portal is None:
                from anyio.from_thread import start_blocking_portal

                self._portal = self._stack.enter_context(start_blocking_portal("asyncio"))
            future = self._portal.start_task_soon(function, *arguments)
        done, _ = concurrent.futures.wait([future], RUN_SECONDS)
        if not done:
            future.cancel()
            raise StageError(f"{self._what} did not answer within {RUN_SECONDS} s")
        result: T = future.result()
        return result

    def close(self) -> None:
        with self._lock:
            portal, self._portal = self._portal, None
            self._closed = True
        if portal is not None:
            closing = threading.Thread(target=self._stack.close, daemon=True)
            closing.start()
            closing.join(CLOSE_SECONDS)
