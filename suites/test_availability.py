"""Section "Worker availability": a worker says how busy it is and takes no job over its threshold."""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_lkagents.calls import ANSWER_SECONDS
from pytest_lkagents.checks import INFO, MUST, SHOULD, Evidence, NotJudgeable, StageError, TooBusy, check
from pytest_lkagents.stage import Stage
from pytest_lkagents.verdict import SEEN_BESIDE
from pytest_lkagents.wire.model import Answer

from .drained import Drain
from .load import BURNT_SHARE, EXHAUSTED, LOAD_SECONDS, NOTICEABLE, RISE_SECONDS
from .loaded import Loaded
from .placed import RECOVER_SECONDS, wait_free
from .questions import Asked, asked, asked_beside_calls, late_in_peace
from .refusing import for_good
from .reports import LONGEST_SECONDS, REPORT_SECONDS, pauses
from .scenario import CHECK_SECONDS
from .threshold import by_halves

BURST = 5
# A worker that samples its load twice a second answers one burst in four as if it had counted.
BURSTS = 3


def _cannot_move(seen: Loaded) -> NotJudgeable:
    return NotJudgeable(f"its load stays at {seen.idle:g}: see availability.load-follows-work")


@check(
    "availability.reports-load",
    MUST,
    section="Worker availability",
    why="The server shares out jobs by the load that workers report; a stale or impossible load starves or floods them.",
    remedy="let load_fnc return a value between 0 and 1 quickly, and do not block the worker's event loop",
    roles=("shared", "loaded"),
    seconds=LOAD_SECONDS,
    order=3,
)
def test_reports_load(lk_stage: Stage, lk_evidence: Evidence, lk_load: Callable[[], Loaded]) -> None:
    """It reports its load at least every 10 s, as a value from 0 to 1.

    The worker's status messages are read on the wire from its registration on, at least until the third one or for 12
    s. The pauses between registration, statuses and now may be 10.5 s at most: the SDKs report every 2.5 s, and an
    older load misleads the dispatch. Every load must be from 0 to 1, also those that a second worker reports while its
    CPU is burnt or calls are placed on it (see `availability.load-follows-work`). A longer pause in which next to all
    of this machine's cores were in use does not count where it ended and there are three others; else it is an error,
    as is one on an overloaded machine. Time for which the run itself stood still, as on a virtual machine that is
    stopped, is left out.
    """
    worker = lk_stage.worker("shared")
    transcript = worker.wire.transcript
    registered = worker.registration().registered
    seen = pauses(lk_stage, worker, registered)
    pause = seen.longest
    try:
        lk_load()  # so that the busy worker's loads are judged too
    except (StageError, NotJudgeable):
        pass
    under_load = (status for one in lk_stage.workers("loaded") for status in one.wire.transcript.statuses())
    loads = [status.load for status in (*seen.reports, *under_load)]
    lk_evidence["statuses"], lk_evidence["longest_pause_s"] = len(loads), round(pause, 2)
    lk_evidence["too_long_as_busy"] = seen.held_up
    lk_evidence["lowest_load"] = round(min(loads, default=0.0), 4)
    lk_evidence["highest_load"] = round(max(loads, default=0.0), 4)
    wrong = [value for value in loads if not 0 <= value <= 1]
    if wrong or pause > LONGEST_SECONDS:
        lk_evidence["transcript"] = transcript.lines(registered, kinds=("registered", "status"), last=10)
    assert not wrong, f"{len(wrong)} of {len(loads)} reported loads are not between 0 and 1, such as {wrong[0]:g}"
    if pause > LONGEST_SECONDS:
        lk_stage.raise_if_too_busy()
        raise AssertionError(f"reports nothing for {pause:.1f} s (at least every {REPORT_SECONDS} s is needed)")
    if seen.unknown:
        raise TooBusy("this machine is too busy to judge: all of its cores were in use while nothing was reported")
    lk_evidence.summary = (
        f"{len(loads)} reports, at most {pause:.1f} s apart, load {lk_evidence['lowest_load']:.2f} to "
        f"{lk_evidence['highest_load']:.2f}"
    )


