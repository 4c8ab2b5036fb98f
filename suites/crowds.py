"""The guide's load test, scaled: a crowd of users on one worker, each in a room of its own; the first caller listens, and so
does the last."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pytest_lkagents.busyness import Reading, too_busy
from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.callers.continuity import Continuity, may_have_missed
from pytest_lkagents.callers.crowd import Crowd
from pytest_lkagents.calls import AGENT_SECONDS, REFUSAL_PAUSE
from pytest_lkagents.checks import StageError, TooBusy, Unproven, WorkerFailed, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.settings import SESSIONS
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .pool import settle, still
from .quality import AGENT_BOUND, HOLE_SECONDS, SOUND_BOUND, Quality
from .sampling import Level, Sampler, rest

Say = Callable[[str], None]

# After the last user came: the job's start is over, and a status report (every 2.5 s) knows of it.
SETTLE_SECONDS = 4.0
# For processes that start, or end, to be done with it: SDKs give an idle one 10 s to be ready, and replace it once.
QUIET_SECONDS = 30.0
# A worker that is over its threshold for a moment refuses rightly: so often is a user's call placed before that counts.
TRIES = 3


class Audience:
    """The users of one worker: a listener, a crowd and perhaps a listener who comes last. Close it."""

    def __init__(self, stage: Stage, worker: Worker, say: Say) -> None:
        self.stage, self.worker, self.say = stage, worker, say
        self.caller: Caller = stage.calls.caller(worker)
        self.crowd = Crowd(worker.server, self.caller.request, stage.media.place)
        self.listener: Call | None = None
        self.newest: Call | None = None
        # The listener's call before the others came.
        self._alone: Continuity | None = None
        self.refused = 0
        # Of those, the users whose job it took and to whom no agent came; and for how many of them this machine had no time.
        self.unserved = self.unsure = 0

    def close(self) -> None:
        self.crowd.close()
        self.caller.close()

    @property
    def served(self) -> int:
        """Calls with an agent now."""
        return sum(user.served for user in self.crowd.users) + sum(bool(call.agents_present) for call in self._listened_to)

    @property
    def _listened_to(self) -> list[Call]:
        return [call for call in (self.listener, self.newest) if call is not None]

    def open(self) -> None:
        """The listener's call, until it is heard. Raises WorkerFault if it is not served."""
        self.crowd.wait_ready()
        self.listener = self.stage.calls.served(self.caller)
        self.stage.calls.wait_heard([self.listener])
        self._alone = self.stage.calls.continuity(self.listener)

    def grow(self, sessions: int) -> bool:
        """One user after the other until there are ``sessions`` calls; False once the worker takes no more."""
        while self.served < sessions:
            self.stage.raise_if_closing()
            if self._alone is not None:
                # Where agents leave by themselves, calls would end as fast as others are placed.
                self._raise_if_lost(self._alone)
            if not any(self._one() for _ in range(TRIES)):
                return False
            self.say(f"{self.served} of {sessions} calls in progress")
        return True

    def complete(self) -> None:
        """The last call, which is listened to as well: a service may have voices for the first calls only. Raises WorkerFault
        if the worker ended."""
        try:
            self.newest = self.stage.calls.served(self.caller)
        except WorkerFailed:
            raise
        except WorkerFault:
            self.refused += 1

    def agents_after(self) -> list[float]:
        """Seconds from their joins until the other callers' agents came."""
        after = [user.agent - user.joined for user in self.crowd.users if user.agent and user.joined]
        if self.newest is not None:
            after.append(self.newest.agent_after)
        return [round(seconds, 2) for seconds in after]

    def raise_if_held_up(self, sampler: Sampler) -> None:
        """Raises TooBusy if somebody waited too long for an agent, or for its voice, and this machine may be why, apart from
        what the worker itself used of it."""
        waits = [(user.joined, user.agent, AGENT_BOUND) for user in self.crowd.users if user.agent and user.joined]
        for call in self._listened_to:
            waits.append((call.joined, call.joined + call.agent_after, AGENT_BOUND))
            if call.heard.first is not None:
                waits.append((call.joined, call.heard.first, SOUND_BOUND))
        for joined, came, bound in waits:
            if came - joined <= bound:
                continue
            if self.stage.history.held_up(joined, came, bound, sampler.cores_used(joined, came)):
                raise TooBusy("this machine is too busy to judge: it had no time while a user waited for an agent")

    def _one(self) -> bool:
        user = self.crowd.join()

        def settled() -> bool:
            self.stage.raise_if_closing()
            return user.agent is not None or self.stage.calls.lost(user.room, user.joined or 0.0, self.worker.server)

        with contextlib.suppress(DeadlineMissed):
            poll(settled, what="agent", seconds=AGENT_SECONDS, every=0.1)
        if user.agent is not None:
            return True
        self.refused += 1
        self._note_unserved(user.room, user.joined or 0.0)
        self.crowd.leave([user])
        time.sleep(REFUSAL_PAUSE)
        return False

    def _note_unserved(self, room: str, joined: float) -> None:
        asked = self.stage.calls.questions(room, joined, self.worker.server).get(self.worker.name)
        if asked is None or asked.assigned is None:
            return
        if self.stage.history.had_no_time(joined, time.monotonic()):
            self.unsure += 1
        else:
            self.unserved += 1

    def shrink(self, sessions: int) -> None:
        """Hang up until there are so many calls, the listener's among them."""
        served = [user for user in self.crowd.users if user.served]
        kept = served[: max(sessions - 1, 0)]
        self.crowd.leave([user for user in self.crowd.users if user not in kept])

    def hold(self, sampler: Sampler, seconds: float) -> Level:
        """Keep the calls for so long and measure. Raises WorkerFault if one of them ended, Unproven if its agent may have left
        by itself, and StageError if the crowd or the machine was short of CPU."""
        assert self.listener is not None, "open() first"
        time.sleep(SETTLE_SECONDS)
        began, before = time.monotonic(), Reading.now(self.worker.cpu_seconds())
        continuity = self.stage.calls.continuity(self.listener)
        until = began + seconds
        while (left := until - time.monotonic()) > 0:
            self.stage.raise_if_closing()
            if not self.worker.is_running:
                raise self.worker.ended()
            time.sleep(min(left, 0.5))
        self.raise_if_starved(began, before)
        self._raise_if_lost(continuity)
        return sampler.level(self.served, began, self._quality(continuity, before))

    def _raise_if_lost(self, continuity: Continuity) -> None:
        """Raises WorkerFault or Unproven if agents left their callers, StageError if callers lost their server."""
        continuity.trouble()
        users = [user for user in self.crowd.users if user.agent is not None]
        lost = [user.lost for user in users] + [call.disconnected for call in self._listened_to]
        if any(at is not None for at in lost):
            raise StageError("a simulated user lost its server")
        stayed = [user.agent_left - user.agent for user in users if user.agent is not None and user.agent_left is not None]
        if self.newest is not None and self.newest.stayed is not None:
            stayed.append(self.newest.stayed)
        if not continuity.agents_are_there:
            stayed.append(continuity.stayed)
        if not stayed:
            return
        continuity.note_leave(max(stayed))
        if continuity.unproven_leave is not None:
            raise Unproven(continuity.unproven_leave)
        calls = len(users) + len(self._listened_to)
        raise self.worker.failed(f"{len(stayed)} of {calls} calls lost their agents, one after {min(stayed):.1f} s")

    def raise_if_starved(self, began: float, before: Reading) -> None:
        """What was missing must not have been missing here."""
        reason = self.crowd.starved(began) or too_busy(before, Reading.now(self.worker.cpu_seconds()))
        if reason is not None:
            raise StageError(f"this machine is too busy to judge: {reason}")

    def _silenced(self, continuity: Continuity) -> float | None:
        """For how long (seconds) nothing was heard, beside the other calls, of an agent that had talked on alone; None: it was
        heard. Raises Unproven where that may be its habit."""
        alone = self._alone
        if alone is None or not alone.steady or continuity.steady:
            return None
        if continuity.call.silence < time.monotonic() - continuity.began:
            return None
        alone.note_silence()
        if alone.unproven_silence is not None:
            raise Unproven(alone.unproven_silence)
        return alone.gap()

    def _quality(self, continuity: Continuity, before: Reading) -> Quality:
        call = continuity.call
        received = call.received
        silenced = self._silenced(continuity)
        if continuity.steady and continuity.gap() > HOLE_SECONDS:
            continuity.note_silence()
            if continuity.unproven_silence is not None:
                raise Unproven(continuity.unproven_silence)
        elif (missed := continuity.missed().seconds) > HOLE_SECONDS:
            raise StageError(f"this machine is too busy to judge: {may_have_missed(missed)}")
        newest, mute = self.newest, False
        if newest is not None and call.sound_after is not None:
            mute = self.stage.calls.is_mute(newest, self.worker, before, "in a crowd")
        return Quality(
            call.agent_after,
            call.sound_after,
            continuity.gap() if continuity.steady else silenced,
            received.concealed_share(continuity.began) if continuity.sending else None,
            received.jitter(continuity.began) if continuity.sending else None,
            newest.sound_after if newest is not None else None,
            mute,
        )


