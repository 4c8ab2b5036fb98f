"""The call that comes in the same instant as a worker's stop signal: whether it was taken, and what became of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.calls import AGENT_SECONDS, ANSWER_SECONDS, LATE_ANSWER_SECONDS
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Question
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker

from .drained import Drain, Together
from .placed import answer_held_up, wait_free
from .scenario import AFTER_ENDS_SECONDS, LOOK_SECONDS

# Two of the SDKs' status reports (2.5 s apart): the next one still counts the start of the last job.
PAUSE_SECONDS = 6.0
# For a worker to end that believes itself to be drained.
LAST_SECONDS = 3.0


class Instant:
    """One such call. What is seen of it goes to ``seen.together``."""

    def __init__(self, stage: Stage, worker: Worker, seen: Drain) -> None:
        self.stage, self.worker, self.seen = stage, worker, seen
        self._call: Call | None = None
        self._settled = False
        # The connections of the jobs before that one.
        self._kept_at: set[int] = set()

    def place(self, caller: Caller, stop: Callable[[], None]) -> None:
        """The call comes, and ``stop`` is called as soon as the worker is asked, so that answer, assignment and drain meet."""
        # A worker that is over its threshold for a moment, as each new job starts a process, would only refuse.
        with contextlib.suppress(StageError):
            wait_free(self.worker, PAUSE_SECONDS)
        began = time.monotonic()
        known = {kept.call.room_name for kept in self.seen.kept}
        self._kept_at = self.worker.wire.calls_at
        broken: list[Exception] = []
        there = threading.Event()

        def is_asked(log: Transcript) -> bool:
            return any(asked.room not in known for asked in log.questions(began) if not asked.probe)

        def when_asked() -> None:
            try:
                until = float("inf")
                while not self.worker.wire.transcript.wait(is_asked, LOOK_SECONDS) and time.monotonic() < until:
                    # A busy machine takes its time to let the caller in, before which nobody is asked.
                    until = min(until, time.monotonic() + ANSWER_SECONDS) if there.is_set() else until
                stop()
            except Exception as error:
                broken.append(error)

        sender = threading.Thread(target=when_asked, name="lk-signal")
        sender.start()
        try:
            self._call = caller.join()
        finally:
            there.set()
            sender.join()
        if broken:
            raise broken[0]
        self.seen.together = Together()

    @property
    def room(self) -> str | None:
        return self._call.room_name if self._call is not None else None

    def settle(self, sent: float, watch: Callable[[float, Callable[[], bool]], object]) -> None:
        """Say what became of it, once; ``watch`` looks at the other calls for so long, or until that is true. One that has its
        agent outlasts all others. ``sent``: when the signal was."""
        call, late = self._call, self.seen.together
        if call is None or late is None or self._settled:
            return
        self._settled = True
        asked = self._asked(call)
        if asked is not None and asked.available is None:
            # One that was slow says something yet, or nothing before the server gives up.
            watch(max(asked.asked + ANSWER_SECONDS - time.monotonic(), 0), lambda: self._has_answered(call))
            asked = self._asked(call) or asked
        late.answer = asked.available if asked is not None else None
        if asked is not None and (asked.assigned or late.answer) and not call.agents:
            watch(max(sent + AGENT_SECONDS - time.monotonic(), 1), lambda: bool(call.agents))
            asked = self._asked(call) or asked
        late.assigned = asked is not None and asked.assigned is not None
        if call.agents:
            late.agent_s = round(min(call.agents.values()) - sent, 1)
            if not call.agents_present:
                call.raise_if_cut_off()
                late.trouble = "its agent left it"
        elif asked is not None and (late.assigned or late.answer):
            call.raise_if_cut_off()
            self._accuse_of_no_agent(asked, late)
        elif asked is not None:
            self._accuse_of_silence(asked, late)
        if not call.agents_present:
            call.leave()

    def finish(self) -> None:
        """A drain that waits for those calls that it knew at the signal ends now, with this one in progress."""
        call, late = self._call, self.seen.together
        if call is None or late is None or late.trouble is not None or not call.agents:
            return
        worker = self.worker

        def over() -> bool:
            return not call.agents_present or not worker.is_running

        with worker.ledger.waiting(worker.name), contextlib.suppress(DeadlineMissed):
            poll(
                lambda: not self._kept_at & worker.wire.calls_at or over(),
                what="end of the other jobs",
                # As long as they may take: what comes after it is what this call is for.
                seconds=self.stage.settings.exit_timeout,
            )
            done = time.monotonic()
            # One that has left its server may be about to end, and leave its jobs some time to do so.
            poll(
                lambda: over() or (bool(worker.wire.transcript.live()) and time.monotonic() - done > LAST_SECONDS),
                what="end",
                seconds=AFTER_ENDS_SECONDS,
                every=LOOK_SECONDS,
            )
            if over() and self.seen.cut is None and self.seen.ended_early_s is None:
                if worker.is_running:
                    # To a caller whose own connection broke, everybody left.
                    call.raise_if_cut_off()
                self._accuse_of_its_end(call, late)
        call.leave()

    @property
    def hung_up(self) -> bool:
        """Whether the server knows that its caller is gone, which it believes to be there for some time else."""
        return self._call is None or self._call.hung_up

    def _asked(self, call: Call) -> Question | None:
        return self.stage.calls.questions(call.room_name, call.joined, self.worker.server).get(self.worker.name)

    def _has_answered(self, call: Call) -> bool:
        asked = self._asked(call)
        return asked is None or asked.available is not None

    def _accuse_of_silence(self, asked: Question, late: Together) -> None:
        """It did not accept the job. With its connection there the server waits for its answer, and asks nobody else if none
        comes in time."""
        given_up = asked.asked + ANSWER_SECONDS
        in_time = (asked.answered or time.monotonic()) < given_up
        # For how long somebody else's server waits is not known.
        if in_time or not self.stage.controllable or self.worker.wire.transcript.ended_by(asked.connection, given_up):
            return
        took = asked.answered_after
        late.trouble = "the worker did not answer" if took is None else f"the worker refused it only after {took:.1f} s"
        if answer_held_up(self.stage.history, asked, ANSWER_SECONDS):
            late.busy = "it had no time while the worker was to answer"

    def _accuse_of_no_agent(self, asked: Question, late: Together) -> None:
        # The server asks nobody else in any case.
        late.trouble = "no agent came to it" if late.assigned else "the worker accepted it, and was not given it"
        took = asked.answered_after or 0.0
        if not late.assigned and took >= LATE_ANSWER_SECONDS:
            late.trouble = f"the worker accepted it only after {took:.1f} s"
            if answer_held_up(self.stage.history, asked, LATE_ANSWER_SECONDS):
                late.busy = "it had no time while the worker was to answer"
        elif self.stage.history.had_no_time(asked.asked, asked.asked + (AGENT_SECONDS if late.assigned else took)):
            # However long it was looked at after that: a process that is not up in time is given up.
            late.busy = f"it had no time while the worker was to {'serve it' if late.assigned else 'answer'}"

    def _accuse_of_its_end(self, call: Call, late: Together) -> None:
        """It is over. That the call's agent left it may be its habit, unless others stayed for longer."""
        others, stayed = self.seen.kept[0].continuity, call.stayed
        if stayed is None:
            late.trouble = "the worker ended with it in progress, when the others had ended"
        elif others.stays:
            late.trouble = f"its agent left it after {stayed:.0f} s"
        else:
            others.note_leave(stayed)
            late.unproven = others.unproven_leave