@check(
    "availability.load-follows-work",
    MUST,
    section="Worker availability",
    why="A load that does not follow the work makes the server flood a busy worker, and hides it from the autoscaler.",
    remedy="let load_fnc measure what limits the worker, CPU use (the default) or the number of jobs, and never raise",
    roles=("loaded", "peer"),
    seconds=LOAD_SECONDS,
    order=2,
)
def test_load_follows_work(lk_evidence: Evidence, lk_load: Callable[[], Loaded]) -> None:
    """Its load rises with CPU use or with the number of calls, and falls with it.

    One of two workers on a server (1 core, or `--lk-cpus`) comes to rest (within 20 s; after earlier calls within
    `lk_exit_timeout` and 10 s); then all cores that it may use are burnt inside its container for up to 20 s, until its
    status is "full" (for 8 s only, if three reports are exactly what it was at rest, and once more if calls do not move
    it either; with `--lk-command`: all cores of this machine, at the lowest priority). If that does not fill it and
    raises its load by less than 0.3, up to four calls are placed on it, one after the other, and up to ten where CPU
    does not move its load and four calls raised it so much that ten fill it (`--lk-sessions`: that many at most;
    `--lk-memory`: four). The reported load must rise by more than 0.02 (less is an idle worker's noise, unless each of
    three calls raises it; with burnt CPU for two reports in a row), or the status must become "full"; and while the
    burner has 95 % of the allowed cores it must not fall to less than half, unless others moved it. A load that calls
    raised, without filling the worker, must not stay the same to the last digit for 75 s (and `lk_exit_timeout`, if
    that is longer) when they and their processes are gone. Skipped if it never reports a load, if nothing can burn CPU
    and calls do not move it, or if its reports differ and may be of something that was not to rise: of a machine with
    so many cores that those burnt are less than 4 %, of the machine's load average, of calls that used less than 2 % of
    the allowed cores, or of calls that each raised it a little, of which there were less than three. An overloaded
    machine is an error, one that fills the worker at rest, and a burner that got less than half of the allowed cores.
    """
    seen = lk_load()
    lk_evidence["moved_by"] = seen.moved_by
    lk_evidence["idle_load"], lk_evidence["highest_load"] = round(seen.idle, 3), round(seen.top, 3)
    lk_evidence["burnt_cores"], lk_evidence["allowed_cores"] = seen.cores_used, seen.cores_allowed
    lk_evidence["calls_placed"] = seen.calls
    if seen.stayed_at is not None:
        lk_evidence["load_after_calls"], lk_evidence["looked_on_s"] = round(seen.stayed_at, 3), seen.stayed_s
    if seen.not_burnt:
        lk_evidence["not_burnt"] = seen.not_burnt
    if seen.moved_by is None:
        lk_evidence["transcript"] = seen.lines
        if seen.not_burnt:
            raise NotJudgeable(f"{seen.calls} calls do not move its load, and its CPU could not be burnt: {seen.not_burnt}")
        _raise_if_it_may_not_show(seen)
        if seen.full_at_rest:
            raise AssertionError(f"it is {seen.full_at_rest}, with a load of {seen.idle:.3f}")
        raise AssertionError(
            f"its load stays between {seen.idle:.3f} and {seen.top:.3f} with {seen.cores_used or 0:.1f} of "
            f"{seen.cores_allowed:g} cores burnt for {RISE_SECONDS} s and with {seen.calls} calls"
        )
    if seen.sank_to is not None:
        lk_evidence["transcript"] = seen.lines
        raise AssertionError(f"its load falls from {seen.top:.2f} to {seen.sank_to:.2f} while all its CPU is burnt")
    if seen.stayed_at is not None:
        lk_evidence["transcript"] = seen.lines
        raise AssertionError(
            f"its load stays at {seen.stayed_at:.3f} for {seen.stayed_s:.0f} s after its {seen.calls} calls were over, "
            f"and is {seen.idle:.3f} at rest"
        )
    by = "burnt CPU" if seen.moved_by == "cpu" else f"{seen.calls} calls"
    lk_evidence.summary = f"load {seen.idle:.2f} at rest, {seen.top:.2f} with {by}"


