"""Section "Overview": the worker pool model, a process for each job."""

from __future__ import annotations

from collections.abc import Callable

from pytest_lkagents.checks import MUST, Evidence, NotJudgeable, WorkerFault, check
from pytest_lkagents.stage import Stage

from .observations import FirstCall


@check(
    "jobs.joins",
    MUST,
    profile="smoke",
    section="Overview",
    why="A worker can be registered and healthy while every job of it fails.",
    remedy="read the worker's log of that job: prewarm, missing model or key, agent name, request function",
    roles=("shared",),
)
def test_joins(lk_stage: Stage, lk_evidence: Evidence, first_call: Callable[[], FirstCall]) -> None:
    """A call gets its agent."""
    worker = lk_stage.worker("shared")
    try:
        seen = first_call()
    except WorkerFault as fault:
        raise AssertionError(worker.last_words(str(fault))) from None
    lk_evidence["agent_joined_after_s"] = round(seen.agent_s, 2)
    lk_evidence["first_sound_after_s"] = None if seen.sound_s is None else round(seen.sound_s, 2)
    lk_evidence.summary = f"the agent joined {seen.agent_s:.1f} s after the caller" + (
        f" and was heard after {seen.sound_s:.1f} s" if seen.sound_s is not None else ""
    )


@check(
    "jobs.own-process",
    MUST,
    section="Overview",
    why="Jobs that share a process share their crashes, their blocked loops and their memory.",
    remedy="run jobs in processes, not in threads (job_executor_type)",
    roles=("shared",),
)
def test_own_process(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """Two calls at once are served by two processes, neither of them the worker's own."""
    worker = lk_stage.worker("shared")
    peer = worker.server_peer

    def holders() -> list[int]:
        return worker.snapshot().holders_of(peer)

    lk_stage.wait_idle(worker)
    own = holders()
    caller = lk_stage.caller(worker)
    try:
        lk_stage.served_call(caller)
        lk_stage.served_call(caller)
        after = holders()
    finally:
        caller.close()
    # Each job signals over a connection of its own to the server; whose connections they are is what counts.
    jobs = list(after)
    for pid in own:
        if pid in jobs:
            jobs.remove(pid)
    lk_evidence["worker_pids"] = own
    lk_evidence["pids_holding_job_connections"] = jobs
    if len(jobs) < 2:
        raise NotJudgeable(f"only {len(jobs)} connections of jobs to the server can be seen in the worker's container")
    assert not set(jobs) & set(own), "a job runs in the worker's own process"
    assert len(set(jobs)) >= 2, f"{len(jobs)} jobs run in one process"
    lk_evidence.summary = "two calls, two processes, neither the worker's own"