@dataclass
class LoadTest:
    """``at_rest`` before the first call, ``loaded`` with all; ``processes`` are those of the worker under load."""

    at_rest: Level
    loaded: Level
    asked: int
    refused: int
    unserved: int
    users_cores: float
    agents_after_s: list[float] = field(default_factory=list)
    series: list[list[float]] = field(default_factory=list)
    processes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cores_per_session(self) -> float:
        return max(self.loaded.cores - self.at_rest.cores, 0.0) / self.loaded.sessions

    @property
    def memory_per_session(self) -> int:
        return max(self.loaded.memory_bytes - self.at_rest.memory_bytes, 0) // self.loaded.sessions

    def evidence(self) -> dict[str, Any]:
        return {
            "sessions_asked": self.asked,
            "sessions": self.loaded.sessions,
            "refused": self.refused,
            "accepted_and_not_served": self.unserved,
            "cores_per_session": round(self.cores_per_session, 4),
            "memory_per_session_bytes": self.memory_per_session,
            "at_rest": self.at_rest.evidence(),
            "loaded": self.loaded.evidence(),
            "simulated_users_cores": round(self.users_cores, 3),
            "series_s_cores_bytes": self.series,
            "processes": self.processes,
        }


def processes_of(worker: Worker) -> list[dict[str, Any]]:
    """Memory and CPU of each of its processes, the largest first."""
    found = sorted(worker.snapshot().living().values(), key=lambda process: -process.resident_bytes)
    return [
        {
            "pid": process.pid,
            "args": process.args,
            "resident_bytes": process.resident_bytes,
            "cpu_s": round(process.cpu_s, 1),
        }
        for process in found
    ]


