"""What every worker under test offers to the stage, the suites and users' tests, whatever it runs in."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from pytest_lkagents.busyness import Reading, too_busy
from pytest_lkagents.checks import Blame, NotJudgeable, StageError, WorkerFailed, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, Ledger, poll
from pytest_lkagents.probe.answers import Answer, ask, follow
from pytest_lkagents.probe.sidecar import Listener
from pytest_lkagents.server.base import Server
from pytest_lkagents.session import LOOPBACK
from pytest_lkagents.settings import Settings
from pytest_lkagents.wire.model import Registration
from pytest_lkagents.wire.tap import Tap
from pytest_lkagents.worker.health import DEFAULT_PORT, Health, HealthFinder
from pytest_lkagents.worker.processes import Snapshot
from pytest_lkagents.worker.usage import Usage

LOG_LINES = 25
PROBE_SECONDS = 0.5
# A worker whose server did not answer in time on a busy machine registers again; SDKs pause for up to 10 s before they try.
RENEW_SECONDS = 15
# By SIGKILL, as the kernel does it to who is out of memory.
KILLED = 137


Act = TypeVar("Act", bound=Callable[..., Any])


def disturbing(act: Act) -> Act:
    """Marks an act on a worker after which its end is not by itself a failure."""

    @functools.wraps(act)
    def noted(worker: Worker, *arguments: object, **options: object) -> Any:
        worker.disturbed = True
        worker.disturbed_at = min(worker.disturbed_at, time.monotonic())
        return act(worker, *arguments, **options)

    return cast(Act, noted)


class Worker(ABC):
    """One worker. Made by the stage (fixture ``lk_worker``), which also removes it.

    Times are seconds; signals are names such as ``SIGTERM``. What a kind of worker cannot do raises NotJudgeable.
    """

    # The pid, as ``snapshot`` shows it, of the process that signals go to.
    first_pid = 1

    def __init__(
        self, name: str, settings: Settings, server: Server, wire: Tap, ledger: Ledger, cpus: float | None = None
    ) -> None:
        self.name = name
        self.settings = settings
        self.server = server
        self.wire = wire
        self.cpus = cpus if cpus is not None else settings.cpus
        self.ledger = ledger
        self.environment: dict[str, str] = {}
        # Whether anything was done to it that an ordinary worker may end for.
        self.disturbed = False
        # When that was first done to it as it ran (monotonic seconds).
        self.disturbed_at = math.inf
        self._frozen: list[tuple[float, float]] = []
        # Processes of it that the kernel ended, as the machine was out of memory, as far as was seen.
        self.killed = 0
        self.blame = Blame()
        # Of its processes, in every snapshot so far.
        self.command_lines: set[str] = set()
        self.started = 0.0
        self._probed = 0.0
        self._without_health = False
        self._health = HealthFinder(settings, self.answer_inside)

    # -- life

    @abstractmethod
    def start(self, *, without: tuple[str, ...] = (), replace: dict[str, str] | None = None) -> None:
        """Start it with the LiveKit variables of its server, except those named in ``without``; its URL is the tap's.

        ``replace`` sets or changes variables. Raises StageError if it cannot be tried; a command that cannot be run is
        the worker's fault (WorkerFault).
        """

    def variables(self, without: tuple[str, ...], replace: dict[str, str] | None) -> dict[str, str]:
        """What ``start`` sets in the worker's environment."""
        self.disturbed |= bool(without or replace)
        environment = {
            **self.settings.env,
            "LIVEKIT_URL": self.wire.url,
            "LIVEKIT_API_KEY": self.server.api_key,
            "LIVEKIT_API_SECRET": self.server.api_secret,
            **(replace or {}),
        }
        return {name: value for name, value in environment.items() if name not in without}

    @property
    @abstractmethod
    def exit_code(self) -> int | None:
        """None while it runs. A process that was ended by a signal has 128 + signal."""

    @property
    def is_running(self) -> bool:
        return self.exit_code is None

    @abstractmethod
    def signal(self, name: str) -> None:
        """Send a signal to the first process, as an orchestrator does. A worker that is gone is no error."""

    @abstractmethod
    def kill(self) -> None:
        """End it and all its processes at once."""

    def start_again(self) -> None:
        """Start it once more after its end, with the files that it left, as a restart policy does. Raises NotJudgeable where
        there is no such thing, StageError if it cannot be tried."""
        raise NotJudgeable("a process here is not started again by an engine: give --lk-image")

    @abstractmethod
    def stop(self, seconds: float) -> None:
        """Let the engine stop it: the image's stop signal, and SIGKILL after ``seconds``. Does not wait."""

    @abstractmethod
    def pause(self) -> None:
        """Freeze all its processes, until ``unpause``."""

    @abstractmethod
    def unpause(self) -> None: ...

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """All its processes, as long as this is entered; what it was asked meanwhile it could not answer (``was_frozen``)."""
        began = time.monotonic()
        self.pause()
        try:
            yield
        finally:
            self.unpause()
            self._frozen.append((began, time.monotonic()))

    def was_frozen(self, since: float, until: float) -> bool:
        """Whether it was at some time between two moments (monotonic seconds)."""
        return any(began < until and since < ended for began, ended in self._frozen)

    @abstractmethod
    def remove(self) -> None:
        """End it and let go of everything that belongs to it."""

    def failed(self, what: str) -> WorkerFault:
        """To be raised: what is wrong with a worker that had registered. WorkerFailed if nothing was done to it that may be
        the reason."""
        excused = self.disturbed or self.wire.disturbed or not self.wire.transcript.registrations()
        return (
            WorkerFault(what)
            if excused
            else WorkerFailed(self.last_words(f"{what}, although nothing disturbed it"), self.blame)
        )

    def ended(self) -> WorkerFault | StageError:
        """That it is gone, to be raised."""
        fault = self.failed(f"the worker exited with code {self.exit_code}")
        return (isinstance(fault, WorkerFailed) and self._killed()) or fault

    def _killed(self) -> StageError | None:
        """To be raised where it ended as the kernel ends who is out of memory, which no limit of ours took away."""
        if self.exit_code != KILLED or self.settings.memory_bytes is not None:
            return None
        return StageError("the worker was killed, and not by this run: this machine may be out of memory")

    def run(self, command: Sequence[str], seconds: float) -> tuple[int | None, str]:
        """Exit code and output, both streams, of a command in its container, with its user and environment, as the engine runs
        a health check; no code if it does not end within ``seconds``, or there is no such program. Raises NotJudgeable
        where there is no container, WorkerFault or StageError if the worker is gone."""
        raise NotJudgeable("a process here has no container to run a command in: give --lk-image")

    def wait_exit(self, seconds: float, *, probed: bool = False) -> int | None:
        """The exit code, or None if it still runs after ``seconds``; ``probed``: with health probes meanwhile."""

        def ended() -> bool:
            if probed:
                self.probe()
            return not self.is_running

        with self.ledger.waiting(self.name), contextlib.suppress(DeadlineMissed):
            poll(ended, what="exit", seconds=seconds)
        return self.exit_code

    def probe(self) -> None:
        """Platforms probe a starting container once a second or so; a worker may notice, so it must happen here too."""
        if time.monotonic() - self._probed > 1:
            port = self.settings.health_port or DEFAULT_PORT
            self.health_answer(Health(port, False, self._health.path_of(port)), PROBE_SECONDS)
            self._probed = time.monotonic()

    # -- registration

    def wait_registered(self, seconds: float | None = None, *, more_than: int = 0) -> Registration:
        """The newest live registration once there have been more than ``more_than``.

        Raises WorkerFault with the worker's last lines if it exits or does not come within ``seconds``
        (default: ``lk_start_timeout``). Where others kept this machine busy it has the same time once more; if that does
        not do either, StageError says so.
        """
        limit = self.settings.start_timeout if seconds is None else seconds

        def registered() -> Registration | bool | None:
            self.probe()
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
                    if not self.wire.transcript.entries("opened"):
                        self.explain_absence()
                    raise WorkerFault(self.last_words(f"the worker did not register within {limit:g} s"))
                if chance == "last":
                    raise StageError(f"this machine is too busy to judge: no registration in {2 * limit:g} s, {reason}")
        if isinstance(found, Registration):
            self.is_up()
            return found
        self.explain_exit()
        if (killed := self._killed()) is not None:
            raise killed
        if not self.wire.transcript.entries("opened"):
            self.explain_absence()
        ever = len(self.wire.transcript.registrations())
        when = "as soon as it had registered" if ever > more_than else f"before it registered{' again' if ever else ''}"
        raise WorkerFault(self.last_words(f"the worker exited with code {self.exit_code} {when}"))

    def registration(self) -> Registration:
        """Its newest live one, awaited for a while if it is just renewed. Raises WorkerFault if it has none any more."""
        live = self.wire.transcript.live()
        return live[-1] if live else self._renewed()

    def _renewed(self) -> Registration:
        before = self.reading()
        self.wire.transcript.wait(lambda seen: seen.live() or not self.is_running, RENEW_SECONDS)
        live = self.wire.transcript.live()
        if live:
            return live[-1]
        if not self.is_running:
            raise self.ended()
        if (reason := too_busy(before, self.reading())) is not None:
            raise StageError(f"this machine is too busy to judge: not registered for {RENEW_SECONDS} s, {reason}")
        raise self.failed(f"the worker is no longer registered, for {RENEW_SECONDS} s now")

    def is_up(self) -> None:  # noqa: B027 - most kinds of worker have nothing to do
        """Called once it has registered: its start is over."""

    def explain_exit(self) -> None:  # noqa: B027 - most kinds of worker have nothing to add
        """Raises StageError if something on this machine, not the worker, may have ended it."""

    def explain_absence(self) -> None:  # noqa: B027 - likewise
        """Raises StageError if something on this machine, not the worker, may have kept it from its server."""

    def last_words(self, problem: str) -> str:
        """The problem, followed by the worker's last log lines."""
        lines = [line for line in self.logs().splitlines() if line.strip()][-LOG_LINES:]
        return f"{problem}\nits last lines:\n" + "\n".join(f"  {line}" for line in lines or ["(no output)"])

    @abstractmethod
    def logs(self) -> str:
        """All output so far, both streams, as it is: redact before showing it."""

    # -- seen from outside

    @property
    @abstractmethod
    def address(self) -> str:
        """Its address, as this machine reaches it."""

    def snapshot(self) -> Snapshot:
        """Processes, connections and listening sockets of one moment. Raises StageError, or WorkerFault if it is gone."""
        taken = self._take_snapshot()
        self.command_lines.update(process.args for process in taken.processes)
        return taken

    @abstractmethod
    def _take_snapshot(self) -> Snapshot: ...

    def registered_by(self, seen: Snapshot) -> list[int]:
        """The pids of the processes that hold its registrations."""
        return seen.holders_of(self.server_peer, self.wire.registered_at)

    def jobs_of(self, seen: Snapshot) -> list[int]:
        """For each of its calls the pid of the process that holds the job's connection to the server. Other connections, for
        requests to the server's API, are no jobs'."""
        return seen.holders_of(self.server_peer, self.wire.calls_at)

    @abstractmethod
    def signal_processes(self, pids: Sequence[int], name: str) -> None:
        """Send a signal to some of its processes at once, by their pids as ``snapshot`` shows them."""

    def signal_process(self, pid: int, name: str) -> None:
        self.signal_processes([pid], name)

    @abstractmethod
    def limit_memory(self, pid: int) -> int | None:
        """Limit the address space of one of its processes to what it has now, in bytes; None if that is not allowed."""

    @abstractmethod
    def beside(self, *command: str) -> str:
        """Output of a command that sees the worker's processes; empty if it fails or they are gone."""

    @abstractmethod
    def written(self) -> tuple[list[str], int]:
        """Files and folders that were added to what the worker was started with, and how many bytes they hold."""

    @abstractmethod
    def listeners(self) -> list[Listener]:
        """Its sockets that others could talk to."""

    @abstractmethod
    def listeners_with_owner(self) -> list[str]:
        """Listening sockets with the processes that hold them, for evidence."""

    @abstractmethod
    def _ask_inside(self, url: str, seconds: float) -> Answer:
        """One GET from where the worker itself runs."""

    def get_inside(self, path: str, port: int, seconds: float = 5) -> tuple[int | None, str]:
        """HTTP status and body of a GET from where the worker itself runs; status None when nothing answers."""
        answer = self._ask_inside(f"http://{LOOPBACK}:{port}{path}", seconds)
        return answer.status, answer.body

    def answer_inside(self, path: str, port: int, seconds: float = 5) -> Answer:
        """The same, its redirects followed."""
        return follow(self._ask_inside, f"http://{LOOPBACK}:{port}{path}", seconds)

    # -- what passes between it and the network

    @abstractmethod
    def drop_inbound(self) -> None:
        """From now on every connection from outside is dropped; answers to the worker's own ones pass."""

    @abstractmethod
    def dropped_inbound(self) -> int:
        """Packets that ``drop_inbound`` dropped so far."""

    @abstractmethod
    def allow_only(self, addresses: Sequence[str]) -> None:
        """From now on the worker reaches these addresses and nothing else; name lookups fail too."""

    @abstractmethod
    def partition(self) -> AbstractContextManager[Callable[[], int]]:
        """While inside, every packet from and to the worker is lost without a word, loopback excepted. Yields a function
        that counts the packets lost so far."""

    @abstractmethod
    def without_names(self) -> AbstractContextManager[Callable[[], int]]:
        """While inside, every lookup of a host name by the worker is refused. Yields a function that counts the packets
        refused so far."""

    @abstractmethod
    def contacted(self) -> list[str]:
        """Outbound destinations so far, as ``address:port/protocol``."""

    @abstractmethod
    def count_attempts(self) -> None:
        """Count the worker's attempts to connect to its server from now on."""

    @abstractmethod
    def attempts(self) -> int:
        """Attempts since ``count_attempts``, those while the server was stopped at least."""

    # -- load

    @abstractmethod
    def burn(self, share: float = 1.0) -> AbstractContextManager[object]:
        """A context in which all the cores that the worker may use are burnt, each for ``share`` of the time. Raises
        NotJudgeable if nothing can burn."""

    @abstractmethod
    def cpu_seconds(self) -> float:
        """Core-seconds that it and its burners have used so far."""

    def look_at_memory(self) -> int:
        """Bytes that it has now, as far as can be told at once (else 0), and ``killed`` counted."""
        return 0

    @abstractmethod
    def usage(self) -> Usage:
        """CPU and memory of this moment. Raises WorkerFault if it is gone."""

    def cores_used(self, seconds: float = 1.0) -> float:
        """Cores that it and its burners use on average over the next ``seconds``."""
        began, first = time.monotonic(), self.cpu_seconds()
        time.sleep(seconds)
        return (self.cpu_seconds() - first) / (time.monotonic() - began)

    def reading(self) -> Reading:
        """How busy the machine and this worker have been so far."""
        return Reading.now(self.cpu_seconds())

    # -- its server, seen from this worker

    @property
    def server_peer(self) -> str:
        """The server as the worker's sockets show it, which is the tap: ``address:port``."""
        parts = urlsplit(self.wire.url)
        return f"{parts.hostname}:{parts.port}"

    def stop_server(self) -> None:
        """Stop the LiveKit server for real; the worker's address of it refuses connections, as that of a host whose
        server is down."""
        self.wire.refuse()
        self.server.stop()
        self.wire.cut()

    def cut_off(self) -> None:
        """Its registrations' connections are reset and new ones refused; those of its jobs stay, and so does the server."""
        self.wire.refuse()
        self.wire.cut(agent_only=True)

    def start_server(self) -> None:
        self.server.start()
        self.wire.accept()

    # -- what it serves, health first

    def get(self, path: str, port: int, seconds: float = 5) -> tuple[int | None, str]:
        """HTTP status and body of a GET from this machine; status None when nothing answers."""
        answer = ask(f"http://{self.address}:{port}{path}", seconds)
        return answer.status, answer.body

    def health(self) -> Health | None:
        """The health endpoint, or None if there is none: see HealthFinder."""
        return None if self.settings.health == "off" else self._health.find(self.listeners())

    def wait_health(self, seconds: float = 5) -> Health | None:
        """The health endpoint; waits a moment, since it may open after the registration, but in vain only once. Raises
        WorkerFault if the worker is gone."""
        if self.settings.health == "off" or self._without_health:
            seconds = 0
        try:
            return poll(self.health, what="health endpoint", seconds=seconds)
        except DeadlineMissed:
            if not self.is_running:
                raise self.ended() from None
            self._without_health = True
            return None

    def health_answer(self, found: Health, seconds: float = 5) -> Answer:
        """What the health path answers within ``seconds``, its redirects followed: from this machine, or from inside when only
        loopback is served."""
        if found.loopback:
            return self.answer_inside(found.path, found.port, seconds)
        return follow(ask, f"http://{self.address}:{found.port}{found.path}", seconds)

    def health_status(self, found: Health, seconds: float = 5) -> int | None:
        """The status of that answer; None: nothing answers."""
        return self.health_answer(found, seconds).status

    def worker_info(self, found: Health) -> dict[str, Any]:
        """What ``/worker`` offers (agent_name, active_jobs, sdk_version, ...); empty if it offers nothing."""
        if found.loopback:
            status, body = self.get_inside("/worker", found.port)
        else:
            status, body = self.get("/worker", found.port)
        with contextlib.suppress(ValueError):
            data = json.loads(body)
            if status == 200 and isinstance(data, dict):
                return data
        return {}
