"""A call that a worker has while something is done to it: what becomes of it, as its caller receives it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.callers.continuity import AGENT_LEFT, FOR_GOOD_SECONDS, Continuity, may_have_missed
from pytest_lkagents.callers.reception import SILENCE_SECONDS, STALL_SECONDS

from .connections import JOB_GONE


@dataclass
class Kept:
    """A call that the worker had when something was done to it. Seconds count from then; None: it did not happen."""

    call: Call
    continuity: Continuity
    hung_up_s: float | None = None
    trouble: str | None = None
    trouble_s: float | None = None
    longest_gap: float = 0.0
    # What the caller may not have noticed of a gap, as it stood still.
    missed: float = 0.0
    # When the first pause began that is too long.
    paused_after: float | None = None
    # Why the trouble may be no fault, in words: the agent may have fallen silent, or left, by itself.
    unproven: str | None = None
    evidence: dict[str, object] = field(default_factory=dict)
    _since: float | None = None

    def look(self, passed: float) -> None:
        """Judge this moment; what may be a stall of the machine counts once it has lasted."""
        if self.trouble is not None or self.hung_up_s is not None:
            return
        found = self.continuity.trouble()
        self.longest_gap = self.continuity.gap()
        if found is None:
            self._since = None
            return
        if self._since is None:
            self._since = passed
        if found == AGENT_LEFT and self.continuity.left_as_usual:
            self.hang_up(passed)
        elif found == AGENT_LEFT or passed - self._since >= FOR_GOOD_SECONDS:
            self.trouble, self.trouble_s = found, round(self._since, 1)
            self._note(left=found == AGENT_LEFT)

    def _note(self, *, left: bool = False) -> None:
        if left:
            self.continuity.note_leave()
        else:
            self.continuity.note_silence()
        self.unproven = self.continuity.unproven_leave if left else self.continuity.unproven_silence

    @property
    def fell_silent(self) -> bool:
        """Whether all that is wrong is that nothing is heard any more of an agent that is there."""
        gone = (AGENT_LEFT, JOB_GONE)
        return self.trouble is not None and self.trouble not in gone and self.continuity.agents_are_there

    @property
    def suspected(self) -> bool:
        return self._since is not None and self.trouble is None and self.hung_up_s is None

    def measure(self) -> None:
        """The pauses of a call that went on, so far."""
        if self.continuity.usual is not None:
            # How a call ends that its agent ends by itself is not known.
            self.longest_gap = 0.0
            return
        self.longest_gap = self.continuity.gap()
        self.paused_after = self.continuity.paused_after
        self.missed, since = self.continuity.missed()
        if self.longest_gap > SILENCE_SECONDS:
            self._note()
        elif self.missed > SILENCE_SECONDS:
            self.continuity.note_missed(since)

    def judge_pause(self) -> None:
        """What was measured: a pause is trouble too, although the call went on, where there is another look in doubt."""
        if self.trouble is None and self.longest_gap > SILENCE_SECONDS:
            self.trouble = f"the agent was silent for {self.longest_gap:.1f} s, and went on"
            self.trouble_s = round(self.continuity.paused_after or 0.0, 1)

    @property
    def doubt(self) -> str | None:
        """Why a pause may be this machine's doing, or one may not have been noticed, in words."""
        if self.longest_gap > SILENCE_SECONDS:
            stalled = self.continuity.stalled > STALL_SECONDS
            return f"a gap of {self.longest_gap:.1f} s, the caller stalled" if stalled else None
        return may_have_missed(self.missed) if self.missed > SILENCE_SECONDS else None

    def hang_up(self, passed: float) -> None:
        self.finish(passed)
        self.call.leave()

    def finish(self, passed: float) -> None:
        """Nothing that comes from now on counts."""
        self.evidence = self.continuity.evidence()
        self.measure()
        self.hung_up_s = round(passed, 1)
