"""What a worker does when its load rises over its threshold and falls again, observed once for several checks."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterable

import psutil

from pytest_lkagents.busyness import Reading
from pytest_lkagents.callers.caller import Caller
from pytest_lkagents.calls import ANSWER_SECONDS
from pytest_lkagents.checks import NotJudgeable, StageError, WorkerFault
from pytest_lkagents.settings import MORE_CALLS, SESSIONS, Settings
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Status
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker

from .healthy import answers, unhealthy_when_full
from .loaded import LEAST_STEPS, Loaded
from .placed import RECOVER_SECONDS, TRIES, place, wait_free
from .reports import LONGEST_SECONDS
from .unloaded import UNMOVED, look_whether_it_forgot, look_whether_it_stays, recover

# A status at least every 10 s, and a load that is averaged over some seconds before.
RISE_SECONDS = 20
# A load of CPU moves by then, if only a little: SDKs average over 2.5 s, the kernel adds to its average every 5 s.
MOVES_SECONDS = 8
# Four of the SDKs' reports.
NEXT_SECONDS = 10
# Less than this is noise of an idle worker's CPU; a job or a burnt core adds more.
NOTICEABLE = 0.02
HALF_HEARTED = 0.3
# For a check that raises it: ten calls to jobs that take 10 s to start, with what comes before and after.
LOAD_SECONDS = 300
# While all its CPU is in use, a load of it only rises; averages and samples differ by less than this.
SUNK_SHARE = 0.5
# A load above this is as good as 1, and no threshold in use is higher.
EXHAUSTED = 0.95
# A burner that gets so much of the allowed cores has all of them, without a pause that a worker could see.
USED_THROUGHOUT = 0.95
# One that ended, or was never given any, got less; with this much a load of CPU moves, and a health check feels it.
BURNT_SHARE = 0.5
# What moves a load by less may be of the kind that it is the load of, and does not show.
SHOWS = 2 * NOTICEABLE
# What SDKs have for a threshold by themselves; lower ones are rare.
USUAL_THRESHOLD = 0.7
# The guide's figure for a session is 320 MB: a machine with less than three of them left gets no further call.
SPARE_BYTES = 1e9
# How often a yes is asked for again that came with a load too low to tell: others may have taken the CPU from the burner.
ASKS = 3
# The highest load seen may have been a moment's.
NEARLY = 0.97


def next_status(worker: Worker, since: float, seconds: float) -> Status | None:
    """The newest status after ``since``, awaited for ``seconds``."""
    return worker.wire.transcript.wait(lambda transcript: transcript.latest_status(since), seconds)


def _risen(worker: Worker, since: float, top: float) -> Status | None:
    """A status that counts the last call. A load is sampled now and then, so that the first report may not know of it."""

    def counted(transcript: Transcript) -> Status | None:
        statuses = transcript.statuses(since)
        risen = next((status for status in statuses if status.full or status.load > top + NOTICEABLE), None)
        return risen or (statuses[-1] if len(statuses) >= 3 else None)

    return worker.wire.transcript.wait(counted, 10) or worker.wire.transcript.latest_status(since)


def sunk(statuses: Iterable[Status]) -> tuple[Status, Status] | None:
    """The first status of an available worker with a load that is far below that of an earlier one, after that one; None:
    none is."""
    highest: Status | None = None
    for status in statuses:
        if highest is None or status.load >= highest.load:
            highest = status
        elif not status.full and status.load < SUNK_SHARE * highest.load and highest.load - status.load > HALF_HEARTED:
            return highest, status
    return None


def observe(stage: Stage) -> Loaded:
    """Raise the load of one of two workers, by CPU or else by calls; see what it refuses and who takes it; let it fall."""
    worker = stage.untouched("loaded")
    peer = stage.second("peer")
    # The burner has one core, within the worker's own limit: a call that is merely watched needs less than the rest.
    with stage.background.alone_on_the_machine(beside_watches=True):
        try:
            seen = _observe(stage, worker, peer)
        except StageError:
            if not worker.is_running:
                raise worker.ended() from None
            raise
    look_whether_it_forgot(worker, seen)
    return seen


def _observe(stage: Stage, worker: Worker, peer: Worker | None) -> Loaded:
    transcript = worker.wire.transcript
    caller = stage.calls.caller(worker)
    began = time.monotonic()
    seen = _at_rest(stage, worker, peer)
    try:
        # The server goes on believing the worker to be idle and asks it: only so its own refusal can be seen.
        with worker.wire.hold("worker", "status"):
            cut_short = _by_cpu(stage, worker, peer, caller, seen)
            # A load of several parts may rise a little with CPU and much with calls.
            if not seen.over and (seen.moved_by is None or seen.top - seen.idle < HALF_HEARTED):
                peer = _by_calls(stage, worker, peer, caller, seen)
            if cut_short and seen.moved_by is None and not seen.over:
                _by_cpu(stage, worker, peer, caller, seen, patiently=True)
    finally:
        caller.close()
    seen.ended = ended = time.monotonic()
    if seen.moved_by == "calls":
        # Where jobs count, each may take its time to end, which the next report tells.
        seen.patience = max(RECOVER_SECONDS, stage.settings.exit_timeout) + NEXT_SECONDS
    if seen.over:
        before = worker.reading()
        recover(worker, seen, ended)
        if seen.recovered_after is None and worker.is_running:
            stage.raise_if_filled_by_others(worker, before)
            stage.raise_if_too_busy()
    elif seen.moved_by == "calls":
        look_whether_it_stays(worker, seen, ended)
    if not worker.is_running:
        raise worker.ended()
    if seen.moved_by is None:
        # Here, and not where it is judged: a second look there would see the same, on a machine that has calmed down.
        stage.raise_if_too_busy()
    seen.unmoved = len({status.load for status in transcript.statuses(began)}) <= 1
    seen.lines = transcript.lines(began, kinds=("status", "question", "answer", "assignment", "closed"), last=60)
    return seen


def _at_rest(stage: Stage, worker: Worker, peer: Worker | None) -> Loaded:
    """Wait until two statuses in a row agree, and no job is left: a start costs CPU. A load that never rests is judged as it
    is, unless others may be what it is the load of."""

    def rested(transcript: Transcript) -> bool:
        statuses = transcript.statuses()
        agree = len(statuses) >= 2 and abs(statuses[-1].load - statuses[-2].load) < 0.1 and not statuses[-1].full
        return agree and not worker.wire.calls_at

    before = worker.reading()
    had_jobs = any(asked.assigned is not None for asked in worker.wire.transcript.questions())
    # A job may do its work when its call is over, and keep its place until then.
    patience = stage.settings.exit_timeout + NEXT_SECONDS if had_jobs else 0.0
    if not worker.wire.transcript.wait(rested, max(RISE_SECONDS, patience)) and worker.is_running:
        stage.raise_if_filled_by_others(worker, before)
    status = worker.wire.transcript.latest_status()
    if status is None:
        raise NotJudgeable("the worker never reported a load: see availability.reports-load")
    filled = (
        ""
        if not status.full
        else "still full after its last call (see jobs.ends-with-call)"
        if had_jobs
        else "full without a call"
    )
    return Loaded(worker.name, peer.name if peer is not None else "", status.load, status.load, filled)


def _rise(worker: Worker, seen: Loaded, since: float, seconds: float) -> bool:
    """Wait for "full"; whether that is news, or the load rose noticeably meanwhile, for two reports: a single one may be of
    what else the worker does. Not to the end where it does not move at all, if that is not asked for (``seconds`` below
    RISE_SECONDS)."""
    log = worker.wire.transcript

    def full() -> Status | None:
        return next((status for status in log.statuses(since) if status.full), None)

    def rises() -> list[bool]:
        return [status.load - seen.idle > NOTICEABLE for status in log.statuses(since)]

    def unmoved() -> bool:
        loads = [status.load for status in log.statuses(since)]
        return len(loads) >= UNMOVED and set(loads) == {seen.idle}

    if log.wait(lambda _: full(), seconds) is None and seconds < RISE_SECONDS and not unmoved():
        log.wait(lambda _: full(), RISE_SECONDS - seconds)
    found, risen = full(), rises()
    if found is not None:
        seen.full_after = found.at - since
    elif risen and risen[-1] and not any(risen[:-1]):
        log.wait(lambda _: len(rises()) > len(risen), LONGEST_SECONDS)
        risen = rises()
    seen.top = max([seen.top, *(status.load for status in log.statuses(since))])
    stays = any(earlier and later for earlier, later in itertools.pairwise(risen))
    return (found is not None and not seen.full_at_rest) or stays


def _by_cpu(
    stage: Stage, worker: Worker, peer: Worker | None, caller: Caller, seen: Loaded, *, patiently: bool = False
) -> bool:
    """Whether this was cut short, as the load did not move at all, which that of CPU would have done by then."""
    seen.cores_allowed = worker.cpus or 1.0
    try:
        with worker.burn():
            before = worker.reading()
            moved = _rise(worker, seen, before.at, RISE_SECONDS if patiently else MOVES_SECONDS)
            seen.cores_used = round(worker.cores_used(), 2)
            if not moved:
                seen.may_not_show = _why_it_may_not_show(stage, worker, seen.cores_used, before.at)
                return time.monotonic() - before.at < RISE_SECONDS
            seen.moved_by = "cpu"
            _ask_when_full(worker, seen, EXHAUSTED)
            if seen.over and peer is not None:
                _real_calls(stage, worker, peer, caller, seen)
            _look_whether_it_sank(stage, worker, seen, before)
    except NotJudgeable as reason:
        seen.not_burnt = str(reason)
    return False


def _why_it_may_not_show(stage: Stage, worker: Worker, burnt: float, since: float) -> str | None:
    """Why a load of the whole machine need not have risen by what was burnt, in words."""
    cores = os.cpu_count() or 1
    if burnt / cores < SHOWS:
        return f"the {burnt:.1f} cores that were burnt are little of this machine's {cores}"
    reports = worker.wire.transcript.statuses(since)
    rose = stage.history.average_rose(since, time.monotonic())
    alike = all(stage.history.is_average(status.load, status.at) for status in reports)
    follows = rose > 0 and max((status.load - reports[0].load for status in reports), default=0.0) >= rose / 2
    if reports and rose < SHOWS and (alike or follows):
        return "it may be that of the machine's load average, which fell meanwhile or rose too little to tell"
    return None


def _look_whether_it_sank(stage: Stage, worker: Worker, seen: Loaded, before: Reading) -> None:
    """Whether it sank although all its CPU was in use all the time, and was not the machine's load, which others lower."""
    used = before.used_until(worker.reading())
    if used.worker < USED_THROUGHOUT * seen.cores_allowed or stage.filled_by_others(worker, seen.top, before):
        return
    found = sunk(worker.wire.transcript.statuses(before.at))
    if found is None:
        return
    high, low = found
    # A burst of others may be what was high.
    others = stage.history.most_in_use(high.at) - used.worker
    if others < (high.load - low.load) / 2 * (os.cpu_count() or 1):
        seen.sank_to = low.load


