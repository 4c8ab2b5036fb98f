"""The processes of a command on this machine, with their sockets and what they use, as psutil shows them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable
from typing import Any

import psutil

from pytest_lkagents import machine
from pytest_lkagents.probe.sidecar import Listener
from pytest_lkagents.worker.processes import Connection, Process, Snapshot

# As ps writes them; of the others it does not matter in which one a process is.
STATES = {psutil.STATUS_ZOMBIE: "Z", psutil.STATUS_STOPPED: "T", psutil.STATUS_RUNNING: "R"}


class ProcessTree:
    """Empty until it has a ``leader``, the pid of the command's first process, and again once it is ``over``."""

    def __init__(self) -> None:
        self.leader: int | None = None
        self.over = threading.Event()
        self._known: dict[int, psutil.Process] = {}
        self._seconds: dict[int, float] = {}

    def processes(self) -> list[psutil.Process]:
        """Those of this moment, zombies too."""
        if self.leader is None or self.over.is_set():
            return []
        found = machine.tree_of(self.leader, list(self._known.values()))
        self._known.update({process.pid: process for process in found})
        return found

    def end(self) -> None:
        """Kill what is left of it: it is over."""
        with contextlib.suppress(psutil.Error, OSError):
            machine.end(self.processes())
        self.over.set()

    def snapshot(self) -> Snapshot:
        """Of all of them, without the listening sockets (see ``listeners``)."""
        processes = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error), process.oneshot():
                state = STATES.get(process.status(), "S")
                arguments = "" if state == "Z" else " ".join(process.cmdline())
                times = process.cpu_times()
                resident, cpu = process.memory_info().rss, times.user + times.system
                processes.append(Process(process.pid, process.ppid(), process.uids().real, arguments, state, resident, cpu))
        holders: dict[tuple[object, object], set[int]] = {}
        with_udp = set()
        for process, used in self._sockets():
            if used.type == socket.SOCK_DGRAM:
                with_udp.add(process.pid)
            if used.status == psutil.CONN_ESTABLISHED and used.raddr:
                holders.setdefault((used.laddr, used.raddr), set()).add(process.pid)
        connections = [
            Connection(f"{_plain(peer[0])}:{peer[1]}", tuple(sorted(pids)), here[1])  # type: ignore[index]
            for (here, peer), pids in holders.items()
        ]
        return Snapshot(tuple(processes), tuple(connections), "", frozenset(with_udp))

    def listeners(self) -> list[Listener]:
        found: dict[tuple[str, str, int], Listener] = {}
        for process, used in self._sockets():
            protocol = "tcp" if used.type == socket.SOCK_STREAM else "udp"
            listens = used.status == psutil.CONN_LISTEN if protocol == "tcp" else not used.raddr
            if not listens or not used.laddr:
                continue
            address, port = str(used.laddr[0]), int(used.laddr[1])
            with contextlib.suppress(psutil.Error):
                found.setdefault((protocol, address, port), Listener(protocol, address, port, f"pid {process.pid}"))
        return list(found.values())

    def _sockets(self) -> list[tuple[psutil.Process, Any]]:
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                found += [(process, used) for used in process.net_connections(kind="inet")]
        return found

    def memory_bytes(self) -> int:
        """What they have now: half of what two share counts for each, as control groups count it once."""
        own = 0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                own += process.memory_full_info().pss
        return own

    def cpu_seconds(self, beside: Iterable[psutil.Process]) -> float:
        """Core-seconds that they, and all that ever were ``beside`` them, have used so far."""
        # As far as they were seen alive: what a process used is gone with it.
        for process in [*self.processes(), *beside]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self._seconds[process.pid] = max(self._seconds.get(process.pid, 0.0), times.user + times.system)
        return sum(self._seconds.values())


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")
