"""Several calls on two workers of one server: how many agents each call gets."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.checks import NotJudgeable, StageError
from pytest_lkagents.clock import DeadlineMissed, holds, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .observations import HANDOVER_SECONDS
from .placed import TRIES, Placed, place, wait_free

CALLS = 4
# For a worker that was just promised a job, or that starts the process for its next one.
FREE_SECONDS = 10
# The same after a call that got no agent.
STILL_FULL_SECONDS = 3
# So many calls in vain are enough where none is served.
FIRST_TRIES = 3
# A second agent comes with the first: both were started by the same answers.
SECOND_SECONDS = 3


@dataclass
class Assigned:
    """``agents`` per served call at the end; ``twice``: jobs whose question got several answers."""

    served: list[Placed] = field(default_factory=list)
    lost: int = 0
    agents: list[int] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def together(call: Call) -> int:
    """How many agents the call had at once, for longer than a job needs that hands its call over to another one."""
    now = time.monotonic()
    stays = sorted((came, call.left.get(name, now)) for name, came in list(call.agents.items()))
    # Of those that were there when one came: how many were so for some time on.
    return max(
        1 + sum(min(left, gone) - came > HANDOVER_SECONDS for _, left in stays[:number])
        for number, (came, gone) in enumerate(stays)
    )


def observe(stage: Stage) -> Assigned:
    """Raises NotJudgeable where two workers cannot run side by side, one is lost, or no call gets an agent; TooBusy where
    that may be for what others use of this machine."""
    workers = [stage.worker("loaded"), stage.worker("peer")]
    began = time.monotonic()
    caller = stage.calls.caller(workers[0])
    seen = Assigned()
    # Both may be chosen: a job that was just promised and not given keeps its slot for some seconds.
    for worker in workers:
        with contextlib.suppress(StageError):
            wait_free(worker, FREE_SECONDS)
    try:
        while len(seen.served) < CALLS and seen.lost < (TRIES if seen.served else FIRST_TRIES):
            for worker in workers:
                worker.registration()
            if not _wait_for_a_free_one(stage, workers, seen) and len(seen.served) >= len(workers):
                break  # they take no more than these
            placed = place(stage, caller)
            if placed.call.agents:
                seen.served.append(placed)
            else:
                seen.lost += 1
                placed.call.leave()
        if not seen.served:
            raise NotJudgeable("none of the calls got an agent: see jobs.joins")

        def single() -> bool:
            seen.agents = [together(placed.call) for placed in seen.served]
            return max(seen.agents) == 1

        def alone() -> bool:
            return not single() or all(len(placed.call.agents_present) < 2 for placed in seen.served)

        with workers[0].ledger.waiting(workers[0].name):
            if holds(single, seconds=SECOND_SECONDS):
                with contextlib.suppress(DeadlineMissed):
                    poll(alone, what="a handover", seconds=HANDOVER_SECONDS + 1)
    finally:
        caller.close()
    for worker in workers:
        transcript = worker.wire.transcript
        seen.twice += [asked.job_id for asked in transcript.questions(began) if len(asked.answers) > 1]
        seen.lines += transcript.lines(began, kinds=("question", "answer", "assignment"))
    return seen


def _wait_for_a_free_one(stage: Stage, workers: list[Worker], seen: Assigned) -> bool:
    """A worker that starts the process for its next job is rightly over its threshold for a moment. Whether one is free."""
    readings = [worker.reading() for worker in workers]
    for worker in workers:
        try:
            wait_free(worker, STILL_FULL_SECONDS if seen.lost else FREE_SECONDS)
            return True
        except StageError:
            continue
    if not seen.served:
        stage.raise_if_too_busy()
        for worker, reading in zip(workers, readings, strict=True):
            stage.raise_if_filled_by_others(worker, reading)
    return False
