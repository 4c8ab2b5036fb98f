"""A worker that loses its server, by a restart, a cut or a close: whether it comes back, and what becomes of its calls."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_lkagents.busyness import too_busy
from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.callers.continuity import AGENT_LEFT, FOR_GOOD_SECONDS
from pytest_lkagents.callers.habit import AgentsLeave
from pytest_lkagents.calls import ENOUGH_LOST, VOICE_SECONDS
from pytest_lkagents.checks import NotJudgeable, TooBusy, Unproven, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, holds, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .connections import JOB_GONE, Connections
from .drainage import Drainage
from .drained import Drain
from .healthy import answers, stays_unhealthy
from .kept import Kept
from .observations import stop_signal, wait_sound
from .questions import lost_before
from .reports import LONGEST_SECONDS, forgets_call, pauses, wait_counted
from .scenario import LIMIT_SECONDS, LOOK_SECONDS, Ends, Scenario

# A worker may wait 10 s between two tries (Python's longest pause), then connect and start processes. A packet that was
# lost at the end of 20 s without network is repeated after 13 s at the latest, as the kernel doubles its pauses.
RECONNECT_SECONDS = 45
# A worker's first try after its server went; its server comes back then, or after this time.
TRY_SECONDS = 5
# A second registration, if there is one, comes right behind the first.
SINGLE_SECONDS = 3
# A voice that falls silent at the cut is missed for 2.5 s only after the second that SDKs send ahead.
KEPT_SECONDS = 5
# What it reported before the cut, for the evidence.
REPORTS_SECONDS = 10
# The end of a call may be the reason of one report.
REPORTS = 2
HARMED = "the loss of the worker's connection harmed a call, before the signal: see registration.keeps-calls"
REPLACED = "another process serves the call: its agent was replaced, and with it what it knew"


def needs_own_server(stage: Stage) -> None:
    """Raises NotJudgeable where the server is not ours."""
    if not stage.controllable:
        raise NotJudgeable("the LiveKit server given by URL cannot be stopped by this suite")


@dataclass
class Reconnection:
    """What came of a restart of the server, of a cut connection and of one that was closed; ``problem`` is the worker's failure
    in words. ``kept`` is the call that was in progress when the connection was cut, ``not_kept`` why there was none."""

    evidence: dict[str, object] = field(default_factory=dict)
    problem: str | None = None
    kept: Kept | None = None
    not_kept: str = "the worker's connection was not cut"
    # What it reports after the cut that does not count that call, in words.
    uncounted: str | None = None
    reports: list[str] = field(default_factory=list)
    busy: str | None = None

    @property
    def unproven(self) -> str | None:
        """Why what is wrong with the call may be no fault, in words."""
        return self.kept.unproven if self.kept is not None else None

    @property
    def kept_its_call(self) -> bool:
        """Whether the call went on, without a doubt."""
        well = self.kept is not None and self.kept.hung_up_s is not None and self.kept.trouble is None
        return well and self.unproven is None and self.doubt is None

    @property
    def doubt(self) -> str | None:
        """Why what was seen of the call may be this machine's doing."""
        if self.kept is None or self.kept.trouble in (AGENT_LEFT, JOB_GONE, REPLACED):
            return None
        return self.kept.doubt or (self.busy if self.kept.trouble is not None else None)


def reconnection(stage: Stage) -> Reconnection:
    """The server is restarted; later the worker's connection to it is cut, then closed. Raises NotJudgeable, WorkerFault,
    StageError."""
    needs_own_server(stage)
    seen = Reconnection()
    try:
        _lose_thrice(stage, stage.untouched("reconnecting"), seen)
    except AssertionError as failure:
        seen.problem = str(failure)
    return seen


class CallsEnded(NotJudgeable):
    """So many of ``calls`` ended when the connection of their worker was lost, ``ended``, for certain."""

    def __init__(self, ended: int, calls: int) -> None:
        super().__init__(HARMED)
        self.ended, self.calls = ended, calls


