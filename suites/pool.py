"""The worker's pool of job processes, seen from outside: who serves a call, who waits for one. A job's process is the one that
holds the connection over which it signals with its call."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.checks import NotJudgeable, TooBusy
from pytest_lkagents.clock import DeadlineMissed, holds, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.processes import Process, Snapshot

ONE_AT_A_TIME = "the worker takes only one call at a time"
# Longer than it takes a call to come and its agent to join.
ALONE_SECONDS = 3.0
# A starting Python process takes more memory with every library that it imports, many MB a second; one at rest, none.
STILL_SECONDS = 1.0
GROWTH_BYTES = 1_000_000
# For a job to say goodbye and its process to end; one that takes longer is not waited for here.
GOODBYE_SECONDS = 10.0
# What the newer of two calls does, in words; STAYS is for comparison, and IS_NOT_ASKED where nothing can be told.
COMES, ENDS, STAYS, IS_NOT_ASKED = "came to the worker", "had ended", "stayed", ""
# SDKs keep up to four idle processes; after so many calls every one of them has served.
MOST_IDLE = 6


def require_no_relay(seen: Snapshot, own: list[int], jobs: list[int]) -> None:
    """Raises NotJudgeable where one process holds connections of several jobs, or of a job and the worker, and serves none of
    them, as a proxy for all of them does; or where none of those that hold connections of several jobs serves one."""
    relays = sorted(set(filter(seen.is_relay, jobs)))
    if len(jobs) == 1 or not set(relays) >= set(jobs):
        relays = [pid for pid in relays if pid in own or jobs.count(pid) > 1]
    if relays:
        process = seen.living().get(relays[0])
        what = process.args if process is not None else "one that has ended"
        raise NotJudgeable(f"connections of several processes go through one that sends no media: {what} (pid {relays[0]})")


def require_seen(seen: Snapshot, own: list[int], jobs: list[int], count: int) -> None:
    """Raises NotJudgeable unless the processes of ``count`` jobs can be seen."""
    if len(jobs) < count:
        raise NotJudgeable(f"only {len(jobs)} connections of jobs to the server can be seen in the worker's container")
    require_no_relay(seen, own, jobs)


def require_own_processes(seen: Snapshot, own: list[int], jobs: list[int], count: int = 2) -> None:
    """Raises NotJudgeable unless ``count`` jobs can be seen, each in a process of its own."""
    require_seen(seen, own, jobs, count)
    if set(jobs) & set(own) or len(set(jobs)) < count:
        raise NotJudgeable("jobs have no processes of their own: see jobs.own-process")


@dataclass(frozen=True)
class Apart:
    """The job of a caller who hung up while another call went on: its processes, of which none serves another call, and what
    was left of it ``after_s`` later: of these processes, and connections to the server."""

    pids: list[int]
    after_s: float
    staying: list[int]
    connected: int


@dataclass
class Pair:
    """Two calls at once, or the one that a worker takes which takes no second one (``calls``); ``before`` and ``during`` are
    the worker's processes without them and with them, ``left`` is when all callers had hung up (monotonic seconds).
    ``ended_after`` is how long the older call's job lasted if it was gone when the newer call had its agent, or was over
    (seconds; ``ended_when``: which of them); None: it lasted. ``watched_s`` is how long it was watched beside the newer call,
    and after that one's end. ``apart``: the newer call's job, hung up first; None: that was not seen. ``told``: whether the
    server knows that all have hung up, and does not wait for one of them to come back."""

    worker: Worker
    before: Snapshot
    during: Snapshot
    own: list[int]
    jobs: list[int]
    left: float
    calls: int = 2
    ended_after: float | None = None
    ended_when: str = ""
    watched_s: float = 0.0
    apart: Apart | None = None
    told: bool = True


def pair(stage: Stage) -> Pair:
    seen = _pair(stage)
    if seen.ended_after is None:
        return seen
    # It may have ended by itself at that moment: then it does so as soon without a second call.
    alone = seen.ended_after + ALONE_SECONDS
    try:
        again = _pair(stage, alone)
        if again.ended_after is None or again.ended_when == seen.ended_when == COMES:
            return again
        # Agents may leave at any time: then one does so beside a call that stays, too.
        if again.ended_when == seen.ended_when:
            # A job that takes long to end leaves them more time for it.
            seconds = max(GOODBYE_SECONDS, seen.watched_s, again.watched_s) + STILL_SECONDS
            if _pair(stage, alone, newer=STAYS, stays_s=seconds).ended_after is None:
                return again
    except NotJudgeable:
        if seen.ended_when == COMES:
            raise
    return _pair(stage, newer=IS_NOT_ASKED)


def _pair(stage: Stage, alone: float = 0.0, *, newer: str = ENDS, stays_s: float = 0.0) -> Pair:
    """``alone``: for how long the first call must last without the second one (seconds). Raises NotJudgeable if it does not.
    ``newer``: what the newer call does, which the older one must outlast; ``stays_s``: for how long it stays, if it does.
    Raises TooBusy where its job did not end, and this machine may be why."""
    worker = stage.worker("shared")
    stage.calls.wait_idle(worker)
    before = worker.snapshot()
    own = worker.registered_by(before)
    caller = stage.calls.caller(worker)
    try:
        older = stage.calls.served(caller)
        began, first = time.monotonic(), worker.jobs_of(worker.snapshot())

        def connected() -> bool:
            return set(first) <= set(worker.jobs_of(worker.snapshot()))

        def lasts() -> bool:
            return connected() and bool(older.agents_present)

        if alone and not holds(lasts, seconds=alone, every=STILL_SECONDS):
            raise NotJudgeable("its agents leave their calls by themselves, too soon for two at once")
        further = stage.calls.further(caller)
        calls = 1 if further is None else 2
        during = worker.snapshot()
        jobs = worker.jobs_of(during)
        apart, since = None, time.monotonic()
        when = COMES if len(jobs) < calls and not set(first) <= set(jobs) else ""
        if further is not None and not when and newer != IS_NOT_ASKED:
            if newer == ENDS:
                apart = end_apart(stage, worker, further, during, set(first))
            seconds = STILL_SECONDS if newer == ENDS else stays_s
            when = "" if holds(connected, seconds=seconds, every=STILL_SECONDS) else newer
        watched = time.monotonic() - since
        ended_after = time.monotonic() - began if when else None
    finally:
        caller.close()
    told = older.hung_up and (further is None or further.hung_up)
    return Pair(worker, before, during, own, jobs, time.monotonic(), calls, ended_after, when, watched, apart, told)


def end(worker: Worker, call: Call, jobs: set[int]) -> None:
    """Hang up, and wait for the end of the processes of its job, for as long as a goodbye takes."""
    call.leave()
    with contextlib.suppress(DeadlineMissed), worker.ledger.waiting(worker.name):
        poll(lambda: not jobs & set(worker.snapshot().living()), what="end of a job", seconds=GOODBYE_SECONDS, every=0.3)


def end_apart(stage: Stage, worker: Worker, call: Call, during: Snapshot, others: set[int]) -> Apart | None:
    """The same, for as long as a job may take for it (``lk_exit_timeout``), and while those of ``others`` go on, by the
    processes that serve them. None if they do not, or if it cannot be told which processes serve this call. Raises TooBusy."""
    here = worker.wire.calls_to(call.room_name)
    elsewhere = during.holders_of(worker.server_peer, worker.wire.calls_at - here)
    pids = set(during.holders_of(worker.server_peer, here)).difference(elsewhere, worker.registered_by(during))
    if not pids:
        end(worker, call, set(worker.jobs_of(during)) - others)
        return None
    now, reading, left = during, worker.reading(), time.monotonic()
    call.leave()

    def ended() -> bool:
        return not pids & set(now.living()) and not worker.wire.calls_to(call.room_name)

    def over() -> bool:
        nonlocal now
        stage.raise_if_closing()
        now = worker.snapshot()
        return ended() or not others <= set(worker.jobs_of(now))

    try:
        with worker.ledger.waiting(worker.name):
            poll(over, what="end of a job", seconds=stage.settings.exit_timeout, every=0.3)
    except DeadlineMissed:
        stage.raise_if_too_busy(worker, reading)
        if not call.hung_up:
            raise TooBusy("this machine is too busy to judge: a caller could not hang up in time") from None
    if not ended() and not others <= set(worker.jobs_of(now)):
        return None
    staying = sorted(pids & set(now.living()))
    return Apart(sorted(pids), time.monotonic() - left, staying, len(worker.wire.calls_to(call.room_name)))


# -- idle processes


def kind(process: Process) -> tuple[int, str]:
    """What job processes of one worker have in common: their parent and, but for numbers, their command line."""
    return process.ppid, re.sub(r"\d+", "#", process.args)


@dataclass
class Idle:
    """Idle job processes of a worker at rest; ``calls`` is how many it took to know them."""

    pids: list[int]
    kinds: set[tuple[int, str]]
    calls: int


def find_idle(stage: Stage, worker: Worker) -> Idle:
    """Learn from calls which processes wait for a job: those like the ones that were seen waiting and then served.

    Other helpers may look the same (a fork server's children do). So only those count that were born after the first
    look, and calls are placed until one is served by such a one: then the earlier ones have had their turn.
    """
    stage.calls.wait_idle(worker)
    first = before = worker.snapshot()
    own = worker.registered_by(first)
    protected = set(own) | {process.ppid for process in first.processes}
    kinds: set[tuple[int, str]] = set()
    calls = 0
    while calls < MOST_IDLE:
        calls += 1
        caller = stage.calls.caller(worker)
        try:
            stage.calls.served(caller)
            now = worker.snapshot()
            jobs = worker.jobs_of(now)
        finally:
            caller.close()
        require_own_processes(now, own, jobs, 1)
        pid = jobs[0]
        if pid not in before.living():
            raise NotJudgeable("the worker starts a process when a job comes: it has no idle ones")
        kinds.add(kind(before.living()[pid]))
        before = settle(stage, worker, {pid}, stage.settings.exit_timeout)
        if pid not in first.living():
            break
    else:
        raise NotJudgeable(f"the worker has more than {MOST_IDLE - 1} idle processes, or none that is known to be one")
    known, parents = first.living(), {process.ppid for process in before.processes}
    pids = [
        process.pid
        for process in before.living().values()
        if kind(process) in kinds and process.pid not in known and process.pid not in protected | parents
    ]
    if not pids:
        raise NotJudgeable("no idle job process was found in the worker")
    return Idle(pids, kinds, calls)


def settle(stage: Stage, worker: Worker, gone: set[int], seconds: float) -> Snapshot:
    """The processes once those have ended and for a second nothing comes, goes or grows, or after ``seconds``.

    What grows is a process that gets ready: it waits for no job yet.
    """
    stage.calls.wait_idle(worker)
    return still(stage, worker, gone, seconds)


def still(stage: Stage, worker: Worker, gone: set[int], seconds: float) -> Snapshot:
    """The same, beside calls in progress, too."""
    last: Snapshot | None = None

    def rests() -> bool:
        nonlocal last
        stage.raise_if_closing()
        before, last = last, worker.snapshot()
        if before is None or gone & set(last.living()):
            return False
        held = {process.pid: process.resident_bytes for process in before.processes}
        if set(held) != {process.pid for process in last.processes}:
            return False
        return all(process.resident_bytes - held[process.pid] < GROWTH_BYTES for process in last.processes)

    with contextlib.suppress(DeadlineMissed):
        poll(rests, what="rest", seconds=seconds, every=STILL_SECONDS)
    assert last is not None, "a probe comes before the deadline"
    return last
