"""Whether a job has ended with its call: its processes and connections are gone, and no zombie is left of it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pytest_lkagents.checks import Evidence, StageError, TooBusy
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.processes import Snapshot

from .pool import Apart, kind

# What a job starts to tidy up after it has ended by then, mostly.
HELPER_SECONDS = 5
# For the look at them itself.
LOOK_SECONDS = 1


def judge_apart(limit: float, evidence: Evidence, seen: Apart | None) -> None:
    """Whether nothing is left of the job whose caller hung up first. Raises AssertionError."""
    if seen is None:
        return
    evidence["first_job_pids"], evidence["first_job_ended_after_s"], evidence["limit_s"] = seen.pids, None, limit
    evidence["first_job_pids_left"], evidence["first_job_connections_left"] = seen.staying, seen.connected
    late = f"{limit:g} s after its caller hung up (lk_exit_timeout), while another call goes on"
    assert not seen.staying, f"a job's process is still there {late}"
    assert not seen.connected, f"a job's connection to the server is still open {late}"
    evidence["first_job_ended_after_s"] = round(seen.after_s, 1)


def judge_end(
    stage: Stage,
    evidence: Evidence,
    worker: Worker,
    jobs: Sequence[int],
    before: Snapshot,
    left: float,
    when: str,
    *,
    told: bool = True,
) -> None:
    """Whether nothing is left of these jobs, by their pids, ``lk_exit_timeout`` after ``left`` (monotonic seconds) at the
    latest; ``before``: the processes before them; ``when``: what happened then; ``told``: whether the server knows. Raises
    AssertionError, TooBusy."""
    limit, reading = stage.settings.exit_timeout, worker.reading()
    zombies, now = before.zombies(), before
    pids = set(jobs)
    evidence["job_pids"], evidence["limit_s"] = sorted(pids), limit

    kinds = {kind(process) for process in before.processes}

    def over() -> bool:
        nonlocal now
        now = worker.snapshot()
        connected = set(worker.jobs_of(now)) & pids
        if pids & set(now.living()) or connected or now.zombies() - zombies:
            return False
        # What outlives its job may become a zombie yet: it is nobody's child any more.
        helpers = [process for process in now.living().values() if kind(process) not in kinds]
        return not helpers or time.monotonic() - left > HELPER_SECONDS

    try:
        with worker.ledger.waiting(worker.name):
            poll(over, what="end of the jobs' processes", seconds=max(limit - (time.monotonic() - left), 1), every=0.3)
    except DeadlineMissed:
        stage.raise_if_too_busy(worker, reading)
        if not told:
            raise TooBusy("this machine is too busy to judge: a caller could not hang up in time") from None
    ended = time.monotonic() - left
    table = {process.pid: process for process in now.processes}
    staying = sorted(pids & set(now.living()))
    connected = sorted(set(worker.jobs_of(now)) & pids)
    reaped = sorted(now.zombies() - zombies)
    evidence["job_pids_left"], evidence["job_connections_left"] = staying, len(connected)
    evidence["zombies"] = [f"{pid} {table[pid].args}, child of {table[pid].ppid}" for pid in reaped]
    late = f"{limit:g} s after {when} (lk_exit_timeout)"
    assert not staying, f"{len(staying)} of {len(pids)} jobs' processes are still there {late}"
    assert not connected, f"connections of the jobs to the server are still open {late}"
    assert not reaped, f"{len(reaped)} ended processes are left as zombies {late}: nobody asks for their exit codes"
    if ended > limit + LOOK_SECONDS:
        # Another look, after one that this machine was too busy for.
        raise StageError(f"this machine is too busy to judge: that they are gone was seen only {ended:.0f} s after {when}")
    evidence["ended_after_s"] = round(ended, 1)
    evidence.summary = f"processes and connections gone {ended:.1f} s after {when}, no zombie"
