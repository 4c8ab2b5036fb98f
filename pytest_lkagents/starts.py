"""Starts ahead: workers that run side by side, each begun in the background before the checks need it; some take over another
role's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Protocol

from pytest_lkagents.roles import ROLES, name_of
from pytest_lkagents.worker.base import Worker


class Start(Protocol):
    def __call__(self, begin: Callable[[str, str], Worker], role: str, name: str, /) -> Future[Worker]:
        """Has ``begin(role, name)`` called in the background."""


class Starts:
    """``prepare(role, name)`` starts a worker and returns it ready, ``start`` has that done in the background; ``took_over`` is
    told of each role that is given another role's worker. What workers that take turns have in its place is Turns."""

    takes_turns = False

    def __init__(self, prepare: Callable[[str, str], Worker], start: Start, took_over: Callable[[str, Worker], object]) -> None:
        self._prepare, self._start, self._took_over = prepare, start, took_over
        self._futures: dict[str, Future[Worker]] = {}
        self._counts: dict[str, int] = {}
        # Roles that wait for another role's worker, and what is to begin when they have it.
        self._waiting: dict[str, list[Callable[[], object]]] = {}
        # Roles whose worker another role had before, and that role.
        self._taken_over: dict[str, str] = {}
        self._lock = threading.RLock()

    def warm(self, roles: Iterable[str]) -> None:
        """Start the workers of these roles; those that take another role's worker over have to wait for it."""
        wanted = set(roles)
        for role in (name for name in ROLES if name in wanted):
            if ROLES[role].after in wanted:
                self._waiting[role] = []
            else:
                self._future(role)

    def when_ready(self, role: str, begin: Callable[[], object]) -> None:
        """Call ``begin`` now, or as soon as the role whose worker this one takes over is released."""
        if role in self._waiting:
            self._waiting[role].append(begin)
        else:
            begin()

    def release(self, role: str, *, in_order: bool) -> None:
        """Nobody needs this role's worker any more. ``in_order``: nothing was found wrong with it, and others may use it."""
        heir = next((name for name in self._waiting if ROLES[name].after == role), None)
        if heir is None:
            return
        begin = self._waiting.pop(heir)
        worker = self.of(role) if in_order else None
        if worker is not None and worker.is_running and worker.wire.transcript.live():
            with self._lock:
                if heir not in self._futures:
                    self._futures[heir] = self._futures[role]
                    self._taken_over[heir] = role
                    self._took_over(heir, worker)
        for callback in begin:
            callback()

    def had_before(self, role: str) -> list[str]:
        """The roles that this role's worker had before, the last one first."""
        before = self._taken_over.get(role)
        return [] if before is None else [before, *self.had_before(before)]

    def worker(self, role: str) -> Worker:
        """The role's worker, ready; raises what its start raised."""
        return self._future(role).result()

    def renew(self, role: str) -> Worker:
        """Another worker in place of one that has ended."""
        with self._lock:
            self._taken_over.pop(role, None)
            self._begin(role)
        return self.worker(role)

    def of(self, role: str) -> Worker | None:
        """The role's worker if one was started and got ready, even if it has ended."""
        future = self._futures.get(role)
        ready = future is not None and future.done() and not future.cancelled() and not future.exception()
        return future.result() if future is not None and ready else None

    def _future(self, role: str) -> Future[Worker]:
        with self._lock:
            if role not in self._futures:
                beside = ROLES[role].beside
                if beside is not None:
                    self._future(beside)  # first in the queue, so that waiting for it cannot block it
                self._begin(role)
            return self._futures[role]

    def _begin(self, role: str) -> None:
        self._counts[role] = number = self._counts.get(role, 0) + 1
        self._futures[role] = self._start(self._prepare, role, name_of(role, number))
