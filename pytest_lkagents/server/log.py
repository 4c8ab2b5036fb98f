"""The last lines that a server of ours wrote, for messages about a server that does not start."""

from __future__ import annotations

import threading
from collections import deque

LINES = 20


class ServerLog:
    """Fed with the server's output, in any pieces; safe to read from other threads."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES)
        self._rest = b""
        self._lock = threading.Lock()

    def feed(self, data: bytes) -> None:
        with self._lock:
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._lines.extend(line.decode("utf-8", "replace") for line in lines)

    @property
    def tail(self) -> list[str]:
        with self._lock:
            return list(self._lines)
