"""The worker as a process of this machine, started by the user's command; it shares the machine's ports and network."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import IO

import psutil

from pytest_lkagents import machine
from pytest_lkagents.checks import NotJudgeable, StageError, WorkerFault
from pytest_lkagents.clock import Ledger
from pytest_lkagents.probe.answers import Answer, ask, follow
from pytest_lkagents.probe.sidecar import Listener
from pytest_lkagents.server.base import Server
from pytest_lkagents.session import LOOPBACK, Session
from pytest_lkagents.settings import Settings
from pytest_lkagents.wire.tap import Tap
from pytest_lkagents.worker.base import Worker, disturbing
from pytest_lkagents.worker.burner import PYTHON, Burning
from pytest_lkagents.worker.doorkeeper import Doorkeeper
from pytest_lkagents.worker.health import DEFAULT_PORT, Health
from pytest_lkagents.worker.process_tree import ProcessTree
from pytest_lkagents.worker.processes import Snapshot
from pytest_lkagents.worker.usage import Usage

# Bytes of output that are read at most, half from the beginning and half from the end.
LOG_BYTES = 8 * 1024**2
# The burners take what nobody else wants: a loaded machine must not make the tap or the caller late.
BURNER_NICENESS = 19
END_SECONDS = 10
# A socket's path has 107 bytes at most; Python's fork server adds 33 to its temporary folder.
LONGEST_TEMPORARY = 70


def needs_container(what: str) -> NotJudgeable:
    return NotJudgeable(f"{what} needs a container: give --lk-image")


def inherited() -> dict[str, str]:
    """The user's environment as the worker gets it: nothing of LiveKit's or of this pytest's own."""
    return {name: value for name, value in machine.environment().items() if not name.startswith(("LIVEKIT_", "PYTEST_"))}


