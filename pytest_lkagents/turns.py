"""Turns: workers that share this machine's ports, or somebody else's server, run one at a time, and are started again when they
are needed again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from pytest_lkagents.checks import NotJudgeable, WorkerFault
from pytest_lkagents.roles import ROLES, name_of
from pytest_lkagents.worker.base import Worker


class Turns:
    """In place of Starts. ``prepare(role, name)`` starts a worker and returns it ready; ``running()`` lists those that run;
    ``leave`` is told of each that gives way to another role's. ``share_ports``: two of them may not be able to run side by
    side."""

    takes_turns = True

    def __init__(
        self,
        prepare: Callable[[str, str], Worker],
        running: Callable[[], Sequence[Worker]],
        leave: Callable[[Worker], None],
        *,
        share_ports: bool = True,
    ) -> None:
        self._prepare, self._running, self._leave = prepare, running, leave
        self._outcomes: dict[str, Worker | Exception] = {}
        self._left: set[Worker] = set()
        self._counts: dict[str, int] = {}
        self._share_ports = share_ports
        self._alone_only: str | None = None
        self._lock = threading.RLock()

    def warm(self, roles: Iterable[str]) -> None:
        """Each starts when it is needed."""

    def when_ready(self, role: str, begin: Callable[[], object]) -> None:
        """Call ``begin``: nobody takes over another role's worker."""
        begin()

    def release(self, role: str, *, in_order: bool) -> None:
        """Nobody waits for it."""

    def had_before(self, role: str) -> list[str]:
        """No role."""
        return []

    def worker(self, role: str) -> Worker:
        """The role's worker, ready; raises what its first start raised. One that had to give way is started again."""
        with self._lock:
            outcome = self._outcomes.get(role)
            if outcome is None or outcome in self._left:
                outcome = self._start(role)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    def renew(self, role: str) -> Worker:
        """Another worker in place of one that has ended."""
        with self._lock:
            self._outcomes.pop(role, None)
            return self.worker(role)

    def of(self, role: str) -> Worker | None:
        """The role's worker if one was started and got ready, even if it has ended."""
        outcome = self._outcomes.get(role)
        return outcome if isinstance(outcome, Worker) else None

    def _start(self, role: str) -> Worker | Exception:
        beside = ROLES[role].beside
        first = self.worker(beside) if beside is not None else None
        if first is not None and self._alone_only is not None:
            raise NotJudgeable(self._alone_only)
        self._make_way(first)
        self._counts[role] = number = self._counts.get(role, 0) + 1
        outcome: Worker | Exception
        try:
            outcome = self._prepare(role, name_of(role, number))
        except Exception as error:
            outcome = error
        if first is not None and self._share_ports:
            self._alone_only = self._collision(first, outcome)
            if self._alone_only is not None:
                self._make_way(first)
                outcome = NotJudgeable(self._alone_only)
        self._outcomes[role] = outcome
        return outcome

    def _make_way(self, first: Worker | None) -> None:
        """Let everything but ``first`` give way."""
        for running in self._running():
            if running is not first:
                self._leave(running)
                self._left.add(running)

    def _collision(self, first: Worker, second: Worker | Exception) -> str | None:
        """Why two cannot run side by side: the second exits, or does without a port, while the first one runs. That it
        runs alone is shown by the first one, which is started by the same command."""
        ports = _ports(first)
        where = f"port {', '.join(map(str, sorted(ports)))} is taken by the first" if ports else "the second one exits"
        why = f"two workers cannot run side by side here: {where}; give --lk-image"
        if isinstance(second, WorkerFault):
            return why
        # One that goes without its port, or shares the first one's, cannot be told from the first by its health.
        if not isinstance(second, Exception) and (len(_ports(second)) < len(ports) or _ports(second) & ports):
            return why
        return None


def _ports(worker: Worker) -> set[int]:
    return {found.port for found in worker.listeners() if found.protocol == "tcp"}
