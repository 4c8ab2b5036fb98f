"""The callers' media library, in a process of its own: see media_process.py for what it does there.

A light process is not kept from running by what else this session does, as the library would be in the midst of it; and
where the library hangs or aborts, its calls are lost and nothing else.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_lkagents.callers import child
from pytest_lkagents.callers.place import HERE, Place
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, poll

if TYPE_CHECKING:
    from pytest_lkagents.callers.caller import Call

# What is asked for has bounds of its own there, all shorter.
ANSWER_SECONDS = 60


class Media:
    """Its process starts when it is told to or first needed, and anew after one was lost; ``find_place`` then says where, once.
    Close it; it also ends with this process."""

    def __init__(self, find_place: Callable[[], Place] = lambda: HERE) -> None:
        self._find_place = find_place
        self._place: Place | None = None
        self._process: child.Child | None = None
        self._reader: threading.Thread | None = None
        # The calls of this process, by their numbers; empty when it has ended.
        self._calls: dict[int, Call] = {}
        self._last = 0
        self._lock = threading.Lock()
        self._closed = False

    def start(self) -> None:
        """Have it at hand for the first call. Raises StageError after close, or if there is no place for it."""
        with self._lock:
            self._running()

    @property
    def place(self) -> Place:
        """Where callers are. Raises StageError."""
        with self._lock:
            return self._where()

    def _where(self) -> Place:
        if self._place is None:
            self._place = self._find_place()
        return self._place

    def _running(self) -> child.Child:
        if self._closed:
            raise StageError("the callers' media library is closed")
        if self._process is None or self._process.poll() is not None:
            # In production users do not wait for the worker's machine, and what they do is little.
            self._process = child.start("media_process", self._where(), before_others=True)
            self._calls = {}
            self._reader = threading.Thread(target=_read, args=(self._process, self._calls), name="lk-media", daemon=True)
            self._reader.start()
        return self._process

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def join(self, call: Call, url: str, token: str) -> None:
        """Connect the call, and speak. Raises StageError if the server does not let it in."""
        with self._lock:
            process = self._running()
            calls = self._calls
            self._last += 1
            call.number = number = self._last
            calls[number] = call
            _ask(process, join=number, url=url, token=token)
        _wait(process, lambda: call.connected or call.failed is not None or number not in calls)
        if not call.connected:
            calls.pop(number, None)
            raise StageError(f"a caller cannot {call.failed or f'call: its process {process.ended}'}")

    def leave(self, call: Call) -> None:
        """Hang up, and wait until that is done; no error where the process is gone. Raises StageError if it does not answer."""
        with self._lock:
            process, calls = self._process, self._calls
            if process is None or calls.get(call.number) is not call:
                return
            _ask(process, leave=call.number)
        try:
            _wait(process, lambda: call.over or call.number not in calls)
        finally:
            calls.pop(call.number, None)

    def close(self) -> None:
        """End it, and all its calls."""
        with self._lock:
            self._closed = True
            process, reader = self._process, self._reader
        if process is not None:
            child.end(process)
        if reader is not None:
            reader.join(child.END_SECONDS)


def _ask(process: child.Child, **request: Any) -> None:
    # That it has ended is noticed where its answer is awaited.
    with contextlib.suppress(OSError, ValueError):
        child.ask(process, **request)


def _wait(process: child.Child, answered: Callable[[], bool]) -> None:
    """Until it has answered. One that never does is ended, as all its calls are lost. Raises StageError then."""
    try:
        poll(answered, what="answer", seconds=ANSWER_SECONDS, every=0.02)
    except DeadlineMissed as missed:
        process.kill()
        process.wait()
        raise StageError(f"the callers' media library did not answer within {ANSWER_SECONDS} s") from missed


def _read(process: child.Child, calls: dict[int, Call]) -> None:
    for event in process.events():
        with contextlib.suppress(ValueError, KeyError):
            if (call := calls.get(event["call"])) is not None:
                call.note(event)
    process.wait()
    with contextlib.suppress(OSError, ValueError):
        if process.stdin is not None:
            process.stdin.close()
    for call in list(calls.values()):
        call.disconnected = time.monotonic()
    calls.clear()
