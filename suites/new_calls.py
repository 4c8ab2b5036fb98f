"""New calls to a worker after one of its jobs came to harm: whether one is served, and whether others are lost before it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from pytest_lkagents.busyness import Reading
from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.calls import ENOUGH_LOST
from pytest_lkagents.checks import StageError, TooBusy, WorkerFault
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .harmed import Harm
from .questions import lost_before
from .tally import Tally

# A worker may refuse calls from here on; the lowest threshold in use is 0.7.
BUSY_SHARE = 0.6


class NewCalls:
    """What becomes of them is noted in ``harm``, and which processes serve them in ``tally``."""

    # The one that was served while those before the harm went on, if any was.
    beside: Call | None = None

    def __init__(self, stage: Stage, worker: Worker, caller: Caller, harm: Harm, tally: Tally) -> None:
        self._stage, self._worker, self._caller, self._harm, self._tally = stage, worker, caller, harm, tally

    def place(self, hang_up: Callable[[], None]) -> None:
        """A new call; a worker that refuses because it is full is asked again once it has nothing else to do, after ``hang_up``
        ended the other calls."""
        harm = self._harm
        began = time.monotonic()
        try:
            call = self._stage.calls.served(self._caller)
        except (WorkerFault, TooBusy) as fault:
            if self._accepted(began):
                if isinstance(fault, TooBusy):
                    raise
                harm.not_served = f"a new call is taken and never served: {fault}"
                return
            hang_up()
            looked = self._worker.reading()
            harm.evidence["refused_beside_other_calls"] = True
            try:
                call = self._stage.calls.served(self._caller)
            except WorkerFault:
                self._raise_if_rightly_full(looked)
                harm.not_served = f"no new call is served: {self._said(began)}"
                return
        else:
            self.beside = call
        harm.served_s = round(call.agent_after, 2)
        self._count_lost(call, began)
        self._tally.note_jobs()

    def place_once_more(self) -> None:
        """Once more a new call, where one was lost before: whether it was chance. That it is refused says nothing, whatever the
        reason."""
        began, call = time.monotonic(), None
        with contextlib.suppress(WorkerFault, TooBusy):
            call = self._stage.calls.served(self._caller)
            self._tally.note_jobs()
        self._count_lost(call, began)

    def _count_lost(self, served: Call | None, began: float) -> None:
        """Calls that the worker lost before the one that was served. One may be chance."""
        lost = self._harm.evidence.get("new_calls_lost", 0)
        lost += lost_before(self._stage, self._worker, self._caller, served, began)
        self._harm.evidence["new_calls_lost"] = lost
        if lost >= ENOUGH_LOST:
            self._harm.not_served = f"of the new calls {lost} are lost: {self._said(began)}"

    def _raise_if_rightly_full(self, since: Reading) -> None:
        """A worker without a call that refuses: it may be for the CPU that others use. Raises StageError then."""
        used, cores = since.used_until(self._worker.reading()), os.cpu_count() or 1
        machine, own = used.cores / cores, used.worker / (self._worker.cpus or cores)
        if max(machine, own) > BUSY_SHARE:
            raise StageError(
                f"this machine is too busy to judge: the worker refuses calls, with {machine:.0%} of the machine's CPU in use"
            )

    def _answers(self, since: float) -> list[bool | None]:
        return self._worker.wire.transcript.answers(since)

    def _accepted(self, since: float) -> bool:
        return any(self._answers(since))

    def _said(self, since: float) -> str:
        """What the worker said to the calls that it did not get or take."""
        answers = self._answers(since)
        if not answers:
            return "the server does not even ask the worker (full, or lost)"
        refused = sum(answer is False for answer in answers)
        return f"asked {len(answers)} times, the worker refused {refused} times and did not answer {answers.count(None)} times"
