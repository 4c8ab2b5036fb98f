"""A worker whose connection is lost again and again: whether it always comes back, and what that leaves behind."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

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


@dataclass
class Losses:
    """``returned_s``: seconds from each cut to the next registration. What there is more of than before them; descriptors and
    threads of processes that lived all the time, None where they cannot be read."""

    returned_s: list[float] = field(default_factory=list)
    processes: int = 0
    descriptors: int | None = None
    threads: int | None = None
    problem: str | None = None

    @property
    def left_behind(self) -> list[str]:
        """What each cut left, in words."""
        counted = {"process": self.processes, "descriptor": self.descriptors or 0, "thread": self.threads or 0}
        enough = len(self.returned_s) >= ENOUGH
        return [f"a {name}" for name, more in counted.items() if enough and more >= len(self.returned_s)]


def observe(stage: Stage, worker: Worker) -> Losses:
    """Raises WorkerFault if it does not even come back the first time, StageError on a busy machine."""
    # What is made once, for the first loss, is no leak.
    cut_and_return(worker)
    before, seen, began = _rest(stage, worker), Losses(), time.monotonic()
    while len(seen.returned_s) < CUTS and time.monotonic() - began < SECONDS:
        stage.raise_if_closing()
        try:
            seen.returned_s.append(cut_and_return(worker))
        except WorkerFault as fault:
            seen.problem = f"after its connection was cut {len(seen.returned_s) + 2} times in a row, {fault}"
            return seen
    after = _rest(stage, worker)
    seen.processes = after.processes - before.processes
    if before.held is not None and after.held is not None:
        both = [(before.held[pid], after.held[pid]) for pid in set(before.held) & set(after.held)]
        seen.descriptors = sum(now.descriptors - then.descriptors for then, now in both)
        seen.threads = sum(now.threads - then.threads for then, now in both)
    return seen


@dataclass(frozen=True)
class _Rest:
    processes: int
    held: dict[int, leftovers.Held] | None = None


def _rest(stage: Stage, worker: Worker) -> _Rest:
    now = settle(stage, worker, set(), leftovers.REST_SECONDS).processes
    try:
        return _Rest(len(now), leftovers.held_by(worker, now))
    except NotJudgeable:
        return _Rest(len(now))
