"""What stands on the stage: each worker is made with a tap of its own, and mostly with a server of its own.

Workers of one server share its dispatch pool (the agent name is the only divider), so a call meant for one could be served by
another; a server costs half a second and 60 MB, a wrong verdict more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from urllib.parse import urlsplit

from pytest_lkagents.checks import StageError, WorkerFault
from pytest_lkagents.clock import Ledger
from pytest_lkagents.loop import EventLoop
from pytest_lkagents.memory import Memory
from pytest_lkagents.roles import ROLES, Role
from pytest_lkagents.secrets import Redactor, looks_secret
from pytest_lkagents.server.base import Server
from pytest_lkagents.server.choose import make_server
from pytest_lkagents.session import Session
from pytest_lkagents.settings import Settings
from pytest_lkagents.wire.tap import Tap
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.command import CommandWorker
from pytest_lkagents.worker.image import ImageWorker


class Workshop:
    """``session`` is this run's, once it is open; ``ready`` returns the worker of a role, for one that is to be beside it;
    ``raise_if_closing`` raises StageError once the run is being ended. What is made here the stage closes."""

    def __init__(
        self,
        settings: Settings,
        redactor: Redactor,
        ledger: Ledger,
        *,
        session: Callable[[], Session],
        ready: Callable[[str], Worker],
        raise_if_closing: Callable[[], None],
    ) -> None:
        self._settings, self._redactor, self._ledger = settings, redactor, ledger
        self._session, self._ready, self._raise_if_closing = session, ready, raise_if_closing
        self.memory = Memory(self.workers, raise_if_closing)
        self.wire_loop = EventLoop("the tap")
        self.servers: list[Server] = []
        self.taps: list[Tap] = []
        # All that were made, those too whose start failed.
        self.made: list[Worker] = []
        self._by_role: dict[str, list[Worker]] = {}

    def workers(self, role: str | None = None) -> list[Worker]:
        """Every worker that was started so far, or those of one role."""
        return [worker for worker in list(self.made if role is None else self._by_role.get(role, ())) if worker.started]

    def alike(self, worker: Worker) -> list[Worker]:
        """Every worker so far of this one's image, itself included; of the image that is replaced (--lk-from) it alone."""
        replaced = self.workers("old") if self._settings.from_image is not None else []
        return [worker] if worker in replaced else [other for other in self.workers() if other not in replaced]

    def give(self, role: str, worker: Worker) -> None:
        """The worker has this role from now on, too."""
        self._by_role.setdefault(role, []).append(worker)

    def prepare(self, role_name: str, name: str) -> Worker:
        """Start a worker, and return it ready. Raises WorkerFault or StageError."""
        self._raise_if_closing()
        role = ROLES[role_name]
        server = self._ready(role.beside).server if role.beside is not None else self._start_server(name)
        if not role.server_up and not server.controllable:
            raise StageError("the LiveKit server given cannot be stopped by this suite")
        tap = Tap(self.wire_loop, self._session().gateway, server.url, name, self._settings.metadata)
        self.taps.append(tap)
        tap.start()
        worker = self._make_worker(name, role, server, tap)
        self.made.append(worker)
        self.give(role_name, worker)
        self._stand_between(role, worker)
        replace = role.replace() if role.replace else {}
        for variable, value in replace.items():
            if looks_secret(variable):
                self._redactor.add(variable, value)
        with self.memory.room():
            worker.start(without=role.without, replace=replace)
            if role.registered:
                self.wait_registered(worker)
        return worker

    def wait_registered(self, worker: Worker) -> str:
        """The agent name under which the worker registered. Raises WorkerFault, or StageError on a busy machine."""
        try:
            return worker.wait_registered().agent_name
        except WorkerFault:
            self._raise_if_closing()
            raise

    @staticmethod
    def _stand_between(role: Role, worker: Worker) -> None:
        """What is between it and its server from its first packet on."""
        if not role.server_up:
            worker.stop_server()
        if role.firewall == "drop-inbound":
            worker.drop_inbound()
        elif role.firewall == "only-server":
            media = urlsplit(worker.server.worker_url).hostname or ""
            worker.allow_only(sorted({worker.server_peer.partition(":")[0], media}))
        if not role.server_up:
            worker.count_attempts()

    def _make_worker(self, name: str, role: Role, server: Server, tap: Tap) -> Worker:
        settings = self._settings
        if settings.image is None:
            return CommandWorker(name, settings, self._session(), server, tap, self._ledger)
        cpus = role.cpus if settings.cpus is None else settings.cpus
        old = role.old and settings.from_image is not None
        if old:
            settings = dataclasses.replace(settings, image=settings.from_image)
        worker = ImageWorker(name, settings, self._session(), server, tap, self._ledger, cpus, read_only=role.read_only)
        # The image under test does not answer for what the old one does.
        worker.disturbed |= old
        return worker

    def _start_server(self, chain: str) -> Server:
        server = make_server(self._settings, self._session())
        self.servers.append(server)
        self._redactor.add("api-secret", server.api_secret)
        self._redactor.add("api-key", server.api_key)
        with self._ledger.waiting(chain):
            server.start()
        return server
