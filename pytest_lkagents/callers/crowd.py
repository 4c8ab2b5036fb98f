"""The crowd: many simulated users, each in a room of its own with looping speech, in a process of their own.

They are cheap, because they share the machine with the worker that they load: see crowd_process.py for how, and
``benchmarks/callers.py`` for what one costs. They do not listen; whoever judges what is heard uses a Caller.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_lkagents.callers import child
from pytest_lkagents.callers.place import HERE, Place
from pytest_lkagents.callers.request import ANY_AGENT, CallRequest, token
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.server.base import Server

START_SECONDS = 20
# Speech that comes later than this in a second is a gap that the agent hears; WebRTC's own buffers hide less.
BEHIND_SECONDS = 0.5
# Of a core: one process can use no more than one for its Python part.
MOST_CORES = 0.85


@dataclass
class User:
    """One simulated user. Times are monotonic seconds; None: it did not happen. ``why`` says why it could not join, or
    not speak."""

    room: str
    joined: float | None = None
    agent: float | None = None
    agent_left: float | None = None
    lost: float | None = None
    why: str | None = None

    @property
    def served(self) -> bool:
        """Whether its agent is with it now."""
        return self.agent is not None and self.agent_left is None and self.lost is None


@dataclass(frozen=True)
class Beat:
    """A second of the crowd's life: its CPU seconds since its start, and by how many seconds its speech was late."""

    at: float
    cpu: float
    behind: float


@dataclass
class _State:
    users: dict[str, User] = field(default_factory=dict)
    beats: list[Beat] = field(default_factory=list)


class Crowd:
    """Users of one server. Close it; it also ends with this process."""

    def __init__(self, server: Server, request: CallRequest = ANY_AGENT, place: Place = HERE) -> None:
        self._server, self._request, self._place = server, request, place
        self._state = _State()
        self._process = child.start("crowd_process", place)
        self._reader = threading.Thread(target=self._read, name="lk-crowd", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def users(self) -> list[User]:
        return list(self._state.users.values())

    @property
    def beats(self) -> list[Beat]:
        return list(self._state.beats)

    def wait_ready(self) -> None:
        """Until it speaks. Raises StageError if it does not."""
        self._wait(lambda: bool(self._state.beats), START_SECONDS, "does not start")

    def join(self, room: str | None = None) -> User:
        """One more user, in a new room (or ``room``). Raises StageError if the server does not let it in."""
        user = User(room or f"lk-crowd-{len(self._state.users) + 1}-{uuid.uuid4().hex[:6]}")
        self._state.users[user.room] = user
        mine = token(self._server, user.room, self._request)
        self._ask(join=[{"room": user.room, "url": self._place.url(self._server), "token": mine}])
        self._wait(lambda: user.joined is not None or user.why is not None, START_SECONDS, "does not answer")
        if user.why is not None:
            self._state.users.pop(user.room, None)
            raise StageError(f"a simulated user cannot join the LiveKit server: {user.why}")
        return user

    def leave(self, users: Sequence[User]) -> None:
        """Hang up, without waiting."""
        self._ask(leave=[user.room for user in users])
        for user in users:
            self._state.users.pop(user.room, None)

    def cores(self, since: float) -> float:
        """Cores that it used since then (monotonic seconds), on average."""
        seen = [beat for beat in self.beats if beat.at >= since]
        return (seen[-1].cpu - seen[0].cpu) / (seen[-1].at - seen[0].at) if len(seen) > 1 else 0.0

    def starved(self, since: float) -> str | None:
        """Why what it did since then was no proper load, in a few words, or None."""
        mute = next((user.why for user in self.users if user.why is not None), None)
        if mute is not None:
            return f"a simulated user cannot speak: {mute}"
        beats = [beat for beat in self.beats if beat.at >= since]
        late = max((beat.behind for beat in beats), default=0.0)
        if late > BEHIND_SECONDS:
            return f"the simulated users' speech was {late:.1f} s late"
        cores = self.cores(since)
        if cores > MOST_CORES:
            return f"the simulated users used {cores:.2f} cores, all that one process can"
        return None

    def close(self) -> None:
        """End it, and all its calls."""
        child.end(self._process)
        self._reader.join(child.END_SECONDS)

    def _ask(self, **request: Any) -> None:
        try:
            child.ask(self._process, **request)
        except (OSError, ValueError) as error:
            raise StageError(f"the simulated users' process {self._process.ended}") from error

    def _wait(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        try:
            poll(lambda: done() or self._process.poll() is not None, what="simulated user", seconds=seconds, every=0.05)
        except DeadlineMissed as missed:
            raise StageError(f"the simulated users' process {what} within {seconds:g} s") from missed
        if not done():
            raise StageError(f"the simulated users' process {self._process.ended}")

    def _read(self) -> None:
        for event in self._process.events():
            with contextlib.suppress(ValueError, KeyError):
                self._note(event)

    def _note(self, event: dict[str, Any]) -> None:
        if "cpu" in event:
            self._state.beats.append(Beat(event["at"], event["cpu"], event["behind"]))
            return
        user = self._state.users.get(event["room"])
        if user is None:
            return
        at: float = event["at"]
        match event["event"]:
            case "joined":
                user.joined = at
            case "agent":
                user.agent, user.agent_left = user.agent or at, None
            case "agent-left":
                user.agent_left = at
            case "lost":
                user.lost = at
            case "failed":
                user.why = str(event.get("why"))
