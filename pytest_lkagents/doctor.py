"""``pytest --lk-doctor``: what this machine has and lacks, and how to get it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_lkagents import engine, machine, selection
from pytest_lkagents.cache import require_cache
from pytest_lkagents.callers.speech import speech_file
from pytest_lkagents.checks import StageError
from pytest_lkagents.command_line import CommandError, find_program
from pytest_lkagents.server import choose
from pytest_lkagents.server.binary import SERVER_INSTALL, find_binary, version_of
from pytest_lkagents.settings import Settings
from pytest_lkagents.values import OWN_SERVERS
from pytest_lkagents.worker.health import DEFAULT_PORT

if TYPE_CHECKING:
    from docker import DockerClient

Finding = tuple[bool | None, str]

ENGINE_INSTALL = "https://docs.docker.com/engine/install/"


def _command_findings(settings: Settings) -> Iterator[Finding]:
    """Whether the command can be run, and whether the port that it will want is free."""
    folder = settings.command_dir or Path()
    try:
        program = find_program(settings.command, folder, {**os.environ, **settings.env})
        yield True, f"command: {program}, in {folder}"
    except CommandError as error:
        yield False, f"command: {error}"
    port = settings.health_port or DEFAULT_PORT
    taker = machine.taker_of(port)
    if taker is not None:
        yield (
            None,
            f"port {port}: taken by {taker}; a worker with its health endpoint there cannot start",
        )
    else:
        yield True, f"port {port}: free for the worker's health endpoint"


def _image_finding(client: DockerClient, name: str) -> Finding:
    from docker.errors import DockerException

    try:
        foreign = engine.made_for_others(client, client.images.get(name))
    except (DockerException, UnicodeError):
        return None, f"image {name}: not here, it is pulled at the first run"
    return (True, f"image {name}: is here") if foreign is None else (False, f"image {name}: {foreign}")


def findings(settings: Settings) -> Iterator[Finding]:
    """(True: there, False: needed and missing, None: worth knowing; one line)."""
    cores = os.cpu_count() or 1
    memory = psutil.virtual_memory()
    yield (
        (cores >= 2) or None,
        f"cpu: {cores} cores, load {os.getloadavg()[0]:.1f}"
        + ("" if cores >= 2 else "; with less than 2 verdicts take longer"),
    )
    roomy = memory.available >= 4 * 1024**3
    yield (
        roomy or None,
        f"memory: {memory.available / 1024**3:.1f} GiB free"
        + ("" if roomy else "; a run starts about ten workers, 4 GiB are advisable"),
    )
    if settings.has_worker:
        try:
            require_cache()
        except StageError as error:
            yield False, str(error)
    if settings.command:
        yield from _command_findings(settings)
    if settings.manifests:
        yield from _manifest_findings(settings)
    if settings.active and not settings.has_worker:
        return  # files are judged without an engine and a server
    needed = not settings.command or choose.needs_engine(settings)
    with contextlib.ExitStack() as closing:
        client = None
        try:
            client = engine.connect()
            closing.callback(client.close)
            with engine.answering():
                yield from _engine_findings(client, settings, needed=needed)
        except StageError as error:
            client = None  # to ask it more is to wait as long once more
            lacking = str(error).replace(engine.TELLS_MORE, f" ({ENGINE_INSTALL} says how to get one)")
            without = "engine: none answers; --lk-command does without, --lk-image needs one"
            yield (False, lacking) if needed else (None, without)
        yield from _server_findings(settings, client)
    try:
        speech_file()
        yield True, "speech: the caller's voice is there"
    except StageError as error:
        yield False, f"speech: {error}"


def _engine_findings(client: DockerClient, settings: Settings, *, needed: bool) -> Iterator[Finding]:
    """Raises requests' errors if it does not answer."""
    from docker.errors import APIError

    try:
        yield True, f"engine: {engine.describe(client)}"
    except APIError as error:
        yield None, f"engine: it answers, and does not say what it is ({error.explanation or error})"
    if needed and engine.is_elsewhere(client):
        yield False, engine.ELSEWHERE
    if (refusal := engine.too_few_cores(client, settings.cpus, settings.origin("lk_cpus"))) is not None:
        yield False, refusal
    for name in filter(None, (settings.image, settings.from_image)):
        yield _image_finding(client, name)
    if _is_here(client, settings.probe_image):
        yield True, f"side container: image {settings.probe_image} is here"
    else:
        yield None, f"side container: image {settings.probe_image} is built at the first run (needs a registry)"


def _manifest_findings(settings: Settings) -> Iterator[Finding]:
    try:
        selection.require_manifests(settings)
        yield True, f"deployment files: {', '.join(settings.manifests)} can be judged"
    except pytest.UsageError as error:
        yield False, f"deployment files: {error}"


def _is_here(client: DockerClient, image: str) -> bool:
    from docker.errors import APIError

    try:
        client.images.get(image)
    except APIError:
        return False
    return True


def _server_image_finding(client: DockerClient, name: str) -> Finding:
    if _is_here(client, name):
        return True, f"server: image {name} is here"
    lacking = f"no livekit-server on PATH and no image {name} here"
    return None, f"server: {lacking}; it is pulled at the first run, or install one: {SERVER_INSTALL}"


def _server_findings(settings: Settings, client: DockerClient | None) -> Iterator[Finding]:
    if settings.server not in OWN_SERVERS:
        try:
            choose.require(settings)
            yield True, f"server: one that somebody else runs answers at {settings.server}"
        except StageError as error:
            yield False, f"server: {error}"
        return
    binary = find_binary() if settings.server != "container" else None
    if binary is not None:
        yield True, f"server: livekit-server {version_of(binary) or 'of unknown version'} at {binary}"
    elif settings.server == "binary":
        yield False, f"server: no livekit-server on PATH, which --lk-server binary needs; install it: {SERVER_INSTALL}"
    elif client is not None:
        try:
            with engine.answering():
                yield _server_image_finding(client, settings.server_image)
        except StageError as error:
            yield False, str(error)
    else:
        yield False, f"server: no livekit-server on PATH, and no engine to run its image; install one: {SERVER_INSTALL}"


def report(settings: Settings) -> tuple[bool, list[str]]:
    """Whether nothing that is needed is missing, and the lines to print."""
    found = list(findings(settings))
    marks = {True: "ok     ", False: "MISSING", None: "note   "}
    return all(state is not False for state, _ in found), [f"{marks[state]} {line}" for state, line in found]