def _raise_if_it_may_not_show(seen: Loaded) -> None:
    """Raises StageError if the burner did not burn, NotJudgeable where a load that follows the work need not have moved."""
    if seen.cores_used is not None and seen.cores_used < BURNT_SHARE * seen.cores_allowed:
        raise StageError(f"this machine is too busy to judge: the burner got {seen.cores_used} of {seen.cores_allowed:g} cores")
    if seen.unmoved:
        return
    if seen.may_not_show is not None:
        raise NotJudgeable(f"{seen.calls} calls do not move its load, nor does CPU: {seen.may_not_show}")
    if seen.called_too_little:
        raise NotJudgeable(f"its load rose to {seen.top:.3f} with {seen.calls} calls, too few to tell: give --lk-sessions more")
    used = seen.cores_with_calls
    if used is not None and used < NOTICEABLE * seen.cores_allowed:
        raise NotJudgeable(f"the {seen.calls} calls used {used:.3f} cores, too little to tell: give --lk-sessions more")


@check(
    "availability.rejects-over-threshold",
    MUST,
    section="Worker availability",
    why="A worker that takes calls without bound spoils those that it already has.",
    remedy="set a finite load_threshold (Python has one by default in production mode, Node has none: loadThreshold)",
    roles=("loaded", "peer"),
    seconds=LOAD_SECONDS,
    order=2,
)
def test_rejects_over_threshold(lk_stage: Stage, lk_evidence: Evidence, lk_load: Callable[[], Loaded]) -> None:
    """Over its threshold it says so, and a call goes to a free worker.

    The load is raised as in `availability.load-follows-work`, while the statuses are kept from the server, so that it
    goes on asking. The worker passes if its status becomes "full", or if it refuses a job that does not exist, which
    the proxy on the wire offers to it. If it does neither, that is an error where the burner got less than 85 % of the
    allowed cores, a skip where the load stays below 0.95 (or below `lk_load_threshold`, if that is higher), else a
    failure. Up to six real calls are placed meanwhile beside a second, free worker; who serves them is recorded here
    and judged by `balancing.redispatch-on-refusal`. Skipped if its load cannot be moved.
    """
    seen = lk_load()
    lk_evidence["moved_by"], lk_evidence["highest_load"] = seen.moved_by, round(seen.top, 3)
    lk_evidence["full_after_s"] = None if seen.full_after is None else round(seen.full_after, 2)
    lk_evidence["burnt_cores"], lk_evidence["allowed_cores"] = seen.cores_used, seen.cores_allowed
    if seen.moved_by is None:
        raise _cannot_move(seen)
    if not seen.over:
        lk_evidence["transcript"] = seen.lines
        if seen.moved_by == "cpu" and not seen.used_up:
            raise StageError(
                f"this machine is too busy to judge: the burner got {seen.cores_used} of {seen.cores_allowed:g} cores"
            )
        if seen.top < max(EXHAUSTED, lk_stage.settings.load_threshold or 0):
            by = "CPU" if seen.moved_by == "cpu" else f"{seen.calls} calls"
            raise NotJudgeable(
                f"all its {by} raise its load to {seen.top:.2f} only; more calls (--lk-sessions) may reach its threshold"
            )
        raise AssertionError(f"still takes jobs at load {seen.top:.2f}")
    real = seen.refused_call
    if real is not None:
        lk_evidence["real_call"] = real.said(seen.worker) + f", served by {real.served_by or 'nobody'}"
    how = f"full {seen.full_after:.1f} s after its load rose" if seen.full_after is not None else "refuses"
    lk_evidence.summary = f"{how}, at load {seen.top:.2f}" + (f"; a real call is served by {real.served_by}" if real else "")


