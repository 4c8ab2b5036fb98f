"""The worker's process table and the connections that each process holds, seen from a container in its namespaces."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

SEPARATOR = "--lkagents--"
PID = re.compile(r"pid=(\d+)")

# What runs in the observer's own container (by its mount namespace) is left out. $$ is its shell: the commands of this
# very script began after that list was made. Everything in one call, so that it is one moment.
SCRIPT = f"""
own=$(stat -L -c %i /proc/self/ns/mnt)
ours=$(stat -L -c '%i %n' /proc/[0-9]*/ns/mnt 2>/dev/null |
  awk -v own="$own" '$1 == own {{split($2, path, "/"); print path[3]}}')
ps -eo pid=,ppid=,uid=,stat=,rss=,cputimes=,args= |
  awk -v me=$$ -v ours="$ours" 'BEGIN {{split(ours, list); for (i in list) out[list[i]]}} !($1 in out) && $2 != me'
echo {SEPARATOR}
ss -Htnp state established
echo {SEPARATOR}
ss -Hlntup
"""


@dataclass(frozen=True)
class Process:
    """``pid`` and ``uid`` as the worker's own container sees them; ``state`` as ps writes it, such as ``Sl``;
    ``resident_bytes`` what it holds in memory, shared pages included; ``cpu_s`` in whole seconds."""

    pid: int
    ppid: int
    uid: int
    args: str
    state: str = ""
    resident_bytes: int = 0
    cpu_s: float = 0.0

    @property
    def zombie(self) -> bool:
        """Whether it has ended and nobody asked for its exit code."""
        return self.state.startswith("Z")


@dataclass(frozen=True)
class Connection:
    """An established TCP connection: the peer as ``address:port``, who holds it, and its port at this end."""

    peer: str
    pids: tuple[int, ...]
    port: int = 0


@dataclass(frozen=True)
class Snapshot:
    """``listening`` as ss writes it; ``with_udp`` are the pids of those that hold UDP sockets, as whoever sends media does."""

    processes: tuple[Process, ...]
    connections: tuple[Connection, ...]
    listening: str
    with_udp: frozenset[int] = frozenset()

    def holders_of(self, peer: str, ports: Collection[int] | None = None) -> list[int]:
        """For each connection to ``peer`` (of those from ``ports``, if given), the pid of the process that holds it (the
        lowest if it is shared)."""
        return sorted(
            min(found.pids)
            for found in self.connections
            if found.peer == peer and found.pids and (ports is None or found.port in ports)
        )

    def without_children(self, pids: Sequence[int]) -> list[int]:
        """Those that descend from none of the others: an agent's avatar, which joins the call too, may be its child."""
        parents = {process.pid: process.ppid for process in self.processes}

        def descends(pid: int) -> bool:
            seen: set[int] = set()
            while (pid := parents.get(pid, 0)) and pid not in seen:
                if pid in pids:
                    return True
                seen.add(pid)
            return False

        return [pid for pid in pids if not descends(pid)]

    def is_relay(self, pid: int) -> bool:
        """Whether others' connections may go through this process: it sends no media, and another one does."""
        return bool(self.with_udp) and pid not in self.with_udp

    def zombies(self) -> set[int]:
        return {process.pid for process in self.processes if process.zombie}

    def living(self) -> dict[int, Process]:
        """Every process that has not ended, by pid."""
        return {process.pid: process for process in self.processes if not process.zombie}


def parse(output: str) -> Snapshot:
    """From the output of SCRIPT. Raises ValueError when it is not that."""
    table, established, listening = output.split(f"{SEPARATOR}\n")
    processes = []
    for line in table.splitlines():
        fields = line.split(None, 6)
        if len(fields) >= 6:
            pid, ppid, uid = map(int, fields[:3])
            args = fields[6] if len(fields) > 6 else ""
            processes.append(Process(pid, ppid, uid, args, fields[3], int(fields[4]) * 1024, float(fields[5])))
    connections = []
    for line in established.splitlines():
        fields = line.split()
        if len(fields) >= 4:
            pids = tuple(sorted({int(pid) for pid in PID.findall(line)}))
            port = int(fields[2].rpartition(":")[2])
            connections.append(Connection(fields[3].replace("[::ffff:", "").replace("]", ""), pids, port))
    udp = (line for line in listening.splitlines() if line.startswith("udp"))
    with_udp = frozenset(int(pid) for line in udp for pid in PID.findall(line))
    return Snapshot(tuple(processes), tuple(connections), listening, with_udp)