def drain_after_loss(stage: Stage) -> Drain:
    """The stop signal, with calls that were there when the connection was lost, and that went on. Raises WorkerFault if that
    does not come back, NotJudgeable if it harmed a call (CallsEnded if that is over), Unproven or TooBusy where that may have
    another cause."""
    worker = stage.untouched("cut-once")

    def lose(calls: list[Call]) -> None:
        before, jobs = [Kept(call, stage.calls.continuity(call)) for call in calls], worker.wire.calls_at
        known, reading = [one for one in before if worker.wire.calls_to(one.call.room_name)], worker.reading()
        cut_and_return(worker)
        if _are_unharmed(stage, worker, before, jobs):
            return
        if ended := _ended_for_good(stage, worker, before, known):
            raise CallsEnded(ended, len(calls))
        stage.raise_if_too_busy(worker, reading)
        doubts = [one.doubt for one in before if one.doubt is not None]
        raise TooBusy(f"this machine is too busy to judge: {doubts[0]}") if doubts else NotJudgeable(HARMED)

    scenario = Scenario(
        stop_signal(stage),
        calls=2,
        hold=LIMIT_SECONDS,
        ends=Ends.NEWEST_CRASHES,
        placed=lose,
    )
    return Drainage(stage, worker, scenario).observe()


def _are_unharmed(stage: Stage, worker: Worker, calls: Sequence[Kept], jobs: set[int]) -> bool:
    """Whether the loss harmed no call, which would look as if the stop signal did. ``jobs``: over which connections they
    signalled before; an agent whose job is gone is shown as present for some 20 s."""

    def well() -> bool:
        stage.raise_if_closing()
        return jobs <= worker.wire.calls_at and not any(one.continuity.trouble() for one in calls)

    with worker.ledger.waiting(worker.name):
        return holds(well, seconds=KEPT_SECONDS)


def _ended_for_good(stage: Stage, worker: Worker, calls: Sequence[Kept], known: Sequence[Kept]) -> int:
    """How many of these calls are over: their agent left, or their job's connection, where it was ``known``, stays away. Raises
    Unproven where an agent may have left by itself."""
    gone, began = list(known), time.monotonic()

    def none_is_over() -> bool:
        nonlocal gone
        stage.raise_if_closing()
        for one in calls:
            one.look(time.monotonic() - began)
        gone = [one for one in gone if not worker.wire.calls_to(one.call.room_name)]
        return not gone and not any(one.suspected or one.trouble for one in calls)

    with worker.ledger.waiting(worker.name), contextlib.suppress(DeadlineMissed):
        poll(none_is_over, what="calls that go on", seconds=FOR_GOOD_SECONDS, every=LOOK_SECONDS)
    left = [one for one in calls if one.trouble == AGENT_LEFT]
    if (habit := next((one.unproven for one in left if one.unproven is not None), None)) is not None:
        raise Unproven(habit)
    return sum(one in left or one in gone for one in calls)