@check(
    "availability.refuses-while-full",
    MUST,
    section="Worker availability",
    why="A question may cross the status on the wire; who says yes then takes a job over its threshold, or one it will drop.",
    remedy="update the SDK (Python 1.4.2 or later refuses by itself), or reject in the request function while full (Node)",
    roles=("loaded", "peer", "draining"),
    seconds=CHECK_SECONDS,
    order=2,
)
def test_refuses_while_full(lk_evidence: Evidence, lk_load: Callable[[], Loaded], lk_drain: Callable[[], Drain]) -> None:
    """Asked for a job while it is full, and while it drains, it does not accept.

    The proxy on the wire offers the worker a job that does not exist, with 3 s to answer: once while it is full (see
    `availability.load-follows-work`), once while it drains with a call that is not cut (as soon as it says that it is
    full or closes its registration, else 5 s after the stop signal, as long as it is registered), unless the signal
    changes nothing. A yes while draining is a failure; a yes while full is one only if the statuses before and after it
    are "full" with a load of 0.95 or more (asked up to three times), or with the load that its last call led to where
    calls fill it. No answer counts as not accepted here. Skipped if it could be asked in neither state, was never full,
    or if its load fell too soon to tell.
    """
    draining = lk_drain()
    asked: dict[str, bool | None] = {}
    # Who ignores the signal does not drain: see rollout.sigterm-stops-new-jobs.
    if draining.asked is not None and draining.heeded and draining.cut_while_held is None:
        asked["draining"] = draining.asked.available
    seen = lk_load()
    # A yes counts if it was full for certain; a no is a no.
    answer = seen.asked_when_full
    if seen.full_after is not None and answer is not None and (seen.certainly_full or not answer.available):
        asked["full"] = answer.available
    lk_evidence["answers"] = {
        state: "no answer" if said is None else "available" if said else "not available" for state, said in asked.items()
    }
    wrong = [state for state, said in asked.items() if said]
    if wrong:
        lk_evidence["transcript"] = (draining.lines if "draining" in wrong else []) + (seen.lines if "full" in wrong else [])
    assert not wrong, f"accepts a job while {' and while '.join(wrong)}"
    if answer is not None and answer.available and "full" not in asked:
        if seen.full_after is None:
            raise NotJudgeable("it was never full: see availability.rejects-over-threshold")
        raise NotJudgeable("it accepted a job while it was full or nearly so: its load fell too soon to tell")
    if not asked:
        raise NotJudgeable("it was neither full nor draining when it could be asked")
    lk_evidence.summary = f"does not accept while {' nor while '.join(asked)}"


@check(
    "availability.recovers",
    MUST,
    section="Worker availability",
    why="A worker that stays full after its load fell is lost until somebody restarts it.",
    remedy="let load_fnc measure the present, over seconds rather than over the worker's life, and count calls where they end: "
    "what a job's process changes in a variable, the worker's process does not see",
    roles=("loaded", "peer"),
    seconds=LOAD_SECONDS,
    # After all calls of the run, the last of which a worker may refuse that has lost count of them.
    order=10,
)
def test_recovers(lk_stage: Stage, lk_evidence: Evidence, lk_load: Callable[[], Loaded]) -> None:
    """When its load falls, it takes jobs again.

    After the burner of `availability.load-follows-work` is stopped and its calls are hung up, a status that is not
    "full" must come within 30 s (where calls fill it, within 40 s, or 10 s more than `lk_exit_timeout` if that is
    longer). Then the proxy on the wire offers a job that does not exist once a second, for up to 30 s more, until the
    worker accepts. Of a worker whose load calls raise, one by one, the load must fall to what it was without calls within
    60 s of that, as that job never comes; where three or more raise it by the same each, and do not fill it, within 60 s
    of their end. Else it is skipped if the worker was never over its threshold, or does not answer the question within 3 s; a
    miss on an overloaded machine is an error. Where the shared worker has taken calls and refused the last three or more of
    the run, it is asked in the same way when it has no call and does not say that it is full, for 30 s, and called once
    after that: to refuse all is a failure, too.
    """
    if (refusing := for_good(lk_stage)) is not None:
        lk_evidence[SEEN_BESIDE] = "jobs.serves-every-call"
        lk_evidence["calls_taken"], lk_evidence["calls_refused_since"] = refusing.taken, refusing.refused
        lk_evidence["transcript"] = refusing.lines
        raise AssertionError(
            f"it took {refusing.taken} calls and refused the {refusing.refused} after these; without a call, and not saying "
            f"that it is full, it refuses all of {refusing.asked} jobs in {refusing.seconds:.0f} s"
        )
    seen = lk_load()
    if seen.moved_by is None:
        raise _cannot_move(seen)
    if not seen.over and seen.still_counted is None:
        raise NotJudgeable("it was never over its threshold: see availability.rejects-over-threshold")
    lk_evidence["limit_s"] = seen.patience
    lk_evidence["accepts_after_s"] = None if seen.recovered_after is None else round(seen.recovered_after, 2)
    if seen.asked_after is not None and seen.asked_after.available is None:
        raise NotJudgeable("asked after its load fell, it did not answer: see availability.answers-in-time")
    if seen.over and seen.recovered_after is None:
        lk_evidence["transcript"] = seen.lines
        raise AssertionError(f"takes no job within {seen.patience:g} s of its load's end, nor {RECOVER_SECONDS} s later")
    if seen.still_counted is not None:
        lk_evidence["load_at_rest_before"], lk_evidence["load_at_rest_after"] = seen.idle, seen.still_counted
        lk_evidence["transcript"] = seen.lines[-8:]
        raise AssertionError(
            f"its load stays at {seen.still_counted:g} without a call, where it was {seen.idle:g} before: it keeps the place "
            "of a call that is over, or of a job that it accepted and that never came"
        )
    lk_evidence.summary = f"accepts {seen.recovered_after:.1f} s after the load was taken away"


