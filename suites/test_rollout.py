"""Section "Rollout": a worker that is asked to stop takes nothing new, and loses nothing that it has."""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_lkagents.checks import INFO, MUST, SHOULD, Evidence, NotJudgeable, StageError, Unproven, check
from pytest_lkagents.stage import Stage

from .compared import judge_loss, judge_without_calls, require_drains, stays
from .deserted import stop_with_a_call
from .drained import Drain
from .drains import by_two_signals, engine_timeout
from .harmed import Harm
from .judging import (
    end_by,
    ends_in_time,
    exit_codes,
    judge_exit,
    judge_kept_calls,
    judge_later_calls,
    raise_if_uncertain,
    stops_in_time,
)
from .long_call import LongCall, hold
from .observations import Stop, stop_signal, stop_unassigned, stop_uncalled
from .offers import STOPS_SECONDS
from .pool import ONE_AT_A_TIME
from .reconnecting import CallsEnded, Reconnection
from .replacement import replace
from .scenario import CHECK_SECONDS, DISTURB_SECONDS, DRAIN_SECONDS

DRAIN = (
    "handle the stop signal, stop taking jobs, and end only when the last job has ended (the SDK's own handling does, where an "
    "init hands the signal to its child alone, unlike tini -g)"
)
# An interpreter is up by then, what it imports is not.
EARLY_SECONDS = 0.5
# For a drain that may have to be looked at again, with another worker and in peace, which is waited for.
TWICE_SECONDS = 400


@check(
    "rollout.sigterm-stops-new-jobs",
    MUST,
    section="Rollout",
    why="Calls that go to a worker which is about to end are cut or lost.",
    remedy=DRAIN,
    roles=("draining", "stopped"),
    seconds=CHECK_SECONDS,
    order=2,
)
def test_sigterm_stops_new_jobs(
    lk_stage: Stage, lk_evidence: Evidence, lk_drain: Callable[[], Drain], lk_stop: Callable[[], Stop]
) -> None:
    """Within 5 s of the stop signal it takes no new job; a job that came in the same instant is refused or served.

    With up to four calls in progress a further one is placed, and in the instant in which the worker is asked for it,
    the image's stop signal (SIGTERM by default) goes to its first process. Within 5 s, the guide's figure, it must
    report "full" and not be free again, close its registration or end, over every registration that it has; else it
    must refuse a job that does not exist, which the proxy on the wire offers then (over one that is free) and once more
    at the end, as one that is only busy refuses too; likewise if it says that it is free again after its last call, and
    to one without calls (see `rollout.idle-exit`) that is still registered and not full 5 s after the signal. The
    worker must answer for the further call in the 3 s for which the server waits, unless its connection ends meanwhile;
    if it accepts, the agent must come within 15 s of the signal and stay; this call ends last, and must go on for 3 s
    (17 s, if the worker is no longer registered then) after the jobs of all others. No job of the proxy may be refused
    for everybody (`terminate`), upon which the server asks no other worker. Skipped if no call is served, or if that
    job is lost like others without a signal; on an overloaded machine a miss is an error, and so it is where the worker
    may be full to the end for what others use of the machine.
    """
    seen = lk_drain()
    lk_evidence["signal"], lk_evidence["stopped_after_s"] = seen.signal, seen.stopped_s
    answer = seen.asked.available if seen.asked is not None else None
    lk_evidence["asked_after_s"], lk_evidence["accepts_while_draining"] = seen.asked_s, answer
    late = seen.together
    if late is not None:
        lk_evidence["job_in_the_same_instant"] = {
            "accepted": late.answer,
            "assigned": late.assigned,
            "agent_joined_after_s": late.agent_s,
        }
    if not stops_in_time(seen):
        lk_evidence["transcript"] = seen.lines[-8:]
        seen.raise_if_busy()
        if seen.stopped_s is not None:
            raise AssertionError(f"only {seen.stopped_s} s after {seen.signal} it says that it takes no more jobs")
        again = seen.asked_last is not None and seen.asked_last.available
        said = "accepts a job" if answer or again else "does not answer"
        lk_evidence["heeds_second_signal"] = seen.heeds_second
        raise AssertionError(
            f"{seen.asked_s or STOPS_SECONDS} s after {seen.signal} it is still registered as free and {said}{seen.lost_signal}"
        )
    if late is not None and late.trouble is not None and seen.cut_while_held is None:
        lk_evidence["transcript"] = seen.lines[:8]
        seen.raise_if_busy()
        late.raise_if_busy()
        if lk_stage.calls.lost_accepted():
            raise NotJudgeable(f"{late.trouble}, as to others without a signal: see jobs.serves-every-call")
        raise AssertionError(f"a job that came in the same instant as {seen.signal} was lost: {late.trouble}")
    if late is not None and late.unproven is not None:
        raise Unproven(late.unproven)
    if seen.refused_for_all:
        lk_evidence["transcript"] = [line for line in seen.lines if " to anybody" in line][:3]
        raise AssertionError(
            f"from {seen.signal} on it refuses jobs for everybody (terminate): the server asks no other worker"
        )
    if seen.asked_at_end is not None and seen.asked_at_end.available:
        lk_evidence["transcript"] = seen.lines[-8:]
        raise AssertionError(
            f"after {seen.signal} and the end of its last call it is free again, and accepts a job, before it ends"
        )
    judge_without_calls(lk_stop, lk_evidence)
    if seen.filled is not None:
        raise StageError(f"this machine is too busy to judge: {seen.filled}")
    how = f"takes nothing new {seen.stopped_s} s after {seen.signal}" if seen.stopped_s is not None else "refuses"
    served = late is not None and late.agent_s is not None
    refused = late is not None and late.answer is False and not served
    together = "; a job in the same instant was " + ("served" if served else "refused") if served or refused else ""
    lk_evidence.summary = how + together


