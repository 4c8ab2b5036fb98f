"""The replicas of a deployment: arrays with one entry ("slot") per replica, so that thousands cost little more than one."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_lkagents.capacity.parameters import WorkerModel

ABSENT, STARTING, READY, DRAINING = range(4)


class Fleet:
    """A slot is used again when its replica has gone; its ``era`` then tells the old replica from the new one."""

    def __init__(self, worker: WorkerModel, slots: int) -> None:
        self.worker = worker
        self.samples = max(1, round(worker.window_s / worker.sample_s))
        self.reports_every = max(1, round(worker.report_s / worker.sample_s))
        self.counts_calls = worker.window_s == 0
        self.used = 0  # slots from here on are absent: most steps look at those before only
        self.ready = self.starting = self.draining = self.in_progress = 0
        self._free: list[int] = []
        self._ticks = self._ticks_of_metric = 0
        self._born = 0
        self._allocate(max(8, slots))

    def _allocate(self, slots: int) -> None:
        """Make room for ``slots`` replicas, with what there was."""

        def grown(name: str, kind: type, rows: int | None = None) -> None:
            fresh: NDArray[Any] = np.zeros(slots if rows is None else (rows, slots), dtype=kind)
            if hasattr(self, name):
                before = getattr(self, name)
                fresh[..., : before.shape[-1]] = before
            setattr(self, name, fresh)

        known = len(self.state) if hasattr(self, "state") else 0
        grown("state", np.int8)
        grown("era", np.int64)
        grown("calls", np.int64)
        grown("born", np.int64)
        grown("load", np.float64)  # averaged, as the worker itself knows it
        grown("reported", np.float64)  # as the server knows it
        grown("available", np.bool_)  # as the server knows it
        grown("metric", np.float64)  # mean load in the last whole period of the metric
        grown("has_metric", np.bool_)
        grown("_summed", np.float64)  # loads since the metric's last period ended
        grown("_whole", np.bool_)  # ready since that period began
        grown("_window", np.float64, self.samples)
        for slot in range(known, slots):
            heapq.heappush(self._free, slot)

    state: NDArray[np.int8]
    era: NDArray[np.int64]
    calls: NDArray[np.int64]
    born: NDArray[np.int64]
    load: NDArray[np.float64]
    reported: NDArray[np.float64]
    available: NDArray[np.bool_]
    metric: NDArray[np.float64]
    has_metric: NDArray[np.bool_]
    _summed: NDArray[np.float64]
    _whole: NDArray[np.bool_]
    _window: NDArray[np.float64]

    # Lives

    def start(self) -> int:
        """One more replica, which is not registered yet; its slot. The lowest free one, to keep the used ones together."""
        if not self._free:
            self._allocate(2 * len(self.state))
        slot = heapq.heappop(self._free)
        self.used = max(self.used, slot + 1)
        self._born += 1
        self.state[slot], self.born[slot], self.calls[slot] = STARTING, self._born, 0
        self.starting += 1
        return slot

    def register(self, slot: int) -> None:
        """A replica that started is now the server's to use: at once available, with a load of 0 until its first report."""
        base = self.worker.base
        self.state[slot], self.available[slot], self.reported[slot] = READY, True, 0.0
        self.load[slot], self._window[:, slot] = base, base
        self._summed[slot], self._whole[slot], self.has_metric[slot] = 0.0, False, False
        self.starting -= 1
        self.ready += 1

    def drain(self, slot: int) -> None:
        """A ready replica gets its stop signal: it tells the server at once, and keeps its calls."""
        self.state[slot], self.available[slot] = DRAINING, False
        self.ready -= 1
        self.draining += 1
        if not self.calls[slot]:
            self.remove(slot)

    def remove(self, slot: int) -> int:
        """The replica is gone; how many calls went with it."""
        lost = int(self.calls[slot])
        if self.state[slot] == STARTING:
            self.starting -= 1
        elif self.state[slot] == READY:
            self.ready -= 1
        else:
            self.draining -= 1
        self.in_progress -= lost
        self.state[slot], self.calls[slot], self.available[slot], self.has_metric[slot] = ABSENT, 0, False, False
        self.era[slot] += 1
        heapq.heappush(self._free, slot)
        while self.used and self.state[self.used - 1] == ABSENT:
            self.used -= 1
        return lost

    def youngest(self, count: int) -> list[int]:
        """The slots of the replicas that go first: those that still start, then the newest. (A ReplicaSet's order, where
        neither a deletion cost nor the spread over nodes decides.)"""
        state = self.state[: self.used]
        candidates = np.flatnonzero((state == STARTING) | (state == READY))
        order = np.lexsort((-self.born[candidates], state[candidates]))
        return [int(slot) for slot in candidates[order[:count]]]

    # Calls

    def take(self, slot: int) -> None:
        self.calls[slot] += 1
        self.in_progress += 1

    def finish(self, slot: int) -> None:
        """A call ends by itself; a replica that drains goes with its last one."""
        self.calls[slot] -= 1
        self.in_progress -= 1
        if self.state[slot] == DRAINING and not self.calls[slot]:
            self.remove(slot)

    def accepts(self, slot: int) -> bool:
        """A worker's answer when it is asked."""
        load = self.worker.load(int(self.calls[slot])) if self.counts_calls else float(self.load[slot])
        return load < self.worker.threshold and self.state[slot] == READY

    def who_accepts(self) -> NDArray[np.bool_]:
        """All answers, shape (used,)."""
        loads = self._present() if self.counts_calls else self.load[: self.used]
        answers: NDArray[np.bool_] = (loads < self.worker.threshold) & (self.state[: self.used] == READY)
        return answers

    def _present(self) -> NDArray[np.float64]:
        loads: NDArray[Any] = self.calls[: self.used] * self.worker.slope
        loads += self.worker.base
        np.minimum(loads, 1.0, out=loads)
        return loads

    # Time

    def tick(self) -> float:
        """``sample_s`` has passed: every worker samples its load, and those whose turn it is report it. Returns the sum of
        the present loads of the ready replicas."""
        used, turn = self.used, self._ticks % self.reports_every
        present = self._present()
        self._window[self._ticks % self.samples, :used] = present
        self._ticks += 1
        self._ticks_of_metric += 1
        if self.samples == 1:
            self.load[:used] = present
        else:
            np.add.reduce(self._window[:, :used], axis=0, out=self.load[:used])
            self.load[:used] /= self.samples
        self._summed[:used] += present
        ready = self.state[:used] == READY
        # Workers report by turns, a fifth of them at each sample.
        mine = slice(turn, used, self.reports_every)
        self.reported[mine] = self.load[mine]
        self.available[mine] = ready[mine] & (self.load[mine] < self.worker.threshold)
        return float(present @ ready)

    def scrape(self) -> None:
        """A period of the metric ends: its mean for every replica that was ready all the while."""
        if not self._ticks_of_metric:
            return
        used = self.used
        ready = self.state[:used] == READY
        self.has_metric[:used] = ready & self._whole[:used]
        self.metric[:used] = self._summed[:used] / self._ticks_of_metric
        self._whole[:used] = ready
        self._summed[:used] = 0.0
        self._ticks_of_metric = 0

    def measured(self) -> tuple[float, int]:
        """Mean of the metric, and of how many ready replicas."""
        known = self.has_metric[: self.used] & (self.state[: self.used] == READY)
        count = int(known.sum())
        return (float(self.metric[: self.used][known].mean()) if count else 0.0), count