@check(
    "availability.answers-in-time",
    MUST,
    section="Worker availability",
    why="The server waits 3 s for an answer, then the job is lost: nobody else is asked.",
    remedy="accept or reject at once in the request function; do slow work in the job itself",
    roles=("shared", "loaded"),
    seconds=CHECK_SECONDS,
    order=10,
)
def test_answers_in_time(
    lk_stage: Stage, lk_evidence: Evidence, lk_load: Callable[[], Loaded], lk_several: Callable[[], Drain | None]
) -> None:
    """It answers every question before the server gives up (3 s).

    All questions about jobs of the run, real ones (two of `jobs.serves-every-call` come in the same instant) and those
    of the proxy on the wire, to the shared worker and to the one under load are taken from the transcript; a worker
    that was not asked by the proxy yet is asked once. So are, beside `rollout.drains-every-call` (not where workers
    take turns), those to its worker before the signal, the last of which come while it has three calls. Each must be
    answered, yes or no, within 3 s, after which the server drops the job (a yes in the last 0.3 s upon which it did not
    give the job to the worker is late too). Questions on a connection that ended within these 3 s, or to a worker that
    `balancing.frozen-worker` had frozen, do not count. Where all that was late was asked while next to all of this
    machine's cores were in use, as when the workers of a run start, or is late by no more than this machine stood
    still, the worker is asked once more in peace, and that answer counts. For what was late before the signal the
    shared worker is asked so, with as many calls and its processes at rest. Skipped if nothing was answered and nothing
    is late; an error if an answer is late again on an overloaded machine, or if the worker cannot be asked again so.
    """
    try:
        lk_load()
    except (StageError, NotJudgeable):
        pass
    lk_stage.worker("shared")
    judged: list[Asked] = []
    for worker in (*lk_stage.workers("shared"), *lk_stage.workers("loaded")):
        if not any(known.probe for known in worker.wire.transcript.questions()) and worker.wire.transcript.live():
            worker.wire.ask(ANSWER_SECONDS)
        judged += asked(worker)
    judged += asked_beside_calls(lk_stage.workers("draining"), lk_several())
    late = [one for one in judged if one.is_late]
    answered = [one.question.answered_after for one in judged if one.question.answered_after is not None]
    lk_evidence["questions"], lk_evidence["answered"] = len(judged), len(answered)
    lk_evidence["most_calls_at_a_question"] = max((one.calls or 0 for one in judged), default=0)
    lk_evidence["slowest_answer_s"] = round(max(answered), 3) if answered else None
    lk_evidence["limit_s"] = ANSWER_SECONDS
    if late:
        lk_evidence["transcript"] = late[0].lines()
        lk_evidence["late"] = len(late)
        certain = late_in_peace(lk_stage, late)
        if not certain:
            lk_evidence.summary = (
                f"{len(answered)} questions answered, in time but for {len(late)}, for which it was asked again"
            )
            return
        shown = [one for one in late if one in certain] or late
        if all(one.calls is not None for one in shown):
            lk_evidence[SEEN_BESIDE] = "rollout.drains-every-call"
        how = shown[0].how_late
        raise AssertionError(f"{len(shown)} of {len(judged)} questions were not answered within 3 s, the first {how}")
    if not answered:
        raise NotJudgeable("it was asked nothing")
    lk_evidence.summary = f"{len(answered)} questions answered, the slowest after {max(answered) * 1000:.0f} ms"


