"""One event loop in a background thread, so that suites and users' tests are plain functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, TypeVar

T = TypeVar("T")


class EventLoop:
    """Started at its first use, closed by the stage."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._portal: Any = None

    def run(self, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Run a coroutine function there and return its result."""
        if self._portal is None:
            from anyio.from_thread import start_blocking_portal

            self._portal = self._stack.enter_context(start_blocking_portal("asyncio"))
        result: T = self._portal.call(function, *arguments)
        return result

    def close(self) -> None:
        portal, self._portal = self._portal, None
        if portal is not None:
            self._stack.close()
