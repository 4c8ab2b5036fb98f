"""How the agents of a worker behave by themselves: for how long they talk, send packets and stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_lkagents.callers.reception import SILENCE_SECONDS
from pytest_lkagents.checks import NotJudgeable

if TYPE_CHECKING:
    from pytest_lkagents.callers.caller import Call

# An agent that was heard at least this long without a pause (SILENCE_SECONDS) may be one that talks on and on.
STEADY_SECONDS = 3.0
# It certainly is one if it talks this many times as long as it took to the silence of another call.
CONTROL = 2
# One that stays this many times as long as the agent of another call, and these seconds more, does not leave by itself.
STAY_CONTROL, STAY_SECONDS = 1.5, 3.0
# So many stays of agents that leave by themselves say how long that is, if they differ by no more than a share of it.
STAYS, STAY_MARGIN, STAY_SPREAD = 2, 1.0, 0.25
# Two say little of how much stays differ: for each agent that left early so many more are watched before another one counts.
MORE_STAYS = 2
# A worker that does not drain may give its calls 5 s (Node's SDK does): an agent must have longer to go than that.
GRACE_SECONDS = 5.5
LEAST_STAY = GRACE_SECONDS + STAY_MARGIN + 0.5


@dataclass(frozen=True)
class Stay:
    """How long agents stay that leave by themselves, in seconds: at least ``least``, give or take ``margin``."""

    least: float
    margin: float

    @classmethod
    def of(cls, stays: Collection[float]) -> Stay:
        return cls(min(stays), STAY_MARGIN + max(stays) - min(stays))

    def over(self, stayed: float) -> bool:
        """Whether one that left after so long did so by itself."""
        return stayed >= self.least - self.margin


class AgentsLeave(NotJudgeable):
    """Agents leave their calls although nothing disturbs them."""


@dataclass
class Habit:
    """How a worker's agents behave. ``silent_after``: seconds of talk after which one fell silent in a call that was watched;
    ``quiet_after``: seconds after its first packet after which one sent no more (one that is muted, say); ``left_after``:
    seconds after which one left; None: none did so far; ``stays``: seconds after which agents left in calls that nothing
    disturbed, by room; ``cut_short``: the same of those that seemed to leave clearly earlier; ``pausing``: rooms whose agent
    fell silent for a while before anything disturbed it, and will do so again; ``unheard``: how many said nothing where another
    one's agent had talked, by where that was.

    One call cannot tell whether that is a fault: an agent that greets and then listens falls silent too, and one that
    announces something leaves. So the first time is only noted. In the next call the agent has to go on undisturbed for
    clearly longer; if it does not, its silence means nothing, and if it does, the disturbance was the reason.
    """

    silent_after: float | None = None
    quiet_after: float | None = None
    left_after: float | None = None
    stays: dict[str, float] = field(default_factory=dict)
    cut_short: list[float] = field(default_factory=list)
    pausing: set[str] = field(default_factory=set)
    unheard: Counter[str] = field(default_factory=Counter)
    # How many crowds had one call to which no agent came, although it was accepted.
    unserved: int = 0
    # Asked in long waits: raises once the run is being ended.
    raise_if_closing: Callable[[], None] = lambda: None

    @property
    def talk_seconds(self) -> float:
        """How long an agent has to talk on before its silence means something."""
        return STEADY_SECONDS + CONTROL * (self.silent_after or 0.0)

    @property
    def send_seconds(self) -> float:
        """How long an agent has to send packets before their absence means something."""
        return 0.0 if self.quiet_after is None else STEADY_SECONDS + CONTROL * self.quiet_after

    @property
    def stay_seconds(self) -> float:
        """How long an agent has to stay before its leave means something; 0.0 while none left."""
        return 0.0 if self.left_after is None else STAY_SECONDS + STAY_CONTROL * self.left_after

    @property
    def enough_stays(self) -> int:
        """How many have to be known to say how long agents stay."""
        return STAYS + MORE_STAYS * len(self.cut_short)

    @property
    def leaves_early(self) -> bool:
        """Whether agents left too early too often for chance, by all that is known of their stays by now."""
        usual = Stay.of(list(self.stays.values()))
        return len(self.stays) >= STAYS + MORE_STAYS and sum(not usual.over(stayed) for stayed in self.cut_short) >= STAYS

    def note_silence(self, talked: float) -> None:
        self.silent_after = max(self.silent_after or 0.0, talked)

    def note_pauses(self, calls: Sequence[Call]) -> None:
        """Of calls that nothing disturbed. How long such an agent talks on after a pause says nothing of its next one: a
        greeting is short, what follows is not."""
        self.pausing.update(call.room_name for call in calls if call.heard.first_pause(SILENCE_SECONDS) is not None)

    def note_quiet(self, sent: float) -> None:
        self.quiet_after = max(self.quiet_after or 0.0, sent)

    def note_leave(self, stayed: float) -> None:
        self.left_after = max(self.left_after or 0.0, stayed)

    def note_own_leaves(self, calls: Sequence[Call]) -> None:
        """Of calls that nothing disturbed: how long the agents stayed that have left."""
        self.stays.update({call.room_name: stayed for call in calls if (stayed := call.stayed) is not None})
