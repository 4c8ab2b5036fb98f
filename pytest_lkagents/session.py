"""The session: everything that a run starts is labelled with it, and a sweep removes what dead ones left behind."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from filelock import FileLock, Timeout

from pytest_lkagents.cache import cache_dir, owner
from pytest_lkagents.checks import StageError
from pytest_lkagents.engine import answering, gateway_of, is_here
from pytest_lkagents.machine import MARK, end, marked

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.models.networks import Network

LABEL = "pytest-lkagents"
OWNER_LABEL = "pytest-lkagents.owner"
LOOPBACK = "127.0.0.1"
# Containers that are removed at a time: most of it is the engine's and the kernel's waiting.
REMOVERS = 4


def _processes_of(folder: Path) -> Iterator[psutil.Process]:
    """Processes that a session recorded in its folder as ``<pid>.pid`` with their start time, if they still are they."""
    for record in folder.glob("*.pid"):
        with contextlib.suppress(psutil.Error, ValueError, OSError):
            process = psutil.Process(int(record.stem))
            if abs(process.create_time() - float(record.read_text())) < 1:
                yield process


def _note(lock: FileLock) -> Path:
    """Where the session of this lock noted its folder, for a sweep with another TMPDIR."""
    return Path(lock.lock_file).with_suffix(".folder")


def _let_go(lock: FileLock) -> None:
    """Of a session of which nothing is left."""
    _note(lock).unlink(missing_ok=True)
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


class Session:
    """Owner of all that a run starts: its label, its network, its temporary folder, and the lock that proves it alive.

    Without a ``client`` there is no engine: everything is a process here, and loopback is the network.
    """

    def __init__(self, client: DockerClient | None) -> None:
        self._client = client
        self.id = uuid.uuid4().hex[:12]
        self.labels = {LABEL: self.id, OWNER_LABEL: owner()}
        locks = cache_dir() / "sessions"
        locks.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(str(locks / f"{self.id}.lock"))
        self._lock.acquire()
        self.folder = Path(tempfile.mkdtemp(prefix=f"pytest-lkagents-{self.id}-"))
        _note(self._lock).write_text(str(self.folder))
        self._network: Network | None = None
        # Whether the engine was seen not to answer, so that nothing more is asked of it at the end.
        self.hangs = False

    @property
    def client(self) -> DockerClient:
        assert self._client is not None, "this session has no engine"
        return self._client

    @property
    def mark(self) -> dict[str, str]:
        """The variable by which processes of this session are found again."""
        return {MARK: self.id}

    @property
    def bridge(self) -> str:
        """The interface on which servers, taps and workers meet."""
        if self._client is None:
            found = (name for name, all_of in psutil.net_if_addrs().items() if any(a.address == LOOPBACK for a in all_of))
            return next(found, "lo")
        return f"lka{self.id}"[:15]  # the kernel's limit for interface names

    def open_network(self) -> None:
        """Create the session's own bridge network. Raises StageError."""
        from docker.errors import APIError

        try:
            self._network = self.client.networks.create(
                f"pytest-lkagents-{self.id}",
                driver="bridge",
                labels=self.labels,
                options={"com.docker.network.bridge.name": self.bridge},
            )
            self._network.reload()
        except APIError as error:
            raise StageError(f"the engine refuses a network: {error.explanation or error}") from error

    @property
    def network(self) -> Network:
        assert self._network is not None, "open_network() first"
        return self._network

    @property
    def gateway(self) -> str:
        """The host's address on the session's network, as workers see it."""
        if self._client is None:
            return LOOPBACK
        return gateway_of(self.network)

    @property
    def bridge_is_here(self) -> bool:
        """Whether this machine has the network's bridge: it has not where the engine runs elsewhere, in a machine of its own,
        or rootless. By its name, which is this session's alone: another engine here may have a network of the same address."""
        return self.bridge in psutil.net_if_addrs() and is_here(self.network)

    def record_process(self, pid: int) -> None:
        (self.folder / f"{pid}.pid").write_text(repr(psutil.Process(pid).create_time()))

    def remove(self) -> None:
        """Remove the containers and networks that carry this session's label; never raises for what is already gone. Raises
        StageError if the engine does not answer; it is not asked again then."""
        if self._client is None or self.hangs:
            return
        try:
            remove_session(self._client, self.id)
        except StageError:
            self.hangs = True
            raise

    def close(self) -> None:
        """The same with everything else of this session."""
        try:
            self.remove()
        finally:
            end([*_processes_of(self.folder), *marked([self.id])])
            shutil.rmtree(self.folder, ignore_errors=True)
            _let_go(self._lock)


@answering()
def remove_session(client: DockerClient, session_id: str) -> None:
    """Remove the containers and networks of one session. Raises StageError if the engine does not answer."""
    from docker.errors import APIError

    labelled: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={session_id}"}
    containers = client.containers.list(all=True, filters=labelled, sparse=True)

    def remove(container: Container) -> None:
        with contextlib.suppress(APIError):
            container.remove(force=True, v=True)

    def is_guest(container: Container) -> bool:
        return str((container.attrs.get("HostConfig") or {}).get("NetworkMode")).startswith("container:")

    # Containers that live in another one's network namespace go first.
    with ThreadPoolExecutor(REMOVERS, thread_name_prefix="lk-remove") as removers:
        list(removers.map(remove, filter(is_guest, containers)))
    # One at a time: docker 20.10 was seen to lock up while it took several out of one network (libnetwork, Sandbox.Delete).
    for container in itertools.filterfalse(is_guest, containers):
        remove(container)
    for network in client.networks.list(filters=labelled):
        with contextlib.suppress(APIError):
            network.remove()


def sweep(client: DockerClient | None) -> list[str]:
    """Remove what dead sessions of this owner left behind; returns their ids. Without an engine the containers of such
    sessions stay for a run that has one."""
    mine: dict[str, str | list[str] | bool] = {"label": f"{OWNER_LABEL}={owner()}"}
    seen = {lock.stem for lock in (cache_dir() / "sessions").glob("*.lock")}
    if client is not None:
        listed = client.containers.list(all=True, filters=mine, sparse=True)
        seen |= {(found.attrs.get("Labels") or {}).get(LABEL, "") for found in listed}
        seen |= {n.attrs["Labels"].get(LABEL, "") for n in client.networks.list(filters=mine)}
    dead: dict[str, FileLock] = {}
    for session_id in sorted(seen - {""}):
        path = cache_dir() / "sessions" / f"{session_id}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(path))
        with contextlib.suppress(Timeout):  # alive
            lock.acquire(blocking=False)
            dead[session_id] = lock
    if dead:
        end(marked(dead))
    for session_id, lock in dead.items():
        if client is not None:
            remove_session(client, session_id)
        note = _note(lock)
        places = [Path(tempfile.gettempdir()), *([Path(note.read_text()).parent] if note.is_file() else [])]
        for folder in {folder for place in places for folder in place.glob(f"pytest-lkagents-{session_id}-*")}:
            end(_processes_of(folder))
            shutil.rmtree(folder, ignore_errors=True)
        _let_go(lock)
    return list(dead)
