"""Whether a call goes on as before, judged from what the user receives: who is there, packets, and sound.

The media library fills the silence of an agent that vanished with frames of its own, so frames prove nothing: only
packets that arrived and sound that is loud enough do.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_lkagents.callers.reception import STEADY_PAUSE, Missing
from pytest_lkagents.checks import NotJudgeable
from pytest_lkagents.clock import DeadlineMissed, poll

if TYPE_CHECKING:
    from pytest_lkagents.callers.caller import Call

# Opus sends a packet every 20 ms, and in silence (DTX) every 400 ms; a publisher that is there sends something.
NO_PACKETS_SECONDS = 1.5
# Speech pauses and a busy machine stay below this.
SILENCE_SECONDS = 2.5
# A machine that stalls for seconds goes on afterwards, a cut call stays silent for good.
FOR_GOOD_SECONDS = 8.0
# An agent that was heard at least this long without such a pause may be one that talks on and on.
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
# For a voice that paused at first, as this machine was busy.
PATIENCE_SECONDS = 2.0
WAIT_SECONDS = 0.1
# An agent that talks at all says something within this time.
TALK_SECONDS = 5.0
FRESH_SECONDS = 3.0
AGENT_LEFT = "the agent left the call"


def may_have_missed(seconds: float) -> str:
    return f"the caller stood still, and may have missed a pause of {seconds:.1f} s"


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


def wait_heard(calls: Sequence[Call], habit: Habit, *, steady: bool = True) -> None:
    """Until every agent has been heard, and with ``steady`` for so long that its silence would mean something; no longer than
    it takes those that talk at all. Its leave means something in any case. Raises AgentsLeave if one leaves meanwhile."""
    with contextlib.suppress(DeadlineMissed):
        poll(lambda: all(call.heard.first is not None for call in calls), what="voices", seconds=TALK_SECONDS)
    # What is heard came in packets; how many is read now and then.
    heard = [call for call in calls if call.heard.first is not None]
    with contextlib.suppress(DeadlineMissed):
        poll(lambda: all(call.received.last_packet is not None for call in heard), what="packets", seconds=FRESH_SECONDS)
    if steady:
        _wait_steady(calls, habit)
    _wait_stayed(calls, habit)
    # On a busy machine the last look at the packets may be old, and what is not seen now cannot be missed later.
    fresh = [call for call in calls if call.received.last_packet is not None]
    with contextlib.suppress(DeadlineMissed):
        poll(lambda: all(call.packet_gap < NO_PACKETS_SECONDS for call in fresh), what="fresh packets", seconds=FRESH_SECONDS)
    habit.note_pauses(calls)
    if (gone := _first_leave(calls)) is not None:
        habit.note_own_leaves(calls)
        raise AgentsLeave(f"its agents leave their calls by themselves, this one after {gone:.1f} s")


def usual_stay(calls: Sequence[Call], more: Callable[[], Call], habit: Habit) -> Stay:
    """How long agents stay that leave by themselves: of these calls, and of further ones until there are enough. Raises
    AgentsLeave if that differs too much, or is too short, for a leave to mean anything."""
    placed = list(calls)
    while True:
        longest = max([LEAST_STAY, *habit.stays.values()])
        _wait_left(placed, STAY_CONTROL * longest + STAY_SECONDS, habit)
        habit.note_own_leaves(placed)
        if any(call.stayed is None for call in placed):
            raise AgentsLeave("some of its agents leave their calls by themselves and some do not")
        if len(habit.stays) >= habit.enough_stays:
            break
        placed = [more()]
    stay = Stay.of(habit.stays.values())
    if stay.margin > STAY_SPREAD * stay.least or stay.least < LEAST_STAY:
        least, most = stay.least, max(habit.stays.values())
        raise AgentsLeave(f"its agents leave their calls by themselves, after {least:.1f} to {most:.1f} s")
    return stay


def _wait_steady(calls: Sequence[Call], habit: Habit) -> None:
    """Until all voices and packets have come for long enough without a pause, or have paused: that is a habit, as nothing
    disturbs them yet."""
    heard = [call.heard for call in calls if call.heard.first is not None]
    sending = [call.received for call in calls if call.received.first_packet is not None]

    def packets() -> float:
        if habit.quiet_after is None:
            return 0.0
        began = [received.first_packet or 0.0 for received in sending if not received.paused(NO_PACKETS_SECONDS)]
        return max(began, default=0.0) + habit.send_seconds

    def told() -> bool:
        voices = all(voice.talking >= habit.talk_seconds or voice.first_pause(SILENCE_SECONDS) is not None for voice in heard)
        return voices and time.monotonic() >= packets()

    def last() -> float:
        return max([packets(), *((voice.first or 0.0) + habit.talk_seconds for voice in heard)])

    _wait(told, last, habit)
    for voice in heard:
        paused = voice.first_pause(SILENCE_SECONDS)
        if paused is not None and voice.first is not None:
            habit.note_silence(paused - voice.first)


def _wait_stayed(calls: Sequence[Call], habit: Habit) -> None:
    # Another one may come at this moment.
    came = max((at for call in calls for at in list(call.agents.values())), default=0.0)

    def last() -> float:
        return came + habit.stay_seconds

    _wait(lambda: time.monotonic() >= last() or _first_leave(calls) is not None, last, habit)


def _wait(done: Callable[[], bool], last: Callable[[], float], habit: Habit) -> None:
    """Until it is ``done``, or some seconds after it was to be (monotonic seconds), which other calls may put off meanwhile:
    their agents show how long this one has to go on."""
    while not done() and time.monotonic() < last() + PATIENCE_SECONDS:
        habit.raise_if_closing()
        time.sleep(WAIT_SECONDS)


def _wait_left(calls: Sequence[Call], seconds: float, habit: Habit) -> None:
    def left() -> bool:
        habit.raise_if_closing()
        return all(call.stayed is not None for call in calls)

    with contextlib.suppress(DeadlineMissed):
        poll(left, what="leaves", seconds=seconds)


def _first_leave(calls: Sequence[Call]) -> float | None:
    """Seconds after which the agent of one of these calls left it, with nobody in its place; None: all are served."""
    return min((stayed for call in calls if (stayed := call.stayed) is not None), default=None)


class Continuity:
    """Made before a disturbance; afterwards ``trouble`` says what the user notices of it. ``usual``: how long the agent stays
    if nothing disturbs it, where agents leave by themselves.

    ``steady``: the agent talked on before, and made no long pause in this call, so that silence may mean something, and with
    ``controlled`` does; an agent that listens may be silent for as long as it likes.
    """

    def __init__(self, call: Call, habit: Habit, usual: Stay | None = None) -> None:
        self.call = call
        self.usual = usual
        self.began = time.monotonic()
        self.agents = call.agents_present
        self.talked = call.heard.talking
        pauses = call.room_name in habit.pausing
        self.steady = self.talked >= habit.talk_seconds and not pauses
        # Whether this call is beyond the point at which another one's agent fell silent, sent no more packets, or left.
        came = call.received.first_packet
        talks_on = not pauses and habit.silent_after is not None and self.talked >= habit.silent_after + STEADY_PAUSE
        sends_on = habit.quiet_after is not None and came is not None and self.began - came >= habit.send_seconds
        self.controlled = talks_on or (sends_on and not self.steady)
        stayed = self.began - max((call.agents[identity] for identity in self.agents), default=self.began)
        self.stays = habit.left_after is not None and stayed >= habit.stay_seconds
        self._habit = habit
        # Undisturbed, and yet without packets for a while: it sends none in its pauses, so that their absence says nothing.
        self.rests = call.received.paused(NO_PACKETS_SECONDS)
        self.sending = came is not None and not self.rests and call.packet_gap < NO_PACKETS_SECONDS
        self._sends_since = self.began

    @property
    def lost_from_sight(self) -> bool:
        """Whether packets had come before and none was seen since, so that only presence is judged."""
        return not self.steady and not self.sending and not self.rests and self.call.received.last_packet is not None

    @property
    def agents_are_there(self) -> bool:
        """Whether the agents that the call had are in it, as the server sees it."""
        return set(self.agents) <= set(self.call.agents_present)

    def trouble(self) -> str | None:
        """What is wrong at this moment, in a few words, or None. A vanished agent is noticed within 2 s.

        Raises StageError when the caller itself lost its server.
        """
        call = self.call
        call.raise_if_cut_off(self.began)
        if not self.agents_are_there:
            return AGENT_LEFT
        # Not seen in time before, on a busy machine; what is seen now can be missed from now on.
        if not self.sending and not self.rests and call.packet_gap < NO_PACKETS_SECONDS:
            self.sending, self._sends_since = True, time.monotonic()
        if self._without_packets:
            return f"no packet came from the agent for {call.packet_gap:.1f} s"
        if self.steady and call.silence > SILENCE_SECONDS:
            return f"the agent fell silent for {call.silence:.1f} s"
        return None

    @property
    def _without_packets(self) -> bool:
        return self.sending and self.call.packet_gap > NO_PACKETS_SECONDS

    def note_silence(self) -> None:
        """Keep in mind how long the agent had talked, or sent packets, when it fell silent after the beginning, unless it had
        gone on for so long that this is a fault and no habit."""
        if self.controlled:
            return
        silent, received = self.paused_after, self.call.received
        if silent is not None:
            self._habit.note_silence(self.talked + silent)
        elif received.last_packet is not None and received.first_packet is not None:
            self._habit.note_quiet(received.last_packet - received.first_packet)

    def note_missed(self, since: float) -> None:
        """The same of a silence after ``since`` (monotonic seconds) that the caller may have missed."""
        if not self.controlled:
            self._habit.note_silence(self.talked + since - self.began)

    @property
    def stayed(self) -> float:
        """Seconds for which an agent that left had been there."""
        call = self.call
        return max((call.left[gone] - call.agents[gone] for gone in self.agents if gone in call.left), default=0.0)

    @property
    def too_late(self) -> bool:
        """Whether its agent may leave by itself so soon that it cannot be told from one that is cut off."""
        if self.usual is None:
            return False
        stayed = time.monotonic() - min((self.call.agents[identity] for identity in self.agents), default=0.0)
        return self.usual.least - self.usual.margin - stayed < GRACE_SECONDS

    @property
    def left_as_usual(self) -> bool:
        """Whether an agent that left did what it does without a disturbance."""
        return self.usual is not None and self.usual.over(self.stayed)

    def note_leave(self, stayed: float | None = None) -> None:
        """Keep in mind how long the agents that left (or others of this worker, in seconds) had stayed, unless this one stayed
        for so long that it is a fault and no habit."""
        if self.usual is not None:
            self._habit.cut_short.append(self.stayed if stayed is None else stayed)
        elif not self.stays:
            self._habit.note_leave(self.stayed if stayed is None else stayed)

    @property
    def unproven_silence(self) -> str | None:
        """Why a silence of an agent that is there proves nothing yet, in words; None where it does."""
        if self.controlled:
            return None
        if self.steady:
            return f"its agent was silent after {self._habit.silent_after or 0.0:.0f} s of talk, which may be its habit"
        return f"its agent sent no packets after {self._habit.quiet_after or 0.0:.0f} s, which may be its habit"

    @property
    def unproven_leave(self) -> str | None:
        """Why it proves nothing yet that an agent left, in words; None where it does."""
        if self.usual is not None:
            # Agents that happen to stay for the same time say little of the next one.
            once = f"its agent left after {self.stayed:.1f} s, others after {self.usual.least:.1f} s, which may be chance"
            return None if self._habit.leaves_early else once
        if self.stays:
            return None
        return f"its agent left after {self._habit.left_after or 0.0:.0f} s, which may be its habit"

    @property
    def pause(self) -> float:
        """Seconds since something was heard of it (of a steady agent), or since its last packet; 0.0 if it cannot be told."""
        if self.steady:
            return self.call.silence
        return self.call.packet_gap if self.sending else 0.0

    def gap(self) -> float:
        """The longest silence (of a steady agent) or pause between packets since the beginning, in seconds; 0.0 if it
        cannot be told."""
        if self.steady:
            return self.call.heard.longest_since(self.began)
        return self.call.received.longest_gap(self._sends_since) if self.sending else 0.0

    @property
    def paused_after(self) -> float | None:
        """Seconds from the beginning to the first silence of a steady agent; None: there was none, or it cannot be told."""
        silent = self.call.heard.first_pause(SILENCE_SECONDS, self.began) if self.steady else None
        return None if silent is None else silent - self.began

    def missed(self) -> Missing:
        """How long a steady agent may have been silent since the beginning without the caller's notice, as the caller stood
        still and found too few packets afterwards."""
        return self.call.received.missing(self.began) if self.steady else Missing(0.0, self.began)

    @property
    def stalled(self) -> float:
        """Seconds by which this machine held up the caller itself since the beginning, at most."""
        return max(
            (end - begin for begin, end in self.call.received.stalls.until(time.monotonic()) if end > self.began), default=0.0
        )

    def evidence(self) -> dict[str, object]:
        """What was measured since the beginning, for the verdict."""
        share = self.call.received.concealed_share(self.began)
        return {
            "talked_before_s": round(self.talked, 1),
            "longest_silence_s": round(self.call.heard.longest_since(self.began), 2) if self.steady else None,
            "concealed_share": None if share is None else round(share, 4),
            "agents": len(self.agents),
        }
