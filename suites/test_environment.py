"""Section "Environment variables": configured from outside, and discreet about it."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from pytest_lkagents.callers.caller import Caller
from pytest_lkagents.callers.request import CallRequest
from pytest_lkagents.checks import MUST, SHOULD, Evidence, NotJudgeable, StageError, TryAgain, WorkerFailed, WorkerFault, check
from pytest_lkagents.secrets import can_be_told, secrets_of, spellings, tokens_in, without_tokens
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .observations import FirstCall

# Of lines that show something, so many are enough, of this length.
MOST_LINES, LINE_LENGTH = 3, 160
# Of lookups, plain ones and over TLS: they say nothing of where it goes.
NAME_PORTS = ("53", "853")
AGENT_NAME = "LIVEKIT_AGENT_NAME"
# One process may hold several agents, which register one after the other.
NEXT_SECONDS = 5
API_SECRET = "LIVEKIT_API_SECRET"  # noqa: S105 - the variable
# A server wants so many characters of a secret, and complains of less. Whatever they are, they stand nowhere by chance.
LONG_SECRET = 32


@check(
    "environment.configured-by-variables",
    MUST,
    section="Environment variables",
    why="One image must serve staging and production, each with its own URL and keys.",
    remedy="take LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET from the environment and let nothing override them",
    roles=("shared",),
    seconds=300,
)
def test_configured_by_variables(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """It uses the URL and the keys that it was given.

    The worker gets a LIVEKIT_URL that nobody else has and a random key and secret; every new outbound connection from
    its container's network is recorded from its start on. It is a failure if it runs, and connected somewhere and never
    to the given address; lookups of names (ports 53 and 853) are no connections. If it registers there, which the server
    allows with the given keys only, it passes; if it does not, or ended before it came there, the check is skipped, as
    `registration.registers` says so. With `--lk-command` connections are not recorded and the registration alone counts.
    """
    worker = lk_stage.worker_as_is("shared")
    try:
        contacted = worker.contacted()
        lk_evidence["outbound"] = contacted
    except NotJudgeable as reason:  # its registration still proves it; only what else it tried stays unknown
        contacted = []
        lk_evidence["outbound_not_recorded"] = str(reason)
    lk_evidence["given"] = worker.server_peer
    elsewhere = [contact for contact in contacted if contact.partition("/")[0].rpartition(":")[2] not in NAME_PORTS]
    if f"{worker.server_peer}/tcp" not in contacted and elsewhere:
        if not worker.is_running:
            # Of its error, it may have told Sentry.
            raise NotJudgeable("it ended before it came to its server: see registration.registers")
        raise AssertionError(f"never contacted the given LIVEKIT_URL, but {', '.join(elsewhere[:5])}")
    lk_stage.worker("shared")  # raises if it did not register, which is another check's business
    lk_evidence.summary = "registered at the given URL with the given, random keys"


@check(
    "environment.one-project",
    SHOULD,
    profile="full",
    section="Environment variables",
    why="A worker that also talks to another project's server mixes staging with production.",
    remedy="let every part of the agent take its LiveKit URL from LIVEKIT_URL",
    roles=("shared",),
)
def test_one_project(lk_stage: Stage, lk_evidence: Evidence, lk_first_call: Callable[[], FirstCall]) -> None:
    """It contacts no LiveKit server but the one that it was given.

    After a call, all outbound destinations of the worker's container so far are listed. Each TCP destination at a
    private address, other than the given server and its media, gets two HTTP requests (2 s each): it counts as a
    LiveKit server if `/` answers 200 with OK and `/rtc/validate` answers 401, and one such is a failure. Public
    addresses are listed, and neither contacted nor judged. Skipped with `--lk-command`, or if the call is not served.
    """
    worker = lk_stage.worker("shared")
    lk_first_call()
    media = urlsplit(worker.server.worker_url).hostname
    own = {worker.server_peer, f"{media}:{urlsplit(worker.server.worker_url).port}"}
    others, livekit, elsewhere = [], [], []
    for contact in worker.contacted():
        peer, _, protocol = contact.partition("/")
        host, _, port = peer.rpartition(":")
        if peer in own or (protocol == "udp" and host == media):
            continue
        others.append(contact)
        # Only what is on this machine or its private networks is looked at: hosts elsewhere are none of our business.
        local = ipaddress.ip_address(host).is_private
        if not local:
            elsewhere.append(contact)
        elif protocol == "tcp" and _speaks_livekit(lk_stage, host, int(port)):
            livekit.append(contact)
    lk_evidence["given"] = worker.server_peer
    lk_evidence["other_outbound_hosts"] = others
    lk_evidence["other_livekit_servers"] = livekit
    assert not livekit, f"contacts another LiveKit server at {', '.join(livekit)}"
    lk_evidence.summary = (
        f"no other LiveKit server near; hosts elsewhere, not asked what they are: {', '.join(elsewhere[:3])}"
        if elsewhere
        else f"no other LiveKit server; other hosts contacted: {', '.join(others[:3]) or 'none'}"
    )


def _speaks_livekit(stage: Stage, host: str, port: int) -> bool:
    """A LiveKit server says OK at ``/`` and wants a token at ``/rtc/validate``."""
    base = f"http://{host}:{port}"
    status, body = stage.neighbour().get(f"{base}/", 2)
    return status == 200 and body.strip() == "OK" and stage.neighbour().get(f"{base}/rtc/validate", 2)[0] == 401


@check(
    "environment.agent-name",
    SHOULD,
    profile="full",
    section="Environment variables",
    why="A worker that ignores its name joins every room of the project.",
    remedy="update the SDK (Python 1.5.7, Node 1.4.0 or later), or pass the variable on as the agent's name; accept the calls "
    "that ask for it",
    roles=("shared", "renamed"),
    seconds=300,
)
def test_agent_name(lk_stage: Stage, lk_evidence: Evidence, lk_first_call: Callable[[], FirstCall]) -> None:
    """LIVEKIT_AGENT_NAME is honoured where the worker sets no name itself.

    A worker is started with LIVEKIT_AGENT_NAME set to `lk-renamed`, and the name in its registration, as read on the
    wire, must be that; of several registrations, that of one (5 s after the first at the latest). Then up to three calls
    ask for an agent of that name, as one without it was served before: it is a failure if all of them are refused.
    Skipped if all that the worker registers have a name without this, and not that of a LIVEKIT_AGENT_NAME that it was
    given (then it sets its name itself), if it keeps the name that it was given (which it may set itself, too), or if it
    does not register within `lk_start_timeout` (default 60 s). Where no call is served, or these are accepted and not
    served, the registration alone counts: see `jobs.joins`.
    """
    shared = lk_stage.worker("shared")
    shared.registration()
    own = {found.agent_name for found in shared.wire.transcript.live()}
    before = shared.environment.get(AGENT_NAME, "")
    if not own & {"", before}:
        raise NotJudgeable(f"the worker sets its name itself ({_listed(own)})")
    worker = lk_stage.worker("renamed")
    given = worker.environment[AGENT_NAME]
    worker.wait_registered()
    worker.wire.transcript.wait(lambda seen: given in {found.agent_name for found in seen.live()}, NEXT_SECONDS)
    names = {found.agent_name for found in worker.wire.transcript.registrations()}
    lk_evidence["given"], lk_evidence["registered_as"] = given, sorted(names)
    if given not in names and before and before in names:
        raise NotJudgeable(f"the worker sets its name itself ({_listed(names)}), as LIVEKIT_AGENT_NAME has it")
    assert given in names, f"LIVEKIT_AGENT_NAME={given} is ignored: it registered as {_listed(names)}"
    lk_evidence.summary = f"registered as {_listed(names)}"
    try:
        lk_first_call()
    except TryAgain:
        raise
    except (WorkerFault, StageError):
        # No call tells anything, such as one whose agent no caller can see.
        return
    since = time.monotonic()
    lk_evidence["served"] = _is_served_by_name(lk_stage, worker, given)
    answers = worker.wire.transcript.answers(since)
    if not lk_evidence["served"]:
        lk_evidence["transcript"] = worker.wire.transcript.lines(since, kinds=("question", "answer"))
    assert lk_evidence["served"] or not answers or any(answer is not False for answer in answers), (
        f"registered as {given!r}, it refuses every call that asks for {given!r}, and serves those that ask for nobody by name"
    )


def _is_served_by_name(stage: Stage, worker: Worker, name: str) -> bool:
    deployment = next((found.dispatched_to[1] for found in worker.wire.transcript.live() if found.agent_name == name), "")
    request = CallRequest(name, stage.settings.metadata, stage.settings.attributes, deployment)
    with contextlib.closing(Caller(worker.server, stage.media, stage.ledger, request)) as caller:
        try:
            stage.calls.served(caller)
        except WorkerFailed:
            raise
        except WorkerFault:
            return False
    return True


def _listed(names: set[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


@check(
    "environment.secrets-not-logged",
    MUST,
    section="Environment variables",
    why="Logs and process tables are read by many more people and systems than the secret store.",
    remedy="do not print the environment, and hand secrets to processes by environment, not by argument",
    roles=("shared",),
    order=9,
)
def test_secrets_not_logged(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """No secret value is in the worker's output or in a process's arguments.

    At the end of the run the whole output of every worker of the image is searched (with `--lk-command` the first and
    the last 4 MiB of it), and so are the command lines of all processes: those of the shared worker at that moment (if
    it runs), and those that any check came across, beside calls too. Looked for are the LIVEKIT_API_SECRET of each
    worker and those values of `--lk-env` and `--lk-env-file` whose name and form are a secret's (at least 8 characters,
    no placeholder, no plain words, no path), and the passwords in the URLs of any of them (letters and digits, more
    than a word and a number): as they are, and as JSON, a URL or base64 spell them. A LIVEKIT_API_SECRET that is a
    plain word, as that of `livekit-server --dev` is (`--lk-server URL`), stands in any log by chance: it is not looked
    for, which the evidence says. One occurrence is a failure. Skipped if there is none, but no worker ever registered,
    or nothing could be looked for.
    """
    worker = lk_stage.worker_as_is("shared")
    with contextlib.suppress(WorkerFault):  # its output can still be judged
        worker.snapshot()
    judged_ones = lk_stage.alike(worker)
    written = {judged.name: judged.logs() for judged in judged_ones}
    variables = {name: value for name, value in lk_stage.settings.env.items() if name != API_SECRET}
    given = [(name, part) for name, value in variables.items() for part in secrets_of(name, value)]
    leaks = set()
    looked_for = {name for name, _ in given}
    for judged in judged_ones:
        own = judged.environment.get(API_SECRET, "")
        own_ones = [(API_SECRET, own)] if _can_be_looked_for(own) else []
        looked_for |= {name for name, _ in own_ones}
        for name, value in given + own_ones:
            for spelling in spellings(value):
                if spelling in written[judged.name]:
                    leaks.add(f"{name} in the worker's output")
                if any(spelling in words for words in judged.command_lines):
                    leaks.add(f"{name} in a process's arguments")
    lk_evidence["output_bytes_read"] = sum(len(text) for text in written.values())
    lk_evidence["workers_read"] = len(written)
    lk_evidence["command_lines_read"] = lines = sum(len(judged.command_lines) for judged in judged_ones)
    lk_evidence["secrets_looked_for"] = sorted(looked_for)
    if API_SECRET not in looked_for:
        lk_evidence["not_looked_for"] = f"{API_SECRET}: it is short, or a plain word"
    lk_evidence["found"] = sorted(leaks)
    assert not leaks, "; ".join(sorted(leaks))
    if not any(judged.wire.transcript.registrations() for judged in judged_ones):
        raise NotJudgeable("no worker came so far as to use its secret: see registration.registers")
    if not looked_for:
        raise NotJudgeable(f"no secret was given to it: its {API_SECRET} is a plain word")
    lk_evidence.summary = f"no secret in the output of {len(written)} workers nor in {lines} command lines"


def _can_be_looked_for(secret: str) -> bool:
    return can_be_told(API_SECRET, secret) or len(secret) >= LONG_SECRET


@check(
    "environment.tokens-not-logged",
    SHOULD,
    section="Environment variables",
    why="Whoever reads a token in a log or a process table can listen to that call, or act as a worker, while it is valid.",
    remedy="leave tokens, and URLs that carry one, out of the log, and hand them to processes by a pipe or the environment",
    roles=("shared",),
    order=9,
)
def test_tokens_not_logged(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """No token that opens its server is in the worker's output or in a process's arguments.

    Looked through is what `environment.secrets-not-logged` reads. A token counts if it is whole, not yet expired, and
    signed with the LIVEKIT_API_SECRET of the worker's server: those that a worker makes to register, and those that the
    server gives to its jobs. One is a failure. Skipped if there is none, but no job was ever given to a worker.
    """
    # Whatever became of the shared one: what others wrote can still be judged.
    try:
        lk_stage.worker_as_is("shared")
    except (WorkerFault, StageError):
        if not lk_stage.workers("shared"):
            raise
    judged_ones = lk_stage.alike(lk_stage.workers("shared")[0])
    written = {judged.name: judged.logs() for judged in judged_ones}
    leaks, lines_with_one = set(), []
    for judged in judged_ones:
        output = written[judged.name].splitlines()
        for where, texts in (("the worker's output", output), ("a process's arguments", sorted(judged.command_lines))):
            for text in texts:
                found = {what for what in map(judged.server.opened_by, tokens_in(text)) if what}
                leaks |= {f"a token {what} in {where}" for what in found}
                # Before it is cut: half a token is not known as one.
                lines_with_one += [without_tokens(text)[:LINE_LENGTH]] if found else []
    lk_evidence["lines"] = lines_with_one[:MOST_LINES]
    lk_evidence["output_bytes_read"] = sum(len(text) for text in written.values())
    lk_evidence["command_lines_read"] = lines = sum(len(judged.command_lines) for judged in judged_ones)
    lk_evidence["found"] = sorted(leaks)
    assert not leaks, "; ".join(sorted(leaks))
    if not any(question.assigned for judged in judged_ones for question in judged.wire.transcript.questions()):
        raise NotJudgeable("no job was given to a worker, and so no token: see jobs.joins")
    lk_evidence.summary = f"no token in the output of {len(written)} workers nor in {lines} command lines"
