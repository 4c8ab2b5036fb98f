"""Two calls on one worker, the process of one of which comes to harm: what the other call, the worker and a new call notice."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from pytest_lkagents.busyness import Reading
from pytest_lkagents.callers.caller import Call
from pytest_lkagents.callers.continuity import AGENT_LEFT
from pytest_lkagents.calls import VOICE_SECONDS
from pytest_lkagents.checks import NotJudgeable, StageError, TooBusy, Unproven, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, holds, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.processes import Process

from .harmed import Beside, Harm
from .healthy import answers, stays_unhealthy
from .kept import Kept
from .new_calls import NewCalls
from .pool import ONE_AT_A_TIME, require_own_processes
from .tally import Tally

# A call that is harmed by its neighbour's end is cut within a second or two.
WATCH_SECONDS = 5.0
LOOK_SECONDS = 0.25
# Silence counts from 2.5 s on, and a call that takes another one's voice does so at its beginning.
BESIDE_SECONDS = 4.0
# For a signal to take effect, on a busy machine.
SIGNAL_SECONDS = 5.0
# The server tells a caller at once that an agent has left, which a busy machine holds up; of one whose process was killed it
# says so after 12 to 20 s.
LEAVE_SECONDS = 8.0
OTHER_ENDED = "the process of its job ended too"


class Scene:
    """Two calls on one worker, each served by a process of its own; an act harms one of the processes, ``observe``
    says what the other call, the worker and a new call notice of it. With ``alone`` one call is enough where the worker
    takes no second one; then ``kept``, the other call, is None."""

    def __init__(self, stage: Stage, role: str, *, alone: bool = True) -> None:
        self.stage = stage
        self.worker = stage.untouched(role)
        self.caller = stage.calls.caller(self.worker)
        self.began = 0.0
        self.kept: Kept | None = None
        self._alone = alone

    def observe(
        self, act: Callable[[Scene], None], undo: Callable[[Scene], None] = lambda _: None, *, both: bool = False
    ) -> Harm:
        """Nothing is harmed where the two calls harm each other. ``both``: the older call's process comes to harm, too, beside
        the new call. Raises NotJudgeable when jobs share a process, WorkerFault when two calls cannot be had, StageError."""
        try:
            self._place()
            if self.harm.clash is not None:
                return self.harm
            before = self.worker.reading()
            self._tally.note_calls({self.pid, self.other_pid})
            try:
                act(self)
                self.watch(WATCH_SECONDS)
                harm = self._judge(before)
                if both and harm.verdict is None:
                    self._harm_older(act)
            finally:
                undo(self)
            self.caller.close()
            self._tally.judge(harm)
            return harm
        finally:
            self.caller.close()

    def _place(self) -> None:
        stage, worker = self.stage, self.worker
        stage.calls.wait_idle(worker)
        self._tally = Tally(stage, worker)
        # The older call is the bystander: it has been heard for longer.
        older = stage.calls.served(self.caller)
        stage.calls.wait_heard([older])
        # Only now: another job may have taken the call over, as a receptionist hands it to a specialist.
        then = worker.snapshot()
        first = then.without_children(worker.jobs_of(then))
        alone = Kept(older, stage.calls.continuity(older))
        newer = stage.calls.further(self.caller)
        now = worker.snapshot()
        own, jobs = worker.registered_by(now), now.without_children(worker.jobs_of(now))
        if newer is None and not self._alone:
            raise NotJudgeable(ONE_AT_A_TIME)
        require_own_processes(now, own, jobs, 1 if newer is None else 2)
        victims = jobs if newer is None else [pid for pid in jobs if pid not in first]
        # More than one: the job of a call that was given up, whose agent came too late, and whose end is no harm.
        if len(set(victims)) != 1 or len(set(first)) != 1:
            raise StageError("it cannot be told which process serves which call")
        self.call = newer or older
        self.pid = victims[0]
        self.other_pid = first[0]
        process = now.living()[self.pid]
        self.harm = Harm(self.pid, newer is None, evidence={"harmed_pid": self.pid, "harmed_process": process.args})
        self._new_calls = NewCalls(stage, worker, self.caller, self.harm, self._tally)
        if newer is not None:
            self.harm.beside = self._look_beside(alone, newer)
            self.kept = Kept(older, stage.calls.continuity(older))
        self.health = answers(worker)
        self.began = time.monotonic()

    def _look_beside(self, older: Kept, newer: Call) -> Beside:
        """What the second call does to the first, and whether it is heard itself. Raises Unproven where that may be a habit or
        chance, StageError on a busy machine."""
        stage, before = self.stage, self.worker.reading()
        seen = Beside(_heard_after(older.call))
        self.kept, self.began = older, time.monotonic()
        self.watch(BESIDE_SECONDS)
        if self.harm.worker_trouble is not None:
            raise self.worker.ended()
        self._judge_pause(older)
        if older.trouble is not None:
            if older.unproven is not None:
                raise Unproven(older.unproven)
            if older.trouble not in (OTHER_ENDED, AGENT_LEFT):
                stage.raise_if_too_busy(self.worker, before)
            seen.problem = f"{older.trouble_s} s after a second call had its agent, in the first one {older.trouble}"
        elif seen.older_heard_s is not None and stage.calls.is_mute(newer, self.worker, before, "beside a call"):
            seen.problem = f"nothing is heard of a second call's agent for {VOICE_SECONDS} s, beside another call"
        seen.newer_heard_s = _heard_after(newer)
        seen.evidence = older.continuity.evidence()
        return seen

    @property
    def passed(self) -> float:
        return time.monotonic() - self.began

    def act_now(self) -> None:
        """From here on seconds are counted."""
        self.began = time.monotonic()

    def look(self) -> None:
        self.stage.raise_if_closing()
        if self.kept is not None:
            self.kept.look(self.passed)
            if self.kept.suspected:
                self._look_closer(self.kept)
        if self.harm.worker_trouble is None and not self.worker.is_running:
            self.harm.worker_ended = True
            self.harm.worker_trouble = (
                f"the whole worker ended after {self.passed:.1f} s with exit code {self.worker.exit_code}"
            )

    def _look_closer(self, kept: Kept) -> None:
        """Whether the other call's job has lost its process: that is certain, however busy the machine is, unless its agent
        left the call before, as the agent of a job does that is over."""
        with contextlib.suppress(WorkerFault):
            if kept.trouble is not None or self.other_pid in self.worker.snapshot().living():
                return
            if holds(lambda: kept.continuity.agents_are_there, seconds=LEAVE_SECONDS):
                kept.trouble, kept.trouble_s = OTHER_ENDED, round(self.passed, 1)
            else:
                kept.look(self.passed)

    def watch(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Look on for ``seconds`` (longer while something is suspected); whether ``until`` came true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end or (self.kept is not None and self.kept.suspected):
            self.look()
            if until():
                return True
            if self.harm.worker_trouble is not None or (self.kept is not None and self.kept.trouble is not None):
                return False
            time.sleep(LOOK_SECONDS)
        return False

    def signal(self, name: str, done: Callable[[Process | None], bool]) -> None:
        """Send a signal to the job's process. Raises StageError if it has no effect."""
        self.worker.signal_process(self.pid, name)

        def effect() -> bool:
            try:
                return done(self.worker.snapshot().living().get(self.pid))
            except WorkerFault:
                return True  # the whole worker is gone, which ``look`` will say

        try:
            poll(effect, what=name, seconds=SIGNAL_SECONDS)
        except DeadlineMissed as missed:
            raise StageError(f"{name} has no effect on process {self.pid} of the worker") from missed

    def kill(self) -> None:
        self.signal("SIGKILL", lambda process: process is None)

    def _judge(self, before: Reading) -> Harm:
        harm, kept, worker = self.harm, self.kept, self.worker
        harm.evidence["other_call"] = self._judge_bystander() or f"none: {ONE_AT_A_TIME}"
        if kept is not None:
            harm.evidence["bystander"] = kept.continuity.evidence()
        harm.evidence["watched_s"] = round(self.passed, 1)
        self._judge_registered()
        if harm.verdict is None:
            self._new_calls.place(self._hang_up)
            harm.evidence["new_call_served_after_s"] = harm.served_s
        if harm.verdict is None:
            harm.worker_trouble = stays_unhealthy(self.stage, worker, self.health)
        harm.evidence["registered"] = bool(worker.wire.transcript.live())
        self._raise_if_uncertain(before)
        return harm

    def _hang_up(self) -> None:
        """The two calls."""
        if self.kept is not None:
            self.kept.hang_up(self.passed)
        self.call.leave()

    def _judge_registered(self) -> None:
        if self.harm.worker_trouble is not None:
            return
        with contextlib.suppress(WorkerFault):
            self.worker.registration()
        if not self.worker.wire.transcript.live():
            self.harm.worker_trouble = "the worker is no longer registered"

    def _judge_bystander(self) -> str | None:
        """What became of the other call, in words; None: there is none. Raises TooBusy if it cannot be told."""
        harm, kept = self.harm, self.kept
        if kept is None:
            return None
        self._look_closer(kept)
        if harm.worker_trouble is None:
            self._judge_pause(kept)
        harm.trouble, harm.trouble_s = kept.trouble, kept.trouble_s
        return harm.trouble or "went on"

    def _raise_if_uncertain(self, before: Reading) -> None:
        """Raises Unproven if what is wrong may be the agent's habit, TooBusy if it may be this machine's doing."""
        harm, kept = self.harm, self.kept
        if kept is not None and kept.unproven is not None and kept.trouble != OTHER_ENDED and harm.worker_trouble is None:
            raise Unproven(kept.unproven)
        certain = harm.trouble in (OTHER_ENDED, AGENT_LEFT) or not self.worker.is_running
        if harm.verdict is not None and not certain:
            self.stage.raise_if_too_busy(self.worker, before)

    def _harm_older(self, act: Callable[[Scene], None]) -> None:
        """The same to the older call's process, beside the new call: a call may lean on what an older one's process has. Not
        where the new one was only taken without the others, or its agent leaves by itself."""
        harm, older, newest = self.harm, self.kept, self._new_calls.beside
        if older is None or newest is None:
            return
        before = self.worker.reading()
        try:
            self.stage.calls.wait_heard([newest])
            now = self.worker.snapshot()
        except (NotJudgeable, WorkerFault):
            self.look()
            return
        jobs = set(now.without_children(self.worker.jobs_of(now)))
        theirs = jobs - {self.pid, self.other_pid}
        if self.other_pid not in jobs or len(theirs) != 1:
            return
        self.call, self.pid, self.other_pid = older.call, self.other_pid, theirs.pop()
        self.kept = Kept(newest, self.stage.calls.continuity(newest))
        act(self)
        self.watch(WATCH_SECONDS)
        harm.evidence["then_harmed_pid"] = self.pid
        harm.evidence["new_call_then"] = self._judge_bystander()
        self._judge_registered()
        if harm.verdict is None and harm.evidence.get("new_calls_lost"):
            self._new_calls.place_once_more()
        if harm.verdict is None:
            harm.worker_trouble = stays_unhealthy(self.stage, self.worker, self.health)
        self._raise_if_uncertain(before)

    @staticmethod
    def _judge_pause(kept: Kept) -> None:
        """A pause harms a call too, although it went on. Raises TooBusy if it may be this machine's doing, or was missed."""
        if kept.trouble is not None:
            return
        kept.measure()
        kept.judge_pause()
        if kept.unproven is None and kept.doubt is not None:
            raise TooBusy(f"this machine is too busy to judge: {kept.doubt}")


def _heard_after(call: Call) -> float | None:
    """Seconds from the agent's join to its first sound; None: it was not heard."""
    return None if call.sound_after is None else round(max(call.sound_after - call.agent_after, 0.0), 2)
