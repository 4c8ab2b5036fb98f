"""A worker's reports of its load while nothing is asked of it: how often they come, and what they say at rest."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Status
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker

# The guide's own word is "periodically"; the SDKs report every 2.5 s, and a load older than this misleads the dispatch.
REPORT_SECONDS = 10
# Who reports every 10 s does so a little later now and then.
LONGEST_SECONDS = REPORT_SECONDS + 0.5
# So many are enough to see the pace.
ENOUGH = 3
# A load that moves in smaller steps is measured; one that is counted has a step for each call.
STEP = 0.02
EQUAL = 0.001
# What a call adds to a count of calls that stands out from a measured load that is rounded to tenths.
CLEAR_STEP = 0.15
# The next report of the SDKs comes after 2.5 s; of a worker with another pace nothing is told here.
NEXT_SECONDS = 6.0


@dataclass(frozen=True)
class Pauses:
    """Between ``reports``: the ``longest`` for which this machine had time, in seconds, and how many there were of these
    (``judged``) and of longer ones for which it had none (``held_up``); ``silent``: the last one, which goes on, is of the
    latter."""

    reports: list[Status]
    longest: float
    judged: int
    held_up: int
    silent: bool

    @property
    def unknown(self) -> bool:
        """Whether too little is known of a worker whose longer pauses do not count."""
        return self.silent or (self.held_up > 0 and self.judged < ENOUGH)


def pauses(stage: Stage, worker: Worker, since: float, enough: int = ENOUGH) -> Pauses:
    """Between the reports since then, until there are ``enough`` or for 12 s."""
    log = worker.wire.transcript
    # The window must be longer than the pause that is looked for.
    while (left := since + REPORT_SECONDS + 2 - time.monotonic()) > 0:
        log.wait(lambda seen: len(seen.statuses(since)) >= enough, left)
        if len(log.statuses(since)) >= enough:
            break
    now = time.monotonic()
    statuses = log.statuses(since)
    judged, held_up, silent = [], 0, False
    for earlier, later in itertools.pairwise([since, *(status.at for status in statuses), now]):
        # What was said meanwhile is read late, and nothing may have been said, as the worker stood still too.
        pause = later - earlier - stage.history.stood_still(earlier, later)
        silent = pause > LONGEST_SECONDS and stage.history.had_no_time(earlier, later)
        if silent:
            held_up += 1
        else:
            judged.append(pause)
    return Pauses(statuses, max(judged, default=0.0), len(judged), held_up, silent)


def counted_at_rest(worker: Worker) -> float | None:
    """What a worker reports that had no call yet, if it seems to count its calls; None: that cannot be told."""
    loads = {status.load for status in worker.wire.transcript.statuses()}
    return loads.pop() if len(loads) == 1 else None


def still_counts(worker: Worker, rest: float, steps: Iterable[float], seconds: float, since: float = 0.0) -> float | None:
    """The load of a worker without a call that still counts one or more; None: it fell to what it was at ``rest``, moves as a
    measured one does, or too few reports came within ``seconds``. ``steps``: what a call may add; a load that stands elsewhere
    is no count of them (it may be that of memory). Reports before ``since`` do not matter."""
    log, began = worker.wire.transcript, max(time.monotonic(), since)

    def fell() -> bool:
        last = log.latest_status(since)
        return last is not None and last.load < rest + STEP

    def measured() -> bool:
        loads = [status.load for status in log.statuses(began)]
        return any(0 < abs(later - earlier) < STEP for earlier, later in itertools.pairwise(loads))

    if log.wait(lambda _: fell() or measured() or not log.live(), seconds) or not log.live():
        return None
    last = [status.load for status in log.statuses(began)][-ENOUGH:]
    if len(last) < ENOUGH or len(set(last)) > 1:
        return None
    return last[0] if any(_is_count(last[0] - rest, step) for step in steps if step > STEP) else None


def forgets_call(worker: Worker, came: float, lost: float, back: float, look: Callable[[], object]) -> str | None:
    """What a worker with one call in progress reports, in words, if it counts its calls, and does not count this one any more
    since it registered again (``back``; it ``lost`` its connection before, and the call's agent ``came`` before that; monotonic
    seconds). None: it counts it, its load is measured, or that cannot be told. ``look`` is called meanwhile."""
    log = worker.wire.transcript
    before = [status for status in log.statuses() if status.at < lost]
    rest, in_call = _rest_and_call(before, came)
    # The same at rest each time is a count, of which a call is the step; so is what comes back to it to the last digit. A load
    # that is measured and rounded is higher while a call begins.
    if rest is None or len(in_call) < ENOUGH - 1 or len(set(in_call)) > 1:
        return None
    counted = in_call[0]
    if counted < rest + CLEAR_STEP or not all(_is_count(status.load - rest, counted - rest) for status in before):
        return None

    def counts() -> bool:
        return any(status.load != rest or status.full for status in log.statuses(back))

    def told() -> bool:
        look()
        return counts() or len(log.statuses(back)) >= ENOUGH

    with contextlib.suppress(DeadlineMissed):
        poll(told, what="reports", seconds=NEXT_SECONDS, every=0.25)
    reports = log.statuses(back)
    if len(reports) < ENOUGH - 1 or counts():
        return None
    return f"it reports load {reports[-1].load:g}, as without a call, and {counted:g} before"


def wait_counted(worker: Worker, came: float) -> None:
    """Until a worker that may count its calls has reported its call often enough to tell, whose agent ``came`` (monotonic
    seconds)."""

    def enough(log: Transcript) -> bool:
        rest, in_call = _rest_and_call(log.statuses(), came)
        return rest is None or len(in_call) >= ENOUGH - 1 or any(load < rest + CLEAR_STEP for load in in_call)

    worker.wire.transcript.wait(enough, NEXT_SECONDS)


def _rest_and_call(reports: Sequence[Status], came: float) -> tuple[float | None, list[float]]:
    """What it reported again and again without a call (None: nothing), and each of its reports since the call's agent came."""
    rest = min((status.load for status in reports), default=0.0)
    at_rest = sum(status.load == rest for status in reports)
    return rest if at_rest >= ENOUGH else None, [status.load for status in reports if status.at > came]


def _is_count(more: float, step: float) -> bool:
    return math.isclose(more, round(more / step) * step, abs_tol=EQUAL)
