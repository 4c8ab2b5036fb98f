"""Real calls to the workers of one server: who was asked, and whether in time, who served each; and when a worker has room."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pytest_lkagents.busyness import History
from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.calls import ANSWER_SECONDS
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Answer, Question
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker

# For a load that was raised to fall again.
RECOVER_SECONDS = 30
# How often a worker is picked by chance among two: that it never is in six calls has a chance of 1 in 64.
TRIES = 6


@dataclass
class Placed:
    """A real call to two workers of one server: who was asked, who served it."""

    call: Call
    questions: dict[str, Question]
    served_by: str | None

    def said(self, worker: str) -> str:
        """Of a worker by its name."""
        asked = self.questions.get(worker)
        if asked is None:
            return "was not asked"
        if asked.available is None:
            return "was asked and did not answer"
        return f"was asked and {'accepted' if asked.available else 'refused'} after {asked.answered_after or 0:.2f} s"


def place(stage: Stage, caller: Caller, *, noted: bool = True) -> Placed:
    """Place a call and wait until it has its agent or is certainly lost. ``noted``: nothing hinders the workers, so that
    one which accepts it must serve it."""
    call = caller.join()
    stage.calls.wait_settled(call, caller.server, noted=noted)
    asked = stage.calls.questions(call.room_name, call.joined, caller.server)
    taken = stage.calls.taken(call, caller.server)
    return Placed(call, asked, taken[0].name if taken is not None and call.agents else None)


def wait_free(worker: Worker, seconds: float = RECOVER_SECONDS, since: float = 0.0) -> None:
    """Until the worker's last status (of those after ``since``) is "available" with room for a job. Raises StageError if
    that never comes."""

    def free(transcript: Transcript) -> bool:
        status = transcript.latest_status(since)
        return status is not None and not status.full and status.load < 0.6

    if not worker.wire.transcript.wait(free, seconds):
        raise StageError(f"worker {worker.name} never came to rest within {seconds:g} s")


def ask_until_accepted(worker: Worker) -> list[Answer]:
    """What it answers to jobs that do not exist, asked once a second until it accepts one or is silent, for RECOVER_SECONDS.
    Silence is another check's business, and asking on would take a slot of the worker each time. At least one answer."""
    answers: list[Answer] = []

    def accepts() -> bool:
        answers.append(worker.wire.ask(ANSWER_SECONDS))
        return answers[-1].available is not False

    with contextlib.suppress(DeadlineMissed):
        poll(accepts, what="accepted question", seconds=RECOVER_SECONDS, every=1)
    return answers


def answer_held_up(history: History, question: Question, limit: float) -> bool:
    """Whether an answer that took longer than ``limit`` (seconds), or that never came, may owe that to this machine."""
    if question.answered is None:
        return history.had_no_time(question.asked, question.asked + ANSWER_SECONDS)
    return history.held_up(question.asked, question.answered, limit)