@check(
    "rollout.sigterm-drains",
    MUST,
    section="Rollout",
    why="Every rollout, scale-down and node drain sends this signal to workers with calls.",
    remedy=DRAIN,
    roles=("draining",),
    seconds=CHECK_SECONDS,
    order=2,
)
def test_sigterm_drains(lk_evidence: Evidence, lk_drain: Callable[[], Drain]) -> None:
    """After the stop signal a running call goes on undisturbed: same agent, no gap.

    With up to four calls in progress, and after one that came and went, the image's stop signal (SIGTERM by default)
    goes to the worker's first process; one of them is kept for 20 s, or for `--lk-drain-hold`. A call is cut if its
    agent leaves the room, or if packets (1.5 s) or the sound of an agent that talks without pauses (2.5 s) are missing
    and stay away for 8 s; a gap above 2.5 s is a failure if a second look shows one too, with nothing else under way;
    that look is also taken where the caller stood still for some seconds and found too few packets afterwards. An agent
    that is there and falls silent may do so by itself, after a greeting, say: in a second look the signal only comes
    when it has talked on for more than twice as long, and if it does not do that, its silence does not count; one that
    does is looked at once more. Likewise an agent may leave by itself: in the second look it has to stay for half as
    long again before the signal. Where agents do leave by themselves, the signal comes when one has just come, and it
    has to stay as long as those of at least two calls without a signal, give or take 1 s and by how much these differ;
    one that does not is a failure when a second one does not either, after two more of these calls. If a call is cut
    after others had ended, all is repeated with a single call. An agent that sends nothing is judged by its presence,
    and by its job's own connection to the server, as the server does not notice for 20 s that a job was killed: the
    call is cut if there are fewer of these connections than such calls for 8 s. Skipped if no call is served, or if
    agents leave by themselves within 7 s or at very different times; on an overloaded machine silence is an error.
    """
    seen = lk_drain()
    judge_kept_calls(seen, lk_evidence)
    steady = sum(kept.continuity.steady for kept in seen.kept)
    by = "sound and packets" if steady else "packets" if any(kept.continuity.sending for kept in seen.kept) else "presence"
    lk_evidence["judged_by"] = by
    went_on = f"its call went on for {seen.held_s:.0f} s after {seen.signal}"
    lk_evidence.summary = f"{went_on} (judged by {by})" if seen.usual is None else f"{went_on}, until its agent's usual end"


