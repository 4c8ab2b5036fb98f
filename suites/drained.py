"""What was seen of a worker that was asked to stop: of its calls, of what it said to the server, of its end."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from pytest_lkagents.callers.continuity import AGENT_LEFT, may_have_missed
from pytest_lkagents.callers.habit import Stay
from pytest_lkagents.callers.reception import SILENCE_SECONDS
from pytest_lkagents.checks import StageError, Unproven
from pytest_lkagents.wire.model import Answer

from .kept import Kept
from .offers import STOPS_SECONDS

# Three failed probes in a row are what orchestrators restart a container for, by default.
FAILED_PROBES = 3


@dataclass
class Together:
    """The call that came in the same instant as the signal. ``answer``: what the worker said; ``trouble``: what became
    of the call although it was taken."""

    answer: bool | None = None
    assigned: bool = False
    agent_s: float | None = None
    trouble: str | None = None
    # Why it may be no fault that its agent left, and why the machine may be to blame, in words.
    unproven: str | None = None
    busy: str | None = None

    def raise_if_busy(self) -> None:
        """Raises StageError if this machine may be to blame for its trouble."""
        if self.busy is not None:
            raise StageError(f"this machine is too busy to judge: {self.busy}")


@dataclass
class Drain:
    """Seconds count from the signal, ``exited_s`` from the end of the last call; None: it did not happen."""

    signal: str
    health_port: int | None
    arguments: list[str]
    kept: list[Kept] = field(default_factory=list)
    together: Together | None = None
    health: list[int | None] = field(default_factory=list)
    # Full or unregistered, and not free again: from then on the server offers it nothing.
    stopped_s: float | None = None
    # What it says when it is asked for one more job while it drains; None: it could not be asked any more.
    asked: Answer | None = None
    asked_s: float | None = None
    # The same at the end, if it had refused and yet reports that it is free.
    asked_last: Answer | None = None
    # The same after the last call, if it reports then that it is free again.
    asked_at_end: Answer | None = None
    # Where the connection was lost during the drain and the server is back: what it says to a job, if it registers again.
    asked_back: Answer | None = None
    # It refuses jobs from the signal on so that the server asks no other worker, and did not before.
    refused_for_all: bool = False
    # Why its taking nothing new may be that of a full worker, whether it drains or not.
    filled: str | None = None
    ended_early_s: float | None = None
    exited_s: float | None = None
    exit_code: int | None = None
    # Still there when the time to end was over.
    outlasted: bool = False
    held_s: float = 0.0
    # A signal that changed nothing was sent once more: whether that one did. None: there was no need to.
    heeds_second: bool | None = None
    # [seconds after the signal, calls that go on, the longest pause of an agent's sound in them at this moment]
    series: list[list[float]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    # Who held the connections of its calls' jobs to the server when the signal came, and who its registration.
    job_pids: list[int] = field(default_factory=list)
    own_pids: list[int] = field(default_factory=list)
    busy: str | None = None
    # The first call to end ended with its job's process, which was killed; or there was such a call before the others.
    crashed: bool = False
    crashed_before: bool = False
    # Why there may be fewer calls than it takes, in words.
    fewer: str | None = None
    # Of an earlier look: an agent fell silent, and this one cannot tell whether that was chance; in words.
    not_cleared: str | None = None

    @property
    def cut(self) -> Kept | None:
        """The call that was cut first."""
        found = [kept for kept in self.kept if kept.trouble_s is not None]
        return min(found, key=lambda kept: kept.trouble_s or 0.0, default=None)

    @property
    def cut_while_held(self) -> Kept | None:
        """The same, if it was cut before any other call had ended. Looks are further apart than the rounding: in the same
        tenth of a second it was cut because the other one ended."""
        found = self.cut
        return found if found is not None and (found.trouble_s or 0.0) < self.first_hung_up_s else None

    @property
    def first_hung_up_s(self) -> float:
        """When the first of the calls was hung up; infinite if none was."""
        return min((kept.hung_up_s for kept in self.kept if kept.hung_up_s is not None), default=float("inf"))

    @property
    def ended_while_held(self) -> float | None:
        """When the worker itself ended with all calls in progress. Nobody serves them any more, also where the caller has
        not noticed yet: the server believes for some seconds that a killed agent is there."""
        ended = self.ended_early_s
        return ended if ended is not None and ended < self.first_hung_up_s else None

    @property
    def cut_for_certain(self) -> bool:
        """A silence on a busy machine may be the machine's. An agent that left is certain if it does not do so by itself, and
        so is a worker that ended before a call was in trouble."""
        cut = self.cut
        if cut is None or cut.trouble == AGENT_LEFT:
            return cut is not None and cut.unproven is None
        ended_first = self.ended_early_s is not None and self.ended_early_s <= (cut.trouble_s or 0.0)
        return ended_first or (cut.unproven is None and not cut.continuity.agents_are_there)

    def raise_if_busy(self, what: str = "") -> None:
        """Raises StageError if this machine was too busy for what was seen, in words, to mean something."""
        if self.busy is not None:
            raise StageError(f"this machine is too busy to judge: {what + ', ' if what else ''}{self.busy}")

    def raise_if_unproven(self) -> None:
        """Raises Unproven if what is wrong with the calls may be no fault."""
        if self.unproven is not None:
            raise Unproven(self.unproven)

    def look_again_at(self, before: Drain) -> None:
        """This is another look after one in which an agent may have fallen silent: note whether it clears it."""
        cut = before.cut
        if cut is None or not cut.fell_silent or before.cut_for_certain or self.cut is not None:
            return
        since, heard = cut.trouble_s or 0.0, cut.continuity.steady
        told = [kept.continuity for kept in self.kept if (kept.hung_up_s or self.held_s) > since]
        if not any(one.steady or (one.sending and not heard) for one in told):
            self.not_cleared = f"{cut.trouble}, and another one paused too soon to tell whether it does, too"

    def raise_if_not_cleared(self) -> None:
        """Raises StageError where an earlier look had an agent fall silent, and this one cannot tell."""
        if self.not_cleared is not None:
            raise StageError(self.not_cleared)

    @property
    def doubt(self) -> str | None:
        """Why what was seen may be this machine's doing, and is worth another look in peace; None if it is not."""
        if self.heeds_second and self.together is None:
            # With a job in the same instant that would be what is looked for.
            return f"{self.signal} was lost, perhaps by chance"
        if self.cut_for_certain:
            return None
        if self.unproven is not None:
            return self.unproven
        if self.cut is not None and self.cut.fell_silent:
            # It had talked on for longer than another one did; but what agents say is not always equally long.
            return f"{self.cut.trouble}, perhaps by chance"
        if self.longest_gap > SILENCE_SECONDS and self.cut is None:
            # A machine that stalls for some seconds does not show in how busy it was on the whole.
            return f"a voice paused for {self.longest_gap:.1f} s and went on"
        if self.missed > SILENCE_SECONDS and self.cut is None:
            return may_have_missed(self.missed)
        if self.filled is not None and self.cut is None:
            return self.filled
        lost = self.together is not None and self.together.trouble is not None
        if self.together is not None and lost and self.together.busy is not None:
            return self.together.busy
        doubtful = {
            "a call was cut": self.cut is not None,
            "it took jobs for too long": self.stopped_s is None or self.stopped_s > STOPS_SECONDS,
            "a job of the same instant was lost": lost,
            "it did not end in time": self.outlasted,
            "its health probes were not answered": self.unanswered,
        }
        found = next((what for what, seen in doubtful.items() if seen), None)
        return f"{found}, {self.busy}" if found is not None and self.busy is not None else None

    @property
    def unhealthy(self) -> int:
        """How many probes of its health endpoint failed in a row, at most."""
        runs = itertools.groupby(self.health, lambda status: status == 200)
        return max((len(list(run)) for healthy, run in runs if not healthy), default=0)

    @property
    def unanswered(self) -> bool:
        """Whether its probes failed, for want of an answer only; one that has ended answers nobody, however busy the machine
        is."""
        return self.unhealthy >= FAILED_PROBES and set(self.health) <= {200, None} and self.ended_early_s is None

    @property
    def unproven(self) -> str | None:
        """Why what is wrong with the calls may be no fault, in words."""
        cut = self.cut
        if self.cut_for_certain:
            return None
        if cut is not None:
            return cut.unproven
        late = self.together.unproven if self.together is not None else None
        return next((kept.unproven for kept in self.kept if kept.unproven is not None), late)

    @property
    def longest_gap(self) -> float:
        """The longest silence, or pause between packets, of any of the calls in seconds."""
        return max((kept.longest_gap for kept in self.kept), default=0.0)

    @property
    def gap_follows_an_end(self) -> bool:
        """Whether the first pause of the call with the longest one began when another call had been hung up."""
        kept = max(self.kept, key=lambda kept: kept.longest_gap)
        return kept.paused_after is not None and kept.paused_after >= self.first_hung_up_s

    @property
    def harmed_by_an_end(self) -> bool:
        """Whether calls were cut, or had a gap, only when another one had ended."""
        gap = self.longest_gap > SILENCE_SECONDS and self.gap_follows_an_end
        return gap if self.drained else self.cut_while_held is None and self.ended_while_held is None

    @property
    def missed(self) -> float:
        """The longest pause that the caller of any of the calls may have missed in seconds, as it stood still."""
        return max((kept.missed for kept in self.kept), default=0.0)

    @property
    def heeded(self) -> bool:
        """Whether the signal changed anything: from some moment on it took nothing new, or it ended."""
        return self.stopped_s is not None or self.exit_code is not None

    @property
    def lost_signal(self) -> str:
        """What to add to a complaint, in words; empty if there is nothing."""
        if not self.heeds_second:
            return ""
        return ", but heeds a second one" + (": the first was lost" if self.stopped_s is None else "")

    @property
    def usual(self) -> Stay | None:
        """How long agents of this worker stay, where they leave by themselves and a call was watched until then."""
        return next((kept.continuity.usual for kept in self.kept), None)

    @property
    def drained(self) -> bool:
        """Whether every call lived until its caller hung up."""
        return bool(self.kept) and self.cut is None and self.ended_early_s is None
