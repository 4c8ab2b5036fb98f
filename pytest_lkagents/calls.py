"""Calls to a worker's agent: until they are served, or certainly will not be, and until their jobs are over."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_lkagents.busyness import Reading, too_busy
from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.callers.continuity import Continuity
from pytest_lkagents.callers.habit import Habit, Stay
from pytest_lkagents.callers.request import CallRequest
from pytest_lkagents.callers.undisturbed import usual_stay, wait_heard
from pytest_lkagents.checks import NotJudgeable, StageError, Unproven, WorkerFailed, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.server.base import Server
from pytest_lkagents.wire.model import Question
from pytest_lkagents.worker.base import Worker

if TYPE_CHECKING:
    from pytest_lkagents.stage import Stage

# Of a fault that this check reports.
SEE_JOINS = ": see jobs.joins"
# The server gives up after 3 s, a worker may start a process for the job (10 s by default).
AGENT_SECONDS = 15
# For an agent that was accepted and is late: after so much more, nobody waits for it any longer.
LATE_SECONDS = 15
# So many calls that are lost are enough to know; there is no need to wait for further ones.
ENOUGH_LOST = 2
# A worker that has lost so many in a row serves none any more: as many as a check places before it says so.
IN_A_ROW = 3
# After this time without an answer the server drops the job (livekit-server, all versions up to 1.13.11).
ANSWER_SECONDS = 3.0
# That time begins with the dispatch, 0.2 s before the first worker is asked, and is for all workers together: an answer after
# so much of it comes too late for a yes to be followed by the job, and for another worker to be asked after a no.
LATE_ANSWER_SECONDS = 0.9 * ANSWER_SECONDS
# The same after the caller's join: the server's own bidding takes 0.2 s, the rest is for a busy machine.
LOST_SECONDS = 4.5
# Loads are averaged over some seconds; a call right after a refusal would only be refused again.
REFUSAL_PAUSE = 3
# For a load to fall that is averaged, once what it is the load of is over; less where that was in vain before, with this
# worker, or with any if none ever served a call.
FREE_SECONDS = 15
STILL_FULL_SECONDS = 5
IDLE_SECONDS = 60
# Media whose first connection failed, as packets were lost on a busy machine, are there after some 20 s.
VOICE_SECONDS = 30


@dataclass(frozen=True)
class Accepted:
    """A call whose job was given to a worker that had accepted it, and to which nothing had been done. ``agent_s``: seconds
    until its agent came; None: it did not. ``busy``: this machine had no time for it, so that this says little."""

    worker: str
    room: str
    job: str
    joined: float
    agent_s: float | None
    busy: bool = False

    @property
    def missed(self) -> bool:
        """Whether nobody who called would have met the agent: it did not come, or too late (see ``jobs.joins``)."""
        return self.agent_s is None or self.agent_s > AGENT_SECONDS

    @property
    def failed(self) -> bool:
        """Missed, with time for it on this machine."""
        return self.missed and not self.busy


class Calls:
    """A stage's calls; ``stage.calls``. ``accepted``: those so far that a worker promised to serve, of which a load test's
    are none."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        # Whether any call ever had an agent; None before that is known.
        self._serves: bool | None = None
        # Names of workers that were given all their tries, in vain, while none was known to serve any.
        self._in_vain: set[str] = set()
        # Names of workers that said that they were full, and were waited for in vain.
        self._full: set[str] = set()
        # By worker: calls in a row that it was given while it had no other one, and to which no agent came, on a machine that
        # had time. Beside another call it may be that one which keeps a worker from serving them.
        self._lost_in_a_row: Counter[str] = Counter()
        self._habit = Habit(raise_if_closing=stage.raise_if_closing)
        self.accepted: list[Accepted] = []

    def caller(self, worker: Worker) -> Caller:
        """A caller on the worker's server who asks for its agent."""
        settings = self._stage.settings
        wanted = settings.agent_name
        live = [found.dispatched_to for found in worker.wire.transcript.live() if wanted in (None, found.agent_name)]
        # The same throughout a run, where it registers under several.
        name, deployment = min(live, default=(wanted or "", ""))
        request = CallRequest(name, settings.metadata, settings.attributes, deployment)
        return Caller(worker.server, self._stage.media, self._stage.ledger, request)

    def served(self, caller: Caller, tries: int = IN_A_ROW) -> Call:
        """A call that has its agent. Raises WorkerFault if none of ``tries`` calls gets one, StageError if no caller can see
        agents of this worker, TooBusy if it may rightly refuse calls for what others use of this machine, NotJudgeable if a
        call that it took is lost, and another worker was seen to have ceased to serve.

        Several tries, because a worker that is momentarily over its threshold refuses a call rightly, and on a
        self-hosted server nobody asks it again; one, where several were in vain before and none ever was not, and none where
        they were so with two workers. One that says that it is full is given time first: what else is under way here may
        be what fills it. If it still says so, one try more is enough where calls were served before, as it may have those.
        Nor is a call that was taken and lost repeated with a worker that is known to serve none any more.
        """
        served_before = self._serves
        if served_before is False:
            if len(self._in_vain) >= ENOUGH_LOST:
                raise WorkerFault(f"no agent came to any call to {len(self._in_vain)} workers{SEE_JOINS}")
            tries = 1
        worker = self._worker_of(caller)
        if worker is not None and any(known.hidden for known in worker.wire.transcript.live()):
            raise StageError("it asks for agents that are hidden from callers (permissions), and callers have to judge them")
        before = worker.reading() if worker else None
        placed = accepted = 0
        others: set[str] = set()
        while placed < tries:
            if placed:
                time.sleep(REFUSAL_PAUSE)
            if worker is not None and not self._wait_free(worker) and served_before:
                tries = placed + 1
            placed += 1
            call = caller.join()
            self.wait_settled(call, caller.server)
            if call.agents:
                self._raise_if_taken_elsewhere(call, caller.server)
                return call
            call.raise_if_cut_off()
            taken = self.taken(call, caller.server) is not None
            accepted += taken
            others |= call.others
            call.leave()
            if taken and worker is not None and self._has_ceased(worker):
                break
            alive = worker is not None and worker.is_running
            if taken and placed < tries and alive and (why := self.ceased) is not None:
                raise NotJudgeable(why)
        self._stage.raise_if_too_busy(worker, before)
        if worker is not None and before is not None and not accepted and worker.is_running:
            self._stage.raise_if_filled_by_others(worker, before)
        self._serves = bool(self._serves)
        if worker is not None and not self._serves:
            self._in_vain.add(worker.name)
        ended = worker.ended() if worker is not None and not worker.is_running else None
        if isinstance(ended, (WorkerFailed, StageError)):
            raise ended
        if served_before is False:
            raise WorkerFault(f"no agent came within {AGENT_SECONDS} s, as to the calls before")
        nobody = f"no agent came to {'the call' if placed == 1 else f'any of {placed} calls'} within {AGENT_SECONDS} s"
        if accepted and others:
            nobody += f"; {', '.join(sorted(others)[:3])} came, no agent to LiveKit: a job must join with the token it is given"
        if worker is not None and worker.name in self._full and not accepted:
            nobody += ", and the worker says that it is full"
        if worker is not None and served_before and accepted == placed:
            if self._lost_in_a_row[worker.name] > placed:
                nobody = f"no agent came to any of the last {self._lost_in_a_row[worker.name]} calls within {AGENT_SECONDS} s"
            raise worker.failed(f"{nobody}, which it had accepted, as calls before that were served")
        raise WorkerFault(nobody)

    @property
    def ceased(self) -> str | None:
        """That a worker takes calls and serves none any more, in words, once a check has failed for that; None: none has."""
        for worker in self._stage.workers():
            if worker.blame.check is not None and self._lost_in_a_row[worker.name] >= IN_A_ROW:
                return f"worker {worker.name} takes calls and serves none any more: see {worker.blame.check}"
        return None

    def _has_ceased(self, worker: Worker) -> bool:
        """Whether it serves none any more, and nothing was done to it since it did."""
        return self._lost_in_a_row[worker.name] >= IN_A_ROW and not (worker.disturbed or worker.wire.disturbed)

    def _raise_if_taken_elsewhere(self, call: Call, server: Server) -> None:
        """Raises StageError if a server that is not ours gave the call to a worker that is not ours either."""
        if not server.controllable and self.taken(call, server) is None:
            raise StageError("another worker of the LiveKit server given took the call: use one that serves nobody else")

    def further(self, caller: Caller) -> Call | None:
        """A call beside those that the worker has, or None if it takes no more than these: it refuses, or says that it is
        full. Raises as ``served`` does."""
        began = time.monotonic()
        try:
            return self.served(caller)
        except WorkerFault:
            worker = self._worker_of(caller)
            if worker is None or not worker.wire.transcript.live():
                raise
            answers = worker.wire.transcript.answers(began)
            if worker.name in self._full if not answers else all(answer is False for answer in answers):
                return None
            raise

    def _wait_free(self, worker: Worker) -> bool:
        """Until the worker no longer says that it is full, for some seconds: whether it does not. Raises TooBusy if it may
        be right, for what others use of this machine."""
        before = worker.reading()
        in_vain = worker.name in self._full or (self._full and not self._serves)
        seconds = STILL_FULL_SECONDS if in_vain else FREE_SECONDS
        if worker.wire.transcript.wait(lambda seen: (last := seen.latest_status()) is None or not last.full, seconds):
            self._full.discard(worker.name)
            return True
        self._full.add(worker.name)
        if worker.is_running:
            self._stage.raise_if_filled_by_others(worker, before)
        return False

    def wait_heard(self, calls: Sequence[Call], *, steady: bool = True) -> None:
        """Until every agent has been heard, and with ``steady`` for so long that its silence would mean something.
        Raises AgentsLeave if one leaves meanwhile, with nothing to disturb it."""
        wait_heard(calls, self._habit, steady=steady)

    def is_mute(self, call: Call, worker: Worker, since: Reading, where: str) -> bool:
        """Whether nothing is heard of its agent within ``VOICE_SECONDS``, where another call's agent was heard. Raises
        Unproven the first time that it is seen ``where`` it is looked for, TooBusy if this machine was too busy (since
        then), StageError if the caller was cut off."""

        def heard() -> bool:
            self._stage.raise_if_closing()
            return call.heard.first is not None

        with contextlib.suppress(DeadlineMissed), worker.ledger.waiting(worker.name):
            poll(heard, what="its voice", seconds=VOICE_SECONDS)
            return False
        call.raise_if_cut_off()
        self._stage.raise_if_too_busy(worker, since)
        self._habit.unheard[where] += 1
        if self._habit.unheard[where] == 1:
            raise Unproven("an agent was not heard, where another one was, which may be chance")
        return True

    def note_unserved(self) -> None:
        """Of a crowd one call, which was accepted, got no agent. Raises Unproven the first time."""
        self._habit.unserved += 1
        if self._habit.unserved == 1:
            raise Unproven("one call beside others was accepted and got no agent, which may be chance")

    @property
    def all_in_vain(self) -> bool:
        """Whether calls were placed, and none ever had an agent."""
        return self._serves is False

    @property
    def leave_by_themselves(self) -> bool:
        """Whether agents of this worker were seen to leave calls that nothing disturbed."""
        return bool(self._habit.stays)

    @property
    def longest_stay(self) -> float | None:
        """Seconds after which one of these left, the last of them; None: none did."""
        return max(self._habit.stays.values(), default=None)

    def usual_stay(self, calls: Sequence[Call], more: Callable[[], Call]) -> Stay:
        """How long agents stay that leave by themselves: of these calls, and of further ones until there are enough.
        Raises AgentsLeave if that differs too much, or is too short, for a leave to mean anything."""
        return usual_stay(calls, more, self._habit)

    def continuity(self, call: Call, usual: Stay | None = None) -> Continuity:
        """To be asked for before a disturbance of the call; ``usual``: how long its agent stays if nothing disturbs it."""
        return Continuity(call, self._habit, usual)

    def _worker_of(self, caller: Caller) -> Worker | None:
        return next((worker for worker in self._stage.workers() if worker.server is caller.server), None)

    def questions(self, room: str, joined: float, server: Server) -> dict[str, Question]:
        """Which workers on this server were asked for the job of this room, which a caller joined then (monotonic
        seconds), by the worker's name. One with several connections may have been asked on each: what it took counts."""
        found: dict[str, Question] = {}
        for worker in self._stage.workers():
            of_room = _asked(worker, room, joined) if worker.server is server else []
            if of_room:
                # The last one of those that say as much.
                found[worker.name] = max(reversed(of_room), key=lambda one: (one.assigned is not None, bool(one.available)))
        return found

    def lost(self, room: str, joined: float, server: Server) -> bool:
        """Whether certainly no agent will come to this room: no worker accepted its job while the server waited, which began
        after the join. Time for which this machine stood still does not count."""
        if not server.controllable:
            return False  # at a server elsewhere, workers that we do not see may take it
        now = time.monotonic()
        if now - joined <= LOST_SECONDS or now - joined - self._stage.history.stood_still(joined, now) <= LOST_SECONDS:
            return False
        # What was asked late, as the caller took its time to join, is answered late.
        return not any(
            (asked.available and (asked.answered_after or 0) < ANSWER_SECONDS)
            or (asked.available is None and now - asked.asked < ANSWER_SECONDS)
            for asked in self.questions(room, joined, server).values()
        )

    def refused(self, call: Call, server: Server) -> bool:
        """Whether every registration on this server was asked for the call's job, and refused it: the server asks nobody again,
        which is known sooner than ``lost``."""
        workers = [worker for worker in self._stage.workers() if worker.server is server]
        live = {(worker.name, known.connection) for worker in workers for known in worker.wire.transcript.live()}
        refusals = {
            (worker.name, asked.connection)
            for worker in workers
            for asked in _asked(worker, call.room_name, call.joined)
            if asked.available is False
        }
        return bool(refusals) and live <= refusals

    def wait_settled(
        self, call: Call, server: Server, *, noted: bool = True, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        """Until the call has its agent, or will certainly get none, or ``is_over`` says that nobody need wait for that.
        ``noted``: it counts among the ``accepted`` ones if it is one of them."""
        before = {worker.name: worker.reading() for worker in self._stage.workers() if worker.server is server}
        self._wait_agent(call, server, AGENT_SECONDS, is_over)
        taken = self.taken(call, server)
        if call.agents:
            self._serves = True
            if taken is not None:
                self._lost_in_a_row.pop(taken[0].name, None)
        # Where no call was served yet, all of them are jobs.joins' business.
        if taken is None or not noted or not self._serves:
            return
        worker, question = taken
        # A limit of ours may be too little for an agent; a process here has none.
        if self._stage.settings.image is not None and worker.cpus != self._stage.settings.cpus:
            return
        patient = len(self.lost_accepted()) < ENOUGH_LOST
        if not call.agents and patient:
            self._wait_agent(call, server, LATE_SECONDS)
        if worker.disturbed or worker.wire.disturbed or not worker.is_running:
            return
        if not call.agents and (call.disconnected is not None or call.interruptions):
            return  # a caller without its server sees nobody
        served = call.agent_after if call.agents else None
        made = Accepted(worker.name, call.room_name, question.job_id, call.joined, served)
        if made.missed:
            no_time = served is not None and self._stage.history.held_up(call.joined, call.joined + served, AGENT_SECONDS)
            made = replace(made, busy=no_time or too_busy(before.get(worker.name), worker.reading()) is not None)
        if served is not None:
            self._lost_in_a_row.pop(worker.name, None)
        elif not made.busy and not worker.wire.calls_at:
            self._lost_in_a_row[worker.name] += 1
        if patient or served is not None:
            self.accepted.append(made)

    def lost_accepted(self) -> list[Accepted]:
        """Calls that a worker accepted and did not serve."""
        return [accepted for accepted in self.accepted if accepted.failed and accepted.agent_s is None]

    def taken(self, call: Call, server: Server) -> tuple[Worker, Question] | None:
        """Which worker was given this call's job, as it had accepted it."""
        asked = self.questions(call.room_name, call.joined, server)
        for worker in self._stage.workers():
            question = asked.get(worker.name)
            if question is not None and question.assigned is not None:
                return worker, question
        return None

    def _wait_agent(self, call: Call, server: Server, seconds: float, is_over: Callable[[], bool] = lambda: False) -> None:
        def settled() -> bool:
            self._stage.raise_if_closing()
            return bool(call.agents) or self.lost(call.room_name, call.joined, server) or is_over()

        with self._stage.ledger.waiting(call.room_name), contextlib.suppress(DeadlineMissed):
            poll(settled, what="agent", seconds=seconds, every=0.05)

    def wait_idle(self, worker: Worker, seconds: float = IDLE_SECONDS) -> None:
        """Wait until no job signals with a call any more: the caller has left, the job may still be saying goodbye (an SDK
        gives it up to 60 s). Raises StageError if it does not end within ``seconds``."""
        try:
            with self._stage.ledger.waiting(worker.name):
                poll(lambda: not worker.wire.calls_at, what="end of the last call's job", seconds=seconds, every=0.1)
        except DeadlineMissed as missed:
            raise StageError(f"{missed}: the worker never came to rest") from missed


def _asked(worker: Worker, room: str, joined: float) -> list[Question]:
    """What this worker was asked for the job of this room, which a caller joined then (monotonic seconds)."""
    return [asked for asked in worker.wire.transcript.questions(joined - 1) if asked.room == room and not asked.probe]
