"""Calls that a worker accepted: in the whole run so far, and a few more where these are too few to say anything."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence

from pytest_lkagents.calls import AGENT_SECONDS, ENOUGH_LOST, FREE_SECONDS, LATE_SECONDS, Accepted
from pytest_lkagents.checks import NotJudgeable, StageError
from pytest_lkagents.stage import Stage

from .load import wait_free

LOST_SECONDS = AGENT_SECONDS + LATE_SECONDS
# Of one worker: one that loses every third call has lost two of them by then, one that loses every sixth a first one.
LEAST = 6
# Since a lost one; a worker that loses every tenth loses one of these with a chance of 57 %.
SINCE_LOST = 8
# A full worker refuses some of them, rightly.
REFUSED = 3


def observe(stage: Stage) -> list[Accepted]:
    """All calls that were accepted so far, after more were placed with the shared worker if that is needed to judge.
    Raises NotJudgeable where these are not accepted, or none was ever served."""
    accepted = stage.calls.accepted
    if stage.calls.all_in_vain:
        raise NotJudgeable("none of the calls got an agent: see jobs.joins")
    worker = stage.worker("shared")
    caller = stage.calls.caller(worker)
    refused = 0
    try:
        while not enough(accepted):
            with contextlib.suppress(StageError):
                wait_free(worker, FREE_SECONDS)
            before = len(accepted)
            call = caller.join()
            stage.calls.wait_settled(call, caller.server)
            call.leave()
            refused += len(accepted) == before
            if refused == REFUSED:
                stage.raise_if_too_busy()
                raise NotJudgeable(f"only {len(accepted)} calls were accepted, and no more")
    finally:
        caller.close()
    return list(accepted)


def enough(accepted: Sequence[Accepted]) -> bool:
    missed = [number for number, call in enumerate(accepted, 1) if call.missed]
    if not missed:
        return max(Counter(call.worker for call in accepted).values(), default=0) >= LEAST
    return sum(call.failed for call in accepted) >= ENOUGH_LOST or len(accepted) - missed[0] >= SINCE_LOST


def lines(stage: Stage, lost: Sequence[Accepted]) -> list[str]:
    """What workers and their servers told each other about the jobs of lost calls."""
    return [
        line
        for worker in stage.workers()
        for call in lost
        if call.worker == worker.name
        for line in worker.wire.transcript.lines(call.joined - 1, kinds=("question", "answer", "assignment", "job"))
        if call.job in line
    ]