def _lose_thrice(stage: Stage, worker: Worker, seen: Reconnection) -> None:
    log, evidence = worker.wire.transcript, seen.evidence
    caller = stage.calls.caller(worker)
    try:
        # One that serves nobody anyway is for other checks; and one that has only just registered may not have noticed yet.
        first = stage.calls.served(caller)
        wait_sound(first)
        heard = first.heard.first is not None
        first.leave()
        # A job that is in its call yet would come back to it with the server.
        stage.calls.wait_idle(worker)
        before, ever = len(log.live()), len(log.registrations())
        health = answers(worker)
        lose_server(worker, worker.stop_server)
        worker.start_server()
        up = time.monotonic()
        try:
            worker.wait_registered(RECONNECT_SECONDS, more_than=ever)
        except WorkerFault as fault:
            raise AssertionError(f"after the server's restart {fault}") from None
        evidence["registered_after_s"] = round(time.monotonic() - up, 2)
        evidence["registrations_before"] = before
        evidence["registrations_after"] = stay_single(worker, before, "the restart")
        call = _call_again(stage, worker, caller, "it registered again after the restart", evidence, heard)
        evidence["agent_joined_after_s"] = round(call.agent_after, 2)
        seen.kept = _in_progress(stage, call, seen)
        if seen.kept is not None and before == 1:
            wait_counted(worker, min(call.agents.values()))
        connections, serving = Connections(worker, 1), set(worker.jobs_of(worker.snapshot()))
        cut, reading = time.monotonic(), worker.reading()
        try:
            evidence["registered_after_cut_s"] = cut_and_return(worker)
        except WorkerFault as fault:
            raise AssertionError(f"after its connection was cut {fault}") from None
        evidence["registrations_after_cut"] = stay_single(worker, before, "the cut")
        back = time.monotonic()
        if (kept := seen.kept) is not None:
            counted = None
            if before == 1:
                came, again = min(call.agents.values()), log.registrations()[-1].registered
                counted = forgets_call(worker, came, cut, again, lambda: kept.look(time.monotonic() - cut))
            _watch_kept(stage, worker, kept, cut, serving, connections)
            seen.busy = too_busy(reading, worker.reading())
            if counted is not None and kept.trouble is None:
                seen.uncounted = counted
                seen.reports = log.lines(cut - REPORTS_SECONDS, kinds=("status", "closed", "registered"), last=8)
        reports = any(status.at > back for status in log.statuses())
        call.leave()
        call = _call_again(stage, worker, caller, "it registered again after the cut", evidence, heard)
        call.leave()
        evidence["agent_joined_after_cut_s"] = round(call.agent_after, 2)
        if not reports and any(status.at < cut for status in log.statuses()):
            evidence["longest_pause_of_reports_s"] = _wait_reports(stage, worker)
        _close_and_return(stage, worker, caller, before, evidence)
        unhealthy = stays_unhealthy(stage, worker, health)
        assert unhealthy is None, f"it registered again and serves calls, but {unhealthy}"
    finally:
        caller.close()


def _call_again(
    stage: Stage, worker: Worker, caller: Caller, although: str, evidence: dict[str, Any], heard: bool = False
) -> Call:
    """A new call with its agent, which is heard, if the one before the loss was (``heard``). One that the worker took before
    it, and did not serve, or about which it did not answer, may be chance once. Raises AssertionError, Unproven where a
    silence may be chance, TooBusy."""
    began, reading = time.monotonic(), worker.reading()
    call = _call_anew(stage, caller, although)
    evidence["calls_lost"] = lost = evidence.get("calls_lost", 0) + lost_before(stage, worker, caller, call, began)
    if lost >= ENOUGH_LOST:
        stage.raise_if_too_busy(worker, reading)
        raise AssertionError(
            f"{lost} of the first calls that it took, or about which it was asked, after it had registered again got no agent"
        )
    if heard and call.agents_present and stage.calls.is_mute(call, worker, reading, "after a loss"):
        raise AssertionError(f"{although}, but nothing is heard of the agent of a new call for {VOICE_SECONDS} s")
    return call


def _close_and_return(stage: Stage, worker: Worker, caller: Caller, before: int, evidence: dict[str, Any]) -> None:
    """Its connection ends as behind a load balancer whose servers change: it is closed, and the next try is answered with 503.
    ``before``: how many registrations it had. Raises AssertionError."""
    log, closed = worker.wire.transcript, "its connection was closed (1001, going away)"
    ever, began = len(log.registrations()), time.monotonic()
    with worker.wire.unavailable(), worker.ledger.waiting(worker.name):
        worker.wire.dismiss()
        log.wait(lambda seen: seen.entries("refused", since=began) or not worker.is_running, TRY_SECONDS)
    if log.entries("refused", since=began):
        closed += " and its next try answered with 503"
    try:
        found = worker.wait_registered(RECONNECT_SECONDS, more_than=ever)
    except WorkerFault as fault:
        raise AssertionError(f"after {closed}, {fault}") from None
    evidence["registered_after_close_s"] = round(found.registered - began, 2)
    evidence["answered_with_503"] = len(log.entries("refused", since=began))
    call = _call_again(stage, worker, caller, "it registered again after a close", evidence)
    call.leave()
    evidence["agent_joined_after_close_s"] = round(call.agent_after, 2)
    stay_single(worker, before, "the close", since=found.registered)


