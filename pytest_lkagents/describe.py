"""What a verdict says about its subject and its stage, and what is kept of the wire."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pytest_lkagents import engine
from pytest_lkagents.checks import StageError, WorkerFault
from pytest_lkagents.secrets import Redactor
from pytest_lkagents.server.base import Server
from pytest_lkagents.settings import Settings
from pytest_lkagents.verdict import Lane, Subject
from pytest_lkagents.wire.tap import Tap
from pytest_lkagents.worker.base import Worker

# Job statuses after which there is no more call.
OVER = ("success", "failed")

if TYPE_CHECKING:
    from docker import DockerClient


def image(name: str, attrs: dict[str, Any], size: int, sdk: str | None, version: str | None) -> Subject:
    """From what the engine says about the image; ``size``: bytes."""
    digests = attrs.get("RepoDigests") or []
    digest = str(digests[0]).partition("@")[2] if digests else str(attrs.get("Id"))
    return Subject("image", name, digest, size, sdk, version)


def sdk(worker: Worker) -> tuple[str | None, str | None]:
    """SDK and version, from its registration, its ``/worker`` page, and the interpreter that holds its registration."""
    version: str | None = None
    for known in worker.wire.transcript.registrations():
        version = known.sdk_version or version
    sdk = None
    try:
        if version is None and (found := worker.health()):
            version = worker.worker_info(found).get("sdk_version")
        snapshot = worker.snapshot()
        holders = worker.registered_by(snapshot)
        args = next((process.args for process in snapshot.processes if process.pid in holders), "")
        program = os.path.basename(args.split(" ")[0])
        sdk = "python" if program.startswith("python") else "node" if program.startswith("node") else None
    except (StageError, WorkerFault):
        pass
    return sdk, version


def stage(settings: Settings, server: Server | None, client: DockerClient | None) -> dict[str, Any]:
    """The verdict's ``stage``: cpus and memory are the worker's limits, or this machine's."""
    kind = type(server).__name__.removesuffix("Server").lower() if server else settings.server
    return {
        "server": kind,
        "server_version": server.version if server else None,
        "engine": engine.describe(client) if client is not None else None,
        "cpus": settings.cpus or os.cpu_count(),
        "memory_bytes": settings.memory_bytes or psutil.virtual_memory().total,
    }


def lanes(taps: Iterable[Tap]) -> list[Lane]:
    """The workers' lives, by name, as far as their connections tell; those that never connected have none."""
    known = [tap for tap in taps if tap.transcript.entries()]
    began = min((tap.transcript.started for tap in known), default=0.0)
    return [_lane(tap, began) for tap in known]


def _lane(tap: Tap, began: float) -> Lane:
    transcript = tap.transcript
    until = max(entry.at for entry in transcript.entries())

    def span(start: float, end: float | None) -> tuple[float, float]:
        return round(start - began, 2), round((until if end is None else end) - began, 2)

    statuses = transcript.statuses()
    full, since = [], None
    for status in statuses:
        if status.full and since is None:
            since = status.at
        elif not status.full and since is not None:
            full.append(span(since, status.at))
            since = None
    if since is not None:
        full.append(span(since, None))
    ended = {entry.data.get("job_id"): entry.at for entry in transcript.entries("job") if entry.data.get("status") in OVER}
    taken = [question for question in transcript.questions() if question.assigned is not None]
    return Lane(
        tap.name,
        [span(known.registered, known.closed) for known in transcript.registrations()],
        full,
        [span(question.assigned or 0.0, ended.get(question.job_id)) for question in taken],
        [(round(status.at - began, 2), round(status.load, 3)) for status in statuses],
        [(round(entry.at - began, 2), str(entry.data.get("act"))) for entry in transcript.entries("act")],
    )


def keep_transcripts(taps: Iterable[Tap], folder: Path, redactor: Redactor) -> None:
    """``--lk-report``: a file per worker, a JSON line per message. Raises OSError."""
    # Each of several test processes has workers of its own (pytest-xdist).
    process = os.environ.get("PYTEST_XDIST_WORKER")
    for tap in taps:
        folder.mkdir(exist_ok=True)
        path = folder / (f"wire-{process}-{tap.name}.jsonl" if process else f"wire-{tap.name}.jsonl")
        tap.transcript.write(path, redactor.fields)
