"""Who is who in a caller's room, and who ended its call."""

from __future__ import annotations

from livekit import rtc

# An avatar's process enters the room for the agent, as a second participant of kind agent, and publishes what it says.
ON_BEHALF = "lk.publish_on_behalf"
# An agent hangs up by deleting the room, or by removing the caller from it.
HANGS_UP = (rtc.DisconnectReason.ROOM_DELETED, rtc.DisconnectReason.PARTICIPANT_REMOVED)


def of_agent(participant: rtc.RemoteParticipant) -> bool:
    """Whether what this one publishes comes from an agent: its own participant, or one that speaks for it."""
    return participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT


def is_agent(participant: rtc.RemoteParticipant) -> bool:
    """Whether this is a job's own participant; an avatar is no second agent."""
    return of_agent(participant) and ON_BEHALF not in participant.attributes


def hung_up(reason: int) -> bool:
    """Whether a caller that is out of its room was put out by its agent."""
    return reason in HANGS_UP
