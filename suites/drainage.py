"""A worker with calls is asked to stop: what its callers notice, what it says to the server, how it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from pytest_lkagents.busyness import Reading, too_busy
from pytest_lkagents.callers.reception import NO_PACKETS_SECONDS
from pytest_lkagents.calls import ANSWER_SECONDS
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.health import Health

from .connections import JOB_GONE, Connections
from .drained import Drain
from .instant import Instant
from .offers import STOPS_SECONDS, offered_nothing_since, refused_for_all
from .placement import Placement
from .scenario import (
    AFTER_ENDS_SECONDS,
    DISTURB_SECONDS,
    GOODBYE_SECONDS,
    LOOK_SECONDS,
    REPAIR_SECONDS,
    Ends,
    Scenario,
)

# The first calls end when the drain has begun, a further one when the jobs of these have said goodbye.
FIRST_END_SECONDS = 3.0
BETWEEN_ENDS_SECONDS = 2.0
PROBE_EVERY = 0.5
# Twice what orchestrators wait by default. The calls are looked at in between.
PROBE_SECONDS = 2.0


class Drainage:
    """One observation."""

    def __init__(self, stage: Stage, worker: Worker, scenario: Scenario) -> None:
        self.stage, self.worker, self.scenario = stage, worker, scenario
        self.transcript = worker.wire.transcript
        self.caller = stage.calls.caller(worker)
        self.health: Health | None = worker.wait_health() if scenario.probed else None
        self.seen = Drain(scenario.signal, self.health.port if self.health else None, [])
        # When the signal was (monotonic seconds).
        self.sent = 0.0
        self._placement = Placement(stage, worker, self.caller, scenario)
        self._instant = Instant(stage, worker, self.seen)
        self._probed = 0.0
        self._connections: Connections | None = None

    def observe(self) -> Drain:
        """Raises WorkerFault when not even one call is served, StageError when the stage breaks."""
        seen = self.seen
        try:
            seen.kept = self._placement.place()
            self.scenario, seen.crashed_before = self._placement.scenario, self._placement.crashed_before
            seen.fewer = self._placement.fewer
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

    def _stop(self) -> None:
        if self.scenario.repair is None:
            # Else a job that has to connect anew cannot.
            self._connections = Connections(self.worker, len(self.seen.kept))
        if self.scenario.together:
            self._instant.place(self.caller, self._send)
        else:
            self._send()

    def _send(self) -> None:
        self.sent = time.monotonic()
        self.scenario.stop(self.worker)

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
        scenario, reading = self.scenario, self.worker.reading()
        if scenario.disturb is not None and self._watch(DISTURB_SECONDS):
            scenario.disturb(self.worker)
        if scenario.repair is not None and self._watch(REPAIR_SECONDS):
            scenario.repair(self.worker)
        apart = scenario.ends is not Ends.TOGETHER and len(self.seen.kept) > 1
        if apart and self._watch(max(FIRST_END_SECONDS - self.passed, 0.0)) and self._watch_until_told():
            self._instant.settle(self.sent, self._watch)
            self._end_all_but_one()
        self._merely_watch()
        self._watch(max(scenario.hold - self.passed, 0.0))
        if not scenario.brief and self.seen.stopped_s is None and self.seen.asked is None:
            # A short hold; what it says to a job is asked for once it is to refuse.
            self._watch(STOPS_SECONDS + 1 - self.passed, lambda: self.seen.asked is not None)
        if scenario.repair is not None and self.transcript.live():
            self.seen.asked_back = self.worker.wire.ask(ANSWER_SECONDS, free=True)
        asked = self.seen.asked
        if self.seen.stopped_s is None and asked is not None and asked.available is False and self.transcript.live():
            # It says that it is free: was it the drain that refused, or a moment of load?
            self.seen.asked_last = self.worker.wire.ask(ANSWER_SECONDS, free=True)
        last = self.transcript.latest_status()
        if scenario.together and last is not None and self.transcript.live() and self.worker.is_running:
            self.seen.filled = self.stage.filled_by_others(self.worker, last.load, reading)
        self.seen.held_s = round(self.passed, 1)
        self._instant.settle(self.sent, self._watch)
        for kept in self.seen.kept:
            if kept.trouble is None and kept.hung_up_s is None:
                kept.hang_up(self.passed)
        self._instant.finish()

    def _watch_until_told(self) -> bool:
        """Before the end of a call ends a drain, or another worker's: until it is known what it takes when its 5 s are over.
        Of several registrations one may be full for a moment only. False as soon as nothing is left to see."""
        several = len(self.transcript.live()) > 1

        def told() -> bool:
            return self.seen.asked is not None if self.seen.stopped_s is None else not several

        return self._watch(STOPS_SECONDS + 1 - self.passed, told)

    def _refused_for_all(self) -> bool:
        others = [
            asked
            for other in self.stage.alike(self.worker)
            if other is not self.worker
            for asked in other.wire.transcript.questions()
            if asked.asked < min(other.disturbed_at, self.sent)
        ]
        ours = [asked for asked in self.transcript.questions() if asked.room != self._instant.room]
        return refused_for_all(ours, others, self.sent)

    def _end_all_but_one(self) -> None:
        """The oldest call and the newest first, then all but the second: a drain that waits for one only is caught so, and one
        that runs over a list which gets shorter meanwhile and misses a call (livekit-agents 1.3.8). Of two the oldest, unless
        the newest is to crash."""
        calls = self.seen.kept
        first = [calls[0], calls[-1]]
        if len(calls) == 2:
            first = calls[-1:] if self.scenario.ends is Ends.NEWEST_CRASHES else calls[:1]
            # The end of one call costs little.
            self._merely_watch()
        for ending in (first, calls[2:-1]):
            if not ending:
                continue
            before = len(self.worker.wire.calls_at)
            going = [kept for kept in ending if kept.trouble is None]
            for kept in going:
                kept.finish(self.passed)
            if self.scenario.ends is Ends.NEWEST_CRASHES:
                self.seen.crashed = self._placement.crash_newest()
            for kept in going:
                kept.call.leave()
            self._until_gone(before)
            if not self._watch(BETWEEN_ENDS_SECONDS):
                return
        self._merely_watch()
        self._watch(AFTER_ENDS_SECONDS - BETWEEN_ENDS_SECONDS)

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
        if seen.cut is not None or self.scenario.brief:
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
            if seen.busy is None and not (self._instant.hung_up and all(kept.call.hung_up for kept in seen.kept)):
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
        self.scenario.stop(self.worker)

        def heeded() -> bool:
            stopped = offered_nothing_since(self.transcript, again) is not None
            return stopped or not self.transcript.live() or not self.worker.is_running

        with contextlib.suppress(DeadlineMissed):
            return poll(heeded, what="another signal's effect", seconds=STOPS_SECONDS)
        return False
