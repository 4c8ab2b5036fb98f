"""Section "Load balancing": jobs are shared, each goes to one worker, and none is lost with a worker that refuses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from pytest_lkagents.callers.caller import Caller
from pytest_lkagents.calls import ANSWER_SECONDS, LATE_ANSWER_SECONDS
from pytest_lkagents.checks import INFO, MUST, SHOULD, Evidence, NotJudgeable, StageError, TooBusy, WorkerFault, check
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Question
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker

from .assignment import Assigned
from .load import LOAD_SECONDS
from .loaded import Loaded
from .observations import FirstCall
from .placed import TRIES, answer_held_up, place, wait_free

# Where both workers are equally free, that one of them is not picked in this many calls has a chance of 1 in 500,000.
SPREAD_CALLS = 20
# The server needs 0.2 s to ask; a plain room that has not reached a worker by now does not.
UNASKED_SECONDS = 3
AGENT_NAME = "LIVEKIT_AGENT_NAME"


@check(
    "balancing.single-assignment",
    MUST,
    section="Load balancing",
    why="Two agents in one call talk over each other, and both are paid for.",
    remedy="answer each availability question once and connect one agent per job",
    roles=("loaded", "peer"),
    order=2,
)
def test_single_assignment(lk_evidence: Evidence, lk_assigned: Callable[[], Assigned]) -> None:
    """Each of several calls on two workers gets exactly one agent.

    Calls are placed one after the other on two workers of one server and kept, until four are served, both workers are
    full with two or more, or six got no agent (three, if none got one). Until 3 s after the last one no call may have
    two agents for more than 2 s, which one that hands its call over has to leave (a participant that publishes on its
    behalf, an avatar, is none); and on the wire no question about a job may have more than one
    answer. Skipped if two workers cannot run side by side, one is no longer registered, or no call gets an agent; an
    error if others use so much of this machine that both may be full for that.
    """
    seen = lk_assigned()
    lk_evidence["calls"], lk_evidence["agents_per_call"] = len(seen.served), seen.agents
    lk_evidence["served_by"] = [placed.served_by for placed in seen.served]
    lk_evidence["calls_refused"] = seen.lost
    lk_evidence["answered_twice"] = seen.twice
    most = max(seen.agents)
    if most > 1 or seen.twice:
        lk_evidence["transcript"] = seen.lines[:20]
    assert most == 1, f"a call had {most} agents at once"
    assert not seen.twice, f"{len(seen.twice)} questions were answered more than once"
    calls, on = len(seen.served), len(set(lk_evidence["served_by"]))
    each = "1 call, one agent" if calls == 1 else f"{calls} calls, one agent each"
    lk_evidence.summary = f"{each}, on {'1 worker' if on == 1 else f'{on} workers'}"


@check(
    "balancing.redispatch-on-refusal",
    MUST,
    section="Load balancing",
    why="A worker that keeps silent, or refuses for everybody, takes the call away from others that are free.",
    remedy="answer every availability question, with no as quickly as with yes, and let others be asked (Python: "
    "request.reject(terminate=False))",
    roles=("loaded", "peer"),
    seconds=LOAD_SECONDS,
    order=2,
)
def test_redispatch_on_refusal(lk_stage: Stage, lk_evidence: Evidence, lk_load: Callable[[], Loaded]) -> None:
    """A call that a full worker does not take is served by the other one.

    While one of two workers on a server is over its threshold (see `availability.load-follows-work`) and the other is
    free, up to six calls are placed, until the full one is asked and does not accept; which one the server asks first
    is chance. Read on the wire and in the room: a call that is lost because the full worker left its question
    unanswered, refused after more than 3 s, or refused for everybody (`terminate`: the server asks no other worker) is
    a failure, and so is one that was refused after more than 2.7 s, upon which no other was asked: these 3 s are for
    all workers together, from the dispatch on. One that the other worker serves passes. Skipped if the worker was never
    full, was never asked or accepted, if two workers cannot run side by side, if the other one is not free although it
    has no calls, or if after a refusal it was not asked, refused too or sent no agent; the last is an error on an
    overloaded machine.
    """
    seen = lk_load()
    if not seen.peer:
        lk_stage.worker("peer")  # raises, as two cannot run side by side
    if not seen.over:
        raise NotJudgeable("the worker was never over its threshold")
    lk_evidence["calls_placed"] = seen.calls_tried
    real = seen.refused_call
    if real is None and not seen.other_is_free:
        raise NotJudgeable("the other worker, which had no calls, was not free either")
    if real is None:
        raise NotJudgeable(f"of {seen.calls_tried} calls the server offered none to the full worker first")
    lk_evidence["full_worker"] = real.said(seen.worker)
    lk_evidence["other_worker"] = real.said(seen.peer)
    lk_evidence["served_by"] = real.served_by
    lk_evidence["transcript"] = [line for line in seen.lines if real.call.room_name in line or "answer" in line][-6:]
    asked = real.questions[seen.worker]
    if asked.available:
        if seen.asked_when_full is not None and seen.asked_when_full.available is False:
            raise NotJudgeable("the worker was full no more when the real call came: it refused an earlier job, and took this")
        raise NotJudgeable("the full worker accepted: see availability.refuses-while-full")
    if asked.available is None and real.served_by is None:
        if answer_held_up(lk_stage.history, asked, ANSWER_SECONDS):
            raise TooBusy("this machine is too busy to judge: it had no time while a question was not answered")
        raise AssertionError("the full worker was asked for a real call and did not answer; the call was lost")
    took = asked.answered_after or 0.0
    if took > ANSWER_SECONDS and real.served_by is None:
        if answer_held_up(lk_stage.history, asked, ANSWER_SECONDS):
            raise TooBusy("this machine is too busy to judge: it had no time while a question was refused")
        raise AssertionError(f"the full worker refused only after {took:.1f} s; the call was lost")
    if asked.terminated and real.served_by is None:
        raise AssertionError("the full worker refused for everybody (terminate): no other was asked, the call was lost")
    if took >= LATE_ANSWER_SECONDS and real.served_by is None and seen.peer not in real.questions and not real.call.agents:
        if answer_held_up(lk_stage.history, asked, LATE_ANSWER_SECONDS):
            raise TooBusy("this machine is too busy to judge: it had no time while a question was refused")
        raise AssertionError(
            f"the full worker refused only after {took:.1f} s of the {ANSWER_SECONDS:g} s that the server has for all workers: "
            "no other was asked, the call was lost"
        )
    if real.served_by is None:
        other = real.questions.get(seen.peer)
        if other is None or other.available is not False:
            lk_stage.raise_if_too_busy()
        raise NotJudgeable(f"the full worker refused, but the other {real.said(seen.peer or '')}")
    refused = f"refused after {asked.answered_after:.2f} s" if asked.answered_after is not None else "not answered"
    lk_evidence.summary = f"{refused} by the full worker, served by the other"


@check(
    "balancing.agent-name",
    MUST,
    section="Load balancing",
    why="An agent under another name than the one dispatched never joins; one without a name joins every room.",
    remedy="register under the name that is dispatched (agent_name, LIVEKIT_AGENT_NAME)",
    roles=("shared", "loaded"),
    order=3,
)
def test_dispatch_by_agent_name(lk_stage: Stage, lk_evidence: Evidence, lk_first_call: Callable[[], FirstCall]) -> None:
    """Under a name only explicit dispatch reaches it; without one every room does; all workers have the same.

    The name in the worker's registration is read on the wire; with `--lk-agent-name` it must be that name, and one of
    each other worker of this run to whose environment nothing was done must be the same (two at least, unless workers
    take turns). After an ordinary call, a participant joins a new room without naming an agent: a worker that
    registered with a name must not be asked for it within 3 s (the server needs 0.2 s to ask). A worker without a name
    passes and is reported to join every room. Where it registers in a deployment (LIVEKIT_AGENT_DEPLOYMENT), with a name
    or without, that counts as part of the name. Skipped if the ordinary call is not served.
    """
    worker = lk_stage.worker("shared")
    transcript = worker.wire.transcript
    worker.registration()
    names = sorted({found.agent_name for found in transcript.live()})
    reached_as = {found.dispatched_to: found.named for found in transcript.live()}
    lk_evidence["registered_as"] = names
    if deployments := {deployment for _, deployment in reached_as if deployment}:
        lk_evidence["deployments"] = sorted(deployments)
    wanted = lk_stage.settings.agent_name
    if wanted is not None:
        lk_evidence["expected"] = wanted
        lk_evidence["transcript"] = transcript.lines(worker.started, kinds=("register", "registered"), last=4)
        assert wanted in names, f"registered as {', '.join(map(repr, names))}, calls ask for {wanted!r}"
    lk_first_call()
    asked = [question for question in transcript.questions() if not question.probe]
    lk_evidence["dispatched_by_name"] = bool(asked and asked[-1].agent_name)
    others = _names_of_others(lk_stage, worker)
    lk_evidence["other_workers"] = len(others)
    for other in others:
        assert other.keys() & reached_as.keys(), (
            f"one worker registers as {reached_as[min(reached_as)]}, another one as {other[min(other)]}: a call reaches one of "
            "them only"
        )
    # One process may hold two agents, of which one has no name.
    by_name = {found.connection for found in transcript.live() if any(found.dispatched_to)}
    called = [named for to, named in sorted(reached_as.items()) if any(to)]
    if not called:
        lk_evidence.summary = "no name: it joins every room of its project"
        return
    plain = Caller(worker.server, lk_stage.media, lk_stage.ledger)
    since = time.monotonic()
    try:
        call = plain.join()

        def wrongly(found: Transcript) -> Question | None:
            asked = (question for question in found.questions(since) if question.connection in by_name)
            return next((question for question in asked if question.room == call.room_name), None)

        reached = transcript.wait(wrongly, UNASKED_SECONDS)
    finally:
        plain.close()
    lk_evidence["asked_for_a_plain_room"] = reached is not None
    if reached is not None:
        lk_evidence["transcript"] = transcript.lines(since, kinds=("question", "answer"))
    assert reached is None, f"registered as {called[0]}, yet it is asked for rooms that nobody dispatched it to"
    more = f"; it has {', '.join(called[1:])} too, which were not called (--lk-agent-name)" if not wanted and called[1:] else ""
    if len(called) < len(reached_as):
        more += "; its agent without a name joins every room"
    lk_evidence.summary = f"only explicit dispatch to {called[0]} reaches it{more}"


def _names_of_others(stage: Stage, worker: Worker) -> list[dict[tuple[str, str], str]]:
    """What each other worker of the image that was given the same names registered as: what a dispatch has to state, and the
    same in words."""
    if not stage.takes_turns:
        # One that does not get ready is another check's business.
        with contextlib.suppress(WorkerFault, NotJudgeable, StageError):
            stage.worker("loaded")
    given = worker.environment.get(AGENT_NAME)
    found = [
        {known.dispatched_to: known.named for known in other.wire.transcript.registrations()}
        for other in stage.alike(worker)
        if other is not worker and other.environment.get(AGENT_NAME) == given
    ]
    return [names for names in found if names]


@check(
    "balancing.spread",
    SHOULD,
    profile="full",
    section="Load balancing",
    why="A worker that never gets a job is paid for and of no use.",
    remedy="report a low load while idle; see availability.reports-load",
    roles=("loaded", "peer"),
    seconds=300,
    order=4,
)
def test_spread(lk_stage: Stage, lk_evidence: Evidence, lk_load: Callable[[], Loaded]) -> None:
    """Calls one after another reach both of two workers.

    Up to 20 calls are placed one after the other on two workers of one server, each once both are available with a load
    below 0.6, and hung up at once, until both workers have served one. With two equally free workers, one that gets
    none of 20 calls has a chance of 1 in 500,000. A worker that does not come to rest within 30 s is an error; skipped
    if two workers cannot run side by side.
    """
    lk_load()
    workers = [lk_stage.worker("loaded"), lk_stage.worker("peer")]
    caller = lk_stage.calls.caller(workers[0])
    began = time.monotonic()
    by: dict[str, int] = {worker.name: 0 for worker in workers}
    calls = 0
    try:
        while calls < SPREAD_CALLS and not all(by.values()):
            for worker in workers:
                wait_free(worker)
            placed = place(lk_stage, caller)
            placed.call.leave()
            calls += 1
            if placed.served_by:
                by[placed.served_by] += 1
    finally:
        caller.close()
    lk_evidence["calls"], lk_evidence["served"] = calls, by
    if not all(by.values()):
        lk_evidence["transcript"] = workers[0].wire.transcript.lines(began, kinds=("status", "question", "answer"), last=15)
    assert all(by.values()), f"{calls} calls, all but none of them to one worker: {by}"
    lk_evidence.summary = f"both workers had a call within {calls}"


@check(
    "balancing.redispatch-on-loss",
    MUST,
    profile="full",
    section="Load balancing",
    why="Workers die; a call that one of them was just offered must not die with it.",
    remedy="let idle workers accept at once; a worker that dies closes its connection by itself",
    roles=("victim", "heir"),
    seconds=300,
)
def test_redispatch_on_loss(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """A call offered to a worker that is killed before it accepts is served by the other one.

    Two workers on one server are idle and available; the proxy on the wire holds back the first one's answers. As soon
    as it is asked for a call (up to six calls, as the server chooses by chance) it is killed with SIGKILL, and the call
    must get the other one's agent within 15 s. It is a failure only if the other worker was asked and did not refuse,
    and no agent came; skipped if the first one was never asked, the server does not ask the other one, or that one
    refuses. On an overloaded machine a miss is an error.
    """
    victim, heir = lk_stage.untouched("victim"), lk_stage.untouched("heir")
    caller = lk_stage.calls.caller(heir)
    began = time.monotonic()
    try:
        with victim.wire.hold("worker", "answer"):
            for number in range(1, TRIES + 1):
                lk_evidence["calls_placed"] = number
                for worker in (victim, heir):
                    # The call before may still be counted in what a worker last said.
                    lk_stage.calls.wait_idle(worker)
                    wait_free(worker, since=time.monotonic())
                call = caller.join()
                if not _offered(victim, call.room_name, began):
                    call.leave()
                    continue
                victim.kill()
                agent = call.wait_for_agent(15)
                break
            else:
                raise NotJudgeable(f"of {TRIES} calls the server offered none to the worker that was to be killed")
    finally:
        caller.close()
    heirs = [asked for asked in heir.wire.transcript.questions(began) if asked.room == call.room_name]
    lk_evidence["other_worker_asked"] = bool(heirs)
    lk_evidence["agent_joined_after_s"] = None if agent is None else round(agent, 2)
    lk_evidence["transcript"] = victim.wire.transcript.lines(began, kinds=("question", "answer", "closed"), last=6)
    if agent is None:
        lk_stage.raise_if_too_busy()
        if not heirs:
            server = heir.wire.transcript.registrations()[-1].server_version
            raise NotJudgeable(f"livekit-server {server} did not ask the other worker: not the worker's doing")
        if heirs[-1].available is False:
            raise NotJudgeable("the other worker refused the call, as is its right")
        raise AssertionError("the other worker was asked, and the call got no agent")
    lk_evidence.summary = f"the other worker's agent joined {agent:.1f} s after the caller"


def _offered(worker: Worker, room: str, since: float) -> bool:
    """Whether the worker is asked for the room's job; the server does so 0.2 s after the room was made."""
    found = worker.wire.transcript.wait(lambda seen: any(asked.room == room for asked in seen.questions(since)), 2)
    return bool(found)


