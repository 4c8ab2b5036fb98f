"""What a worker uses: CPU seconds and memory of one moment, as the engine counts them for a container."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docker.models.containers import Container


@dataclass(frozen=True)
class Usage:
    """``at`` in monotonic seconds; ``cpu_s`` core-seconds since the start; ``memory_bytes`` what nobody can take back
    without ending a process: anonymous and shared memory, no cached files."""

    at: float
    cpu_s: float
    memory_bytes: int


def container_usage(container: Container) -> Usage | None:
    """None once it is gone."""
    from docker.errors import APIError

    try:
        stats: dict[str, Any] = container.client.api.stats(str(container.id), stream=False, one_shot=True)  # type: ignore[union-attr]
    except APIError:
        return None
    cpu = float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9
    return Usage(time.monotonic(), cpu, _own_memory(stats.get("memory_stats", {}).get("stats", {})))


def _own_memory(counted: dict[str, int]) -> int:
    """The kernel's names differ between control groups of version 1 (total_rss, total_shmem) and 2 (anon, shmem)."""
    if "anon" in counted:
        return counted["anon"] + counted.get("shmem", 0)
    return counted.get("total_rss", 0) + counted.get("total_shmem", 0)
