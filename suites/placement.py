"""The calls that a worker has when it is asked to stop, and the processes that serve them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.callers.habit import STAY_CONTROL, STAY_SECONDS, AgentsLeave
from pytest_lkagents.checks import NotJudgeable, StageError, TooBusy, WorkerFault
from pytest_lkagents.clock import holds
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .kept import Kept
from .pool import end
from .scenario import GOODBYE_SECONDS, Ends, Scenario


class Placement:
    """``scenario`` is a simpler one once the calls are placed, where agents leave by themselves."""

    # Whether the process of the only call before was killed, of a worker that takes one at a time.
    crashed_before = False
    # Why it may have taken fewer calls than it takes on another machine, in words.
    fewer: str | None = None

    def __init__(self, stage: Stage, worker: Worker, caller: Caller, scenario: Scenario) -> None:
        self.stage, self.worker, self.caller, self.scenario = stage, worker, caller, scenario
        # Which processes served the first call before there was another one, and all calls at the signal.
        self.oldest: list[int] = []
        self.all: list[int] = []

    def place(self) -> list[Kept]:
        """Raises WorkerFault when not even one call is served, NotJudgeable where none outlives what comes before the
        signal."""
        known, scenario = self.stage.calls, self.scenario
        if scenario.placed is None and known.leave_by_themselves:
            return [self._place_leaving([])]
        if scenario.after_a_call:
            self._come_and_go()
        calls = self._serve()
        try:
            known.wait_heard(calls, steady=not scenario.brief)
        except AgentsLeave:
            if scenario.placed is not None:
                raise
            return [self._place_leaving(calls)]
        if scenario.aged and not self._grow_old(calls):
            return [self._place_leaving(calls)]
        if scenario.placed is not None:
            scenario.placed(calls)
            if not all(call.agents_present for call in calls):
                raise NotJudgeable("its call did not outlive what came before the signal: see registration.keeps-calls")
        return [Kept(call, known.continuity(call)) for call in calls]

    def crash_newest(self) -> bool:
        """The process of the newest call's job is killed, if that has one of its own, and no call was handed over meanwhile."""
        with contextlib.suppress(WorkerFault):
            newest = set(self.all) - set(self.oldest)
            same = set(self._jobs()) == set(self.all) and set(self.oldest) < set(self.all)
            if same and len(newest) == 1 and self._are_own(self.all, 2):
                self.worker.signal_processes(sorted(newest), "SIGKILL")
                return True
        return False

    def _serve(self) -> list[Call]:
        known, crashes = self.stage.calls, self.scenario.ends is Ends.NEWEST_CRASHES
        calls = [known.served(self.caller)]
        if crashes:
            self.oldest = self._jobs()
        for _ in range(self.scenario.calls - 1):
            try:
                calls.append(known.served(self.caller))
            except TooBusy as busy:
                self.fewer = str(busy)
                break
            except WorkerFault:
                break  # it takes no more than these
        if crashes:
            calls = self._serve_after_a_crash(calls[0]) if len(calls) == 1 else calls
            self.all = self._jobs()
        return calls

    def _serve_after_a_crash(self, only: Call) -> list[Call]:
        """The call of a worker that takes one at a time, which has had another one whose job's process was killed."""
        if self._are_own(self.oldest, 1):
            self.worker.signal_processes(self.oldest, "SIGKILL")
            self.crashed_before = True
            only.leave()
            only = self.stage.calls.served(self.caller)
        return [only]

    def _grow_old(self, calls: list[Call]) -> bool:
        """Whether they all last until they are as old as they are to be."""

        def last() -> bool:
            self.stage.raise_if_closing()
            return all(call.agents_present for call in calls)

        left = max(call.joined for call in calls) + self.scenario.aged - time.monotonic()
        with self.worker.ledger.waiting(self.worker.name):
            return holds(last, seconds=max(left, 0.0))

    def _come_and_go(self) -> None:
        """A call that is over, its job's process too; a job that does not end is another check's business."""
        call = self.stage.calls.served(self.caller)
        now = self.worker.snapshot()
        jobs = set(self.worker.jobs_of(now)) - set(self.worker.registered_by(now))
        end(self.worker, call, jobs)
        with contextlib.suppress(StageError):
            self.stage.calls.wait_idle(self.worker, GOODBYE_SECONDS)

    def _place_leaving(self, before: list[Call]) -> Kept:
        """Where agents leave by themselves: a call of which the agent has just come, and is to stay as long as it does in
        calls that nothing disturbs. Raises AgentsLeave where that cannot be told."""
        known = self.stage.calls
        usual = known.usual_stay(before, lambda: known.served(self.caller))
        self.caller.close()
        hold = STAY_CONTROL * usual.least + STAY_SECONDS
        self.scenario = replace(self.scenario, together=False, ends=Ends.TOGETHER, hold=hold)
        call = known.served(self.caller)
        return Kept(call, known.continuity(call, usual))

    def _jobs(self) -> list[int]:
        """For each of its calls the process that serves it."""
        now = self.worker.snapshot()
        return now.without_children(self.worker.jobs_of(now))

    def _are_own(self, jobs: list[int], calls: int) -> bool:
        """Whether so many calls have a process each, which does nothing else, and is no proxy for others."""
        now = self.worker.snapshot()
        registered = set(self.worker.registered_by(now))
        return len(jobs) == len(set(jobs)) == calls and not registered & set(jobs) and not any(map(now.is_relay, jobs))