def _wait_reports(stage: Stage, worker: Worker) -> float:
    """The longest pause between reports of its load from now on, seconds; what it says at the beginning and the end of a call
    is not enough. Raises AssertionError if that is too long, TooBusy."""
    reading = worker.reading()
    seen = pauses(stage, worker, time.monotonic(), REPORTS)
    if seen.longest > LONGEST_SECONDS:
        stage.raise_if_too_busy(worker, reading)
        raise AssertionError(
            f"it registered again after the cut, but reports no load for {seen.longest:.0f} s, as it did before"
        )
    if seen.silent:
        raise TooBusy("this machine is too busy to judge: all of its cores were in use while it reported no load after the cut")
    return round(seen.longest, 2)


def _in_progress(stage: Stage, call: Call, seen: Reconnection) -> Kept | None:
    """The call as one that is to go on, unless its agent leaves by itself."""
    try:
        stage.calls.wait_heard([call])
    except AgentsLeave as reason:
        seen.not_kept = str(reason)
        return None
    return Kept(call, stage.calls.continuity(call))


def _watch_kept(stage: Stage, worker: Worker, kept: Kept, cut: float, serving: set[int], connections: Connections) -> None:
    """What the cut did to the call; longer while anything is suspected. An agent that came in its place under the same identity
    is not missed by the caller, but is of another process than those that were ``serving``."""
    with worker.ledger.waiting(worker.name):
        while kept.trouble is None:
            stage.raise_if_closing()
            passed = time.monotonic() - cut
            gone = connections.look(1, passed)
            if gone is not None:
                # Silence, which comes with it, might be the agent's habit.
                kept.trouble, kept.trouble_s = JOB_GONE, round(gone, 1)
                return
            kept.look(passed)
            still = connections.gone_since is None and not kept.suspected
            if kept.trouble is None and still and passed >= KEPT_SECONDS:
                now = set(worker.jobs_of(worker.snapshot()))
                if serving and now and not serving & now:
                    kept.trouble, kept.trouble_s = REPLACED, round(passed, 1)
                    return
                kept.hang_up(passed)
                kept.judge_pause()
                return
            time.sleep(LOOK_SECONDS)


def lose_server(worker: Worker, act: Callable[[], None]) -> None:
    """The act takes its server away; until the worker's first try to connect again, or for some seconds without one: a longer
    pause is its right."""
    worker.count_attempts()
    # One that an earlier check had may have had its tries counted already.
    before = worker.attempts()
    act()
    with worker.ledger.waiting(worker.name), contextlib.suppress(DeadlineMissed):
        poll(lambda: worker.attempts() > before or not worker.is_running, what="tries", seconds=TRY_SECONDS, every=0.2)


def agent_comes(stage: Stage, caller: Caller, although: str) -> float:
    """Seconds until a new call has its agent. Raises AssertionError if none comes."""
    call = _call_anew(stage, caller, although)
    call.leave()
    return round(call.agent_after, 2)


def _call_anew(stage: Stage, caller: Caller, although: str) -> Call:
    try:
        return stage.calls.served(caller)
    except WorkerFault as nobody:
        raise AssertionError(f"{although}, but {nobody}") from None


def cut_and_return(worker: Worker) -> float:
    """Cut the connection over which the worker is registered; seconds until it is registered again. Raises WorkerFault
    if it does not come."""
    ever = len(worker.wire.transcript.registrations())
    cut = time.monotonic()
    worker.wire.cut(agent_only=True)
    return round(worker.wait_registered(RECONNECT_SECONDS, more_than=ever).registered - cut, 2)


def stay_single(worker: Worker, before: int, after: str, since: float | None = None) -> int:
    """The number of open registrations, some seconds after it came back (``since``, monotonic seconds; None: now). Raises
    AssertionError if there are more than before."""
    log = worker.wire.transcript
    seconds = SINGLE_SECONDS - (time.monotonic() - since if since is not None else 0)
    with worker.ledger.waiting(worker.name):
        single = holds(lambda: len(log.live()) <= before, seconds=max(seconds, 0.1))
    now = len(log.live())
    assert single, f"after {after} {now} registrations are open instead of {before}"
    return now