class CommandWorker(Worker):
    """See Worker. When its first process ends, what it left behind is ended too, as with a container."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        session: Session,
        server: Server,
        wire: Tap,
        ledger: Ledger,
    ) -> None:
        # Nothing limits it: the cores that it may use are this machine's.
        super().__init__(name, settings, server, wire, ledger, float(os.cpu_count() or 1))
        self._session = session
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self._tree = ProcessTree()
        self._burners: list[psutil.Process] = []
        self._taken = ""
        self._doorkeeper: Doorkeeper | None = None
        self._counting = self._server_stopped = False

    # -- life

    def start(self, *, without: tuple[str, ...] = (), replace: dict[str, str] | None = None) -> None:
        if without:
            # It would register there, and answer that project's calls.
            raise NotJudgeable("in a .env file a process here may find the missing value, and another project: give --lk-image")
        self.environment = self.variables(without, replace)
        port = self._health_port
        taker = machine.taker_of(port, self._session.id)
        self._taken = f"port {port} of this machine is taken by {taker}" if taker is not None else ""
        # Without a name, so that nothing is left of it; in a file, so that no reader of ours can be too slow.
        self._output = tempfile.TemporaryFile(dir=self._session.folder)  # noqa: SIM115 - closed by remove()
        try:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                self.settings.command,
                cwd=self.settings.command_dir,
                env={**inherited(), **self._temporary(), **self.environment, **self._session.mark},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for pytest, which ends the worker when its callers have left
            )
        except OSError as error:
            self.started = 0.0
            raise WorkerFault(f"the command cannot be run: {error.strerror}") from error
        self._tree.leader = self._process.pid
        with contextlib.suppress(psutil.Error):
            self._session.record_process(self._process.pid)
        self._watcher = threading.Thread(target=self._watch, args=(self._process,), daemon=True)
        self._watcher.start()

    def _temporary(self) -> dict[str, str]:
        """A folder for what a killed worker leaves behind, which goes with the session."""
        folder = self._session.folder / "tmp"
        if len(str(folder)) > LONGEST_TEMPORARY:
            return {}
        folder.mkdir(exist_ok=True)
        return {"TMPDIR": str(folder)}

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._tree.end()
        (self._session.folder / f"{process.pid}.pid").unlink(missing_ok=True)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StageError(f"worker {self.name} was not started")
        return self._process

    @property
    def first_pid(self) -> int:  # type: ignore[override]
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    @disturbing
    def signal(self, name: str) -> None:
        number = int(name) if name.isdigit() else signal.Signals[name]
        with contextlib.suppress(OSError):
            self.process.send_signal(number)

    @disturbing
    def kill(self) -> None:
        if self._process is None or self._tree.over.is_set():
            return
        # The first one by its handle: its pid cannot be another's before it was waited for.
        rest = [found for found in self._tree.processes() if found.pid != self._process.pid]
        self._process.kill()
        machine.end(rest)
        self._tree.over.wait(END_SECONDS)

    @disturbing
    def stop(self, seconds: float) -> None:
        raise needs_container("an engine's stop")

    @disturbing
    def pause(self) -> None:
        for found in self._tree.processes():
            with contextlib.suppress(psutil.Error):
                found.suspend()

    def unpause(self) -> None:
        for found in self._tree.processes():
            with contextlib.suppress(psutil.Error):
                found.resume()

    def remove(self) -> None:
        self.kill()
        if self._doorkeeper is not None:
            self._doorkeeper.close()
        if self._output is not None:
            self._output.close()

    def logs(self) -> str:
        if self._output is None or self._output.closed:
            return ""
        descriptor = self._output.fileno()
        size = os.fstat(descriptor).st_size
        if size <= LOG_BYTES:
            return os.pread(descriptor, size, 0).decode("utf-8", "replace")
        half = LOG_BYTES // 2
        pieces = (os.pread(descriptor, half, 0), b"\n[...]\n", os.pread(descriptor, half, size - half))
        return b"".join(pieces).decode("utf-8", "replace")

    # -- the machine's ports, which others use too

    @property
    def _health_port(self) -> int:
        return self.settings.health_port or DEFAULT_PORT

    def probe(self) -> None:
        # Only its own port: on this machine it may be another program that answers there.
        if time.monotonic() - self._probed > 1 and any(found.port == self._health_port for found in self.listeners()):
            super().probe()

    def explain_exit(self) -> None:
        if self._taken:
            raise StageError(
                f"the worker exited with code {self.exit_code} before it registered, and {self._taken}, where it may want to "
                "open its health endpoint: end that program, or let the command use another port (lk_health_port)"
            )

    def explain_absence(self) -> None:
        known = {**inherited(), **self.environment}
        found = sorted(name for name in known if machine.PROXY.fullmatch(name))
        # Whatever NO_PROXY says: livekit-agents 1.8.9 does not heed it, and tries on for minutes. What has ended meanwhile
        # did so for another reason.
        if found and self.is_running and not self.wire.disturbed:
            raise StageError(
                f"the worker did not come to the server on this machine, and {' and '.join(found)} may lead it elsewhere: "
                "unset them for this run"
            )

    def health(self) -> Health | None:
        found = super().health()
        if found is None and self._taken and self.settings.health != "off":
            raise StageError(f"no health endpoint of the worker is there to judge: {self._taken}")
        return found

    # -- seen from outside

    @property
    def address(self) -> str:
        return LOOPBACK

    def _ask_inside(self, url: str, seconds: float) -> Answer:
        return ask(url, seconds)

    def answer_to_others(self, path: str, port: int) -> Answer:
        """What is answered, its redirects followed, at an address of this machine that other hosts use, or of none where none
        of them is answered. Raises NotJudgeable if there is none but loopback."""
        here = [a.address for all_of in psutil.net_if_addrs().values() for a in all_of if a.family == socket.AF_INET]
        others = [address for address in here if not address.startswith("127.")]
        if not others:
            raise NotJudgeable("this machine has no address but loopback: give --lk-image")
        for address in others:
            answer = follow(ask, f"http://{address}:{port}{path}", 5)
            if answer.status is not None:
                break
        return answer

    def _take_snapshot(self) -> Snapshot:
        taken = self._tree.snapshot()
        if not taken.living():
            raise self.ended()
        return taken

    def listeners(self) -> list[Listener]:
        return self._tree.listeners()

    def listeners_with_owner(self) -> list[str]:
        return [str(found) for found in self.listeners()]

    @disturbing
    def signal_processes(self, pids: Sequence[int], name: str) -> None:
        for found in self._tree.processes():
            if found.pid in pids:
                with contextlib.suppress(psutil.Error):
                    found.send_signal(signal.Signals[name])

    @disturbing
    def limit_memory(self, pid: int) -> int | None:
        if not hasattr(psutil.Process, "rlimit"):
            return None  # Linux and FreeBSD have it
        try:
            process = psutil.Process(pid)
            size = int(process.memory_info().vms)
            process.rlimit(resource.RLIMIT_AS, (size, size))
        except (psutil.Error, OSError, ValueError):
            return None
        return size

    def beside(self, *command: str) -> str:
        raise needs_container("a look at all that its processes hold")

    def written(self) -> tuple[list[str], int]:
        raise needs_container("a record of the files that it writes")

    # -- what only a network of its own can show

    @disturbing
    def drop_inbound(self) -> None:
        raise needs_container("a closed firewall")

    def dropped_inbound(self) -> int:
        raise needs_container("a closed firewall")

    @disturbing
    def allow_only(self, addresses: Sequence[str]) -> None:
        raise needs_container("a network with nothing but LiveKit in it")

    @disturbing
    def partition(self) -> AbstractContextManager[Callable[[], int]]:
        raise needs_container("a network that can be cut")

    @disturbing
    def without_names(self) -> AbstractContextManager[Callable[[], int]]:
        raise needs_container("a name server that can be switched off")

    def contacted(self) -> list[str]:
        raise needs_container("a record of outbound connections")

    # -- attempts to connect: while its server is stopped and they are counted, a doorkeeper stands at its address

    def count_attempts(self) -> None:
        self._counting = True
        self._post_doorkeeper()

    def attempts(self) -> int:
        return self._doorkeeper.attempts if self._doorkeeper is not None else 0

    def stop_server(self) -> None:
        super().stop_server()
        self._server_stopped = True
        self._post_doorkeeper()

    def start_server(self) -> None:
        self._server_stopped = False
        if self._doorkeeper is not None:
            self._doorkeeper.close()
        super().start_server()

    def _post_doorkeeper(self) -> None:
        if self._counting and self._server_stopped:
            host, _, port = self.server_peer.partition(":")
            self._doorkeeper = Doorkeeper(host, int(port))

    # -- load

    def burn(self, share: float = 1.0) -> Burners:
        return Burners(self, self._session, share)

    def burning(self, burners: Sequence[psutil.Process]) -> None:
        """What these processes use counts as the worker's own, not as other people's."""
        self._burners = list(burners)

    def usage(self) -> Usage:
        if not self.is_running:
            raise self.ended()
        own = self._tree.memory_bytes()
        return Usage(time.monotonic(), self.cpu_seconds(), own)

    def cpu_seconds(self) -> float:
        return self._tree.cpu_seconds(self._burners)


class Burners(Burning):
    """A context in which every core of this machine is busy for ``share`` of the time, at the lowest priority."""

    def __init__(self, worker: CommandWorker, session: Session, share: float) -> None:
        self._worker, self._session, self._share = worker, session, share
        self._processes: list[subprocess.Popen[bytes]] = []

    def _begin(self) -> None:
        for _ in range(os.cpu_count() or 1):
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", f"import os\nos.nice({BURNER_NICENESS})\n{PYTHON}", f"{self._share:g}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**inherited(), **self._session.mark},
                start_new_session=True,
            )
            self._processes.append(process)
        self._worker.burning([psutil.Process(process.pid) for process in self._processes])

    def _end(self) -> None:
        self._worker.cpu_seconds()
        for process in self._processes:
            process.kill()
            process.wait()
        self._worker.burning([])
