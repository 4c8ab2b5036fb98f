"""Section "Networking": a worker registers over a connection of its own and needs nothing inbound."""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_lkagents.checks import MUST, SHOULD, Evidence, NotJudgeable, StageError, Unproven, WorkerFault, check
from pytest_lkagents.stage import Stage

from . import early, faults, lasting, losses
from .faults import SILENT_SECONDS
from .incomplete import REQUIRED, problem_without
from .observations import FirstCall
from .reconnecting import RECONNECT_SECONDS, Reconnection, agent_comes, cut_and_return, needs_own_server
from .shared import contrast
from .unready import GIVE_UP_SECONDS, until_not_ready

# A resolver's socket, or a medium's of a call that is over, is there for a moment.
LOOKS, LOOK_SECONDS = 5, 1.0


@check(
    "registration.registers",
    MUST,
    profile="smoke",
    section="Networking",
    why="A worker that does not register gets no calls.",
    remedy="read the worker's last lines; it must reach LIVEKIT_URL with the key and secret it is given",
    roles=("shared",),
    seconds=300,
    order=-2,
)
def test_registers(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """The worker registers within the start timeout.

    The worker is started with LIVEKIT_URL, key and secret of a LiveKit server; the time runs from its start until the
    server's answer to its registration passes on the wire. The bound is `lk_start_timeout` (default 60 s); an exit
    before it is a failure too. Where others keep this machine busy it has the same time once more, and then it is an
    error. Meanwhile its health port is probed about once a second, as platforms do.
    """
    lk_evidence["start_timeout_s"] = lk_stage.settings.start_timeout
    worker = lk_stage.worker("shared")
    found = worker.wire.transcript.registrations()[0]
    lk_evidence["registered_after_s"] = round(found.registered - worker.started, 2)
    lk_evidence["agent_name"] = found.agent_name
    if found.deployment:
        lk_evidence["deployment"] = found.deployment
    lk_evidence["transcript"] = worker.wire.transcript.lines(worker.started, kinds=("register", "registered"), last=2)
    lk_evidence.summary = f"registered {lk_evidence['registered_after_s']} s after its start"


@check(
    "registration.outbound-only",
    MUST,
    section="Networking",
    why="Platforms run workers behind NAT and firewalls; nobody can connect to them.",
    remedy="let nothing at start wait for an inbound connection (a probe, a webhook, a callback)",
    roles=("shared", "firewalled"),
    order=-1,
)
def test_outbound_only(lk_stage: Stage, lk_evidence: Evidence, lk_first_call: Callable[[], FirstCall]) -> None:
    """It registers, takes a job and talks with every inbound connection dropped.

    From its first packet on, a firewall in the worker's network drops every inbound connection; answers to its own ones
    pass. It must register within `lk_start_timeout` (default 60 s), one of three calls must get its agent within 15 s,
    and if the shared worker's agent was heard in an ordinary call, this one must be heard within 30 s, which counts when
    it is not heard in a second call either. Skipped if the shared worker does not register or is not served without the
    firewall, or with `--lk-command`; an overloaded machine is an error.
    """
    # First, as workers may have to take turns.
    baseline = lk_first_call()
    worker = contrast(lk_stage, "firewalled", "with inbound connections dropped it does not register")
    caller = lk_stage.calls.caller(worker)
    try:
        try:
            call = lk_stage.calls.served(caller)
        except WorkerFault as fault:
            raise AssertionError(f"with inbound connections dropped, {fault}") from None
        talks, before = baseline.sound_s is not None, worker.reading()
        mute = talks and lk_stage.calls.is_mute(call, worker, before, "behind a firewall")
        sound = call.sound_after if talks else None
        lk_evidence["agent_joined_after_s"] = round(call.agent_after, 2)
        lk_evidence["first_sound_after_s"] = None if sound is None else round(sound, 2)
        lk_evidence["dropped_inbound_packets"] = worker.dropped_inbound()
        assert not mute, "with inbound connections dropped the agent joins but is not heard"
    finally:
        caller.close()
    lk_evidence.summary = "registers, takes a job" + (" and talks" if talks else "") + " behind a closed firewall"


@check(
    "registration.listens-only-for-health",
    SHOULD,
    section="Networking",
    why="Every other open port is an attack surface that a worker does not need.",
    remedy="close the port, bind it to 127.0.0.1, or declare it (lk_metrics_port)",
    roles=("shared",),
)
def test_listens_only_for_health(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """It listens for health and declared metrics, and for nothing else.

    Once no job is left, the TCP and UDP sockets that listen in the worker's network (with `--lk-command`: of its
    processes) are read, five times within four seconds if there are any that should not be: one that is there each time
    counts. Those bound to loopback, the health port as found and the declared `lk_metrics_port` are
    allowed; any other one is a failure. A job that does not end within 60 s is an error.
    """
    worker = lk_stage.worker("shared")
    health = worker.wait_health()
    known = {health.port if health else None, lk_stage.settings.metrics_port}

    def extra() -> list[str]:
        return [str(found) for found in worker.listeners() if not found.loopback and found.port not in known]

    # Media sockets belong to jobs: those of a call that has just ended may take a moment to close.
    lk_stage.calls.wait_idle(worker)
    others = extra()
    for _ in range(LOOKS - 1):
        if not others:
            break
        time.sleep(LOOK_SECONDS)
        now = extra()
        others = [found for found in others if found in now]
    lk_evidence["health_port"] = health.port if health else None
    lk_evidence["other_sockets"] = others
    lk_evidence["listening"] = worker.listeners_with_owner()
    assert not others, f"listens on {', '.join(others)}"
    lk_evidence.summary = f"listens on {health.port} only" if health else "listens on nothing"


@check(
    "registration.stays",
    SHOULD,
    section="Networking",
    why="A worker that is away is offered no call, and one that was being offered to it finds nobody.",
    remedy="keep the connection open and answer on it; let no timer or lost message end it, and restart no process behind it",
    roles=("shared",),
    order=9,
)
def test_stays(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """It stays registered while nobody disturbs it.

    At the end of the run the times are counted for which the shared worker, to whose connection nothing was done, was
    registered nowhere and then came back by itself: as it had closed the connection, as its process was started again,
    or as the server ended the connection for what came over it. A renewal that opens the next registration before it
    closes the last one leaves no such time. It has been watched for at least 30 s; where such times are too few, or
    this machine was too busy in the 20 s before them, twice as long as it was registered before one of them (120 s at
    most). Two are a failure. Of a server given by URL only what the worker closed counts.
    """
    worker = lk_stage.worker("shared")
    away, certain, watched = lasting.observe(lk_stage, worker)
    lk_evidence["watched_s"] = round(watched, 1)
    lk_evidence["away_s"] = [round(found.until - found.since, 2) for found in away]
    lk_evidence["ended_by"] = [found.by for found in away]
    if away:
        kinds = ("registered", "closed", "refused")
        lk_evidence["transcript"] = worker.wire.transcript.lines(worker.started, kinds=kinds, last=8)
    times = f"{len(away)} time{'s' if len(away) > 1 else ''}"
    assert len(certain) < lasting.ENOUGH, f"it lost its registration {times} in {watched:.0f} s, and nobody disturbed it"
    lk_evidence.summary = f"registered {f'but for {times} ' if away else ''}for {watched:.0f} s"


@check(
    "registration.waits-for-server",
    MUST,
    section="Networking",
    why="Workers and server are rolled out in any order; a worker that gives up at once needs a human.",
    remedy="retry the first connection as the SDK does; do not exit or stop trying when it is refused",
    roles=("shared", "early"),
    seconds=400,
    order=-1,
)
def test_waits_for_server(lk_stage: Stage, lk_evidence: Evidence, lk_before_server: Callable[[], early.Early]) -> None:
    """Started before the server is up, it registers when the server comes, and serves calls.

    The worker is started while its server is down and the server's address refuses connections; its attempts to connect
    are counted and recorded: the first is waited for as long as `lk_start_timeout`, the second for 15 s, with a probe
    of its health port a second. If it still runs, the server is started, and it must register within 45 s (Python's
    longest pause between two tries is 10 s). Then a call must get its agent, one of three, or of three more if it
    refused these, when it is no longer full or has had `lk_start_timeout`; two calls that it accepted and did not serve
    are a failure. Calls are not judged if those to the shared worker get no agent; on an overloaded machine a miss is
    an error. An exit before that is a failure; one after more than 60 s of waiting is an error, as whoever has tried
    for a minute may give up, and so is a worker that was not seen to try. Skipped if the shared worker does not
    register either, or the server is given by URL.
    """
    seen = lk_before_server()
    lk_evidence["refused_attempts"], lk_evidence["registered_after_s"] = seen.tries, seen.registered_s
    lk_evidence["agent_joined_after_s"] = seen.joined_s
    assert seen.problem is None, seen.problem
    assert seen.unserved is None, seen.unserved
    seen.raise_if_untried(lk_stage.settings.start_timeout)
    if seen.not_told is not None:
        raise StageError(seen.not_told)
    lk_evidence.summary = f"registered {seen.registered_s} s after the server came, {seen.tries} refused tries before"


@check(
    "registration.backs-off",
    SHOULD,
    section="Networking",
    why="When a server restarts, workers that try without a pause keep it from coming up, and burn their own CPU.",
    remedy="wait between two tries to connect, longer each time, as the SDKs do",
    roles=("shared", "early"),
    seconds=400,
    order=-1,
)
def test_backs_off(lk_stage: Stage, lk_evidence: Evidence, lk_before_server: Callable[[], early.Early]) -> None:
    """While its server cannot be reached, it waits between two tries.

    Counted are the connections that the worker of `registration.waits-for-server` tries to open while its server's
    address refuses them. If there are more than 10 by the time that a second one was waited for, they are counted for 5 s
    more: more than 10 a second is a failure. The SDKs wait for 0, 2, 4 and more seconds. Skipped where that check fails
    or is skipped.
    """
    seen = lk_before_server()
    lk_evidence["tries"], lk_evidence["tries_per_s"] = seen.tries, seen.per_second
    lk_evidence["waited_s"] = round(seen.waited_s, 1)
    hasty = seen.per_second is not None and seen.per_second > early.MOST_PER_SECOND
    assert not hasty, f"{seen.per_second} tries a second to reach a server that is not there"
    if seen.problem is not None:
        raise NotJudgeable("it does not wait for its server: see registration.waits-for-server")
    seen.raise_if_untried(lk_stage.settings.start_timeout)
    lk_evidence.summary = f"{seen.tries} tries in the first {seen.waited_s:.0f} s"


@check(
    "registration.reconnects",
    MUST,
    section="Networking",
    why="Servers are updated too; a worker that does not come back is lost until somebody restarts it.",
    remedy="keep retrying after the connection is lost, however it ended and whatever a try is answered with, as the SDK does",
    roles=("reconnecting",),
    seconds=400,
    order=2,
)
def test_reconnects(lk_evidence: Evidence, lk_reconnection: Callable[[], Reconnection]) -> None:
    """After a restart of the server, and after its connection was cut or closed, it registers again, once, and takes
    calls.

    A first call must be served, else it is skipped. The worker's server is stopped, its connections are cut, and after
    the worker's first try (5 s at most) the server is started again; later the proxy on the wire resets the connection
    of its registration alone, and at last ends it with a close frame (1001, going away) and answers the next try (5 s
    at most) with status 503, as load balancers do. After each it must register within 45 s, for 3 s no more
    registrations may be open than before, and one of three calls must get its agent within 15 s (two in all that it
    took, or about which it did not answer within 3 s, and to which no agent came, are a failure all the same); where
    the first call's agent was heard, those of the calls after the restart and the cut must be, too, within 30 s, which
    counts when it is seen again with another worker; a health endpoint that answered 200 before must do so again within
    10 s, unless the worker is full. If it reported its load before, it must do so again: while the call of
    `registration.keeps-calls` is watched, or else twice within 12 s without a call, with pauses of 10 s at most.
    Skipped if the server is given by URL; on an overloaded machine a miss is an error.
    """
    seen = lk_reconnection()
    lk_evidence.update(seen.evidence)
    assert seen.problem is None, seen.problem
    lk_evidence.summary = (
        f"registered again {lk_evidence['registered_after_s']} s after the restart, "
        f"{lk_evidence['registered_after_cut_s']} s after a cut, {lk_evidence['registered_after_close_s']} s after a close, "
        "and took calls"
    )


@check(
    "registration.reconnects-often",
    SHOULD,
    profile="full",
    section="Networking",
    why="Connections are lost for as long as a worker lives. One that gives up, waits longer each time or leaks does not last.",
    remedy="begin anew with tries and pauses once it has registered, and close all that belonged to the lost connection",
    roles=("cut-often",),
    seconds=600,
)
def test_reconnects_often(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """After each of ten more cuts in a row it registers again, and they leave nothing behind.

    After a first cut, which is not judged here, the proxy on the wire resets the connection of the worker's
    registration ten times, each time when it has registered again; no more once these have taken 150 s. Each time it
    must register within 45 s, and at last one of three calls must get its agent within 15 s. Its processes, and the
    descriptors and threads of those that live all the time (not with `--lk-command`), are counted at rest before, after
    three cuts and after all: one more for each of at least five cuts, both times, is a failure. On an overloaded
    machine a miss is an error.
    """
    worker = lk_stage.untouched("cut-often")
    seen = losses.observe(lk_stage, worker)
    lk_evidence["cuts"], lk_evidence["registered_after_s"] = len(seen.returned_s), seen.returned_s
    more = seen.more()
    lk_evidence["more_processes"], lk_evidence["more_descriptors"] = more["process"], more["descriptor"]
    lk_evidence["more_threads"] = more["thread"]
    assert seen.problem is None, seen.problem
    assert not seen.left_behind, f"each of {len(seen.returned_s)} cuts leaves {' and '.join(seen.left_behind)} behind"
    caller = lk_stage.calls.caller(worker)
    try:
        came = agent_comes(lk_stage, caller, f"it registered again after each of {len(seen.returned_s)} cuts")
    finally:
        caller.close()
    lk_evidence["agent_joined_after_s"] = came
    slowest = max(seen.returned_s)
    lk_evidence.summary = (
        f"registered again after each of {len(seen.returned_s)} cuts, within {slowest:g} s, nothing left behind"
    )


@check(
    "registration.keeps-calls",
    MUST,
    section="Networking",
    why="Connections are reset by load balancers and restarted servers every day; calls have connections of their own.",
    remedy="leave jobs and their count alone when the worker's connection is lost, and connect again without a restart",
    roles=("reconnecting",),
    seconds=400,
    order=2,
)
def test_keeps_calls(lk_evidence: Evidence, lk_reconnection: Callable[[], Reconnection]) -> None:
    """A call in progress goes on when the worker's own connection to its server is lost and comes back.

    In `registration.reconnects`, when the proxy on the wire resets the connection of the worker's registration, a call
    is in progress; the job's own connection and its media stay. The call is watched for 5 s, and until 3 s after the
    worker has registered again: it is cut if its agent leaves the room, or if the job's connection to the server is
    gone, or packets are missing (1.5 s), and stay away for 8 s, or if another process of the worker than before holds
    the job's connection at the end. A pause of more than 2.5 s (in the sound of an agent that talks without pauses,
    else between packets) counts too, although the call went on. A worker with one registration that counts its calls,
    by the load that it reports, and a call as 0.15 or more, must not report two or three times without another value
    that it has none. An agent that leaves, or falls silent, may do so by itself: in a second look the reset only comes
    when it has stayed, or talked, for clearly longer. Skipped if the worker does not come that far, or agents leave
    their calls by themselves; on an overloaded machine what is missing is an error.
    """
    seen = lk_reconnection()
    kept = seen.kept
    if kept is None:
        raise NotJudgeable(seen.problem or seen.not_kept)
    lk_evidence["call"] = kept.evidence or kept.continuity.evidence()
    lk_evidence["registered_after_cut_s"] = seen.evidence.get("registered_after_cut_s")
    if kept.trouble is not None and kept.unproven is not None:
        raise Unproven(kept.unproven)
    if seen.doubt is not None:
        raise StageError(f"this machine is too busy to judge: {kept.trouble or 'the call went on'}, {seen.doubt}")
    if kept.trouble is not None:
        raise AssertionError(f"{kept.trouble_s} s after the worker's connection was cut {kept.trouble}")
    if kept.hung_up_s is None:
        raise NotJudgeable(seen.problem or seen.not_kept)
    if seen.uncounted is not None:
        lk_evidence["transcript"] = seen.reports
        raise AssertionError(f"its call went on after the connection was cut, but it forgot it: {seen.uncounted}")
    lk_evidence.summary = f"its call went on for {kept.hung_up_s} s after the connection was cut"


@check(
    "registration.survives-half-open",
    MUST,
    profile="full",
    section="Networking",
    why="Routers forget connections without a word; a worker that then ends, or stays deaf, is lost and may take calls along.",
    remedy="treat silence of the server as a lost connection at most: connect again, as the SDK does, and do not exit",
    roles=("half-open",),
    seconds=400,
)
def test_survives_half_open(lk_evidence: Evidence, lk_half_open: Callable[[], faults.Aftermath]) -> None:
    """After 20 s in which nothing passes to or from the server it is registered, once, and takes calls.

    With a call in progress the proxy on the wire lets nothing pass between worker and server for 20 s, not even the end
    of a connection; media goes on. That is longer than the 15 s after which the SDKs act, and shorter than the 80 s
    after which they give up. Then the worker has 45 s to talk to its server over as many registrations as before, and
    after the old call is hung up one of five new ones must get its agent within 15 s; an exit, another number of
    registrations or no agent is a failure, and so is a health endpoint that answered 200 before and does not within 10
    s of the new call, unless the worker is full. The call in progress is recorded, not judged; a miss on an overloaded
    machine is an error.
    """
    seen = lk_half_open()
    lk_evidence.update(seen.evidence())
    assert seen.problem is None, seen.problem
    assert seen.registrations_after == seen.registrations_before, (
        f"{seen.registrations_after} registrations are open {RECONNECT_SECONDS} s after a silence of {SILENT_SECONDS} s, "
        f"instead of {seen.registrations_before}"
    )
    lk_evidence.summary = seen.summary("a word from the server")


@check(
    "registration.survives-partition",
    MUST,
    profile="full",
    section="Networking",
    why="Networks fail for some seconds and come back; a worker that does not needs a human.",
    remedy="do not exit when the network is gone for a while; connect again for as long as it takes, as the SDK does",
    roles=("partitioned",),
    seconds=400,
)
def test_survives_partition(lk_evidence: Evidence, lk_partition: Callable[[], faults.Aftermath]) -> None:
    """After 20 s without any network it takes calls.

    With a call in progress every packet from and to the worker's container is lost for 20 s; then it has 45 s to talk
    to its server over as many registrations as before. The old call is hung up, and one of five new calls must get its
    agent within 15 s; an exit or no agent is a failure, and so is a health endpoint that does not answer 200 again, as
    in `registration.survives-half-open`. A call that was in progress had no media meanwhile: what became of it is
    recorded, not judged, and so is the number of registrations. Skipped with `--lk-command` or where the
    kernel cannot lose packets this way (Linux 5.16); a miss on an overloaded machine is an error.
    """
    seen = lk_partition()
    lk_evidence.update(seen.evidence())
    assert seen.problem is None, seen.problem
    lk_evidence.summary = seen.summary("network")


@check(
    "registration.survives-dns-loss",
    SHOULD,
    profile="full",
    section="Networking",
    why=(
        "Name servers fail too. A worker that asks one for every call refuses them all meanwhile, whether the name is "
        "needed for the call or not; where it is, that is a choice, and no fault: hence no MUST."
    ),
    remedy="join the room first and let what needs a third party fail alone, or keep the address from the last lookup",
    roles=("nameless",),
    seconds=400,
)
def test_survives_dns_loss(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """While no host name can be looked up, a call gets its agent, and a lost registration comes back.

    First a call and a return after a cut connection must work, else it is skipped. Then every lookup from the worker's
    container (the engine's name server, ports 53 and 853) is refused: one of three calls must get its agent within 15
    s, and after the proxy on the wire resets the registration's connection, the worker must register within 45 s; with
    names back, a call must be served once more. Whether it looked anything up is recorded. Skipped with `--lk-command`;
    a miss on an overloaded machine is an error.
    """
    worker = lk_stage.untouched("nameless")
    caller = lk_stage.calls.caller(worker)
    try:
        # What it cannot do with names either is for other checks: a WorkerFault here is a skip.
        lk_stage.calls.served(caller).leave()
        cut_and_return(worker)
        with worker.without_names() as refused:
            try:
                lk_evidence["agent_joined_after_s"] = agent_comes(lk_stage, caller, "only names cannot be looked up")
                lk_evidence["registered_after_cut_s"] = cut_and_return(worker)
            except WorkerFault as fault:
                raise AssertionError(f"while no name can be looked up, its connection was cut, and {fault}") from None
            finally:
                lk_evidence["lookups_refused_packets"] = refused()
        lk_evidence["agent_joined_afterwards_s"] = agent_comes(lk_stage, caller, "names can be looked up again")
    finally:
        caller.close()
    tried = "lookups failed" if lk_evidence["lookups_refused_packets"] else "it looked nothing up"
    lk_evidence.summary = (
        f"without names ({tried}) it took a call and registered again {lk_evidence['registered_after_cut_s']} s after a cut"
    )


@check(
    "registration.refuses-incomplete-configuration",
    MUST,
    section="Environment variables",
    why="A worker that runs with a default instead of a missing value serves the wrong project, or nobody, unnoticed.",
    remedy="exit, best with a non-zero code, and with a message that names the missing variable",
    roles=("shared", *(role for role, _ in REQUIRED.values())),
    order=1,
)
def test_refuses_incomplete_configuration(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """Without URL, key or secret it exits soon and says which.

    Three workers are started, each without one of LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET. Each must exit
    within `lk_start_timeout` (default 60 s) of its start, with at least 15 s of watching, and its output must name what
    is missing: "url", "api key" or "secret", in any case, in a line that the worker with all values does not write, or
    not as often, but for its numbers and values; without a key none may have asked the server to let it in with a token
    that names another one. The code is recorded but not judged: livekit-agents 1.8.9, the current release, logs the
    error and exits with 0. Skipped if the worker does not register with all three values, or with `--lk-command`; on an
    overloaded machine one that keeps running is an error.
    """
    usual = lk_stage.worker_as_is("shared")
    found = [problem_without(lk_stage, variable, usual, lk_evidence) for variable in REQUIRED]
    problems = [problem for problem in found if problem is not None]
    if problems:
        lk_stage.worker("shared")  # one that does not register with every value given has another reason
    assert not problems, "; ".join(problems)
    codes = sorted({str(seen["exit_code"]) for seen in lk_evidence.values()})
    lk_evidence.summary = f"exits with code {' / '.join(codes)} and names the missing variable"


@check(
    "registration.rejected-credentials",
    SHOULD,
    profile="full",
    section="Environment variables",
    why="A worker with a wrong secret that looks ready replaces the good ones in a rollout.",
    remedy="let the health endpoint fail, or exit, once the server has rejected the credentials for good",
    roles=("wrong-secret",),
    seconds=GIVE_UP_SECONDS + 60,
)
def test_rejected_credentials(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """With a wrong secret it does not look ready for good.

    A worker is started with a secret that its server rejects, and is looked at once a second for 180 s, as the Python
    SDK tries for about 130 s before it gives up. It passes when it exits with a code other than 0, or when its health
    endpoint, once it was open, answers nothing or something else than 200 for more than 5 s. An exit with 0, or 200 to
    the end, is a failure; skipped if it has no health endpoint and does not exit, or if the server is given by URL.
    """
    needs_own_server(lk_stage)
    worker = lk_stage.untouched("wrong-secret")
    how = until_not_ready(worker, worker.started, GIVE_UP_SECONDS, lk_evidence)
    assert how, f"it looks ready (health 200) for {GIVE_UP_SECONDS} s with a wrong secret"
    lk_evidence.summary = f"with a wrong secret it {how}"
