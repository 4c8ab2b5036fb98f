"""A worker with calls is asked to stop: what its callers notice, what it says to the server, how it ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from enum import Enum

from pytest_lkagents.busyness import Reading, too_busy
from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.callers.habit import STAY_CONTROL, STAY_SECONDS, AgentsLeave
from pytest_lkagents.callers.reception import NO_PACKETS_SECONDS
from pytest_lkagents.calls import AGENT_SECONDS, ANSWER_SECONDS, LATE_ANSWER_SECONDS
from pytest_lkagents.checks import NotJudgeable, StageError, TooBusy, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.values import LONGEST_HOLD
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.health import Health

from .connections import JOB_GONE, Connections
from .drained import STOPS_SECONDS, Drain, Kept, Together, offered_nothing_since, refused_for_all
from .observations import stop_signal
from .placed import wait_free
from .pool import end

# What a call shows while its worker drains is mostly decided in the first seconds: a worker that does not drain cuts it at
# once or after a short grace of its own; Node waits 5 s for its job processes.
DRAIN_SECONDS = 8.0
# A drain that is limited to some seconds cuts later than that: livekit-agents 1.8.9 lets a job go on for 15 s more.
LIMIT_SECONDS = 20.0
# The first calls end when the drain has begun, a further one when the jobs of these have said goodbye.
FIRST_END_SECONDS = 3.0
BETWEEN_ENDS_SECONDS = 2.0
CALLS = 4
# Two of the SDKs' status reports (2.5 s apart): the next one still counts the start of the last job.
PAUSE_SECONDS = 6.0
GOODBYE_SECONDS = 8.0
# For a worker to end that believes itself to be drained.
LAST_SECONDS = 3.0
# A drain that is over too early, or that there is none of, cuts the calls up to 15 s later (the same patience).
AFTER_ENDS_SECONDS = 17.0
# After the signal, so that the drain has begun: an impatient operator's second Ctrl-C, a server that goes away.
DISTURB_SECONDS = 2.0
# How long the server is away. SDKs try again after 0, 2, 4 and 6 s: the last of these comes when it is back, and before
# the end.
REPAIR_SECONDS = 7.0
# With the server, without it, and as long with it again as other drains are watched.
WITHOUT_SERVER_SECONDS = DISTURB_SECONDS + REPAIR_SECONDS + DRAIN_SECONDS
LOOK_SECONDS = 0.25
# For a check that waits for a drain: its longest hold and what is around it.
CHECK_SECONDS = LONGEST_HOLD + 300
PROBE_EVERY = 0.5
# Twice what orchestrators wait by default. The calls are looked at in between.
PROBE_SECONDS = 2.0


class Ends(Enum):
    """When the calls of a drain end: together, or all but one earlier; of two the oldest, or the newest, whose job's process is
    killed (hung up, where it has none of its own)."""

    TOGETHER = "together"
    OLDEST_FIRST = "oldest first"
    NEWEST_CRASHES = "newest crashes"


class Drainage:
    """One observation. ``calls`` are placed before the signal, as many as the worker takes, and kept for ``hold`` seconds,
    or for less, as ``ends`` has it; ``together``: another one comes in the same instant; ``disturb`` is called once, 2 s
    after the signal, and ``repair`` 7 s later; ``send`` stops the worker in another way than by the signal; ``placed`` is
    called with the calls when these are there; ``after_a_call``: one comes and goes before; ``brief``: all that is asked is
    whether a call outlives the signal, so that presence and packets are judged, not silence, and nobody waits for the
    worker's end; ``probed``: its health endpoint is asked meanwhile, which keeps from looking at the calls where nothing
    answers, as behind a closed firewall."""

    def __init__(
        self,
        stage: Stage,
        worker: Worker,
        signal: str,
        *,
        calls: int = 1,
        hold: float = DRAIN_SECONDS,
        together: bool = False,
        ends: Ends = Ends.TOGETHER,
        disturb: Callable[[Worker], None] | None = None,
        repair: Callable[[Worker], None] | None = None,
        send: Callable[[Worker], None] | None = None,
        placed: Callable[[list[Call]], object] | None = None,
        after_a_call: bool = False,
        brief: bool = False,
        probed: bool = False,
    ) -> None:
        self.stage, self.worker, self.calls, self.hold = stage, worker, calls, hold
        self.with_call, self.ends, self.placed, self.brief = together, ends, placed, brief
        self.disturb, self.repair, self.after_a_call = disturb, repair, after_a_call
        self.send = send or (lambda stopped: stopped.signal(signal))
        self.transcript = worker.wire.transcript
        self.caller: Caller = stage.calls.caller(worker)
        self.health: Health | None = worker.wait_health() if probed else None
        self.seen = Drain(signal, self.health.port if self.health else None, [])
        self.sent = 0.0
        self._probed = 0.0
        self._late: Call | None = None
        # Which processes served the first call before there was another one, and all calls at the signal.
        self._oldest: list[int] = []
        self._all: list[int] = []
        # The connections of the jobs before that one.
        self._kept_at: set[int] = set()
        self._connections: Connections | None = None

    def observe(self) -> Drain:
        """Raises WorkerFault when not even one call is served, StageError when the stage breaks."""
        seen = self.seen
        try:
            seen.kept = self._place()
            now = self.worker.snapshot()
            seen.arguments = [process.args for process in now.processes]
            seen.job_pids, seen.own_pids = self.worker.jobs_of(now), self.worker.registered_by(now)
            before = Reading.now()
            if any(kept.continuity.too_late for kept in seen.kept):
                raise StageError(
                    "this machine is too busy to judge: the signal would come too late in a call that its agent ends"
                )
            self._stop()
            self._hold()
            seen.busy = too_busy(before, Reading.now())
            self._wait_exit()
            seen.refused_for_all = self._refused_for_all()
            seen.lines = self.transcript.lines(self.sent - 1, kinds=("status", "question", "answer", "assignment", "closed"))
            return seen
        finally:
            self.caller.close()
            self.worker.kill()

    @property
    def passed(self) -> float:
        return time.monotonic() - self.sent

    def _place(self) -> list[Kept]:
        known = self.stage.calls
        if self.placed is None and known.leave_by_themselves:
            return [self._place_leaving([])]
        if self.after_a_call:
            self._come_and_go()
        calls = [known.served(self.caller)]
        if self.ends is Ends.NEWEST_CRASHES:
            self._oldest = self._jobs()
        for _ in range(self.calls - 1):
            try:
                calls.append(known.served(self.caller))
            except (WorkerFault, TooBusy):
                break  # it takes no more than these
        if self.ends is Ends.NEWEST_CRASHES:
            calls = self._place_after_a_crash(calls[0]) if len(calls) == 1 else calls
            self._all = self._jobs()
        try:
            known.wait_heard(calls, steady=not self.brief)
        except AgentsLeave:
            if self.placed is not None:
                raise
            return [self._place_leaving(calls)]
        if self.placed is not None:
            self.placed(calls)
            if not all(call.agents_present for call in calls):
                raise NotJudgeable("its call did not outlive what came before the signal: see registration.keeps-calls")
        return [Kept(call, known.continuity(call)) for call in calls]

    def _come_and_go(self) -> None:
        """A call that is over, its job's process too; a job that does not end is another check's business."""
        call = self.stage.calls.served(self.caller)
        now = self.worker.snapshot()
        jobs = set(self.worker.jobs_of(now)) - set(self.worker.registered_by(now))
        end(self.worker, call, jobs)
        with contextlib.suppress(StageError):
            self.stage.calls.wait_idle(self.worker, GOODBYE_SECONDS)

    def _place_after_a_crash(self, only: Call) -> list[Call]:
        """The call of a worker that takes one at a time, which has had another one whose job's process was killed."""
        if self._are_own(self._oldest, 1):
            self.worker.signal_processes(self._oldest, "SIGKILL")
            self.seen.crashed_before = True
            only.leave()
            only = self.stage.calls.served(self.caller)
        return [only]

    def _place_leaving(self, before: list[Call]) -> Kept:
        """Where agents leave by themselves: a call of which the agent has just come, and is to stay as long as it does in
        calls that nothing disturbs. Raises AgentsLeave where that cannot be told."""
        known = self.stage.calls
        usual = known.usual_stay(before, lambda: known.served(self.caller))
        self.caller.close()
        self.with_call, self.ends = False, Ends.TOGETHER
        self.hold = STAY_CONTROL * usual.least + STAY_SECONDS
        call = known.served(self.caller)
        return Kept(call, known.continuity(call, usual))

    def _stop(self) -> None:
        if self.repair is None:
            # Else a job that has to connect anew cannot.
            self._connections = Connections(self.worker, len(self.seen.kept))
        if not self.with_call:
            self.sent = time.monotonic()
            self.send(self.worker)
            return
        # A worker that is over its threshold for a moment, as each new job starts a process, would only refuse.
        with contextlib.suppress(StageError):
            wait_free(self.worker, PAUSE_SECONDS)
        # The signal goes out as soon as the worker is asked, so that answer, assignment and drain meet.
        began = time.monotonic()
        known = {call.call.room_name for call in self.seen.kept}
        self._kept_at = self.worker.wire.calls_at
        broken: list[Exception] = []

        def when_asked() -> None:
            try:
                self.transcript.wait(
                    lambda seen: any(asked.room not in known for asked in seen.questions(began) if not asked.probe),
                    ANSWER_SECONDS,
                )
                self.sent = time.monotonic()
                self.send(self.worker)
            except Exception as error:
                broken.append(error)

        sender = threading.Thread(target=when_asked, name="lk-signal")
        sender.start()
        try:
            self._late = self.caller.join()
        finally:
            sender.join()
        if broken:
            raise broken[0]
        self.seen.together = Together()

    def _look(self) -> None:
        """One look at everything."""
        seen, passed = self.seen, self.passed
        for kept in seen.kept:
            kept.look(passed)
        self._look_for_jobs(passed)
        going = [kept for kept in seen.kept if kept.hung_up_s is None and kept.trouble is None]
        seen.series.append(
            [round(passed, 2), len(going), round(max((kept.continuity.pause for kept in going), default=0.0), 2)]
        )
        if seen.ended_early_s is None and any(kept.hung_up_s is None for kept in seen.kept) and not self.worker.is_running:
            seen.ended_early_s = round(passed, 1)
        stopped = offered_nothing_since(self.transcript, self.sent)
        seen.stopped_s = None if stopped is None else round(stopped - self.sent, 1)
        if seen.asked is None and (seen.stopped_s is not None or passed > STOPS_SECONDS) and self.transcript.live():
            seen.asked_s, seen.asked = round(passed, 1), self.worker.wire.ask(ANSWER_SECONDS, free=True)
        if self.health is not None and time.monotonic() - self._probed >= PROBE_EVERY:
            self._probed = time.monotonic()
            seen.health.append(self.worker.health_status(self.health, PROBE_SECONDS))

    def _look_for_jobs(self, passed: float) -> None:
        """An agent that sends nothing is present, to the server, for some time after its job was killed."""
        if self._connections is None:
            return
        going = [kept for kept in self.seen.kept if kept.hung_up_s is None and kept.trouble is None]
        silent = [kept for kept in going if kept.call.packet_gap >= NO_PACKETS_SECONDS]
        gone = self._connections.look(len(silent), passed)
        if gone is not None:
            silent[0].trouble, silent[0].trouble_s = JOB_GONE, round(gone, 1)

    @property
    def _suspicious(self) -> bool:
        gone = self._connections is not None and self._connections.gone_since is not None
        return gone or any(kept.suspected for kept in self.seen.kept)

    def _watch(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> bool:
        """Look on for ``seconds`` or until it is ``enough``, and longer while something is suspected. False as soon as
        nothing is left to see."""
        until = time.monotonic() + seconds
        with self.worker.ledger.waiting(self.worker.name):
            return self._watch_until(until, enough)

    def _watch_until(self, until: float, enough: Callable[[], bool]) -> bool:
        while (time.monotonic() < until and not enough()) or self._suspicious:
            self.stage.raise_if_closing()
            self._look()
            if all(kept.trouble is not None or kept.hung_up_s is not None for kept in self.seen.kept):
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def _hold(self) -> None:
        reading = self.worker.reading()
        if self.disturb is not None and self._watch(DISTURB_SECONDS):
            self.disturb(self.worker)
        if self.repair is not None and self._watch(REPAIR_SECONDS):
            self.repair(self.worker)
        apart = self.ends is not Ends.TOGETHER and len(self.seen.kept) > 1
        if apart and self._watch(max(FIRST_END_SECONDS - self.passed, 0.0)) and self._watch_until_told():
            self._settle_late()
            self._end_all_but_one()
        self._merely_watch()
        self._watch(max(self.hold - self.passed, 0.0))
        if not self.brief and self.seen.stopped_s is None and self.seen.asked is None:
            # A short hold; what it says to a job is asked for once it is to refuse.
            self._watch(STOPS_SECONDS + 1 - self.passed, lambda: self.seen.asked is not None)
        if self.repair is not None and self.transcript.live():
            self.seen.asked_back = self.worker.wire.ask(ANSWER_SECONDS, free=True)
        asked = self.seen.asked
        if self.seen.stopped_s is None and asked is not None and asked.available is False and self.transcript.live():
            # It says that it is free: was it the drain that refused, or a moment of load?
            self.seen.asked_last = self.worker.wire.ask(ANSWER_SECONDS, free=True)
        last = self.transcript.latest_status()
        if self.with_call and last is not None and self.transcript.live() and self.worker.is_running:
            self.seen.filled = self.stage.filled_by_others(self.worker, last.load, reading)
        self.seen.held_s = round(self.passed, 1)
        self._settle_late()
        for kept in self.seen.kept:
            if kept.trouble is None and kept.hung_up_s is None:
                kept.hang_up(self.passed)
        self._finish_late()

    def _watch_until_told(self) -> bool:
        """Before the end of a call ends a drain, or another worker's: until it is known what it takes when its 5 s are over.
        Of several registrations one may be full for a moment only. False as soon as nothing is left to see."""
        several = len(self.transcript.live()) > 1

        def told() -> bool:
            return self.seen.asked is not None if self.seen.stopped_s is None else not several

        return self._watch(STOPS_SECONDS + 1 - self.passed, told)

    def _settle_late(self) -> None:
        """Say what became of the call that came in the same instant. One that has its agent outlasts all others."""
        call, late = self._late, self.seen.together
        if call is None or late is None or late.settled:
            return
        late.settled = True
        asked = self.stage.calls.questions(call.room_name, call.joined, self.worker.server).get(self.worker.name)
        late.answer = asked.available if asked is not None else None
        if asked is not None and (asked.assigned or late.answer) and not call.agents:
            self._watch(max(AGENT_SECONDS - self.passed, 1), lambda: bool(call.agents))
            asked = self.stage.calls.questions(call.room_name, call.joined, self.worker.server).get(self.worker.name, asked)
        late.assigned = asked is not None and asked.assigned is not None
        if call.agents:
            late.agent_s = round(min(call.agents.values()) - self.sent, 1)
            if not call.agents_present:
                call.raise_if_cut_off()
                late.trouble = "its agent left it"
        elif asked is not None and (late.assigned or late.answer):
            call.raise_if_cut_off()
            # The server asks nobody else in any case.
            late.trouble = "no agent came to it" if late.assigned else "the worker accepted it, and was not given it"
            took = asked.answered_after or 0.0
            if not late.assigned and took >= LATE_ANSWER_SECONDS:
                late.trouble = f"the worker accepted it only after {took:.1f} s"
                if self.stage.history.had_no_time(asked.asked, asked.asked + took):
                    late.busy = "all of its cores were in use while the worker was to answer"
        if not call.agents_present:
            call.leave()

    def _refused_for_all(self) -> bool:
        others = [
            asked
            for other in self.stage.alike(self.worker)
            if other is not self.worker
            for asked in other.wire.transcript.questions()
            if asked.asked < min(other.disturbed_at, self.sent)
        ]
        instant = self._late.room_name if self._late is not None else None
        ours = [asked for asked in self.transcript.questions() if asked.room != instant]
        return refused_for_all(ours, others, self.sent)

    def _finish_late(self) -> None:
        """A drain that waits for those calls that it knew at the signal ends now, with this one in progress."""
        call, late = self._late, self.seen.together
        if call is None or late is None or late.trouble is not None or not call.agents:
            return
        worker = self.worker

        def over() -> bool:
            return not call.agents_present or not worker.is_running

        with worker.ledger.waiting(worker.name), contextlib.suppress(DeadlineMissed):
            poll(
                lambda: not self._kept_at & worker.wire.calls_at or over(),
                what="end of the other jobs",
                seconds=GOODBYE_SECONDS,
            )
            done = time.monotonic()
            # One that has left its server may be about to end, and leave its jobs some time to do so.
            poll(
                lambda: over() or (bool(self.transcript.live()) and time.monotonic() - done > LAST_SECONDS),
                what="end",
                seconds=AFTER_ENDS_SECONDS,
                every=LOOK_SECONDS,
            )
            if over() and self.seen.cut is None and self.seen.ended_early_s is None:
                self._accuse_of_late(call, late)
        call.leave()

    def _accuse_of_late(self, call: Call, late: Together) -> None:
        """It is over. That the call's agent left it may be its habit, unless others stayed for longer."""
        others, stayed = self.seen.kept[0].continuity, call.stayed
        if stayed is None:
            late.trouble = "the worker ended with it in progress, when the others had ended"
        elif others.stays:
            late.trouble = f"its agent left it after {stayed:.0f} s"
        else:
            others.note_leave(stayed)
            late.unproven = others.unproven_leave

    def _end_all_but_one(self) -> None:
        """The oldest call and the newest first, then all but the second: a drain that waits for one only is caught so, and one
        that runs over a list which gets shorter meanwhile and misses a call (livekit-agents 1.3.8). Of two the oldest, unless
        the newest is to crash."""
        calls = self.seen.kept
        first = [calls[0], calls[-1]]
        if len(calls) == 2:
            first = calls[-1:] if self.ends is Ends.NEWEST_CRASHES else calls[:1]
            # The end of one call costs little.
            self._merely_watch()
        for ending in (first, calls[2:-1]):
            if not ending:
                continue
            before = len(self.worker.wire.calls_at)
            going = [kept for kept in ending if kept.trouble is None]
            for kept in going:
                kept.finish(self.passed)
            if self.ends is Ends.NEWEST_CRASHES:
                self._crash_newest()
            for kept in going:
                kept.call.leave()
            self._until_gone(before)
            if not self._watch(BETWEEN_ENDS_SECONDS):
                return
        self._merely_watch()
        self._watch(AFTER_ENDS_SECONDS - BETWEEN_ENDS_SECONDS)

    def _jobs(self) -> list[int]:
        """For each of its calls the process that serves it."""
        now = self.worker.snapshot()
        return now.without_children(self.worker.jobs_of(now))

    def _are_own(self, jobs: list[int], calls: int) -> bool:
        """Whether so many calls have a process each, which does nothing else, and is no proxy for others."""
        now = self.worker.snapshot()
        registered = set(self.worker.registered_by(now))
        return len(jobs) == len(set(jobs)) == calls and not registered & set(jobs) and not any(map(now.is_relay, jobs))

    def _crash_newest(self) -> None:
        """The process of the newest call's job is killed, if that has one of its own, and no call was handed over meanwhile."""
        with contextlib.suppress(WorkerFault):
            newest = set(self._all) - set(self._oldest)
            same = set(self._jobs()) == set(self._all) and set(self._oldest) < set(self._all)
            if same and len(newest) == 1 and self._are_own(self._all, 2):
                self.worker.signal_processes(sorted(newest), "SIGKILL")
                self.seen.crashed = True

    def _merely_watch(self) -> None:
        """From here on little is done, unless all of it will have to be done again."""
        if self.seen.unproven is None and not self._suspicious:
            self.stage.background.merely_watches()

    def _until_gone(self, before: int) -> None:
        """Until the job of a call that was hung up has left the server, and no longer than jobs take for it."""
        self._watch(GOODBYE_SECONDS, lambda: len(self.worker.wire.calls_at) < before)

    def _wait_exit(self) -> None:
        seen = self.seen
        over = time.monotonic()
        if seen.cut is not None or self.brief:
            seen.exit_code = self.worker.exit_code
            return
        limit = self.stage.settings.exit_timeout
        before = self.worker.reading()
        with self.worker.ledger.waiting(self.worker.name):
            self.transcript.wait(lambda log: not log.live() or self._free_again(over), limit)
        if self._free_again(over) and self.worker.is_running:
            with contextlib.suppress(StageError):
                seen.asked_at_end = self.worker.wire.ask(ANSWER_SECONDS, free=True)
        seen.exit_code = self.worker.wait_exit(max(limit - (time.monotonic() - over), 1))
        if seen.exit_code is not None:
            seen.exited_s = round(time.monotonic() - over, 1)
        else:
            seen.outlasted, seen.busy = True, seen.busy or too_busy(before, self.worker.reading())
            if seen.busy is None and not all(kept.call.hung_up for kept in seen.kept):
                seen.busy = "a caller could not hang up in time"
            at_end = seen.asked_at_end
            if not seen.heeded or (at_end is not None and at_end.available):
                # What is full with its calls looks as if it heeded it.
                seen.heeds_second = self._signal_again()

    def _free_again(self, since: float) -> bool:
        """Whether it reports so after it had said that it takes nothing more."""
        last = self.transcript.latest_status(since)
        return self.seen.stopped_s is not None and last is not None and not last.full and bool(self.transcript.live())

    def _signal_again(self) -> bool:
        """A signal can be lost, as SIGINT is while livekit-agents 1.8.9 starts a process: does it heed another one?"""
        again = time.monotonic()
        self.send(self.worker)

        def heeded() -> bool:
            stopped = offered_nothing_since(self.transcript, again) is not None
            return stopped or not self.transcript.live() or not self.worker.is_running

        with contextlib.suppress(DeadlineMissed):
            return poll(heeded, what="another signal's effect", seconds=STOPS_SECONDS)
        return False


def by_stop_signal(stage: Stage, *, together: bool, calls: int, hold: float, brief: bool) -> Drain:
    """The image's own stop signal, which is what engines and orchestrators send. As any worker that is rolled out, it has had a
    call before, unless ``brief``."""
    return Drainage(
        stage,
        stage.untouched("draining"),
        stop_signal(stage),
        hold=hold,
        together=together,
        calls=calls,
        ends=Ends.OLDEST_FIRST,
        after_a_call=not brief,
        brief=brief,
        probed=True,
    ).observe()


def by_interrupt(stage: Stage) -> Drain:
    worker = stage.untouched("interrupted")
    return Drainage(stage, worker, "SIGINT", hold=LIMIT_SECONDS, calls=2, ends=Ends.OLDEST_FIRST).observe()


def engine_timeout(stage: Stage) -> float:
    """Seconds that the engine is told to wait before it kills what it stops: more than a drain that is in order needs."""
    return DRAIN_SECONDS + stage.settings.exit_timeout + 20


def by_engine(stage: Stage) -> Drain:
    """The engine's own way to stop a container."""
    worker, seconds = stage.untouched("engine-stopped"), engine_timeout(stage)
    return Drainage(stage, worker, stop_signal(stage), send=lambda stopped: stopped.stop(seconds)).observe()


def without_server(stage: Stage) -> Drain:
    """By the stop signal; then the worker's connection to the server is cut, and refused for some seconds."""

    def regain(back: Worker) -> None:
        back.wire.accept()

    worker, hold = stage.untouched("unconnected"), WITHOUT_SERVER_SECONDS
    return Drainage(stage, worker, stop_signal(stage), hold=hold, disturb=Worker.cut_off, repair=regain).observe()