HOLD_SECONDS = 20.0


def load_test(stage: Stage, say: Say) -> LoadTest:
    """``lk_sessions`` calls (4) on one worker, held for 20 s. Raises WorkerFault when none is served, or not all last."""
    worker = stage.renewed("crowded")
    sessions = stage.settings.sessions or SESSIONS
    with stage.background.alone_on_the_machine(), Sampler(worker) as sampler:
        # A fresh worker still starts its idle processes, and one that had a crowd before still ends its jobs.
        settle(stage, worker, set(), QUIET_SECONDS)
        say(f"load test: the worker at rest, then {sessions} calls for {HOLD_SECONDS:.0f} s")
        at_rest = rest(sampler)
        audience = Audience(stage, worker, say)
        try:
            audience.open()
            if audience.grow(sessions - 1) and sessions > 1:
                audience.complete()
            # What a pool starts in place of the jobs' processes belongs to the calls' start.
            still(stage, worker, set(), QUIET_SECONDS)
            say(f"load test: {audience.served} calls in progress, {HOLD_SECONDS + SETTLE_SECONDS:.0f} s left")
            began = time.monotonic()
            loaded = audience.hold(sampler, HOLD_SECONDS)
            if audience.unserved == 1:
                stage.calls.note_unserved()
            if audience.unsure and not audience.unserved:
                raise TooBusy("this machine is too busy to judge: it had no time while a user waited for an agent")
            audience.raise_if_held_up(sampler)
            return LoadTest(
                at_rest,
                loaded,
                sessions,
                audience.refused,
                audience.unserved,
                audience.crowd.cores(began),
                audience.agents_after(),
                sampler.series(),
                processes_of(worker),
            )
        finally:
            audience.close()
