"""The container engine: one client, everything labelled with the session that owns it, and the sweep of dead sessions."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

from pytest_lkagents.checks import StageError
from pytest_lkagents.machine import MARK, end, marked

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.models.images import Image
    from docker.models.networks import Network

LABEL = "pytest-lkagents"
OWNER_LABEL = "pytest-lkagents.owner"
LOOPBACK = "127.0.0.1"
# Containers that are removed at a time: most of it is the engine's and the kernel's waiting.
REMOVERS = 4
# What the doctor itself does not say.
TELLS_MORE = " (pytest --lk-doctor tells more)"
# So much is shown of what an engine says.
REASON = 160


def cache_dir() -> Path:
    """Where things that outlive a run are kept (server binaries, session locks)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "pytest-lkagents"


def require_cache() -> None:
    """Raises StageError with the remedy if nothing can be kept there."""
    folder = cache_dir() / "sessions"
    if str(folder).startswith("~"):
        raise StageError("this user has no home folder to keep anything in: set XDG_CACHE_HOME to a folder of yours")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageError(
            f"cannot write into {cache_dir()} ({error.strerror}): set XDG_CACHE_HOME to a folder of yours"
        ) from None
    if not os.access(folder, os.W_OK):
        raise StageError(f"cannot write into {folder}: set XDG_CACHE_HOME to a folder of yours")


# What the processors of an architecture run beside it without an emulation, in the engine's terms.
ALSO_RUNS = {"amd64": ("386",), "arm64": ("arm",)}


def connect(timeout: int | None = 120) -> DockerClient:
    """A client for the engine that DOCKER_HOST names, or the default one, which waits so many seconds for an answer (None: for
    ever). Raises StageError with the remedy."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=timeout)  # type: ignore[arg-type]  # None is requests' own word for no limit
        client.ping()
    except (DockerException, OSError, ValueError) as error:  # the last one of what is no address
        where = _where()
        # Where there is more to it than an engine that is not there.
        special = os.environ.get("DOCKER_TLS_VERIFY") or where.startswith("ssh:")
        reason = f" ({' '.join(str(error).split())[:REASON]})" if special else ""
        raise StageError(
            f"no container engine answers at {where}{reason}: start Docker, or set DOCKER_HOST{TELLS_MORE}"
        ) from error
    return client


def _where() -> str:
    """Which engine is asked, without a password."""
    return re.sub(r"//[^/@]*@", "//", os.environ.get("DOCKER_HOST") or "its default socket")


def find_image(client: DockerClient, name: str) -> Image:
    """The image, pulled if it is not here. Raises StageError with the remedy, also if it is made for other machines."""
    from docker.errors import DockerException

    try:
        image = client.images.get(name)
    except (DockerException, UnicodeError):
        try:
            image = client.images.pull(name) if ":" in name or "@" in name else client.images.pull(name, tag="latest")
        except (DockerException, UnicodeError) as error:
            reason = " ".join(str(getattr(error, "explanation", None) or error).split())[:REASON]
            # The SDK does not follow the context that is chosen for Docker's command line.
            more = "" if os.environ.get("DOCKER_HOST") else " (set DOCKER_HOST for one that `docker context` chose)"
            raise StageError(
                f"image {name!r} is neither here nor can it be pulled: build it or log in ({reason}); asked was the engine at "
                f"{_where()}{more}"
            ) from error
    if (foreign := made_for_others(client, image)) is not None:
        raise StageError(f"image {name!r} {foreign}")
    return image


def made_for_others(client: DockerClient, image: Image) -> str | None:
    """What to do about an image that this engine could run under an emulation at best, which is slow, so that nothing it
    does would mean anything; None: it is made for this machine, or does not say for which."""
    engine = client.version()
    system, machine = engine.get("Os"), engine.get("Arch")
    wanted_system, wanted = image.attrs.get("Os"), image.attrs.get("Architecture")
    if not (system and machine and wanted_system and wanted):
        return None
    if wanted_system == system and wanted in {machine, *ALSO_RUNS.get(machine, ())}:
        return None
    return (
        f"is made for {wanted_system}/{wanted} and this engine is {system}/{machine}: judge it on such a machine, or build it "
        f"for this one (docker build --platform {system}/{machine})"
    )


def too_few_cores(client: DockerClient, wanted: float | None) -> str | None:
    """What to do about a limit that this engine refuses for every worker; None: it has so many cores, or does not say."""
    cores = client.info().get("NCPU") if wanted is not None else None
    if wanted is None or not cores or wanted <= cores:
        return None
    return f"--lk-cpus {wanted:g}: this engine has {cores} cores, so give {cores} at most"


def owner() -> str:
    """This user on this machine: only sessions of the same owner can be known to be dead, as their locks are in one cache.
    Names do not tell: containers that share the host's network share its name, and may keep caches at the same place."""
    return f"{socket.gethostname()}/{os.getuid()}/{cache_dir()}/{_cache_id()}"


