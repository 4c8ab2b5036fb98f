"""Whether a call goes on as before, judged from what the user receives: who is there, packets, and sound.

The media library fills the silence of an agent that vanished with frames of its own, so frames prove nothing: only
packets that arrived and sound that is loud enough do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, poll

if TYPE_CHECKING:
    from pytest_lkagents.callers.caller import Call

SAMPLE_SECONDS = 0.25
# Opus sends a packet every 20 ms, and in silence (DTX) every 400 ms; a publisher that is there sends something.
NO_PACKETS_SECONDS = 1.5
# Speech pauses and a busy machine stay below this.
SILENCE_SECONDS = 2.5
# A machine that stalls for seconds goes on afterwards, a cut call stays silent for good.
FOR_GOOD_SECONDS = 8.0
# An agent that was heard at least this long without such a pause is one that talks on and on.
STEADY_SECONDS = 3.0
STEADY_PAUSE = 1.0
# An agent that talks at all says something within this time.
TALK_SECONDS = 5.0
FRESH_SECONDS = 3.0
AGENT_LEFT = "the agent left the call"


@dataclass(frozen=True)
class Sample:
    """One look at the WebRTC statistics: monotonic seconds, sums since the call began; ``late`` is how many seconds
    this look came too late, because the machine did not let the caller work; ``jitter`` in seconds, as RFC 3550 smooths it."""

    at: float
    packets: int
    samples: int
    concealed: int
    late: float
    jitter: float = 0.0


@dataclass
class Received:
    """What arrived of one agent's voice."""

    samples: list[Sample] = field(default_factory=list)
    last_packet: float | None = None

    def add(self, sample: Sample) -> None:
        before = self.samples[-1].packets if self.samples else 0
        if sample.packets > before:
            self.last_packet = sample.at
        self.samples.append(sample)

    def since(self, at: float) -> list[Sample]:
        return [sample for sample in self.samples if sample.at >= at]

    def jitter(self, since: float = 0.0) -> float | None:
        """The mean since then in seconds; None when nothing was received."""
        found = [sample.jitter for sample in self.since(since) if sample.packets]
        return sum(found) / len(found) if found else None

    def concealed_share(self, since: float = 0.0) -> float | None:
        """Share of the sound since then that the media library had to invent, 0 to 1; None when nothing was received."""
        found = self.since(since)
        total = found[-1].samples - found[0].samples if len(found) > 1 else 0
        return (found[-1].concealed - found[0].concealed) / total if total > 0 else None


def wait_heard(calls: Sequence[Call], *, steady: bool = True) -> None:
    """Until every agent has been heard, and with ``steady`` for a while, so that it is known to talk on, or to make pauses;
    no longer than it takes those that talk at all."""
    with contextlib.suppress(DeadlineMissed):
        poll(lambda: all(call.heard.first is not None for call in calls), what="voices", seconds=TALK_SECONDS)
    heard = [call.heard.first for call in calls if call.heard.first is not None]
    if heard and steady:
        time.sleep(max(max(heard) + STEADY_SECONDS - time.monotonic(), 0.0))
    # On a busy machine the last look at the packets may be old, and what is not seen now cannot be missed later.
    fresh = [call for call in calls if call.received.last_packet is not None]
    with contextlib.suppress(DeadlineMissed):
        poll(lambda: all(call.packet_gap < NO_PACKETS_SECONDS for call in fresh), what="fresh packets", seconds=FRESH_SECONDS)


class Continuity:
    """Made before a disturbance; afterwards ``trouble`` says what the user notices of it.

    ``steady``: the agent talked on without pauses before, so that silence means something; an agent that listens
    may be silent for as long as it likes.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.began = time.monotonic()
        self.agents = call.agents_present
        heard = call.heard
        self.steady = (
            heard.first is not None
            and self.began - heard.first >= STEADY_SECONDS
            and call.silence < STEADY_PAUSE
            and heard.longest_gap < STEADY_PAUSE
        )
        self.sending = call.received.last_packet is not None and call.packet_gap < NO_PACKETS_SECONDS

    @property
    def lost_from_sight(self) -> bool:
        """Whether packets had come before and none was seen since, so that only presence is judged."""
        return not self.steady and not self.sending and self.call.received.last_packet is not None

    @property
    def agents_are_there(self) -> bool:
        """Whether the agents that the call had are in it, as the server sees it."""
        return set(self.agents) <= set(self.call.agents_present)

    def trouble(self) -> str | None:
        """What is wrong at this moment, in a few words, or None. A vanished agent is noticed within 2 s.

        Raises StageError when the caller itself lost its server.
        """
        call = self.call
        if call.disconnected is not None:
            raise StageError("the caller lost its server")
        if any(at >= self.began for at in call.interruptions):
            raise StageError("the caller's own connection to the server was interrupted: this machine may be too busy to judge")
        if not self.agents_are_there:
            return AGENT_LEFT
        # Not seen in time before, on a busy machine; what is seen now can be missed from now on.
        self.sending = self.sending or call.packet_gap < NO_PACKETS_SECONDS
        if self.sending and call.packet_gap > NO_PACKETS_SECONDS:
            return f"no packet came from the agent for {call.packet_gap:.1f} s"
        if self.steady and call.silence > SILENCE_SECONDS:
            return f"the agent fell silent for {call.silence:.1f} s"
        return None

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
        return self.call.packet_gap if self.sending else 0.0

    @property
    def stalled(self) -> float:
        """Seconds by which this machine held up the caller itself since the beginning, at most."""
        return max((sample.late for sample in self.call.received.since(self.began)), default=0.0)

    def evidence(self) -> dict[str, object]:
        """What was measured since the beginning, for the verdict."""
        share = self.call.received.concealed_share(self.began)
        return {
            "longest_silence_s": round(self.call.heard.longest_since(self.began), 2) if self.steady else None,
            "concealed_share": None if share is None else round(share, 4),
            "agents": len(self.agents),
        }