@check(
    "rollout.drains-every-call",
    MUST,
    section="Rollout",
    why="A drain that is over when the first call ends cuts all the others (livekit-agents 1.3.1 to 1.3.8 did).",
    remedy="wait for every job; update the SDK; let no call end what others use, such as a folder or a model",
    roles=("draining",),
    seconds=CHECK_SECONDS,
    order=2,
)
def test_drains_every_call(lk_evidence: Evidence, lk_emptying: Callable[[], Drain], lk_drain: Callable[[], Drain]) -> None:
    """Of several calls that end at different times, the last one lives until its own end.

    Four calls (or as many as the worker takes) are in progress at the stop signal. After 3 s, and once it is known that
    the worker takes no new job (or after 6 s), the oldest and the newest are hung up (of two the oldest), then the
    third; the one that is left is watched for 17 s more, because a drain that is over too early cuts the other calls up
    to 15 s later. A call that is cut after others had ended (its agent leaves, or its packets or sound stay away for 8
    s) is a failure. Skipped if the worker takes only one call, agents leave their calls by themselves, a call is cut
    before another ended, or a single call is cut as well; on an overloaded machine silence is an error.
    """
    seen = lk_emptying()
    lk_evidence["calls"], lk_evidence["held_s"] = len(seen.kept), seen.held_s
    lk_evidence["hung_up_after_s"] = [kept.hung_up_s for kept in seen.kept]
    lk_evidence["series_s_calls_pause"] = seen.series
    if seen.cut_while_held is not None:
        raise NotJudgeable(f"the calls did not even outlive the signal: {seen.cut_while_held.trouble}")
    if seen.usual is not None:
        raise NotJudgeable("its agents leave their calls by themselves")
    if len(seen.kept) < 2:
        # A worker that is full with one call says the same as one whose load is the machine's.
        raise NotJudgeable(ONE_AT_A_TIME if seen.fewer is None else f"the worker took only one call, and {seen.fewer}")
    seen.raise_if_not_cleared()
    if seen.cut is not None:
        raise_if_uncertain(seen, seen.cut, lk_evidence)
        alone = lk_drain()
        alone.raise_if_not_cleared()
        if alone.cut is not None:
            raise NotJudgeable(f"a single call does not outlive the signal either: {alone.cut.trouble}")
    judge_later_calls(seen, lk_evidence)
    lk_evidence.summary = f"{len(seen.kept)} calls, each lived until its own end"


@check(
    "rollout.sigint-drains",
    MUST,
    section="Rollout",
    why="Some platforms stop workers with SIGINT (Fly.io by default), and so does Ctrl-C.",
    remedy="handle SIGINT like SIGTERM",
    seconds=CHECK_SECONDS,
    roles=("interrupted",),
    order=2,
)
def test_sigint_drains(
    lk_stage: Stage,
    lk_evidence: Evidence,
    lk_interrupt: Callable[[], Drain],
    lk_emptying: Callable[[], Drain],
    lk_drain: Callable[[], Drain],
) -> None:
    """After SIGINT a running call goes on undisturbed, no new job is taken, and it ends after its calls.

    SIGINT goes to the first process of a worker with two calls (or one, if it takes no more). After 3 s, and once it is
    known that the worker takes no new job (or after 6 s), the older one is hung up; the other is kept until 17 s later,
    and for 20 s at least, as a worker that does not drain may give its jobs 15 s to end. A call is cut if its agent
    leaves the room, or if packets (1.5 s) or the sound of an agent that talks without pauses (2.5 s) are missing and
    stay away for 8 s; a gap above 2.5 s is a failure if a second look shows one too, with nothing else under way. As in
    `rollout.sigterm-stops-new-jobs` it must take no new job from 5 s after the signal on, nor after its calls. If the
    signal was lost (nothing happens, and a second one is heeded), all is repeated once. Within `lk_exit_timeout`
    (default 30 s) of the end of its calls it must have exited, with whatever code, unless it does not after its own
    stop signal either. Skipped if no call is served, or if calls are cut after others had ended at its own stop signal,
    too; on an overloaded machine silence, no reaction, or a worker that still runs is an error.
    """
    seen = lk_interrupt()
    judge_kept_calls(seen, lk_evidence, gaps=seen.drained)
    if not seen.drained:
        if seen.cut is not None:
            raise_if_uncertain(seen, seen.cut, lk_evidence)
        require_drains(lk_emptying(), lk_drain())
    judge_later_calls(seen, lk_evidence)
    lk_evidence["stopped_after_s"] = seen.stopped_s
    answer = seen.asked.available if seen.asked is not None else None
    if not stops_in_time(seen):
        seen.raise_if_busy()
        if seen.stopped_s is not None:
            raise AssertionError(f"only {seen.stopped_s} s after SIGINT it says that it takes no more jobs")
        lk_evidence["accepts_while_draining"] = answer
        raise AssertionError(
            f"SIGINT changes nothing: registered as free more than {STOPS_SECONDS} s after it{seen.lost_signal}"
        )
    if seen.asked_at_end is not None and seen.asked_at_end.available:
        # It had said that it takes nothing more, as one does that the call fills.
        lk_evidence["transcript"] = seen.lines[-8:]
        changed = "" if seen.exit_code is not None else f"SIGINT changes nothing{seen.lost_signal}: "
        raise AssertionError(f"{changed}after SIGINT and the end of its calls it is free again, and accepts a job")
    if seen.drained and seen.exit_code is None and not stays(lk_drain):
        lk_evidence["transcript"] = seen.lines[-8:]
        seen.raise_if_busy()
        limit = lk_stage.settings.exit_timeout
        raise AssertionError(f"still running {limit:g} s after SIGINT and the end of its calls{seen.lost_signal}")
    which = "the later of its calls" if len(seen.kept) > 1 else "its call"
    lk_evidence.summary = f"{which} went on for {seen.held_s:.0f} s after SIGINT"