@check(
    "balancing.frozen-worker",
    INFO,
    profile="full",
    section="Load balancing",
    why="The server asks one worker at a time for 3 s in all: one that hangs costs every call that is offered to it.",
    remedy="let a liveness probe end workers that hang; the server does not notice them",
    roles=("loaded", "peer"),
    seconds=LOAD_SECONDS,
    order=5,
)
def test_frozen_worker(lk_stage: Stage, lk_evidence: Evidence, lk_load: Callable[[], Loaded]) -> None:
    """What becomes of a call that is offered to a frozen worker (the server's doing, not the worker's).

    All processes of one of two free workers are frozen (the engine's pause, or SIGSTOP for a command) while it stays
    registered, and up to six calls are placed until the server asks it for one. Who was asked, who served the call and
    whether the frozen worker is still registered are recorded with the server's version; nothing is judged. Skipped if
    the frozen one is never asked or two workers cannot run side by side.
    """
    lk_load()
    frozen, other = lk_stage.worker("loaded"), lk_stage.worker("peer")
    caller = lk_stage.calls.caller(other)
    server = other.wire.transcript.registrations()[-1].server_version
    for worker in (frozen, other):
        wait_free(worker)
    try:
        with frozen.frozen():
            for number in range(1, TRIES + 1):
                lk_evidence["calls_placed"] = number
                placed = place(lk_stage, caller)
                placed.call.leave()
                if frozen.name in placed.questions:
                    break
            else:
                raise NotJudgeable(f"of {TRIES} calls the server offered none to the frozen worker")
    finally:
        caller.close()
    lk_evidence["server_version"] = server
    lk_evidence["still_registered"] = bool(frozen.wire.transcript.live())
    lk_evidence["call"] = f"the frozen worker {placed.said(frozen.name)}, the other {placed.said(other.name)}"
    outcome = "served by the other worker" if placed.served_by else "lost, the free worker was not asked"
    lk_evidence.summary = f"livekit-server {server}: a call offered to a frozen worker is {outcome}"
