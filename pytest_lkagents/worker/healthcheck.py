"""An image's own health check (HEALTHCHECK), as the engine runs it.

https://docs.docker.com/reference/dockerfile/#healthcheck says what the defaults are, and that a container is unhealthy after
so many failures in a row, of which those in the start period do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHELL = ("/bin/sh", "-c")
SECOND = 1e9  # in the engine's unit
INTERVAL_SECONDS = TIMEOUT_SECONDS = 30.0
RETRIES = 3


@dataclass(frozen=True)
class Healthcheck:
    """``timeout``: seconds for one run of the command, which is healthy with exit code 0; ``retries``: how many failures in
    a row count; ``patience``: seconds after the container's start at which the engine says unhealthy, if it never was."""

    command: tuple[str, ...]
    timeout: float
    retries: int
    patience: float


def healthcheck(config: Mapping[str, Any]) -> Healthcheck | None:
    """That of an image's ``Config``; None: it has none."""
    found = config.get("Healthcheck") or {}
    kind, *words = found.get("Test") or ["NONE"]
    if kind == "CMD-SHELL" and words:
        command = (*(config.get("Shell") or SHELL), words[0])
    elif kind == "CMD" and words:
        command = tuple(words)
    else:
        return None

    def seconds(name: str, default: float) -> float:
        return (found.get(name) or 0) / SECOND or default

    retries = int(found.get("Retries") or RETRIES)
    patience = seconds("StartPeriod", 0.0) + retries * seconds("Interval", INTERVAL_SECONDS)
    return Healthcheck(command, seconds("Timeout", TIMEOUT_SECONDS), retries, patience)
