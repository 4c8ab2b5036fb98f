"""The transcript: every message in order, bounded, and the worker's history derived from it while it is written."""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pytest_lkagents.wire.model import Entry, Question, Registration, Status

T = TypeVar("T")

# Entries. A worker on a one-hour soak with one status per 2.5 s and 1,000 calls writes about 10,000.
MOST_ENTRIES = 100_000
# These go last when the bound is reached: registrations and jobs are derived from them.
ESSENTIAL = frozenset(("register", "registered", "closed", "refused", "question", "answer", "assignment", "termination", "act"))


class Transcript:
    """Safe to read from any thread. What the methods return is a copy."""

    def __init__(self, most: int = MOST_ENTRIES) -> None:
        self.started = time.monotonic()
        self.dropped = 0
        self._most = most
        self._changed = threading.Condition()
        self._version = 0
        self._entries: list[Entry] = []
        self._registers: dict[int, Entry] = {}
        self._registrations: list[Registration] = []
        self._statuses: list[Status] = []
        # By connection, as long as it lives: whether it said last that it is full.
        self._full: dict[int, bool] = {}
        # By connection and job: the server asks for a job on one after the other, and each answers for itself.
        self._questions: dict[tuple[int, str], Question] = {}

    def add(self, entry: Entry, *, passed: bool = True) -> None:
        """``passed`` is False for a server's message that a rule keeps from the worker: so far it changes nothing."""
        with self._changed:
            if entry.kind == "answer":
                self._answered(entry)
            self._entries.append(entry)
            if len(self._entries) > self._most:
                self._thin()
            if passed:
                self._derive(entry, entry.at)
            self._version += 1
            self._changed.notify_all()

    def passed(self, entry: Entry, at: float) -> None:
        """A message that was kept back reached the worker at ``at``."""
        with self._changed:
            self._derive(entry, at)
            self._version += 1
            self._changed.notify_all()

    def _thin(self) -> None:
        # A tenth at once, so that the cost per entry stays constant.
        excess = max(self._most // 10, 1)
        kept: list[Entry] = []
        for entry in self._entries:
            if excess and entry.kind not in ESSENTIAL:
                excess -= 1
            else:
                kept.append(entry)
        kept = kept[excess:]
        self.dropped += len(self._entries) - len(kept)
        self._entries = kept

    def _answered(self, entry: Entry) -> None:
        question = self._questions.get((entry.connection, entry.data.get("job_id", "")))
        if question is not None:
            entry.data["after_s"] = round(entry.at - question.asked, 6)
            if question.probe:
                entry.data["probe"] = True

    def _derive(self, entry: Entry, at: float) -> None:
        data, connection = entry.data, entry.connection
        job = data.get("job") or {}
        if entry.kind == "register":
            self._registers[connection] = entry
        elif entry.kind == "registered":
            self._register(data, connection, at)
        elif entry.kind == "status":
            # The server keeps what was said last where a message leaves it out.
            if "status" in data:
                self._full[connection] = data["status"] == "full"
            full = self._full.get(connection, False)
            self._statuses.append(
                Status(at, float(data.get("load", 0)), full, data.get("job_count"), "status" in data, connection)
            )
            if len(self._statuses) > self._most:
                del self._statuses[: self._most // 10 or 1]
        elif entry.kind == "question":
            # The same job asked about twice on a connection is one question: its answers count from the first time.
            name, room = str(job.get("id", "")), str((job.get("room") or {}).get("name", ""))
            probe = bool(data.get("probe"))
            asked = Question(name, room, str(job.get("agent_name", "")), at, probe=probe, connection=connection)
            self._questions.setdefault((connection, name), asked)
            if len(self._questions) > self._most:
                del self._questions[next(iter(self._questions))]
        elif entry.kind == "answer" and (key := (connection, data.get("job_id", ""))) in self._questions:
            known, yes = self._questions[key], bool(data.get("available"))
            terminated = known.terminated or (not yes and bool(data.get("terminate")))
            self._questions[key] = replace(known, answers=(*known.answers, (at, yes)), terminated=terminated)
        elif entry.kind == "assignment" and (key := (connection, job.get("id", ""))) in self._questions:
            known = self._questions[key]
            self._questions[key] = replace(known, assigned=at if known.assigned is None else known.assigned)
        elif entry.kind == "closed":
            self._close(connection, at)

    def _register(self, data: dict[str, Any], connection: int, at: float) -> None:
        self._end(connection, at)
        asked = self._registers[connection].data if connection in self._registers else {}
        self._registrations.append(
            Registration(
                worker_id=str(data.get("worker_id", "")),
                agent_name=str(asked.get("agent_name", "")),
                sdk_version=str(asked.get("version", "")),
                namespace=str(asked.get("namespace", "")),
                registered=at,
                closed=None,
                connection=connection,
                server_version=str((data.get("server_info") or {}).get("version", "")),
                hidden=bool((asked.get("allowed_permissions") or {}).get("hidden")),
                deployment=str(asked.get("deployment", "")),
            )
        )

    def _close(self, connection: int, at: float) -> None:
        self._registers.pop(connection, None)
        self._full.pop(connection, None)
        self._end(connection, at)

    def _end(self, connection: int, at: float) -> None:
        for index in range(len(self._registrations) - 1, -1, -1):
            known = self._registrations[index]
            if known.connection == connection and known.closed is None:
                self._registrations[index] = replace(known, closed=at)
                return

    def register_of(self, connection: int) -> dict[str, Any]:
        """The data of the register message of a live connection, {} if it sent none."""
        with self._changed:
            found = self._registers.get(connection)
            return dict(found.data) if found else {}

    def _since(self, items: list[Any], since: float) -> list[Any]:
        return items[bisect_left(items, since, key=lambda item: item.at) :] if since else list(items)

    def entries(self, *kinds: str, source: str | None = None, since: float = 0.0) -> list[Entry]:
        """Entries of these kinds (none given: all), at or after ``since``."""
        with self._changed:
            found = self._since(self._entries, since)
        if not kinds and source is None:
            return found
        return [entry for entry in found if (not kinds or entry.kind in kinds) and source in (None, entry.source)]

    def wait(self, predicate: Callable[[Transcript], T | None], seconds: float) -> T | None:
        """The first truthy value of ``predicate``, which is asked at once and after every new entry; else None."""
        deadline = time.monotonic() + seconds
        while True:
            with self._changed:
                version = self._version
            # Without the lock: a slow predicate must not keep the tap from writing.
            value = predicate(self)
            if value:
                return value
            with self._changed:
                while self._version == version:
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._changed.wait(left):
                        if self._version == version:
                            return None
                        break

    def registrations(self) -> list[Registration]:
        with self._changed:
            return list(self._registrations)

    def live(self) -> list[Registration]:
        return [known for known in self.registrations() if known.closed is None]

    def statuses(self, since: float = 0.0) -> list[Status]:
        with self._changed:
            return self._since(self._statuses, since)

    def latest_status(self, since: float = 0.0) -> Status | None:
        """The newest one, if it came at or after ``since``."""
        found = self.statuses(since)
        return found[-1] if found else None

    def answers(self, since: float = 0.0) -> list[bool | None]:
        """What was said first to each of the server's own questions that were asked at or after ``since``; None: nothing."""
        return [asked.available for asked in self.questions(since) if not asked.probe]

    def ended_by(self, connection: int, at: float) -> bool:
        """Whether a registration on this connection had ended by then (monotonic seconds)."""
        return any(
            known.connection == connection and known.closed is not None and known.closed < at for known in self.registrations()
        )

    def says_full(self, connection: int) -> bool:
        """Whether its last status on this connection was "full"."""
        with self._changed:
            return self._full.get(connection, False)

    def questions(self, since: float = 0.0) -> list[Question]:
        """Questions asked at or after ``since``, in the order in which they were asked."""
        with self._changed:
            return [question for question in self._questions.values() if question.asked >= since]

    def lines(self, since: float = 0.0, last: int | None = None, kinds: tuple[str, ...] = ()) -> list[str]:
        """Readable lines, times in seconds after ``since`` (else after the start); only the ``last`` ones if given."""
        found = self.entries(*kinds, since=since)
        chosen = found if last is None else found[len(found) - min(last, len(found)) :]
        return [entry.line(since or self.started) for entry in chosen]

    def write(self, path: Path | str, shown: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> None:
        """JSON lines, one per entry; ``at`` in seconds after the start. If entries had to go, the first line says so.
        ``shown``: what may be shown of an entry's data."""
        lines = []
        found = self.entries()
        if self.dropped:
            lines.append(json.dumps({"at": 0.0, "kind": "dropped", "count": self.dropped}))
        for entry in found:
            head = {"at": round(entry.at - self.started, 6), "connection": entry.connection, "source": entry.source}
            lines.append(json.dumps({**head, "kind": entry.kind, "size": entry.size, "data": shown(entry.data)}))
        Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