@check(
    "rollout.drains-after-loss",
    MUST,
    section="Rollout",
    why="Connections are lost and jobs crash all the time: a worker that has had that still has calls to drain.",
    remedy="keep count of the jobs across registrations, and count those that crashed as ended",
    roles=("cut-once",),
    seconds=CHECK_SECONDS,
    order=2,
)
def test_drains_after_loss(
    lk_stage: Stage,
    lk_evidence: Evidence,
    lk_late_drain: Callable[[], Drain],
    lk_emptying: Callable[[], Drain],
    lk_drain: Callable[[], Drain],
    lk_crash: Callable[[], Harm],
    lk_kept_over_loss: Callable[[], Reconnection | None],
) -> None:
    """A worker that loses its server, or a job's process, still drains: its calls go on, and then it ends.

    Two calls (or one, if it takes no more) are placed, the connection over which the worker is registered is cut, and
    it must register again within 45 s. 5 s later the image's stop signal (SIGTERM by default) goes to its first
    process. After 3 s, and once it is known that the worker takes no new job (or after 6 s), the process of the newer
    call's job is killed (where it has none of its own the call is hung up): it may be the only one that the worker
    remembers, and jobs crash during drains, too. A worker that takes one call at a time has had such a crash before its
    call instead. The other call is kept for 17 s more, as a worker that has forgotten it may give its job 15 s to end.
    Both must go on until then as in `rollout.sigterm-drains`, and the worker must exit within `lk_exit_timeout`
    (default 30 s) of the end, where no job was killed with code 0 or 128 plus the number of this signal, SIGINT or
    SIGTERM (else with any but those of a crash of its own, such as 139). Nor may it take new jobs 5 s after the signal,
    if one that lost nothing does not (see `rollout.sigterm-stops-new-jobs`). If the loss ends one of the calls (its
    agent leaves, or its job's connection stays away for 8 s), that is a failure where the single call of
    `registration.keeps-calls` goes on in the same run. Skipped if no call is served, the loss harms one otherwise,
    agents leave by themselves, it does not register again, or a worker that lost nothing cuts calls after others had
    ended, or when a job crashes, or does not end, too; on an overloaded machine a gap, or a worker that still runs, is
    an error.
    """
    try:
        seen = lk_late_drain()
    except CallsEnded as harmed:
        judge_loss(harmed, lk_kept_over_loss(), lk_evidence)
        raise
    if seen.crashed and seen.harmed_by_an_end and lk_crash().harmed_calls:
        raise NotJudgeable("the crash of a job harms other calls without a drain, too: see jobs.crash-isolated")
    judge_kept_calls(seen, lk_evidence, gaps=seen.drained)
    lk_evidence["a_job_was_killed"] = "before" if seen.crashed_before else seen.crashed
    lk_evidence["stopped_after_s"] = seen.stopped_s
    if not stops_in_time(seen) and stops_in_time(lk_drain()):
        lk_evidence["transcript"] = seen.lines[-8:]
        seen.raise_if_busy()
        raise AssertionError(f"{STOPS_SECONDS} s after {seen.signal} it is still registered as free, or takes a job")
    if not seen.drained:
        if seen.cut is not None:
            raise_if_uncertain(seen, seen.cut, lk_evidence)
        require_drains(lk_emptying(), lk_drain())
    judge_later_calls(seen, lk_evidence)
    if seen.drained and seen.exit_code is None and stays(lk_drain):
        raise NotJudgeable("it does not end after a drain in which it lost nothing either: see rollout.exits-when-drained")
    judge_exit(seen, lk_stage.settings.exit_timeout, lk_evidence)
    crash = " and the crash of another one's job" if seen.crashed else ""
    lk_evidence.summary = (
        f"its call went on for {seen.held_s:.0f} s after {seen.signal}{crash}, and it exited with code {seen.exit_code}"
    )


