"""A worker whose connection is lost again and again: whether it always comes back, and what that leaves behind."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from itertools import pairwise

from pytest_lkagents.checks import NotJudgeable, WorkerFault
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from . import leftovers
from .pool import settle
from .reconnecting import cut_and_return

# A pause that doubles from half a second on is longer by then than anybody waits; a budget of tries is mostly ten.
CUTS = 10
# Who always pauses for long is not cut as often.
SECONDS = 150
# Fewer say nothing of what each of them leaves behind.
ENOUGH = 5
# After so many what they left is counted for the first time: what only the first or the others left, such as a pool of threads
# that began meanwhile, is left by no cut.
FIRST = 3


@dataclass(frozen=True)
class Rest:
    """One moment at rest, after so many ``cuts``; ``held``: None where that cannot be read."""

    cuts: int
    processes: int
    held: dict[int, leftovers.Held] | None = None


@dataclass
class Losses:
    """``returned_s``: seconds from each cut to the next registration; ``rests``: before the cuts, after FIRST of them and after
    all."""

    returned_s: list[float] = field(default_factory=list)
    rests: list[Rest] = field(default_factory=list)
    problem: str | None = None

    def more(self) -> dict[str, list[int]]:
        """What there was more of from each rest to the next one; descriptors and threads, where they can be read, of processes
        that lived all the while."""
        found: dict[str, list[int]] = {"process": [], "descriptor": [], "thread": []}
        for before, after in pairwise(self.rests):
            found["process"].append(after.processes - before.processes)
            if before.held is not None and after.held is not None:
                both = [(before.held[pid], after.held[pid]) for pid in set(before.held) & set(after.held)]
                found["descriptor"].append(sum(now.descriptors - then.descriptors for then, now in both))
                found["thread"].append(sum(now.threads - then.threads for then, now in both))
        return found

    @property
    def left_behind(self) -> list[str]:
        """What each cut left, in words."""
        cuts = [after.cuts - before.cuts for before, after in pairwise(self.rests)]
        if sum(cuts) < ENOUGH:
            return []
        by_name = self.more().items()
        return [f"a {name}" for name, more in by_name if more and all(map(operator.ge, more, cuts))]


def observe(stage: Stage, worker: Worker) -> Losses:
    """Raises WorkerFault if it does not even come back the first time, StageError on a busy machine."""
    # What is made once, for the first loss, is no leak.
    cut_and_return(worker)
    seen = Losses(rests=[_rest(stage, worker, 0)])
    while len(seen.returned_s) < CUTS and sum(seen.returned_s) < SECONDS:
        stage.raise_if_closing()
        try:
            seen.returned_s.append(cut_and_return(worker))
        except WorkerFault as fault:
            seen.problem = f"after its connection was cut {len(seen.returned_s) + 2} times in a row, {fault}"
            return seen
        if len(seen.returned_s) == FIRST:
            seen.rests.append(_rest(stage, worker, FIRST))
    if len(seen.returned_s) > FIRST:
        seen.rests.append(_rest(stage, worker, len(seen.returned_s)))
    return seen


def _rest(stage: Stage, worker: Worker, cuts: int) -> Rest:
    now = settle(stage, worker, set(), leftovers.REST_SECONDS).processes
    try:
        return Rest(cuts, len(now), leftovers.held_by(worker, now))
    except NotJudgeable:
        return Rest(cuts, len(now))
