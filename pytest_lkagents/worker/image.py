"""The worker as a container of the user's image, in the network namespace of its own side container."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pytest_lkagents.checks import StageError, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, Ledger, poll
from pytest_lkagents.inside import COMMAND_FAULT, Unanswered, run_in
from pytest_lkagents.probe.answers import Answer
from pytest_lkagents.probe.sidecar import Listener, Sidecar, parse_listeners
from pytest_lkagents.server.base import Server
from pytest_lkagents.session import Session
from pytest_lkagents.settings import Settings
from pytest_lkagents.wire.tap import Tap
from pytest_lkagents.worker.base import Worker, disturbing
from pytest_lkagents.worker.burner import Burner
from pytest_lkagents.worker.observer import Observer
from pytest_lkagents.worker.processes import SCRIPT, Snapshot, parse
from pytest_lkagents.worker.usage import Meter, Usage

if TYPE_CHECKING:
    from docker.models.containers import Container

# CPU shares (the engine's default is 1024): a worker that starts, with all its imports, must not take the CPU from those
# that are being judged. It has the usual share once it has registered.
STARTING_SHARES = 128
USUAL_SHARES = 1024
ENDED_SECONDS = 3
# Of a worker's output: an engine has no word for "all of it", and this is more than one writes in an hour.
LOG_SIZE = "1g"
# For a proxy that is on this machine.
REACH_SECONDS = 2
# Its own user may lower a process's limits, root without SYS_RESOURCE may not. The limit is the size that it has, so that
# every further mapping fails with ENOMEM. A large number is printed as one: awks have 3e+09 for it else.
LIMIT = """
status=/proc/$1/status
uid=$(awk '/^Uid:/ {print $2}' $status) gid=$(awk '/^Gid:/ {print $2}' $status)
size=$(awk '/^VmSize:/ {printf "%.0f", $2 * 1024}' $status)
setpriv --reuid "$uid" --regid "$gid" --clear-groups prlimit --pid "$1" --as="$size" && echo "$size"
"""


class ImageWorker(Worker):
    """See Worker. Its container has one core unless the user says otherwise."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        session: Session,
        server: Server,
        wire: Tap,
        ledger: Ledger,
        cpus: float | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        super().__init__(name, settings, server, wire, ledger, cpus)
        self._session = session
        self._read_only = self.disturbed = read_only
        self.sidecar = Sidecar(session, settings.probe_image, name)
        self._container: Container | None = None
        self._meter: Meter | None = None
        self._waiter: threading.Thread | None = None
        self._observer: Observer | None = None
        # Of the present start, and of those before it.
        self._cpu_s = self._cpu_before = 0.0
        # Once it has ended.
        self._code: int | None = None

    # -- life

    def start(self, *, without: tuple[str, ...] = (), replace: dict[str, str] | None = None) -> None:
        from docker.errors import APIError
        from docker.types import LogConfig

        self.environment = self.variables(without, replace)
        limits: dict[str, Any] = {}
        if self.cpus is not None:
            limits["nano_cpus"] = int(self.cpus * 1e9)
        if self._read_only:
            limits.update(read_only=True, tmpfs={"/tmp": "mode=1777,exec"})
        if self.settings.memory_bytes is not None:
            limits["mem_limit"] = self.settings.memory_bytes
        assert self.settings.image is not None
        name = f"pytest-lkagents-{self._session.id}-{self.name}"
        try:
            self._container = self._session.client.containers.create(
                self.settings.image,
                name=name,
                labels=self._session.labels,
                network_mode=f"container:{self.sidecar.container.id}",
                environment=self.environment,
                cpu_shares=STARTING_SHARES,
                # What an engine's own configuration says of proxies is of this machine, not of the worker.
                use_config_proxy=False,
                # Nor what it says of logs, such as that none are kept: all that the worker writes is looked through.
                log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": LOG_SIZE}),
                **limits,
            )
            self._observer = Observer(
                self._session, self.settings.probe_image, f"{name}-pid", self._container, self.sidecar.container, self._ends
            )
            self._launch()
        except APIError as error:
            reason = " ".join(str(error.explanation or error).split())
            if COMMAND_FAULT.search(reason):
                raise WorkerFault(f"the image's command cannot be run: {reason[:200]}") from error
            raise StageError(f"the engine does not start the worker: {reason[:200]}") from error

    def _launch(self) -> None:
        self.started = time.monotonic()
        self._cpu_before, self._cpu_s = self._cpu_before + self._cpu_s, 0.0
        self.container.start()
        # The engine took its time.
        self.started = time.monotonic()
        self._meter = Meter(self.container)
        self._code = None
        self._waiter = threading.Thread(target=self._await_end, name="lk-exit", daemon=True)
        self._waiter.start()

    @disturbing
    def start_again(self) -> None:
        from docker.errors import APIError

        # It ended with the worker, whose new processes have a namespace of their own.
        self.observer.forget()
        try:
            self._launch()
        except APIError as error:
            raise StageError(f"the engine does not start the worker again: {' '.join(str(error).split())[:200]}") from error

    def is_up(self) -> None:
        from docker.errors import APIError

        with contextlib.suppress(APIError):
            self.container.update(cpu_shares=USUAL_SHARES)

    @property
    def container(self) -> Container:
        if self._container is None:
            raise StageError(f"worker {self.name} was not started")
        return self._container

    @property
    def meter(self) -> Meter:
        if self._meter is None:
            raise StageError(f"worker {self.name} was not started")
        return self._meter

    @property
    def observer(self) -> Observer:
        if self._observer is None:
            raise StageError(f"worker {self.name} was not started")
        return self._observer

    def _await_end(self) -> None:
        """One long question: what asks many short ones takes CPU from those that are judged."""
        from docker.errors import APIError
        from requests import RequestException

        with contextlib.suppress(APIError, RequestException):
            self.container.wait(timeout=None)

    @property
    def exit_code(self) -> int | None:
        if self._waiter is not None and self._waiter.is_alive():
            return None
        if self._code is None:
            self.container.reload()
            state: dict[str, Any] = self.container.attrs["State"]
            self._code = None if state["Running"] else int(state["ExitCode"])
        return self._code

    @disturbing
    def signal(self, name: str) -> None:
        from docker.errors import APIError

        try:
            self.container.kill(signal=name)
        except APIError as error:
            # It has ended, or is about to; else nobody was told anything, and its silence would say nothing.
            if self.wait_exit(ENDED_SECONDS) is None:
                raise StageError(f"the engine does not send {name}: {' '.join(str(error).split())[:200]}") from error

    @disturbing
    def kill(self) -> None:
        from docker.errors import APIError

        with contextlib.suppress(APIError):
            self.container.kill(signal="SIGKILL")
        if self._waiter is not None:
            # Whoever asks next is to be told that it has ended.
            self._waiter.join(ENDED_SECONDS)

    @disturbing
    def stop(self, seconds: float) -> None:
        from docker.errors import APIError

        def stopping() -> None:
            with contextlib.suppress(APIError, OSError):
                self.container.client.api.stop(str(self.container.id), timeout=int(seconds))  # type: ignore[union-attr]

        threading.Thread(target=stopping, name="lk-stop", daemon=True).start()

    @disturbing
    def pause(self) -> None:
        self.container.pause()

    def unpause(self) -> None:
        self.container.unpause()

    def remove(self) -> None:
        from docker.errors import APIError

        if self._observer is not None:
            self._observer.remove()
        if self._container is not None:
            with contextlib.suppress(APIError):
                self._container.remove(force=True, v=True)
        self.sidecar.remove()

    def logs(self) -> str:
        return bytes(self.container.logs()).decode("utf-8", "replace")

    # -- seen from outside

    @property
    def address(self) -> str:
        return self.sidecar.address

    def _take_snapshot(self) -> Snapshot:
        try:
            return parse(self.observer.look("sh", "-c", SCRIPT)[1])
        except ValueError as error:
            if self._ends():
                raise self.ended() from error
            raise StageError(f"the worker's processes cannot be read: {' '.join(str(error).split())[:200]}") from error

    def beside(self, *command: str) -> str:
        """Output of a command, which may be run twice, in a container that sees the worker's processes; empty if it fails or
        they are gone."""
        try:
            code, output = self.observer.look(*command)
        except ValueError:
            return ""
        return "" if code else output

    def explain_absence(self) -> None:
        # Only where it tried: what is asked here counts as its own contact.
        if self.wire.disturbed or f"{self.server_peer}/tcp" not in self.contacted():
            return
        if self.sidecar.get(f"http://{self.server_peer}/", REACH_SECONDS)[0] is not None:
            return
        raise StageError(
            f"a container cannot reach {self.server_peer}, where this run listens for it: let this machine's firewall "
            "(ufw, firewalld) allow what comes from the engine's networks"
        )

    def _ends(self) -> bool:
        """Whether it has ended. A worker that ends takes what runs beside it along, before the engine says so."""
        with contextlib.suppress(DeadlineMissed):
            poll(lambda: not self.is_running, what="end", seconds=ENDED_SECONDS, every=0.2)
        return not self.is_running

    @disturbing
    def signal_processes(self, pids: Sequence[int], name: str) -> None:
        self.observer.act("kill", f"-{name.removeprefix('SIG')}", *map(str, pids))

    @disturbing
    def limit_memory(self, pid: int) -> int | None:
        size = self.beside("sh", "-c", LIMIT, "sh", str(pid)).strip()
        return int(size) if size.isdigit() else None

    def run(self, command: Sequence[str], seconds: float) -> tuple[int | None, str]:
        from docker.errors import APIError

        try:
            code, written, errors = run_in(self.container, *command, seconds=seconds)
        except Unanswered:
            return None, f"it does not end within {seconds:g} s"
        except APIError as error:
            code, written, errors = None, str(error.explanation or error).encode(), b""
        if not self.is_running:
            raise self.ended()
        return code, (written + errors).decode("utf-8", "replace")

    def written(self) -> tuple[list[str], int]:
        from docker.errors import APIError

        added = 1  # as the engine numbers the kinds of changes
        try:
            changes = self.container.diff() or []
            listed = self._session.client.api.containers(all=True, size=True, filters={"id": str(self.container.id)})
        except APIError as error:
            raise StageError(f"the worker's files cannot be listed: {' '.join(str(error).split())[:200]}") from error
        paths = [str(change["Path"]) for change in changes if change["Kind"] == added]
        return paths, int(listed[0].get("SizeRw") or 0) if listed else 0

    # -- load

    def program(self) -> str:
        """The program that holds the registration, as a path in the container, such as ``/usr/bin/python3.11``."""
        pid = min(self.registered_by(self.snapshot()), default=1)
        return self.beside("readlink", f"/proc/{pid}/exe").strip() or "sh"

    def burn(self, share: float = 1.0) -> Burner:
        cores = self.cpus if self.cpus is not None else float(os.cpu_count() or 1)
        return Burner(self.container, self.program(), self.observer.act, cores=cores, share=share)

    def cpu_seconds(self) -> float:
        seen = self.meter.read()
        # What it used does not become less when it has ended.
        self._cpu_s = max(self._cpu_s, seen.cpu_s if seen is not None else 0.0)
        return self._cpu_before + self._cpu_s

    def look_at_memory(self) -> int:
        # No question to the engine: this is asked twice a second, by the thread that looks whether we stand still.
        if self._meter is None or self._waiter is None or not self._waiter.is_alive():
            return 0
        used, killed = self._meter.at_once()
        if self.settings.memory_bytes is None:
            self.killed = max(self.killed, killed)
        return used

    def usage(self) -> Usage:
        seen = self.meter.read()
        if seen is None:
            raise self.ended()
        return seen

    def listeners_with_owner(self) -> list[str]:
        return [str(found) for found in parse_listeners(self.snapshot().listening)]

    def listeners(self) -> list[Listener]:
        return self.sidecar.listeners()

    def _ask_inside(self, url: str, seconds: float) -> Answer:
        return self.sidecar.ask(url, seconds)

    @disturbing
    def drop_inbound(self) -> None:
        self.sidecar.drop_inbound()

    def dropped_inbound(self) -> int:
        return self.sidecar.dropped_inbound()

    @disturbing
    def allow_only(self, addresses: Sequence[str]) -> None:
        self.sidecar.allow_only(*addresses)

    @disturbing
    def partition(self) -> AbstractContextManager[Callable[[], int]]:
        return self.sidecar.partition()

    @disturbing
    def without_names(self) -> AbstractContextManager[Callable[[], int]]:
        return self.sidecar.without_names()

    def contacted(self) -> list[str]:
        return self.sidecar.contacted()

    def count_attempts(self) -> None:
        address, _, port = self.server_peer.partition(":")
        self.sidecar.count_attempts(address, int(port))

    def attempts(self) -> int:
        return self.sidecar.attempts()
