"""What a worker uses: CPU seconds and memory of one moment, as the kernel counts them for a container."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_lkagents.checks import StageError

if TYPE_CHECKING:
    from docker.models.containers import Container

CONTROL_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Usage:
    """``at`` in monotonic seconds; ``cpu_s`` core-seconds since the start; ``memory`` in bytes, as far as it is counted."""

    at: float
    cpu_s: float
    memory: int | None

    @property
    def memory_bytes(self) -> int:
        """What nobody can take back without ending a process: anonymous and shared memory, no cached files. Raises StageError
        where nobody counts it: some systems boot without the memory controller, and an engine then says 0."""
        if self.memory is None:
            raise StageError(
                "neither kernel nor engine counts the memory of containers (docker info warns of it): boot this machine "
                "with cgroup_enable=memory"
            )
        return self.memory


class Meter:
    """Reads a container's counters where the kernel shows them to this machine, else asks the engine, which answers up to
    a second later (docker 20.10.24 counts once a second, also for a single question)."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._groups: Mapping[str, Path] | None = None
        self._has_memory = False

    def read(self) -> Usage | None:
        """None once the container is gone, or its last process."""
        if self._groups is None:
            self._groups = self._find()
        seen = _as_the_kernel_counts(self._groups)
        if seen is None:
            return _as_the_engine_says(self._container)
        # Its groups outlive its processes by a moment, in which nothing is counted that was counted before.
        if seen.memory is None and self._has_memory:
            return None
        self._has_memory = seen.memory is not None
        return seen

    def at_once(self) -> tuple[int, int]:
        """Bytes, and how many of its processes the kernel ended as there was no memory, whoever had taken it; both 0 where the
        kernel does not show that to this machine, or it was never read."""
        seen = _as_the_kernel_counts(self._groups) if self._groups else None
        if seen is None or not self._groups:
            return 0, 0
        group = self._groups.get("memory")
        events = self._groups[""] / "memory.events" if group is None else group / "memory.oom_control"
        with contextlib.suppress(OSError, ValueError):
            return seen.memory or 0, _table(events).get("oom_kill", 0)
        return seen.memory or 0, 0

    def _find(self) -> Mapping[str, Path]:
        """The container's control groups by controller (version 2 has one for all: ""); empty if they are not to be seen."""
        from docker.errors import APIError

        try:
            self._container.reload()
            pid = int(self._container.attrs["State"]["Pid"])
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines() if pid else []
        except (APIError, OSError):
            return {}
        found = {}
        for _, controllers, path in (line.split(":", 2) for line in lines):
            # The engine may count processes from another namespace than this one.
            above, own, below = path.partition(str(self._container.id))
            if own:
                # Not one of the groups that may be in it (Podman's "container"), which may hold a part of it.
                group = above.lstrip("/") + own + below.partition("/")[0]
                for name in controllers.split(","):
                    found[name] = CONTROL_GROUPS / name / group
        return found


def _as_the_kernel_counts(groups: Mapping[str, Path]) -> Usage | None:
    try:
        if "cpuacct" in groups and "memory" in groups:
            cpu = int((groups["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
            memory = _table(groups["memory"] / "memory.stat")
        elif "" in groups:
            cpu = _table(groups[""] / "cpu.stat")["usage_usec"] / 1e6
            memory = _table(groups[""] / "memory.stat")
        else:
            return None
    except (OSError, KeyError, ValueError):
        return None
    return Usage(time.monotonic(), cpu, _own_memory(memory))


def _table(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}


def _as_the_engine_says(container: Container) -> Usage | None:
    from docker.errors import APIError

    try:
        stats: dict[str, Any] = container.client.api.stats(str(container.id), stream=False, one_shot=True)  # type: ignore[union-attr]
    except APIError:
        return None
    cpu = float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9
    if not cpu:
        return None  # what it says of a container that has ended
    # Podman has no table there.
    return Usage(time.monotonic(), cpu, _own_memory((stats.get("memory_stats") or {}).get("stats") or {}))


def _own_memory(counted: Mapping[str, int]) -> int | None:
    """The kernel's names differ between control groups of version 1 (total_rss, total_shmem) and 2 (anon, shmem). No container
    with a process in it has nothing: None where that is said."""
    if "anon" in counted:
        return counted["anon"] + counted.get("shmem", 0) or None
    return counted.get("total_rss", 0) + counted.get("total_shmem", 0) or None
