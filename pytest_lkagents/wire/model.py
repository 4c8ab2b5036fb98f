"""What the tap saw, as values: entries, registrations, statuses, questions. Times are time.monotonic() seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# What a word ends at; keys and passwords have hardly one of these.
WORD = re.compile(r"[^\s\"',;()\[\]{}<>]*")
# Of an entry's line.
LONGEST_WORDS = 200


def shortened(text: str, longest: int) -> str:
    """At most so many characters of it, cut between words: whoever hides secrets afterwards does not know the half of one."""
    if len(text) <= longest:
        return text
    end = longest
    while end and WORD.fullmatch(text[end - 1 : end + 1]):
        end -= 1
    return text[:end]


@dataclass(frozen=True)
class Entry:
    """One message, connection event or act.

    ``connection`` counts the tap's connections from 1 (0: no connection in particular). ``source`` is "worker",
    "server" or "tap". ``data`` never holds a token; ``data["fate"]`` says what a rule did with the message ("held",
    "dropped", "delayed", "duplicated"), "swallowed" for a probe's answer. ``size`` is the payload's in bytes.
    """

    at: float
    connection: int
    source: str
    kind: str
    data: dict[str, Any]
    size: int

    def line(self, since: float = 0.0) -> str:
        """One readable line, its time in seconds after ``since``."""
        words = _words(self.kind, self.data)
        marks = [str(self.data["fate"])] if self.data.get("fate") else []
        if self.data.get("unknown_fields"):
            marks.append("unknown fields")
        tail = f" ({', '.join(marks)})" if marks else ""
        text = f"{self.at - since:8.3f} s  #{self.connection} {self.source}> {self.kind}{' ' if words else ''}{words}{tail}"
        return "".join(letter if letter.isprintable() else "?" for letter in text)


def _words(kind: str, data: dict[str, Any]) -> str:
    job = data.get("job") or {}
    if kind == "register":
        words = f"agent_name {data.get('agent_name') or '(none)'} sdk {data.get('version') or '?'}"
        words += f" deployment {data['deployment']}" if data.get("deployment") else ""
    elif kind == "registered":
        words = f"{data.get('worker_id')} server {(data.get('server_info') or {}).get('version') or '?'}"
    elif kind == "status":
        status = data.get("status", "(no status)")
        words = f"{status} load {float(data.get('load') or 0):.2f} jobs {data.get('job_count', 0)}"
        words += " draining" if data.get("draining") else ""
    elif kind in ("question", "assignment"):
        words = f"{job.get('id')} room {(job.get('room') or {}).get('name')}{' (probe)' if data.get('probe') else ''}"
    elif kind == "answer":
        after = data.get("after_s")
        words = f"{data.get('job_id')} {'available' if data.get('available') else 'not available'}"
        words += " to anybody" if data.get("terminate") and not data.get("available") else ""
        words += f" after {after * 1000:.0f} ms" if after is not None else ""
    elif kind == "job":
        words = f"{data.get('job_id')} {data.get('status')} {data.get('error') or ''}".rstrip()
    elif kind == "closed":
        words = f"by {data.get('by')}: {data.get('how')}"
        words += f" {data['code']} {data.get('reason') or ''}".rstrip() if "code" in data else ""
    elif kind == "act":
        words = " ".join([str(data.get("act")), *(f"{name} {value}" for name, value in data.items() if name != "act")])
    else:
        words = " ".join(f"{name} {value}" for name, value in data.items() if name not in ("fate", "unknown_fields"))
    return words if len(words) <= LONGEST_WORDS else f"{shortened(words, LONGEST_WORDS)}..."


@dataclass(frozen=True)
class Answer:
    """A worker's answer to a probe; ``available`` is None if none came in time. ``after_s`` in seconds."""

    job_id: str
    available: bool | None
    after_s: float | None


# Version of livekit-server.
DEPLOYMENTS_SINCE = [1, 12]


@dataclass(frozen=True)
class Registration:
    """One registered worker connection. ``registered`` is when the server's response passed, ``closed`` None while
    the connection lives; ``sdk_version`` and ``server_version`` as both sides state them; ``hidden``: it asks that nobody
    in a room sees its agents; ``deployment``: empty, or one of several of the same name (LIVEKIT_AGENT_DEPLOYMENT)."""

    worker_id: str
    agent_name: str
    sdk_version: str
    namespace: str
    registered: float
    closed: float | None
    connection: int
    server_version: str
    hidden: bool = False
    deployment: str = ""

    @property
    def dispatched_to(self) -> tuple[str, str]:
        """Agent name and deployment: the server gives a job to workers that have both in common with its dispatch
        (livekit-server, pkg/service/agentservice.go, workerKey). One that knows of no deployments passes over a worker's, and
        refuses a token with one (livekit/protocol, auth/grants.go)."""
        known = [int(number) for number in re.findall(r"\d+", self.server_version)[:2]]
        return self.agent_name, self.deployment if not known or known >= DEPLOYMENTS_SINCE else ""

    @property
    def named(self) -> str:
        """The same in words."""
        return f"{self.agent_name!r} (deployment {self.deployment!r})" if self.deployment else repr(self.agent_name)


@dataclass(frozen=True)
class Status:
    """One UpdateWorkerStatus. ``has_status`` is False if it left its status out: ``full`` is then what was said last on its
    connection, at first not (livekit-server, pkg/agent/worker.go, HandleUpdateWorker); an absent load is 0, an absent
    ``job_count`` too (the format does not tell)."""

    at: float
    load: float
    full: bool
    job_count: int | None
    has_status: bool
    connection: int = 0


@dataclass(frozen=True)
class Question:
    """One job that the worker was asked about on one connection. ``answers`` are (time, available), every one of them;
    ``assigned`` is when the assignment passed; ``probe``: asked by the tap, not by the server; ``terminated``: it refused
    and wanted no other worker to be asked, upon which the server counts the job as done."""

    job_id: str
    room: str
    agent_name: str
    asked: float
    answers: tuple[tuple[float, bool], ...] = ()
    assigned: float | None = None
    probe: bool = False
    connection: int = 0
    terminated: bool = False

    @property
    def answered(self) -> float | None:
        """When the first answer came."""
        return self.answers[0][0] if self.answers else None

    @property
    def available(self) -> bool | None:
        """What the first answer said."""
        return self.answers[0][1] if self.answers else None

    @property
    def answered_after(self) -> float | None:
        """Seconds from the question to the first answer."""
        return self.answers[0][0] - self.asked if self.answers else None