@check(
    "rollout.exits-when-drained",
    MUST,
    section="Rollout",
    why="A drained worker that stays holds up the rollout for the whole grace period; a wrong code looks like a crash.",
    remedy="exit with code 0 (or 128 + signal) once the last job has ended",
    roles=("draining",),
    seconds=CHECK_SECONDS,
    order=2,
)
def test_exits_when_drained(lk_stage: Stage, lk_evidence: Evidence, lk_drain: Callable[[], Drain]) -> None:
    """After its last call has ended it exits, with code 0 or 128 + signal.

    In the drain of `rollout.sigterm-drains`, after the last call is hung up, the worker must exit within
    `lk_exit_timeout` (default 30 s) with code 0 or 128 plus the number of this signal, SIGINT or SIGTERM. If the signal
    had changed nothing, it is sent once more, only to tell a lost signal from an ignored one. Skipped if a call was
    cut, the worker ended before its calls, or no call is served; on an overloaded machine one that still runs is an
    error.
    """
    seen = lk_drain()
    lk_evidence["signal"] = seen.signal
    judge_exit(seen, lk_stage.settings.exit_timeout, lk_evidence)
    lk_evidence.summary = f"exits {seen.exited_s} s after its last call with code {seen.exit_code}"


@check(
    "rollout.idle-exit",
    MUST,
    section="Rollout",
    why="A worker without calls that does not end holds up every rollout for the whole grace period.",
    remedy="exit with code 0 (or 128 + signal) once the stop signal came and no job is left",
    roles=("stopped", "uncalled"),
    seconds=300,
    order=1,
)
def test_idle_exit(lk_stage: Stage, lk_evidence: Evidence, lk_stop: Callable[[], Stop]) -> None:
    """Without calls, the stop signal ends the worker, with code 0 or 128 + signal.

    The image's stop signal (SIGTERM by default) goes to the first process of a worker without calls, which has had one
    before and is at rest again (not where no call is served, or its job does not end within 12 s), and to that of one
    that never had a call. Within `lk_exit_timeout` (default 30 s) of the signal each must have exited, with code 0 or
    128 plus the signal's number. If the first, which may be the worker that `jobs.crash-isolated` had, does not, another
    one is looked at that no check had before. On an overloaded machine one that still runs is an error.
    """
    seen = lk_stop()
    lk_evidence["signal"], lk_evidence["limit_s"] = seen.signal, lk_stage.settings.exit_timeout
    lk_evidence["calls_before"] = seen.calls
    lk_evidence["exited_after_s"], lk_evidence["exit_code"] = seen.exited_s, seen.exit_code
    _judge_stop(lk_stage, seen)
    if seen.calls:
        uncalled = stop_uncalled(lk_stage)
        lk_evidence["without_calls_before"] = {"exited_after_s": uncalled.exited_s, "exit_code": uncalled.exit_code}
        _judge_stop(lk_stage, uncalled)
    lk_evidence.summary = f"exits {seen.exited_s} s after {seen.signal} with code {seen.exit_code}"


def _judge_stop(stage: Stage, seen: Stop) -> None:
    idle = f"{seen.signal} without a call{' left' if seen.calls else ', which it never had'}"
    if seen.exited_s is None:
        did = "still running" if seen.deregistered_s is not None else "neither exits nor gives up its registration"
        raise AssertionError(f"{did} {stage.settings.exit_timeout:g} s after {idle}")
    assert seen.exit_code in exit_codes(seen.signal), f"exit code {seen.exit_code} after {idle}"


@check(
    "rollout.exits-when-unassigned",
    SHOULD,
    profile="full",
    section="Rollout",
    why="A server that gave up on an answer gives the job to nobody, and who waits for it holds up the whole rollout.",
    remedy="wait some seconds for the job that was accepted, and then forget it, also while draining",
    roles=("unassigned", "stopped"),
    seconds=300,
    order=1,
)
def test_exits_when_unassigned(lk_stage: Stage, lk_evidence: Evidence, lk_stop: Callable[[], Stop]) -> None:
    """The stop signal ends a worker that accepted a job which it was not given.

    A worker without calls is asked for a job and accepts it; nobody gives it that job, and the image's stop signal
    (SIGTERM by default) goes to its first process. It must exit within `lk_exit_timeout` (default 30 s), with whatever
    code: livekit-agents waits 7.5 s for such a job. Skipped if it accepts no job, or does not end without it either; on
    an overloaded machine one that still runs is an error.
    """
    seen = stop_unassigned(lk_stage)
    lk_evidence["signal"], lk_evidence["limit_s"] = seen.signal, lk_stage.settings.exit_timeout
    lk_evidence["exited_after_s"], lk_evidence["exit_code"] = seen.exited_s, seen.exit_code
    if seen.exited_s is None:
        if not lk_stop().ended_well:
            raise NotJudgeable("it does not end without such a job either: see rollout.idle-exit")
        limit = lk_stage.settings.exit_timeout
        raise AssertionError(f"still running {limit:g} s after {seen.signal}, with a job that it accepted and was not given")
    lk_evidence.summary = f"exits {seen.exited_s} s after {seen.signal}, with a job that it was not given"


