"""The worker as a container of the user's image, in the network namespace of its own side container."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_lkagents.busyness import Reading, too_busy
from pytest_lkagents.checks import StageError, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, Ledger, poll
from pytest_lkagents.engine import Session
from pytest_lkagents.probe.sidecar import Sidecar, parse_listeners
from pytest_lkagents.server.base import Server
from pytest_lkagents.settings import Settings
from pytest_lkagents.wire.model import Registration
from pytest_lkagents.wire.tap import Tap
from pytest_lkagents.worker.burner import Burner, cores_used, cpu_seconds
from pytest_lkagents.worker.processes import SCRIPT, Snapshot, parse

if TYPE_CHECKING:
    from docker.models.containers import Container

DEFAULT_HEALTH_PORT = 8081
LOG_LINES = 25
PROBE_SECONDS = 0.5


@dataclass(frozen=True)
class Health:
    """The health endpoint as found; ``loopback`` when nothing outside the worker's namespace can reach it."""

    port: int
    loopback: bool


class Worker:
    """One worker. Made by the stage (fixture ``lk_worker``), which also removes it.

    Times are seconds; signals are names such as ``SIGTERM``.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        session: Session,
        server: Server,
        wire: Tap,
        ledger: Ledger,
        cpus: float | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.server = server
        self.wire = wire
        self.cpus = cpus if cpus is not None else settings.cpus
        self.ledger = ledger
        self._session = session
        self.sidecar = Sidecar(session, settings.probe_image, name)
        self.environment: dict[str, str] = {}
        self._container: Container | None = None
        self.started = 0.0
        self._probed = 0.0

    # -- life

    def start(self, *, without: tuple[str, ...] = (), replace: dict[str, str] | None = None) -> None:
        """Start the container with the LiveKit variables of its server, except those named in ``without``; its URL is
        the tap's.

        ``replace`` sets or changes variables. Raises StageError if the engine refuses; an image whose command cannot be
        run is the worker's fault (WorkerFault).
        """
        from docker.errors import APIError

        environment = {
            **self.settings.env,
            "LIVEKIT_URL": self.wire.url,
            "LIVEKIT_API_KEY": self.server.api_key,
            "LIVEKIT_API_SECRET": self.server.api_secret,
            **(replace or {}),
        }
        self.environment = {name: value for name, value in environment.items() if name not in without}
        limits: dict[str, Any] = {}
        if self.cpus is not None:
            limits["nano_cpus"] = int(self.cpus * 1e9)
        if self.settings.memory_bytes is not None:
            limits["mem_limit"] = self.settings.memory_bytes
        assert self.settings.image is not None
        try:
            self._container = self._session.client.containers.create(
                self.settings.image,
                name=f"pytest-lkagents-{self._session.id}-{self.name}",
                labels=self._session.labels,
                network_mode=f"container:{self.sidecar.container.id}",
                environment=self.environment,
                **limits,
            )
            self.started = time.monotonic()
            self._container.start()
        except APIError as error:
            reason = " ".join(str(error.explanation or error).split())
            if self._container is not None or "No command specified" in reason:
                raise WorkerFault(f"the image's command cannot be run: {reason[:200]}") from error
            raise StageError(f"the engine does not start the worker: {reason[:200]}") from error

    @property
    def container(self) -> Container:
        if self._container is None:
            raise StageError(f"worker {self.name} was not started")
        return self._container

    @property
    def exit_code(self) -> int | None:
        """None while it runs. A process that was ended by a signal has 128 + signal."""
        self.container.reload()
        state: dict[str, Any] = self.container.attrs["State"]
        return None if state["Running"] else int(state["ExitCode"])

    @property
    def is_running(self) -> bool:
        return self.exit_code is None

    def signal(self, name: str) -> None:
        """Send a signal to the container's first process, as an orchestrator does. A worker that is gone is no error."""
        from docker.errors import APIError

        with contextlib.suppress(APIError):
            self.container.kill(signal=name)

    def kill(self) -> None:
        self.signal("SIGKILL")

    def stop(self, seconds: float) -> None:
        """Let the engine stop it: the image's stop signal, and SIGKILL after ``seconds``. Does not wait."""
        from docker.errors import APIError

        def stopping() -> None:
            with contextlib.suppress(APIError, OSError):
                self.container.client.api.stop(str(self.container.id), timeout=int(seconds))  # type: ignore[union-attr]

        threading.Thread(target=stopping, name="lk-stop", daemon=True).start()

    def wait_exit(self, seconds: float, *, probed: bool = False) -> int | None:
        """The exit code, or None if it still runs after ``seconds``; ``probed``: with health probes meanwhile."""

        def ended() -> bool:
            if probed:
                self._probe()
            return not self.is_running

        with self.ledger.waiting(self.name), contextlib.suppress(DeadlineMissed):
            poll(ended, what="exit", seconds=seconds)
        return self.exit_code

    def _probe(self) -> None:
        """Platforms probe a starting container once a second or so; a worker may notice, so it must happen here too."""
        if time.monotonic() - self._probed > 1:
            self.get(self.settings.health_path, self.settings.health_port or DEFAULT_HEALTH_PORT, PROBE_SECONDS)
            self._probed = time.monotonic()

    def remove(self) -> None:
        from docker.errors import APIError

        if self._container is not None:
            with contextlib.suppress(APIError):
                self._container.remove(force=True, v=True)
        self.sidecar.remove()

    # -- registration

    def wait_registered(self, seconds: float | None = None, *, more_than: int = 0) -> Registration:
        """The newest live registration once there have been more than ``more_than``.

        Raises WorkerFault with the worker's last lines if it exits or does not come within ``seconds``
        (default: ``lk_start_timeout``). Where others kept this machine busy it has the same time once more; if that does
        not do either, StageError says so.
        """
        limit = self.settings.start_timeout if seconds is None else seconds

        def registered() -> Registration | bool | None:
            self._probe()
            live = self.wire.transcript.live()
            if live and len(self.wire.transcript.registrations()) > more_than:
                return live[-1]
            return True if not self.is_running else None

        before = self.reading()
        with self.ledger.waiting(self.name):
            for chance in ("first", "last"):
                with contextlib.suppress(DeadlineMissed):
                    found = poll(registered, what="registration", seconds=limit)
                    break
                reason = too_busy(before, self.reading())
                if reason is None:
                    raise WorkerFault(self.last_words(f"the worker did not register within {limit:g} s"))
                if chance == "last":
                    raise StageError(f"this machine is too busy to judge: no registration in {2 * limit:g} s, {reason}")
        if isinstance(found, Registration):
            return found
        raise WorkerFault(self.last_words(f"the worker exited with code {self.exit_code} before it registered"))

    def last_words(self, problem: str) -> str:
        """The problem, followed by the worker's last log lines."""
        lines = [line for line in self.logs().splitlines() if line.strip()][-LOG_LINES:]
        return problem + "; its last lines:\n" + "\n".join(f"  {line[:300]}" for line in lines or ["(no output)"])

    def logs(self) -> str:
        """All output so far, both streams, as it is: redact before showing it."""
        return bytes(self.container.logs()).decode("utf-8", "replace")

    # -- seen from outside

    @property
    def address(self) -> str:
        return self.sidecar.address

    def snapshot(self) -> Snapshot:
        """Processes, connections and listening sockets of one moment. Raises StageError, or WorkerFault if it is gone."""
        from docker.errors import APIError, ContainerError

        try:
            output = self._session.client.containers.run(
                self.settings.probe_image,
                ["sh", "-c", SCRIPT],
                labels=self._session.labels,
                pid_mode=f"container:{self.container.id}",
                network_mode=f"container:{self.sidecar.container.id}",
                cap_add=["SYS_PTRACE"],
                remove=True,
            )
            return parse(bytes(output).decode("utf-8", "replace"))
        except (APIError, ContainerError, ValueError) as error:
            if not self.is_running:
                raise WorkerFault(f"the worker exited with code {self.exit_code}") from error
            raise StageError(f"the worker's processes cannot be read: {' '.join(str(error).split())[:200]}") from error

    def beside(self, *command: str) -> str:
        """Output of a command in a container that sees the worker's processes; empty if it fails or they are gone."""
        from docker.errors import APIError, ContainerError

        try:
            output = self._session.client.containers.run(
                self.settings.probe_image,
                list(command),
                labels=self._session.labels,
                pid_mode=f"container:{self.container.id}",
                cap_add=["KILL", "SYS_PTRACE"],
                remove=True,
            )
        except (APIError, ContainerError):
            return ""
        return bytes(output).decode("utf-8", "replace")

    def signal_process(self, pid: int, name: str) -> None:
        """Send a signal to one process inside the container, by its pid there."""
        self.beside("sh", "-c", f"kill -{name.removeprefix('SIG')} {pid}")

    def written(self) -> tuple[list[str], int]:
        """Files and folders that were added to the container's writable layer, and how many bytes it holds."""
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
        pid = min(self.snapshot().holders_of(self.server_peer), default=1)
        return self.beside("readlink", f"/proc/{pid}/exe").strip() or "sh"

    def burn(self, share: float = 1.0) -> Burner:
        """A context in which the worker's container burns all the cores that it may use, each for ``share`` of the
        time. Raises NotJudgeable if nothing in the image can burn."""
        cores = self.cpus if self.cpus is not None else float(os.cpu_count() or 1)
        return Burner(self.container, self.program(), self.beside, cores=cores, share=share)

    def cores_used(self, seconds: float = 1.0) -> float:
        """Cores that the container uses on average over the next ``seconds``."""
        return cores_used(self.container, seconds)

    def reading(self) -> Reading:
        """How busy the machine and this worker have been so far."""
        return Reading.now(cpu_seconds(self.container))

    # -- its server, seen from this worker

    def stop_server(self) -> None:
        """Stop the LiveKit server for real; the worker's address of it refuses connections, as that of a host whose
        server is down."""
        self.wire.refuse()
        self.server.stop()
        self.wire.cut()

    def start_server(self) -> None:
        self.server.start()
        self.wire.accept()

    def get(self, path: str, port: int, seconds: float = 5) -> tuple[int | None, str]:
        """HTTP status and body of a GET from this machine; status None when nothing answers."""
        connection = http.client.HTTPConnection(self.address, port, timeout=seconds)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(65536).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            return None, ""
        finally:
            connection.close()

    def health(self) -> Health | None:
        """The health endpoint, or None if there is none: the declared port, else 8081, else the only port that speaks
        HTTP (first of those that others can reach)."""
        if self.settings.health == "off":
            return None
        listening = [found for found in self.sidecar.listeners() if found.protocol == "tcp"]
        by_port: dict[int, bool] = {}
        for found in listening:
            by_port[found.port] = by_port.get(found.port, True) and found.loopback
        wanted = self.settings.health_port
        if wanted is not None:
            return Health(wanted, by_port[wanted]) if wanted in by_port else None
        if DEFAULT_HEALTH_PORT in by_port:
            return Health(DEFAULT_HEALTH_PORT, by_port[DEFAULT_HEALTH_PORT])
        candidates = [port for port in by_port if port != self.settings.metrics_port]
        speaking = {port: self._answer(port) for port in candidates}
        # A /worker page is the surest sign, then a 200, then any answer at all; reachable ones first.
        ranked = sorted(
            (worker_page != 200, status != 200, by_port[port], port)
            for port, (status, worker_page) in speaking.items()
            if status is not None
        )
        return Health(ranked[0][3], ranked[0][2]) if ranked else None

    def _answer(self, port: int) -> tuple[int | None, int | None]:
        base = f"http://127.0.0.1:{port}"
        status, _ = self.sidecar.get(base + self.settings.health_path, 2)
        return status, self.sidecar.get(f"{base}/worker", 2)[0] if status else None

    def wait_health(self, seconds: float = 5) -> Health | None:
        """The health endpoint; waits a moment, since it may open after the registration."""
        try:
            return poll(self.health, what="health endpoint", seconds=seconds if self.settings.health != "off" else 0)
        except DeadlineMissed:
            return None

    def health_status(self, found: Health) -> int | None:
        """Status of the health path, from this machine, or from inside when only loopback is served."""
        if found.loopback:
            return self.sidecar.get(f"http://127.0.0.1:{found.port}{self.settings.health_path}")[0]
        return self.get(self.settings.health_path, found.port)[0]

    def worker_info(self, found: Health) -> dict[str, Any]:
        """What ``/worker`` offers (agent_name, active_jobs, sdk_version, ...); empty if it offers nothing."""
        if found.loopback:
            status, body = self.sidecar.get(f"http://127.0.0.1:{found.port}/worker")
        else:
            status, body = self.get("/worker", found.port)
        with contextlib.suppress(ValueError):
            data = json.loads(body)
            if status == 200 and isinstance(data, dict):
                return data
        return {}

    @property
    def server_peer(self) -> str:
        """The server as the worker's sockets show it, which is the tap: ``address:port``."""
        parts = urlsplit(self.wire.url)
        return f"{parts.hostname}:{parts.port}"

    def listeners_with_owner(self) -> list[str]:
        """Listening sockets with the processes that hold them, for evidence."""
        return [str(found) for found in parse_listeners(self.snapshot().listening)]
