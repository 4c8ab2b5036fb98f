"""What our own server says about workers, from its JSON log.

livekit-server has no API that lists workers; its log is the only place that shows a registration
(messages "worker registered" and "closing worker", v1.5 and later).
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass


@dataclass
class Registration:
    """One registered worker connection. Times are monotonic seconds of this process, ``closed`` None while it lives."""

    worker_id: str
    agent_name: str
    registered: float
    closed: float | None = None
    sdk_version: str | None = None


class ServerLog:
    """Fed with the server's output, in any pieces; safe to read from other threads."""

    def __init__(self) -> None:
        self._registrations: list[Registration] = []
        self._rest = b""
        self._lock = threading.Lock()
        self.tail: list[str] = []

    def feed(self, data: bytes) -> None:
        with self._lock:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._line(line.decode("utf-8", "replace"))

    def _line(self, line: str) -> None:
        self.tail = [*self.tail[-19:], line]
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if not isinstance(entry, dict):
            return
        message, worker_id = entry.get("msg"), str(entry.get("workerID", ""))
        if message == "worker registered":
            self._registrations.append(Registration(worker_id, str(entry.get("agentName", "")), self._when(entry)))
        elif message in ("closing worker", "worker deregistered", "last worker deregistered"):
            for known in self._registrations:
                if known.worker_id == worker_id:
                    known.closed = known.closed or self._when(entry)
                    known.sdk_version = entry.get("version") or known.sdk_version

    @staticmethod
    def _when(entry: dict[str, object]) -> float:
        stamp = entry.get("ts")
        age = time.time() - stamp if isinstance(stamp, float) else 0.0
        return time.monotonic() - max(age, 0.0)

    def server_stopped(self) -> None:
        """A server that is gone has no workers, whatever it managed to write."""
        with self._lock:
            for known in self._registrations:
                known.closed = known.closed or time.monotonic()

    def registrations(self) -> list[Registration]:
        with self._lock:
            return list(self._registrations)

    def live(self) -> list[Registration]:
        return [known for known in self.registrations() if known.closed is None]
