"""What a rule says of the files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pytest_lkagents.manifests.tree import Place

GUIDE = "https://docs.livekit.io/agents/ops/deployment/"


@dataclass(frozen=True)
class Finding:
    """``found`` and ``wanted`` in a few words; ``source`` is the guide or the platform's document behind it."""

    place: Place
    found: str
    wanted: str
    why: str
    source: str = GUIDE

    def __str__(self) -> str:
        return f"{self.place}: {self.found}; wanted: {self.wanted}"

    def evidence(self) -> dict[str, Any]:
        return {
            "file": self.place.file,
            "line": self.place.line,
            "field": self.place.field,
            "found": self.found,
            "wanted": self.wanted,
            "why": self.why,
            "source": self.source,
        }


@dataclass
class Judgement:
    """``looked_at``: how many things the rule applied to; with none it says nothing, and (``nothing``) why, where its check's
    own reason would not be true. ``notes`` go with a pass."""

    findings: list[Finding] = field(default_factory=list)
    looked_at: int = 0
    notes: list[str] = field(default_factory=list)
    nothing: str = ""


@dataclass(frozen=True)
class Needs:
    """What the worker needs, as measured or declared; None: not known. Seconds, cores, bytes, load from 0 to 1;
    ``load_metric`` is what moves the load: cpu or calls."""

    start_s: float | None = None
    drain_s: float | None = None
    load_threshold: float | None = None
    load_metric: str | None = None
    health_port: int | None = None
    health_path: str | None = None
    # Where a redirect from there leads: a path, or a URL where that is on another port or over TLS.
    health_leads_to: str | None = None
    sessions: int | None = None
    cores_per_session: float | None = None
    memory_per_session_bytes: int | None = None
