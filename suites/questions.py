"""Questions that were answered too late for the server, and a second look at those for which that may have been chance."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_lkagents.busyness import History
from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.calls import ANSWER_SECONDS
from pytest_lkagents.checks import StageError, TooBusy, WorkerFailed, WorkerFault
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Question
from pytest_lkagents.worker.base import Worker

from .drained import Drain
from .load import RISE_SECONDS
from .observations import REST_SECONDS
from .placed import answer_held_up, wait_free
from .pool import still

# By which the server's clock may be ahead of ours, on a busy machine.
AHEAD_SECONDS = 0.3
# An answer takes milliseconds of CPU. Where it has to wait this long for them, more is wrong than that all cores are in use.
SILENT_SECONDS = 10
# How often one is asked again that refuses at once, as it may be full for a moment.
ASKS = 3


@dataclass(frozen=True)
class Asked:
    """A question to a worker; ``calls``: how many it had then, of one that was to drain and is gone. None: it may be asked
    again."""

    worker: Worker
    question: Question
    calls: int | None = None

    @property
    def limit(self) -> float:
        """For how long the server waits, seconds. It began to wait a little before the question was seen here: a yes upon which
        it gave the job to nobody came too late, if it came so late."""
        asked = self.question
        in_vain = bool(asked.available) and asked.assigned is None and not asked.probe
        return ANSWER_SECONDS - (AHEAD_SECONDS if in_vain else 0.0)

    @property
    def is_late(self) -> bool:
        """Whether the server gave up."""
        asked = self.question
        passed = asked.answered_after if asked.answered_after is not None else time.monotonic() - asked.asked
        return passed > self.limit

    def is_silent(self, history: History) -> bool:
        """Whether it was answered so late, or is not yet, that no use of all cores explains it. While we stood still does not
        count."""
        until = self.question.answered if self.question.answered is not None else time.monotonic()
        return until - self.question.asked - history.stood_still(self.question.asked, until) > SILENT_SECONDS

    @property
    def how_late(self) -> str:
        """In words, and with how many calls."""
        took = self.question.answered_after
        beside = f", beside {self.calls} call{'s' if self.calls > 1 else ''}" if self.calls else ""
        return (f"after {took:.1f} s" if took is not None else "not at all") + beside

    def lines(self) -> list[str]:
        """The question, and what came after it."""
        return self.worker.wire.transcript.lines(self.question.asked - 0.1, kinds=("question", "answer"))[:6]


def asked(worker: Worker) -> list[Asked]:
    """What this worker had to answer."""
    closed = [found.closed or float("inf") for found in worker.wire.transcript.registrations()]
    return [
        Asked(worker, question)
        for question in worker.wire.transcript.questions()
        # A question on a connection that ended is nobody's fault here, nor is one that we did not let it answer.
        if (question.answers or not any(question.asked < end < question.asked + ANSWER_SECONDS for end in closed))
        and not worker.was_frozen(question.asked, question.asked + ANSWER_SECONDS)
    ]


def taken_in_vain(worker: Worker, caller: Caller, served: Call | None, since: float) -> set[str]:
    """The rooms of the calls before the one that was served (None: none was) which it took and did not serve. Not of those that
    others made, such as a job that came back to a call that was over."""
    taken = {asked.room for asked in worker.wire.transcript.questions(since) if asked.assigned is not None and not asked.probe}
    return taken & _rooms(caller, served)


def lost_before(stage: Stage, worker: Worker, caller: Caller, served: Call | None, since: float) -> int:
    """How many calls it lost before the one that was served: it took them and did not serve them, or did not answer the server
    in time, on a machine that had time for that."""
    unanswered = {
        one.question.room
        for one in asked(worker)
        if one.question.asked >= since and not one.question.probe and one.is_late
        if one.is_silent(stage.history) or not answer_held_up(stage.history, one.question, one.limit)
    }
    return len(taken_in_vain(worker, caller, served, since) | unanswered & _rooms(caller, served))


def _rooms(caller: Caller, served: Call | None) -> set[str]:
    return caller.rooms - ({served.room_name} if served is not None else set())


def asked_beside_calls(workers: Iterable[Worker], drain: Drain | None) -> list[Asked]:
    """What the one of these workers had to answer whose drain this is, before its signal."""
    came = {kept.call.room_name: kept.call.joined for kept in drain.kept} if drain is not None else {}
    found: list[Asked] = []
    for worker in workers:
        before = [one for one in asked(worker) if _until(one.question) < worker.disturbed_at]
        if not any(one.question.room in came for one in before):
            continue
        for one in before:
            calls = sum(joined < one.question.asked for room, joined in came.items() if room != one.question.room)
            found.append(Asked(worker, one.question, calls))
    return found


def _until(question: Question) -> float:
    """When it was answered, or ought to have been."""
    return question.asked + ANSWER_SECONDS if question.answered is None else question.answered


def late_in_peace(stage: Stage, late: Sequence[Asked]) -> list[Asked]:
    """Of these late questions those for which this machine had time; where there are none, the workers are asked again, with
    nothing else of ours under way. One that is gone is not accused without a second look: another one of its image is asked,
    beside as many calls. Raises StageError where that cannot be done either."""
    again = [one for one in late if one.calls is None]
    certain = [one for one in again if not answer_held_up(stage.history, one.question, one.limit)]
    if certain:
        return certain
    with stage.background.in_peace():
        if again:
            certain = _late_again(stage, dict.fromkeys(one.worker for one in again))
        beside = [one for one in late if one.calls is not None]
        if beside and not certain:
            certain = _late_beside_calls(stage, max(beside, key=lambda one: one.calls or 0))
    return certain


def _late_again(stage: Stage, workers: Iterable[Worker]) -> list[Asked]:
    certain: list[Asked] = []
    to_ask = [worker for worker in workers if worker.wire.transcript.live()]
    if not to_ask:
        raise StageError("this machine is too busy to judge: all of its cores were in use, and the worker is gone")
    for worker in to_ask:
        burnt = worker in stage.workers("loaded")
        with worker.burn() if burnt else contextlib.nullcontext():
            _wait_as_before(worker, burnt)
            before, since = worker.reading(), time.monotonic()
            if worker.wire.ask(ANSWER_SECONDS).available is None:
                stage.raise_if_too_busy(worker, before)
                certain += [Asked(worker, question) for question in worker.wire.transcript.questions(since)]
    return certain


def _wait_as_before(worker: Worker, burnt: bool) -> None:
    """Until a worker is as it was when it was asked before: free, or with its CPU burnt full."""
    if burnt:
        worker.wire.transcript.wait(lambda seen: (last := seen.latest_status()) is not None and last.full, RISE_SECONDS)
    else:
        with contextlib.suppress(StageError):
            wait_free(worker)


def _late_beside_calls(stage: Stage, late: Asked) -> list[Asked]:
    """The shared worker's late answer, when it has as many calls as that one had, or fewer, and is at rest otherwise."""
    worker, calls = stage.worker("shared"), late.calls or 0
    caller, placed = stage.calls.caller(worker), 0
    try:
        try:
            while placed < calls:
                stage.calls.served(caller)
                placed += 1
        except WorkerFailed:
            raise
        except (WorkerFault, TooBusy):
            pass  # it takes no more than these
        for _ in range(ASKS):
            # What starts a process for the next job, or is full for that, is not what it was to be asked beside.
            still(stage, worker, set(), REST_SECONDS)
            with contextlib.suppress(StageError):
                wait_free(worker)
            if not worker.wire.transcript.live():
                break
            before, since = worker.reading(), time.monotonic()
            answer = worker.wire.ask(ANSWER_SECONDS)
            if answer.available is None:
                stage.raise_if_too_busy(worker, before)
                return [Asked(worker, question, placed) for question in worker.wire.transcript.questions(since)]
            if answer.available or late.question.available is False:
                if placed == calls:
                    return []
                break
    finally:
        caller.close()
    raise StageError(f"an answer was late beside {calls} calls, and the worker could not be asked again beside as many")