@check(
    "availability.threshold",
    SHOULD,
    profile="full",
    section="Worker availability",
    why="Autoscaler and server are tuned to the threshold that is meant; another one wastes workers or loses calls.",
    remedy="set load_threshold to the value declared as lk_load_threshold, or declare what is meant",
    roles=("loaded", "peer"),
    seconds=LOAD_SECONDS,
    order=4,
)
def test_threshold(lk_stage: Stage, lk_evidence: Evidence, lk_load: Callable[[], Loaded]) -> None:
    """The threshold seen agrees with the one declared (lk_load_threshold).

    Where CPU moves the load, it is burnt in six steps that halve the interval from 30 % to 100 % of the worker's cores;
    each starts from rest (available, load below 0.6), and the first status after 6 s counts. Where calls move it, the
    status after each call counts. The declared `lk_load_threshold` must lie between the highest load that is still
    available and the lowest that is "full", give or take half their distance, at least 0.05; if none is declared, the
    range is recorded only. Skipped if the load cannot be moved, if nothing in the image can burn a share of a core, or
    if no single threshold is seen.
    """
    seen = lk_load()
    if seen.moved_by is None:
        raise _cannot_move(seen)
    worker = lk_stage.worker("loaded")
    if seen.moved_by == "cpu":
        with lk_stage.background.alone_on_the_machine():
            points = by_halves(worker)
    else:
        points = [(seen.idle, False), *((round(value, 3), full) for _, value, full in seen.steps)]
    free = max((value for value, full in points if not full), default=None)
    full = min((value for value, full in points if full), default=None)
    lk_evidence["highest_load_available"], lk_evidence["lowest_load_full"] = free, full
    lk_evidence["declared"] = lk_stage.settings.load_threshold
    if free is None or full is None or full < free:
        raise NotJudgeable(f"no single threshold is seen: available up to {free}, full from {full}")
    lk_evidence["resolution"] = round(full - free, 3)
    server = worker.wire.transcript.registrations()[-1].server_version
    lk_evidence["server"] = (
        f"livekit-server {server}: from version 1.11 on it never asks a worker whose load is above its own "
        "agents.target_load (0.7 by default), whatever the worker's threshold; a higher threshold needs a higher target_load"
    )
    declared = lk_stage.settings.load_threshold
    # The load between two reports is not seen: half the resolution, and what an average over seconds leaves open.
    slack = max((full - free) / 2, 0.05)
    assert declared is None or free - slack <= declared <= full + slack, (
        f"becomes full between load {free:.2f} and {full:.2f}, declared is {declared:g}"
    )
    lk_evidence.summary = f"threshold between {free:.2f} and {full:.2f}" + (
        f", declared {declared:g}" if declared is not None else ", none declared (lk_load_threshold)"
    )


@check(
    "availability.burst",
    INFO,
    profile="full",
    section="Worker availability",
    why="Calls that come at once are asked about before the first of them has raised the load.",
    remedy="update the SDK (Python 1.4.5 or later counts what it has promised), or refuse in the request function",
    roles=("loaded", "peer"),
    seconds=LOAD_SECONDS,
    order=4,
)
def test_burst(lk_stage: Stage, lk_evidence: Evidence, lk_load: Callable[[], Loaded]) -> None:
    """Asked for several jobs at once, it accepts no more than its threshold allows.

    While the worker is free (available, load below 0.6), the proxy on the wire offers it five jobs that do not exist in
    one write, with 3 s for all answers; three times over, because a worker that samples its load answers one burst in
    four as if it had counted. Only where its load follows calls and a number of calls made it "full" is there a bound:
    then that number plus five are offered, and no more than that number may be accepted in any burst. Otherwise the
    highest number accepted is recorded only. Skipped if the load could not be observed.
    """
    seen = lk_load()
    worker = lk_stage.worker("loaded")
    capacity = seen.calls if seen.moved_by == "calls" and seen.full_after is not None else None
    began = time.monotonic()
    accepted = 0
    answers: list[Answer] = []
    for _ in range(BURSTS):
        wait_free(worker)
        answers = worker.wire.ask_at_once((capacity or 0) + BURST, ANSWER_SECONDS)
        accepted = max(accepted, sum(1 for answer in answers if answer.available))
    lk_evidence["asked_at_once"], lk_evidence["most_accepted"], lk_evidence["bursts"] = len(answers), accepted, BURSTS
    lk_evidence["unanswered"] = sum(1 for answer in answers if answer.available is None)
    lk_evidence["full_with_calls"] = capacity
    lk_evidence["transcript"] = worker.wire.transcript.lines(began, kinds=("question", "answer"))[:40]
    if capacity is not None:
        assert accepted <= capacity, f"accepts {accepted} of {len(answers)} jobs asked at once, and is full with {capacity}"
    lk_evidence.summary = f"accepts {accepted} of {len(answers)} jobs asked at once" + (
        f", is full with {capacity}" if capacity is not None else ""
    )
