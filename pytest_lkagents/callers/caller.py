"""A caller: a real WebRTC participant that speaks and listens."""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from pytest_lkagents.callers.media import Media
from pytest_lkagents.callers.reception import SAMPLE_SECONDS, Heard, Received, Sample
from pytest_lkagents.callers.request import ANY_AGENT, CallRequest, token
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, Ledger, poll
from pytest_lkagents.server.base import Server


@dataclass
class Call:
    """One caller in one room, from ``Caller.join`` to ``leave``."""

    room_name: str
    _media: Media
    _ledger: Ledger
    joined: float
    agents: dict[str, float] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)
    # Identities of others who came, and are no agents to LiveKit.
    others: set[str] = field(default_factory=set)
    heard: Heard = field(default_factory=Heard)
    received: Received = field(default_factory=Received)
    # Whether anything was written to the caller: chat, a transcript, data.
    written: bool = False
    disconnected: float | None = None
    # When the caller's own connection to the server broke, whether it came back or not.
    interruptions: list[float] = field(default_factory=list)
    # Whether the server was told that the caller hung up; else it believes for a while that the caller is there.
    hung_up: bool = False
    # For ``media``: which call it is, how far it is, and why it did not come about.
    number: int = 0
    connected: bool = False
    failed: str | None = None
    over: bool = False
    _leaving: bool = False

    def __post_init__(self) -> None:
        self.heard.stalls = self.received.stalls

    @property
    def agents_present(self) -> list[str]:
        """Identities of the agents that are in the room now."""
        return sorted(set(self.agents) - set(self.left))

    @property
    def agent_after(self) -> float:
        """Seconds from the caller's join to the first agent's. Raises ValueError before one came."""
        return min(self.agents.values()) - self.joined

    @property
    def sound_after(self) -> float | None:
        """Seconds from the caller's join to the first audible sound; None before it was heard."""
        return self.heard.first - self.joined if self.heard.first is not None else None

    @property
    def stayed(self) -> float | None:
        """Seconds for which it had an agent, if it has none any more."""
        if not self.agents or self.agents_present:
            return None
        return max(self.left.values()) - min(self.agents.values())

    def wait_for_agent(self, seconds: float) -> float | None:
        """Seconds from the caller's join to the agent's, or None if none comes within ``seconds``. Raises StageError if the
        caller was cut off itself."""
        with self._ledger.waiting(self.room_name), contextlib.suppress(DeadlineMissed):
            poll(lambda: bool(self.agents), what="agent", seconds=seconds, every=0.05)
        if not self.agents:
            self.raise_if_cut_off()
        return self.agent_after if self.agents else None

    def wait_until_agent_talks(self, seconds: float = 10) -> float | None:
        """Seconds from the caller's join to the first audible sound, or None if it stays silent for ``seconds``. Raises
        StageError if the caller was cut off itself."""
        with self._ledger.waiting(self.room_name), contextlib.suppress(DeadlineMissed):
            poll(lambda: self.heard.first is not None, what="sound", seconds=seconds, every=0.05)
        if self.heard.first is None:
            self.raise_if_cut_off()
        return self.sound_after

    def raise_if_cut_off(self, since: float = 0.0) -> None:
        """Raises StageError if the caller's own connection to the server broke (since then, monotonic seconds), so that it may
        have missed anything."""
        if self.disconnected is not None:
            raise StageError("the caller lost its server")
        if any(at >= since for at in self.interruptions):
            raise StageError(
                "the caller's own connection to the server was interrupted: this machine may be too busy to judge, or its "
                "networks changed"
            )

    @property
    def silence(self) -> float:
        """Seconds since the agent was last heard, without what the caller could not hear; infinite before the first sound."""
        return self.heard.silence

    @property
    def packet_gap(self) -> float:
        """Seconds since the last packet of an agent's voice was seen, without what the caller could not see; infinite before
        the first."""
        return self.received.gap

    @property
    def longest_silence(self) -> float:
        """The longest pause in what the agent says, the current one included, in seconds, without what the caller could not
        hear."""
        return self.heard.longest_since(self.heard.first) if self.heard.first is not None else float("inf")

    def leave(self) -> None:
        """Hang up; twice is no error."""
        if not self._leaving:
            self._leaving = True
            self._media.leave(self)

    def note(self, event: dict[str, Any]) -> None:
        """What its process said: see media_process.py."""
        at: float = event["at"]
        match event["event"]:
            case "heard":
                self.heard.add(event["loudness"], at)
            case "looked":
                stalls, track = self.received.stalls, event["track"]
                stalls.looked(track, at)
                for look in event["stats"]:
                    self.received.add(Sample(at, *look), track)
                stalls.due[track] = at + SAMPLE_SECONDS
            case "unwatched":
                self.received.stalls.due.pop(event["track"], None)
            case "joining":
                self.joined = at
            case "joined":
                self.connected = True
            case "failed":
                self.failed = event["why"]
            case "entered":
                self.agents.setdefault(event["identity"], at)
                self.left.pop(event["identity"], None)
            case "met":
                self.others.add(event["identity"])
            case "left":
                if event["identity"] in self.agents:
                    self.left[event["identity"]] = at
            case "wrote":
                self.written = True
            case "interrupted":
                self.interruptions.append(at)
            case "hung-up":
                # Who was in the room has left it, too.
                self.left.update(dict.fromkeys(self.agents_present, at))
            case "lost":
                self.disconnected = at
            case "over":
                self.hung_up, self.over = event["told"], True

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class Caller:
    """Places calls to one server; ``request`` is what each of them asks for."""

    _numbers = itertools.count(1)

    def __init__(self, server: Server, media: Media, ledger: Ledger, request: CallRequest = ANY_AGENT) -> None:
        self.server = server
        self.request = request
        self._media = media
        self._ledger = ledger
        self._calls: list[Call] = []

    def join(self, room: str | None = None) -> Call:
        """Enter a new room (or ``room``) and speak. Raises StageError if the server does not let the caller in."""
        name = room or f"lk-call-{next(self._numbers)}-{uuid.uuid4().hex[:6]}"
        call = Call(name, self._media, self._ledger, time.monotonic())
        self._media.join(call, self._media.place.url(self.server), token(self.server, name, self.request))
        self._calls.append(call)
        return call

    @property
    def rooms(self) -> set[str]:
        """Of its calls, those that are over included."""
        return {call.room_name for call in self._calls}

    def close(self) -> None:
        """Hang up every call."""
        for call in self._calls:
            call.leave()
        self._calls.clear()
