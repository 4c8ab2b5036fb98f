"""What a listener received of an agent, and the bounds of what is good enough."""

from __future__ import annotations

from dataclasses import dataclass

# An agent that talked on without a pause of a second before: twice that is a hole.
HOLE_SECONDS = 2.0
# Half of the callers of a hotline hang up within half a minute; 10 s is also what SDKs give a job's process to start.
AGENT_BOUND, SOUND_BOUND = 10.0, 15.0
# name in Quality, bound, words.
BOUNDS = (
    ("agent_s", AGENT_BOUND, "the agent came {value:.1f} s after its caller"),
    ("sound_s", SOUND_BOUND, "the agent was heard {value:.1f} s after its caller joined"),
    ("longest_silence_s", HOLE_SECONDS, "a hole of {value:.1f} s in what the agent said"),
    # Opus hides single lost packets; from 5 % on listeners rate speech as impaired.
    ("concealed_share", 0.05, "{value:.0%} of the sound had to be invented"),
    # The usual limit for voice (Cisco's and others' planning guides): 30 ms.
    ("jitter_s", 0.03, "packets came with a jitter of {value:.3f} s"),
)


@dataclass(frozen=True)
class Quality:
    """What the listener received. Seconds; None: it cannot be told, because the agent does not talk on by itself.
    ``newest_sound_s`` is the same for the last call, if that is listened to; ``newest_is_mute``: it was not heard, and the
    first one was."""

    agent_s: float
    sound_s: float | None
    longest_silence_s: float | None
    concealed_share: float | None
    jitter_s: float | None
    newest_sound_s: float | None = None
    newest_is_mute: bool = False


def bounds_broken(quality: Quality) -> list[str]:
    """What of the quality is beyond its bound, in words."""
    wrong = []
    for name, bound, words in BOUNDS:
        value = getattr(quality, name)
        if value is not None and value > bound:
            wrong.append(words.format(value=value, bound=bound))
    if quality.newest_is_mute:
        wrong.append("nothing is heard of the last call's agent, as the first one's is")
    return wrong
