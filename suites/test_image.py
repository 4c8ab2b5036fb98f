"""Section "Overview": the Dockerfile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

from pytest_lkagents.checks import MUST, SHOULD, Evidence, NotJudgeable, StageError, WorkerFault, check
from pytest_lkagents.manifests.commands import DEVELOPMENT, SCRIPT
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.contents import MOST_READ_SECONDS
from pytest_lkagents.worker.credentials import findings_in_words
from pytest_lkagents.worker.healthcheck import healthcheck

from .drained import Drain
from .observations import Stop
from .scenario import CHECK_SECONDS

# Whoever gives a worker's health check longer waits for longer than this suite does.
LONGEST_PATIENCE = 240
# Whoever comes first waits until the layers are read, and for the starts before.
READ_LIMIT = MOST_READ_SECONDS + 60


def development(arguments: Iterable[str]) -> list[str]:
    """The words among processes' command lines that start a worker for development: behind its program, script or module, where
    another ``dev`` (``--env dev``) is a value."""
    found = set()
    for line in arguments:
        words = line.split()
        for at, word in enumerate(words[1:], start=1):
            before = words[at - 1]
            first = not before.startswith("-") and all(other.startswith("-") for other in words[1 : at - 1])
            if word in DEVELOPMENT and (first or SCRIPT.search(before) or words[at - 2 : at - 1] == ["-m"]):
                found.add(word)
    return sorted(found)


@check(
    "image.production-mode",
    MUST,
    profile="smoke",
    section="Overview",
    why="Development mode takes calls without bound and cuts them when it is stopped.",
    remedy='end the Dockerfile in the production command, such as CMD ["python", "agent.py", "start"]',
    roles=("shared", "draining"),
    seconds=CHECK_SECONDS,
    order=2,
)
def test_production_mode(lk_stage: Stage, lk_evidence: Evidence, lk_drain: Callable[[], Drain]) -> None:
    """It runs in production mode: its call outlives the stop signal, and it was not started for development.

    Two workers are started, and one of them gets its stop signal with a call in progress (see `rollout.sigterm-drains`).
    Two of three signs of development mode are a failure: the call is cut before any other ended; `dev`, `console` or
    `connect` stands behind program, script or module in the command line of one of its processes; the health ports of
    the two, where both have one, with an SDK's page `/worker`, differ. A cut call with neither of the others is a skip,
    as it is then `rollout.sigterm-drains` that fails; also skipped if no call is served. A port that differs from start
    to start may be meant, and so may be such a word.
    """
    shared = lk_stage.worker("shared")
    health = shared.wait_health()
    seen = lk_drain()
    lk_evidence["health_ports_of_two_starts"] = [health.port if health else None, seen.health_port]
    lk_evidence["arguments"] = seen.arguments[:3]
    cut = seen.cut_while_held
    lk_evidence["call_cut_after_signal_s"] = cut.trouble_s if cut else None
    # What is found on a port that moves may be anything; the SDKs' health server has a page that no other one has.
    moving = (
        health is not None
        and seen.health_port is not None
        and health.port != seen.health_port
        and bool(shared.worker_info(health))
    )
    words = development(seen.arguments)
    shows = [f"it was started with {' '.join(words)!r}"] if words else []
    # By itself it may be meant, where several workers share a host.
    shows += ["its health port differs from start to start"] if moving else []
    assert len(shows) < 2, f"{' and '.join(shows)}, as in development mode"
    if cut is not None:
        if not shows:
            raise NotJudgeable(f"{seen.signal} cuts its call, in whatever mode: see rollout.sigterm-drains")
        seen.raise_if_unproven()
        raise AssertionError(f"{shows[0]}, and {seen.signal} cuts the call after {cut.trouble_s} s ({cut.trouble})")
    seen.raise_if_not_cleared()
    lk_evidence.summary = f"its call goes on after {seen.signal}"


@check(
    "image.no-secrets",
    MUST,
    profile="smoke",
    section="Environment variables",
    why="Whoever can pull the image can read every layer and all of its history.",
    remedy="pass secrets at run time, or as build secrets; keep .git and .env out (.dockerignore); rotate what was in a layer",
    seconds=READ_LIMIT,
    order=2,
)
def test_no_secrets(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """No secret is in the image's variables, labels, commands, history or layers.

    The image's variables, labels, commands and history are read, and all layers as `docker save` gives them, files that
    a later layer deletes included. Looked for are variables, labels, assignments in the history and lines of .env
    files, shell scripts and shells' own files whose name is a secret's and whose value has 8 or more characters and is
    no placeholder, path or code (`os.environ["TOKEN"]`); options of its commands with a secret's name (`--api-key`) and
    a value that looks generated; private keys; tokens in the formats of OpenAI, ElevenLabs, Cartesia, Groq, Hugging
    Face, AWS, Google, GitHub and others; URLs with a password (letters and digits), in files those of git, pip, npm and
    yarn; headers with a key or password (`Authorization: Bearer ...`), not in files; a LiveKit API secret and any
    service's API key that is written out in code or configuration (24 or more letters and digits; not in tests,
    examples and documents); the access that .npmrc, .netrc, .pypirc and Docker's configuration hold; and secret values,
    and passwords in URLs, of `--lk-env` and `--lk-env-file`. In the layers only files up to 256 KiB are read, and in
    folders of libraries only these last values count. Of a git repository (`.git`, packs up to 32 MiB) the versions of
    its files are read up to the same size (of one that is kept as a difference, what it adds), for these values, and if
    it lies in the image's work folder or above it also for access tokens, and for a LiveKit API secret in a .env file.
    One finding is a failure; skipped with `--lk-command`.
    """
    contents = lk_stage.contents
    history = contents.history()
    found = findings_in_words(contents.attrs["Config"], history, contents.planted)
    scanned = lk_stage.image_scan()
    found = sorted({*found, *scanned.secrets})
    lk_evidence["layers_read"], lk_evidence["files_read"] = scanned.layers, scanned.files
    lk_evidence["history_lines_read"] = len(history)
    lk_evidence["found"] = found
    assert not found, f"{len(found)} in the image: {'; '.join(found[:3])}"
    scanned.raise_if_unread()
    lk_evidence.summary = f"none in {scanned.files} files of {scanned.layers} layers, variables, labels, history"


@check(
    "image.ca-certificates",
    SHOULD,
    profile="smoke",
    section="Overview",
    why="Without a CA bundle the worker cannot connect to any wss:// URL.",
    remedy="install the distribution's ca-certificates package",
    seconds=READ_LIMIT,
    order=2,
)
def test_ca_certificates(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """A CA bundle is in the image.

    All layers are read as `docker save` gives them. What is left in the final file system must hold one of the five
    usual bundles (such as `/etc/ssl/certs/ca-certificates.crt`), the one that its variable SSL_CERT_FILE names, or
    certifi's `cacert.pem` (not pip's own copy, which nothing else uses), as a link or with more than 1000 bytes, as a
    bundle of one authority has. Skipped with `--lk-command`.
    """
    scanned = lk_stage.image_scan()
    scanned.raise_if_unread()
    lk_evidence["bundles"] = [f"/{path}" for path in scanned.ca_bundles]
    lk_evidence["layers_read"] = scanned.layers
    assert scanned.ca_bundles, "no CA bundle is in the image"
    lk_evidence.summary = f"/{scanned.ca_bundles[0]}"


@check(
    "image.non-root",
    SHOULD,
    profile="smoke",
    section="Overview",
    why="A flaw in an agent that runs as root is a flaw of the whole container, and many clusters refuse it.",
    remedy="create a user and name it with USER",
    roles=("shared",),
    order=1,
)
def test_non_root(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """The worker's processes do not run as root.

    After the registration the process table and the connections of the container are read once. The processes that hold
    a connection to the LiveKit server (the first process, if none is found) must not have uid 0. Skipped with
    `--lk-command`.
    """
    config = lk_stage.contents.attrs["Config"]
    worker = lk_stage.worker("shared")
    snapshot = worker.snapshot()
    holders = set(snapshot.holders_of(worker.server_peer)) or {1}
    uids = sorted({process.uid for process in snapshot.processes if process.pid in holders})
    lk_evidence["uids"] = uids
    lk_evidence["user_in_image"] = config.get("User") or ""
    assert uids, "the worker's process is not in its process table"
    assert 0 not in uids, "the worker runs as root"
    lk_evidence.summary = f"runs as uid {uids[0]}"


@check(
    "image.healthcheck",
    SHOULD,
    section="Networking",
    why="Swarm replaces a container whose own health check fails, and Compose lets nothing start that waits for it.",
    remedy="use in HEALTHCHECK what the image has (slim ones have no curl) and the health endpoint's port and path; or drop it",
    roles=("shared",),
    seconds=LONGEST_PATIENCE + 120,
    order=9,
)
def test_healthcheck(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """The image's own HEALTHCHECK, if it has one, finds the worker healthy.

    Its command is run in the container of the shared worker, as the engine runs it: with the image's shell, user and
    environment. It is healthy with exit code 0 within its timeout. It is run anew every second for as long as the
    engine would wait before it says unhealthy (start period and retries times interval, from the container's start; 90
    s by default), and at least as often as it has retries. Skipped without HEALTHCHECK, with `--lk-command`, or if it
    is not healthy within 240 s and the engine would wait longer, or for more failures; on an overloaded machine one
    that does not end in time is an error.
    """
    found = healthcheck(lk_stage.contents.attrs["Config"])
    lk_evidence["command"] = " ".join(found.command) if found is not None else None
    if found is None:
        raise NotJudgeable("the image has no HEALTHCHECK, which is optional")
    worker = lk_stage.worker("shared")
    before, runs, latest = worker.reading(), 0, time.monotonic() + LONGEST_PATIENCE
    end = worker.started + min(found.patience, LONGEST_PATIENCE)
    while True:
        code, output = worker.run(found.command, found.timeout)
        runs += 1
        now = time.monotonic()
        if code == 0 or (runs >= found.retries and now > end) or now > latest:
            break
        time.sleep(1)
    lk_evidence["runs"], lk_evidence["exit_code"] = runs, code
    lk_evidence["output"] = [line for line in output.splitlines() if line.strip()][-3:]
    if code != 0 and (found.patience > LONGEST_PATIENCE or runs < found.retries):
        longer = f"{found.patience:.0f} s, and for {found.retries} failures"
        raise NotJudgeable(f"not healthy within {LONGEST_PATIENCE} s, but the engine waits {longer}")
    if code is None:
        lk_stage.raise_if_too_busy(worker, before)
    how = f"exits with code {code}" if code is not None else "does not end, or cannot be run"
    assert code == 0, f"the image's own HEALTHCHECK {how}, while the worker is registered"
    lk_evidence.summary = f"its command exits with 0, at run {runs}"


@check(
    "image.forwards-signals",
    MUST,
    section="Rollout",
    why="A worker that never hears of its end takes calls until it is killed in the middle of them.",
    remedy="use the exec form of CMD, exec in wrapper scripts, or an init such as tini",
    roles=("stopped",),
    seconds=300,
    order=2,
)
def test_forwards_signals(lk_stage: Stage, lk_evidence: Evidence, lk_stop: Callable[[], Stop]) -> None:
    """The stop signal reaches the worker.

    The image's stop signal (SIGTERM by default) is sent to the first process of an idle worker, as an engine does;
    within `lk_exit_timeout` (default 30 s) its registration must end or the worker exit. If neither happens, SIGTERM goes
    directly to the process that holds the registration: if that one does not react either within 10 s, or is the first
    process itself, the check is skipped and `rollout.idle-exit` fails; so it is where that process cannot be told.
    Skipped with `--lk-command`; no reaction on an overloaded machine is an error.
    """
    lk_stage.needs_image("signals reach the first process of a container in another way than a process here")
    seen = lk_stop()
    lk_evidence["signal"] = seen.signal
    lk_evidence["deregistered_after_s"], lk_evidence["exited_after_s"] = seen.deregistered_s, seen.exited_s
    lk_evidence["direct_signal_worked"] = seen.direct_signal_worked
    if seen.direct_signal_worked is False:
        raise NotJudgeable("the worker does not react even when the signal is sent to it directly: see rollout.idle-exit")
    reacted = seen.deregistered_s is not None or seen.exited_s is not None
    if not reacted and seen.direct_signal_worked is None:
        raise NotJudgeable("which process to ask directly is not to be seen, as it does not react: see rollout.idle-exit")
    assert reacted, (
        f"{seen.signal} to the container's first process does not reach the worker, which obeys it when asked directly"
    )
    lk_evidence.summary = f"reacts {seen.deregistered_s or seen.exited_s} s after {seen.signal}"


@check(
    "image.self-contained",
    SHOULD,
    profile="full",
    section="Overview",
    why="A model that is fetched at start makes every new worker slow, and none at all when the hub is down.",
    remedy="download models while the image is built (python agent.py download-files); greet callers also without a backend or "
    "MCP server of yours, or waive this check",
    roles=("shared", "sealed"),
    seconds=300,
)
def test_self_contained(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """It registers and serves a call with nothing but LiveKit within reach.

    From its first packet on the worker's network reaches the LiveKit server's addresses only; everything else is
    rejected, name lookups included. It must register within `lk_start_timeout` (default 60 s), and one of three calls
    must get its agent within 15 s (30 s, if the worker accepted it). What it tried to reach is recorded. Skipped if the
    shared worker does not register without these limits, or with `--lk-command`; an overloaded machine is an error.
    """
    lk_stage.worker("shared")
    worker = lk_stage.worker("sealed")
    try:
        lk_stage.wait_registered(worker)
    except WorkerFault as fault:
        with contextlib.suppress(StageError):
            lk_evidence["tried_to_reach"] = worker.contacted()
        raise AssertionError(f"with only LiveKit within reach: {fault}") from None
    caller = lk_stage.calls.caller(worker)
    try:
        call = lk_stage.calls.served(caller)
        lk_evidence["agent_joined_after_s"] = round(call.agent_after, 2)
    except WorkerFault as fault:
        raise AssertionError(f"with only LiveKit within reach: {fault}") from None
    finally:
        caller.close()
        with contextlib.suppress(StageError):
            lk_evidence["tried_to_reach"] = worker.contacted()
    lk_evidence.summary = "registers and serves a call with only LiveKit within reach"