def most_calls(settings: Settings, seen: Loaded) -> int:
    """How many calls to place on a worker at most, by what those so far did to its load: a worker that counts its calls is
    full after some more, one whose load is CPU use would merely be crowded. A ceiling for its memory was not set for more."""
    if settings.sessions is not None:
        return settings.sessions
    if len(seen.steps) < SESSIONS or settings.memory_bytes is not None or seen.moved_by == "cpu":
        return SESSIONS
    rise = (seen.steps[-1][1] - seen.idle) / len(seen.steps)
    fills = seen.idle + MORE_CALLS * rise >= (settings.load_threshold or USUAL_THRESHOLD)
    return MORE_CALLS if fills else SESSIONS


def _by_calls(stage: Stage, worker: Worker, peer: Worker | None, caller: Caller, seen: Loaded) -> Worker | None:
    """Returns the other worker, which may be a new one."""
    health = answers(worker)
    refused, before, burnt = False, worker.reading(), seen.top
    # The other worker is away meanwhile, so that every call comes here.
    if peer is not None:
        peer.wire.refuse()
        peer.wire.cut()
    try:
        while seen.calls < most_calls(stage.settings, seen):
            if seen.calls >= SESSIONS and psutil.virtual_memory().available <= SPARE_BYTES:
                break
            placed = place(stage, caller)
            if placed.served_by is None:
                asked = placed.questions.get(worker.name)
                refused = asked is not None and asked.available is False
                break
            seen.calls += 1
            since = time.monotonic()
            status = _risen(worker, since, seen.top)
            if status is None:
                break
            seen.top = max(seen.top, status.load)
            seen.steps.append((seen.calls, status.load, status.full))
            if status.full:
                seen.full_after = time.monotonic() - since
                break
    finally:
        seen.cores_with_calls = before.used_until(worker.reading()).worker if seen.calls else None
        if peer is not None:
            peer = _bring_back(stage, peer)
            seen.peer = peer.name
    # The top may be the burner's, which moved it too little to say anything. Of a worker with room for hundreds each call is
    # a small step.
    climbs = len(seen.steps) >= LEAST_STEPS and seen.climbs
    # The first reports after the burner's end may be of it.
    low = seen.idle if seen.moved_by is None else burnt
    risen = max(seen.with_calls) - low > NOTICEABLE or (climbs and seen.moved_by is None)
    if risen or seen.full_after is not None or (refused and seen.calls):
        seen.moved_by = "calls"
        seen.job_pids.update(worker.jobs_of(worker.snapshot()))
        seen.unhealthy_when_full = unhealthy_when_full(stage, worker, health)
        _ask_when_full(worker, seen, seen.steps[-1][1] if seen.steps else 0.0)
        if seen.over and peer is not None:
            _real_calls(stage, worker, peer, caller, seen)
    return peer


