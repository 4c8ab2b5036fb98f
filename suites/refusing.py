"""A worker that refuses every call although it has none: it has lost count of what it has room for."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from pytest_lkagents.checks import StageError
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .placed import ask_until_accepted

# The last calls, all of them refused. One or two a worker may refuse that is full for a moment, or starts a process.
REFUSED = 3


@dataclass(frozen=True)
class Refusing:
    """``taken``: calls that it accepted before; ``refused``: those since, as many in a row; ``asked``: about how many jobs it
    was then asked, without a call, for ``seconds``."""

    taken: int
    refused: int
    asked: int
    seconds: float
    lines: list[str]


def for_good(stage: Stage) -> Refusing | None:
    """Whether the shared worker refuses whatever it is asked, a real call in the end, where it took calls before, has none now,
    and does not say that it is full. Asks only where its last calls were refused. Raises StageError (TooBusy) where this
    machine may be why."""
    for worker in stage.workers("shared"):
        taken, refused = _in_a_row(worker)
        if not taken or refused < REFUSED or not _is_free(worker):
            continue
        with stage.background.in_peace():
            try:
                # What still holds a place may be a job that has not ended.
                stage.calls.wait_idle(worker)
            except StageError:
                continue
            before, since = worker.reading(), time.monotonic()
            answers = ask_until_accepted(worker)
            if answers[-1].available is False and _is_free(worker) and _refuses_a_call(stage, worker):
                stage.raise_if_filled_by_others(worker, before)
                stage.raise_if_too_busy(worker, before)
                lines = worker.wire.transcript.lines(since, kinds=("status", "question", "answer"), last=8)
                return Refusing(taken, refused, len(answers), time.monotonic() - since, lines)
    return None


def _in_a_row(worker: Worker) -> tuple[int, int]:
    """How many of the server's questions it accepted, and how many it refused after the last of these."""
    answers = worker.wire.transcript.answers()
    refused = 0
    for answer in reversed(answers):
        if answer is not False:
            break
        refused += 1
    return answers.count(True), refused


def _is_free(worker: Worker) -> bool:
    """Whether it is registered, and says that it has room."""
    live = worker.wire.transcript.live()
    return worker.is_running and bool(live) and not worker.wire.transcript.says_full(live[-1].connection)


def _refuses_a_call(stage: Stage, worker: Worker) -> bool:
    """Whether a real call is refused by each of its registrations. A worker may tell jobs that do not exist from others, and of
    several registrations only the latest one was asked about those."""
    with contextlib.closing(stage.calls.caller(worker)) as caller:
        call = caller.join()

        def is_refused() -> bool:
            return stage.calls.refused(call, caller.server)

        stage.calls.wait_settled(call, caller.server, is_over=is_refused)
        return not call.agents and is_refused()