def _cache_id() -> str:
    """What this cache is known by, and no other one; made at its first use."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    kept = cache_dir() / "id"
    with FileLock(f"{kept}.lock"):
        found = kept.read_text(encoding="utf-8").strip() if kept.is_file() else ""
        if not found:
            found = uuid.uuid4().hex[:12]
            # As a whole or not at all: a run that is killed meanwhile leaves no other one.
            fresh = kept.with_suffix(".new")
            fresh.write_text(found, encoding="utf-8")
            fresh.replace(kept)
    return found


ELSEWHERE = (
    "the container engine's networks are not on this machine, which the callers and the tap need: run pytest on the "
    "engine's own host, with an engine that is neither rootless nor in a machine of its own (DOCKER_HOST, Docker Desktop)"
)
# Their networks are in a namespace or a machine of their own.
ROOTLESS, DESKTOP = "name=rootless", "Docker Desktop"


def _is_here(network: Network) -> bool:
    """Whether this machine has the bridge of a network."""
    address = _gateway(network)
    return any(known.address == address for found in psutil.net_if_addrs().values() for known in found)


def _gateway(network: Network) -> str:
    """This machine's address there, as containers see it."""
    config: dict[str, Any] = network.attrs["IPAM"]["Config"][0]
    return str(config.get("Gateway") or config["Subnet"].rpartition(".")[0] + ".1")


def is_elsewhere(client: DockerClient) -> bool:
    """Whether the engine's networks are certainly on another machine, or in a namespace of their own, judged by what it says
    of itself and by the one that engines have by themselves: of a rootful one beside it the address may be the same."""
    from docker.errors import APIError

    try:
        about = client.info()
        if ROOTLESS in (about.get("SecurityOptions") or ()) or about.get("OperatingSystem") == DESKTOP:
            return True
        return not _is_here(client.networks.get("bridge"))
    except (APIError, LookupError, TypeError):
        return False


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
        return _gateway(self.network)

    @property
    def bridge_is_here(self) -> bool:
        """Whether this machine has the network's bridge: it has not where the engine runs elsewhere, in a machine of its own,
        or rootless. By its name, which is this session's alone: another engine here may have a network of the same address."""
        return self.bridge in psutil.net_if_addrs() and _is_here(self.network)

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


@contextmanager
def answering() -> Iterator[None]:
    """A context, or a decorator, for what asks the engine for something. Raises StageError if it does not answer at all."""
    from requests import RequestException

    try:
        yield
    except RequestException as error:
        raise StageError(
            f"the container engine does not answer ({type(error).__name__}): restart it; the next run removes what is left"
        ) from None


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


def describe(client: DockerClient) -> str:
    """Engine and version, such as ``docker 20.10.24 (linux, cgroup v1)``."""
    info = client.info()
    return f"docker {info.get('ServerVersion')} ({platform.system().lower()}, cgroup v{info.get('CgroupVersion', '1')})"