def _ask_when_full(worker: Worker, seen: Loaded, certain: float) -> None:
    """Ask for a job. A load near the threshold may have fallen below it since the last status, and an accepted question is
    itself a reason to be full: the worker was full for certain only with ``certain`` load before and after. One that never
    was is asked once: it would refuse the next question for the job that it was just promised."""
    for _ in range(ASKS if seen.full_after is not None else 1):
        before = _wait_loaded(worker, certain)
        seen.top = max(seen.top, before.load if before is not None else 0.0)
        seen.asked_when_full = worker.wire.ask(ANSWER_SECONDS)
        answered = time.monotonic()
        if not seen.asked_when_full.available:
            return
        seen.promised = answered
        after = next_status(worker, answered, NEXT_SECONDS)
        loads = [status.load for status in (before, after) if status is not None and status.full]
        seen.certainly_full = len(loads) == 2 and min(loads) >= certain
        if seen.certainly_full:
            return


def _wait_loaded(worker: Worker, certain: float) -> Status | None:
    """Until its last status is full with so much load: that is averaged, and the first "full" comes long before it is up.
    Returns the last status in any case."""
    worker.wire.transcript.wait(
        lambda transcript: (last := transcript.latest_status()) is not None and last.full and last.load >= certain, NEXT_SECONDS
    )
    return worker.wire.transcript.latest_status()


