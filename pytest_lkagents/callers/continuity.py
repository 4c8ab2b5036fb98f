"""Whether a call goes on as before, judged from what the user receives: who is there, packets, and sound.

The media library fills the silence of an agent that vanished with frames of its own, so frames prove nothing: only
packets that arrived and sound that is loud enough do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pytest_lkagents.callers.habit import GRACE_SECONDS, Habit, Stay
from pytest_lkagents.callers.reception import NO_PACKETS_SECONDS, SILENCE_SECONDS, STEADY_PAUSE, Missing

if TYPE_CHECKING:
    from pytest_lkagents.callers.caller import Call

# A machine that stalls for seconds goes on afterwards, a cut call stays silent for good.
FOR_GOOD_SECONDS = 8.0
# Of a voice that went on packets of up to 2.7 s were missing around the times in which the caller stood still, on two cores
# that were full (docs/detection.md); of one that pauses for 4 s nearly all that were due are.
MISSED_SECONDS = 3.3
AGENT_LEFT = "the agent left the call"


def may_have_missed(seconds: float) -> str:
    return f"the caller stood still, and may have missed a pause of {seconds:.1f} s"


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
        still and found too few packets afterwards; 0.0 s where no more are missing than of one that talks on."""
        found = self.call.received.missing(self.began) if self.steady else Missing(0.0, self.began)
        return found if found.seconds > MISSED_SECONDS else Missing(0.0, self.began)

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