@check(
    "rollout.sigterm-while-starting",
    SHOULD,
    profile="full",
    section="Rollout",
    why="A first process without a handler ignores the signal: a rollout that is taken back waits for the whole grace period.",
    remedy="run a small init as first process (tini, docker run --init), or set the handler before the long imports",
)
def test_sigterm_while_starting(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """A stop signal half a second after its start ends it.

    0.5 s after a worker's container was started, when an interpreter is up and its imports are not, the image's stop
    signal (SIGTERM by default) goes to its first process. It must exit within `lk_exit_timeout` (default 30 s), with
    whatever code. Skipped with `--lk-command`; on an overloaded machine one that still runs is an error.
    """
    lk_stage.needs_image("signals reach the first process of a container in another way than a process here")
    worker = lk_stage.untouched("starting")
    name, limit = stop_signal(lk_stage), lk_stage.settings.exit_timeout
    while (left := worker.started + EARLY_SECONDS - time.monotonic()) > 0:
        time.sleep(left)
    lk_evidence["signal"], lk_evidence["sent_after_s"] = name, round(time.monotonic() - worker.started, 2)
    end_by(
        lk_stage,
        worker,
        name,
        lk_evidence,
        f"{name} {EARLY_SECONDS} s after its start is lost: still running {limit:g} s later",
    )
    lk_evidence.summary = f"exits {lk_evidence['exited_after_s']} s after a signal that came while it started"


@check(
    "rollout.second-signal",
    INFO,
    profile="full",
    section="Rollout",
    why="An impatient operator, or a platform that repeats itself, sends the signal again.",
    roles=("insisted",),
)
def test_second_signal(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """What a second stop signal does to a worker that drains.

    The stop signal goes to the first process of a worker with one call, and once more 2 s later; the call is watched
    until 8 s after the first one. Whether and when it is cut, and the worker's exit code, are recorded; nothing is
    judged. Skipped if no call is served, or if the call is over before the second signal; whether its agent falls silent or
    leaves by itself is told as in `rollout.sigterm-drains`.
    """
    seen, sent = by_two_signals(lk_stage)
    name = seen.signal
    lk_evidence["signal"], lk_evidence["second_after_s"], lk_evidence["exit_code"] = name, DISTURB_SECONDS, seen.exit_code
    cut = seen.cut_while_held
    if cut is not None:
        raise_if_uncertain(seen, cut, lk_evidence)
    if not sent or (cut is not None and (cut.trouble_s or 0.0) < DISTURB_SECONDS):
        raise NotJudgeable(f"its call was over before a second {name}: see rollout.sigterm-drains")
    lk_evidence["call_cut_after_s"] = cut.trouble_s if cut else None
    if seen.ended_while_held is not None:
        lk_evidence.summary = f"a second {name} ends the worker at once, with its calls"
    elif cut is not None:
        lk_evidence.summary = f"a second {name} ends its calls: {cut.trouble}"
    else:
        lk_evidence.summary = f"a second {name} changes nothing: the drain goes on"


@check(
    "rollout.engine-stop",
    MUST,
    profile="full",
    section="Rollout",
    why="It is how engines and platforms really end a container: stop signal, a time to drain, then SIGKILL.",
    remedy=DRAIN + "; do not name a STOPSIGNAL that the worker does not handle",
    roles=("engine-stopped",),
    seconds=TWICE_SECONDS,
)
def test_engine_stop(lk_stage: Stage, lk_evidence: Evidence, lk_engine_stop: Callable[[], Drain]) -> None:
    """``docker stop`` with time enough: the call goes on, and the worker ends by itself when it is over.

    The engine stops the container of a worker with one call, with a timeout of 28 s plus `lk_exit_timeout` (58 s by
    default); the call is kept for 8 s. A call is cut if its agent leaves the room, or if packets (1.5 s) or the sound
    of an agent that talks without pauses (2.5 s) are missing and stay away for 8 s; a gap above 2.5 s is a failure if a
    second look shows one too, with nothing else under way. Then the worker must exit within `lk_exit_timeout` (default
    30 s) with code 0 or 128 plus the number of this signal, SIGINT or SIGTERM, and a stop timeout in the image itself
    may not be below 8 s. Skipped with `--lk-command` or if the call is not served; on an overloaded machine silence is
    an error.
    """
    lk_stage.needs_image("an engine stops containers")
    own = lk_stage.contents.attrs["Config"].get("StopTimeout")
    lk_evidence["stop_signal"], lk_evidence["stop_timeout_s"] = stop_signal(lk_stage), own
    lk_evidence["timeout_given_s"] = engine_timeout(lk_stage)
    seen = lk_engine_stop()
    judge_kept_calls(seen, lk_evidence)
    judge_exit(seen, lk_stage.settings.exit_timeout, lk_evidence)
    assert own is None or own >= DRAIN_SECONDS, f"the image gives itself {own} s to stop, less than any call lasts"
    lk_evidence.summary = f"docker stop: the call went on, exit code {seen.exit_code} {seen.exited_s} s after its end"


@check(
    "rollout.drains-without-server",
    SHOULD,
    profile="full",
    section="Rollout",
    why="Servers are rolled out too: a worker that drains may lose its connection, but its calls need not.",
    remedy="let the drain go on when the connection to the server is lost, and refuse jobs when it is back",
    roles=("unconnected",),
    seconds=TWICE_SECONDS,
)
def test_drains_without_server(lk_stage: Stage, lk_evidence: Evidence, lk_unconnected: Callable[[], Drain]) -> None:
    """When its connection to the server is lost while it drains, its call goes on, and it takes no new job afterwards.

    2 s after the stop signal of a worker with one call, the proxy on the wire resets the connection of its registration
    and refuses new ones for 7 s; the job's own connection and media stay. The call is kept until 17 s after the signal;
    a worker that has registered again by then is asked for a job, which it must not accept. A call is cut if its agent
    leaves the room, or if packets (1.5 s) or the sound of an agent that talks without pauses (2.5 s) are missing and
    stay away for 8 s; a gap above 2.5 s is a failure if a second look shows one too, with nothing else under way. Then
    the worker must exit within `lk_exit_timeout` (default 30 s) with code 0 or 128 plus the number of this signal,
    SIGINT or SIGTERM. Skipped if the call is not served; on an overloaded machine silence is an error.
    """
    seen = lk_unconnected()
    judge_kept_calls(seen, lk_evidence)
    back = seen.asked_back
    lk_evidence["registered_again"], lk_evidence["accepts_when_back"] = back is not None, back.available if back else None
    if back is not None and back.available:
        lk_evidence["transcript"] = seen.lines[-8:]
        raise AssertionError(f"after {seen.signal} and a lost connection it registers again and accepts a job")
    judge_exit(seen, lk_stage.settings.exit_timeout, lk_evidence)
    after = "" if back is None else ", and refuses jobs when it is back"
    lk_evidence.summary = f"its call went on for {seen.held_s:.0f} s, with the server's connection lost{after}"


@check(
    "rollout.exits-without-server",
    SHOULD,
    profile="full",
    section="Rollout",
    why="A worker that waits for a server and hears nothing else holds up every rollout while that server is away.",
    remedy="let the stop signal end the wait between two tries to connect, too, and count a call as over when its job is, "
    "whether the server could be told or not",
    roles=("deserted",),
    seconds=TWICE_SECONDS,
)
def test_exits_without_server(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """A worker that has lost its server keeps its call at the stop signal, and ends when the call has ended.

    The proxy on the wire resets the connection of a worker with one call and refuses new ones; the job's own connection
    stays. After the worker's first try (5 s at most) the image's stop signal (SIGTERM by default) goes to its first
    process. It must not end, nor may its agent leave, fall silent for 8 s, or its job lose its own connection for 8 s,
    before the call is hung up 8 s later, and it must have ended within `lk_exit_timeout` (default 30 s) of the end of the
    call's job, with whatever code. Whether a silence may be the agent's habit is told as in `rollout.sigterm-drains`.
    Skipped if the call is not served, if its agent leaves or the worker ends by itself before the signal, or if the job
    does not end within `lk_exit_timeout`; on an overloaded machine silence, or one that still runs, is an error.
    """
    worker = lk_stage.untouched("deserted")
    name, limit = stop_signal(lk_stage), lk_stage.settings.exit_timeout
    before = stop_with_a_call(lk_stage, worker, name, lk_evidence)
    still = f"still running {limit:g} s after the end of its call, and {name}, which came while its server was away"
    ends_in_time(lk_stage, worker, before, lk_evidence, still)
    lk_evidence.summary = (
        f"kept its call after {name}, with its server away, and exits {lk_evidence['exited_after_s']} s after it"
    )


@check(
    "rollout.grace-period",
    SHOULD,
    profile="soak",
    section="Rollout",
    why="Calls last minutes: a drain that gives up after one cuts them all (livekit-agents up to 1.0.19 did after 60 s).",
    remedy="set the worker's drain timeout to the longest call (the guide: 10 minutes or more), however old a call is",
    roles=("patient",),
    seconds=CHECK_SECONDS,
    order=9,
)
def test_drains_a_long_call(lk_stage: Stage, lk_evidence: Evidence, lk_long_drain: Callable[[], LongCall]) -> None:
    """A long call (10 minutes, or lk_drain_hold) lives until its own end after the stop signal.

    The stop signal goes to the first process of a worker with one call, which is 75 s old by then and kept for 600 s
    more (the guide's 10 minutes) or for `--lk-drain-hold`. A call is cut if its agent leaves the room, or if packets
    (1.5 s) or the sound of an agent that talks without pauses (2.5 s) are missing and stay away for 8 s; shorter gaps
    are recorded. Then the worker must exit within `lk_exit_timeout` (default 30 s) with code 0 or 128 plus the number
    of this signal, SIGINT or SIGTERM. Skipped if the call is not served, or if its agent ends it by itself before that
    time is over; on an overloaded machine silence is an error.
    """
    lk_evidence["hold_s"] = asked = hold(lk_stage.settings)
    seen = lk_long_drain().drain
    judge_kept_calls(seen, lk_evidence, gaps=False)
    judge_exit(seen, lk_stage.settings.exit_timeout, lk_evidence)
    if round(asked - seen.held_s, 1) > 0.1:
        why = "its agent ended it as usual" if seen.usual is not None else "it ended"
        raise NotJudgeable(f"the call lasted for {seen.held_s:.0f} s after {seen.signal} and not for {asked:.0f} s: {why}")
    lk_evidence.summary = f"a call went on for {seen.held_s:.0f} s after {seen.signal}"


@check(
    "rollout.replaces-without-loss",
    MUST,
    profile="full",
    section="Rollout",
    why="This is a rollout: new worker up, old one stopped, while calls go on and arrive.",
    remedy=DRAIN + "; while draining report that you are full, and answer what is asked at once",
    roles=("shared", "old"),
    seconds=300,
    order=1,
    setting="from_image",
)
def test_replaces_without_loss(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """Old worker replaced by a new one: calls in progress go on, every call that arrives is served, once.

    An old worker (of the image `--lk-from`, if given) has two calls, or one if it takes no more; a new one starts
    beside it, calls arrive on as many lines, each for 2 s and the next one as soon as one of the two workers is not
    full (for 15 s), and the old one gets its stop signal. The calls in progress are kept for 8 s and judged as in
    `rollout.sigterm-drains`, but for gaps after which they go on; those, and the old worker's exit, are recorded and
    judged by the checks of one worker. An arriving call is lost, and a failure, if a worker does not answer its
    question or takes its job and no agent comes, or none that stays for these 2 s; so is one that still has two agents,
    or none, 2 s after them (an agent may hand the call over). A refused
    one is tried three times; if none was free then, it is an error, as is any loss on an overloaded machine. Skipped if
    the two register under different names or no call is served.
    """
    settings = lk_stage.settings
    seen = replace(lk_stage)
    lk_evidence["old_image"], lk_evidence["new_image"] = settings.from_image or settings.image, settings.image
    lk_evidence["arrived"] = len(seen.arrivals)
    lk_evidence["arrived_after_signal"] = sum(arrival.at_s >= 0 for arrival in seen.arrivals)
    lk_evidence["arrivals"] = [[arrival.at_s, arrival.served_by, arrival.agents, arrival.tries] for arrival in seen.arrivals]
    lk_evidence["both_generations_s"] = seen.both_s
    judge_kept_calls(seen.drain, lk_evidence, gaps=False)
    faults = [arrival for arrival in seen.arrivals if arrival.fault is not None]
    twice = [arrival for arrival in seen.arrivals if arrival.agents > 1]
    if faults or twice:
        lk_evidence["transcript"] = seen.lines
    if seen.busy and (faults or twice or seen.unserved):
        raise StageError(f"this machine is too busy to judge: {seen.busy}")
    assert not faults, f"a call that arrived {faults[0].at_s} s after the signal was lost: {faults[0].fault}"
    assert not twice, f"a call that arrived {twice[0].at_s} s after the signal was served by {twice[0].agents} agents"
    if not lk_evidence["arrived_after_signal"]:
        raise StageError("no call arrived after the signal: neither worker had room for one")
    if seen.unserved:
        raise StageError(f"{len(seen.unserved)} of {len(seen.arrivals)} calls met no worker that was free, three times each")
    exited = seen.drain.exited_s
    lk_evidence["exited_after_last_call_s"], lk_evidence["exit_code"] = exited, seen.drain.exit_code
    if exited is None:  # no call is lost by it, and rollout.exits-when-drained judges it
        lk_evidence["transcript"] = seen.lines
    lk_evidence.summary = (
        f"{len(seen.drain.kept)} calls went on, {len(seen.arrivals)} arrived and were served once, "
        f"both generations up for {seen.both_s:.0f} s" + (", and the old one still" if exited is None else "")
    )