def _bring_back(stage: Stage, peer: Worker) -> Worker:
    """The other worker; a new one where it has given up meanwhile, as SDKs do after a minute or two without a server."""
    before = len(peer.wire.transcript.registrations())
    peer.wire.accept()
    try:
        peer.wait_registered(45, more_than=before)
    except WorkerFault as fault:
        if not peer.is_running:
            with contextlib.suppress(WorkerFault):
                return stage.renewed("peer")
        raise StageError(f"the second worker did not come back: {fault}") from None
    return peer


def _real_calls(stage: Stage, worker: Worker, peer: Worker, caller: Caller, seen: Loaded) -> None:
    """Real calls until the full worker was asked for one: which of the two the server asks first is chance, and so is
    whether its load is over the threshold at that moment."""
    for _ in range(TRIES):
        try:
            wait_free(peer)
        except StageError:
            seen.other_is_free = False
            return
        _wait_loaded(worker, min(EXHAUSTED, NEARLY * seen.top))
        placed = place(stage, caller, noted=False)
        seen.calls_tried += 1
        if placed.served_by == worker.name:
            seen.job_pids.update(worker.jobs_of(worker.snapshot()))
        placed.call.leave()
        asked = placed.questions.get(worker.name)
        if asked is not None:
            seen.refused_call = placed
            if not asked.available:
                return
