"""This machine: processes that a session started, found again whatever they did to their parents, and its ports."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import socket
from collections.abc import Iterable

import psutil

# In the environment of what a session starts as a user's command; children inherit it, also those whose parent is gone.
MARK = "LKAGENTS_SESSION"
END_SECONDS = 5
# Below those that systems give to sockets that name none (Linux: from 32768), such as the callers' and the workers' media.
FIXED_PORTS = (10000, 32768)
TRIES = 100
# Nobody else seeds it: pytest-randomly sets Python's own one back before each test, and the same ports would come again, of
# which those of a server that is stopped for a while are free.
CHANCE = random.SystemRandom()
# Variables that lead programs to a proxy.
PROXY = re.compile(r"(https?|all)_proxy", re.IGNORECASE)


def environment() -> dict[str, str]:
    """A copy of this process's environment. pytest names its test there and takes it out again, in another thread than those
    that start servers and workers: what changes meanwhile (https://docs.python.org/3/library/os.html#os.environ says nothing
    of threads) begins the copy anew."""
    while True:
        with contextlib.suppress(KeyError, RuntimeError):
            return dict(os.environ)


def own_environment() -> dict[str, str]:
    """For a process of our own that runs in /: without the way over a proxy to a server on this machine. Python 3.11 and later
    do not look for modules where they are run."""
    kept = {name: value for name, value in environment().items() if not PROXY.fullmatch(name)}
    places = [os.path.abspath(place) for place in kept.get("PYTHONPATH", "").split(os.pathsep) if place]
    return {**kept, "PYTHONSAFEPATH": "1", **({"PYTHONPATH": os.pathsep.join(places)} if places else {})}


def tree_of(leader: int, known: Iterable[psutil.Process] = ()) -> list[psutil.Process]:
    """The processes that descend from ``leader``, itself first: its children's children, its POSIX session, and those of
    ``known`` that still are who they were. Those that have ended, and whose exit code nobody
    asked for, are among them."""
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(leader)
        found[leader] = first
        for child in first.children(recursive=True):
            found.setdefault(child.pid, child)
    for pid in psutil.pids():
        # A process keeps its session when its parent dies; only a daemon gives itself another one.
        with contextlib.suppress(OSError, psutil.Error):
            if pid not in found and os.getsid(pid) == leader:
                found[pid] = psutil.Process(pid)
    for process in known:
        if process.pid not in found and process.is_running():
            found[process.pid] = process
    return list(found.values())


def marked(sessions: Iterable[str]) -> list[psutil.Process]:
    """The processes of this user that carry the mark of one of these sessions."""
    wanted = set(sessions)
    found = []
    for process in psutil.process_iter():
        # Other users' environments cannot be read, and are none of our business.
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) in wanted:
                found.append(process)
    return found


def end(processes: Iterable[psutil.Process]) -> None:
    """Kill them and wait until they are gone; one that is gone already is no error."""
    ending = list(processes)
    for process in ending:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(ending, timeout=END_SECONDS)


def port_is_taken(port: int) -> bool:
    """Whether a program on this machine listens on this TCP port for everybody."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("0.0.0.0", port))  # noqa: S104 - where workers listen too; nothing is served
        except PermissionError:
            return False
        except OSError:
            return True
    return False


def holder_of(port: int) -> psutil.Process | None:
    """Who listens on a TCP port; None if this user may not know."""
    with contextlib.suppress(psutil.Error):
        for found in psutil.net_connections(kind="tcp"):
            if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr[1] == port and found.pid:
                return psutil.Process(found.pid)
    return None


def in_words(process: psutil.Process | None) -> str:
    with contextlib.suppress(psutil.Error):
        if process is not None:
            return f"{process.name()} (pid {process.pid})"
    return "another program"


def taker_of(port: int, session: str = "") -> str | None:
    """Which program has taken a TCP port, in words; None: it is free, or this session's own worker has it."""
    if not port_is_taken(port):
        return None
    holder = holder_of(port)
    with contextlib.suppress(psutil.Error):
        if holder is not None and session and holder.environ().get(MARK) == session:
            return None
    return in_words(holder)


def fixed_port(address: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A free port that nobody is given by chance: who stops listening there and starts again must find it free. Raises
    OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(TRIES):
        port = CHANCE.randrange(*FIXED_PORTS)
        with socket.socket(family, kind) as probe:
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
            else:
                return port
    raise OSError(errno.EADDRINUSE, f"no free port in {TRIES} tries")
