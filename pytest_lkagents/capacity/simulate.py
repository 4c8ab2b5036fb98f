"""A deployment under a call trace: the server's dispatch, the workers' load, the autoscaler, start and drain.

The processes (the workers' clock, the metric, the autoscaler, each replica's start and drain) are simpy's. Calls are not:
between two such events nothing that the server knows changes, so that their arrivals and ends are played in one go, in the
order of their times, from a heap. That is exact, and a quarter of the cost of an event per call. Needs the extra ``manifests``.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import simpy

from pytest_lkagents.capacity.dispatch import Dispatcher
from pytest_lkagents.capacity.fleet import STARTING, Fleet
from pytest_lkagents.capacity.parameters import ServerModel, WorkerModel
from pytest_lkagents.capacity.result import EXAMPLES, POINTS, Point, Result
from pytest_lkagents.capacity.scaler import Autoscaler, Seen
from pytest_lkagents.capacity.scaling import Scaling
from pytest_lkagents.capacity.traces import Trace

Process = Generator[simpy.Event, Any, None]

# metrics-server reads the kubelets this often (--metric-resolution); the autoscaler sees no younger figure.
METRIC_SECONDS = 15.0
# So many calls of a trace are turned into Python numbers at a time.
CHUNK = 2048


def simulate(
    trace: Trace,
    scaling: Scaling,
    worker: WorkerModel | None = None,
    server: ServerModel | None = None,
    *,
    seed: int = 0,
) -> Result:
    """Play ``trace`` on a deployment that begins with its least number of replicas, ready and idle.

    The same arguments give the same result. Memory does not grow with the trace, which is given, nor with its calls.
    """
    return _Simulation(trace, scaling, worker or WorkerModel(), server or ServerModel(), seed).run()


class _Simulation:
    def __init__(self, trace: Trace, scaling: Scaling, worker: WorkerModel, server: ServerModel, seed: int) -> None:
        self._trace, self._scaling, self._worker = trace, scaling, worker
        self._env = simpy.Environment()
        self._fleet = Fleet(worker, scaling.min_replicas)
        self._dispatcher = Dispatcher(np.random.default_rng(seed), server.target_load)
        self._stale = True  # the dispatcher has not looked since the fleet changed
        self._looked_at = 0  # slots, at its last look
        self._arrivals = _pairs(trace)
        self._next = next(self._arrivals, None)
        self._ends: list[tuple[float, int, int]] = []  # end, slot, era
        self._served = self._refused = self._unseen = self._cut = self._strained = self._calls = 0
        self._refusals: list[float] = []
        self._cuts: list[float] = []
        self._points: list[Point] = []
        self._ready_seconds = self._load_seconds = self._call_seconds = self._replica_seconds = 0.0
        self._most = 0

    def run(self) -> Result:
        for _ in range(self._scaling.min_replicas):
            self._fleet.register(self._fleet.start())
        env = self._env
        env.process(self._clock())
        env.process(self._watch())
        if self._scaling.target is not None:
            env.process(self._metric())
            env.process(self._autoscale(Autoscaler(self._scaling, self._scaling.min_replicas)))
        env.run(until=self._trace.length_s)
        self._play(self._trace.length_s)
        self._note_point()
        return self._result()

    # Calls

    def _play(self, until: float) -> None:
        """All arrivals and ends up to ``until``, in order. Where both fall together, the end frees its place first."""
        ends = self._ends
        while True:
            arrives = self._next[0] if self._next is not None else math.inf
            if ends and ends[0][0] <= arrives:
                if ends[0][0] > until:
                    return
                _, slot, era = heapq.heappop(ends)
                if self._fleet.era[slot] == era:  # else it was cut
                    self._fleet.finish(slot)
                    self._served += 1
            elif arrives <= until:
                assert self._next is not None
                self._arrive(*self._next)
                self._next = next(self._arrivals, None)
            else:
                return

    def _arrive(self, now: float, duration: float) -> None:
        fleet = self._fleet
        self._calls += 1
        # Slots come and go at the end of the used ones also when nothing is reported: one starts, or its last call ends.
        if self._stale or self._looked_at != fleet.used:
            self._dispatcher.look(fleet.reported[: fleet.used], fleet.available[: fleet.used])
            self._stale, self._looked_at = False, fleet.used
        slot = self._dispatcher.offer(fleet.accepts, fleet.who_accepts)
        if slot is None:
            self._refused += 1
            self._unseen += not self._dispatcher.bids
            if len(self._refusals) < EXAMPLES:
                self._refusals.append(now)
            return
        self._strained += self._worker.load(int(fleet.calls[slot])) >= self._worker.threshold
        fleet.take(slot)
        heapq.heappush(self._ends, (now + duration, slot, int(fleet.era[slot])))

    # Processes: each plays the calls up to its moment before it changes anything.

    def _clock(self) -> Process:
        """The workers sample their loads, and report them by turns."""
        step, fleet = self._worker.sample_s, self._fleet
        ticks = 0
        while True:
            ticks += 1
            yield self._env.timeout(ticks * step - self._env.now)
            self._play(self._env.now)
            loads = fleet.tick()
            self._stale = True
            replicas = fleet.ready + fleet.starting + fleet.draining
            self._most = max(self._most, replicas)
            self._load_seconds += loads * step
            self._ready_seconds += fleet.ready * step
            self._replica_seconds += replicas * step
            self._call_seconds += fleet.in_progress * step

    def _metric(self) -> Process:
        while True:
            yield self._env.timeout(METRIC_SECONDS)
            self._play(self._env.now)
            self._fleet.scrape()

    def _autoscale(self, autoscaler: Autoscaler) -> Process:
        fleet = self._fleet
        # It looks at no special moment of the metric's period; on average its figures are half a period old.
        yield self._env.timeout(METRIC_SECONDS / 2)
        while True:
            self._play(self._env.now)
            current = fleet.ready + fleet.starting
            mean, measured = fleet.measured()
            wanted = autoscaler.decide(self._env.now, current, Seen(mean, measured, current - measured))
            for _ in range(wanted - current):
                self._env.process(self._start())
            for slot in fleet.youngest(max(0, current - wanted)):
                self._stop(slot)
            yield self._env.timeout(self._scaling.sync_s)

    def _start(self) -> Process:
        slot = self._fleet.start()
        era = self._fleet.era[slot]
        yield self._env.timeout(self._worker.start_s)
        self._play(self._env.now)
        if self._fleet.era[slot] == era:  # else it was removed meanwhile
            self._fleet.register(slot)
            self._stale = True

    def _stop(self, slot: int) -> None:
        self._stale = True
        if self._fleet.state[slot] == STARTING:
            self._fleet.remove(slot)
            return
        era = self._fleet.era[slot]
        self._fleet.drain(slot)
        if self._fleet.era[slot] == era:
            self._env.process(self._end_of_grace(slot, int(era)))

    def _end_of_grace(self, slot: int, era: int) -> Process:
        yield self._env.timeout(self._scaling.grace_s)
        self._play(self._env.now)
        if self._fleet.era[slot] == era:  # else its last call has ended
            lost = self._fleet.remove(slot)
            self._cut += lost
            self._cuts += [self._env.now] * min(lost, EXAMPLES - len(self._cuts))

    def _watch(self) -> Process:
        """The points of the series."""
        while True:
            self._note_point()
            yield self._env.timeout(self._trace.length_s / POINTS)
            self._play(self._env.now)

    def _note_point(self) -> None:
        fleet = self._fleet
        refused = self._refused - sum(point.refused for point in self._points)
        cut = self._cut - sum(point.cut for point in self._points)
        self._points.append(Point(self._env.now, fleet.ready, fleet.starting, fleet.draining, fleet.in_progress, refused, cut))

    def _result(self) -> Result:
        could_carry = self._replica_seconds * self._worker.capacity
        return Result(
            calls=self._calls,
            served=self._served,
            refused=self._refused,
            cut=self._cut,
            in_progress=self._fleet.in_progress,
            unseen=self._unseen,
            strained=self._strained,
            utilisation=self._call_seconds / could_carry if could_carry else 0.0,
            mean_load=self._load_seconds / self._ready_seconds if self._ready_seconds else 0.0,
            replica_hours=self._replica_seconds / 3600,
            most_replicas=self._most,
            refusals_s=tuple(self._refusals),
            cuts_s=tuple(self._cuts),
            series=tuple(self._points),
        )


def _pairs(trace: Trace) -> Iterator[tuple[float, float]]:
    """Start and duration of each call, as Python numbers, some at a time."""
    for first in range(0, len(trace), CHUNK):
        chunk = slice(first, first + CHUNK)
        yield from zip(trace.start_s[chunk].tolist(), trace.duration_s[chunk].tolist(), strict=True)
