"""Whether this machine had time for a worker that missed a deadline, or was busy, or stood still."""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

# The load counts waiting processes; above four per core, each gets less than a quarter of its time.
LOAD_PER_CORE = 4
# A run's own start can lead to such a load, and the average tells of it for a minute. This share of it is calm.
CALM_SHARE = 0.75
# With every core in use and half of them or more by others, a worker gets at most half of what it could use.
IDLE_SHARE = 0.1
OTHERS_SHARE = 0.5
# Well below the 3 s that an answer may take; a look takes a tenth of a millisecond.
HISTORY_SECONDS = 0.5
# A look that comes later than this says that we did not run meanwhile, and the worker mostly neither: a virtual machine may
# be stopped for half a minute, and no figure of CPU use says so.
LATE_SECONDS = 1.0
# The shortest deadline is 3 s; of a long wait, less than a tenth makes no difference.
STOOD_STILL_SECONDS = 2.0
STOOD_STILL_SHARE = 0.1
# A load that is averaged over a minute, as the kernel's, has come to more than half of what it is the load of after that time.
AVERAGES_SECONDS = (60.0, 20.0, 5.0)
# What a reported load is mostly the average of; a sample may be shorter, and some seconds old.
REPORTED_SECONDS = (1.0, 2.5, 5.0)
# The default thresholds of the SDKs are 0.65 to 0.75; nobody refuses calls for less than this.
LEAST_THRESHOLD = 0.4
# A load that is so near to the kernel's average may be that one: both are looked at some seconds apart.
ALIKE = 0.1
# As old as what a worker reports may be.
STALE_SECONDS = 10.0


class Stillness:
    """For how long this process stood still, as far as it is looked at regularly: ``looked``."""

    def __init__(self) -> None:
        # So far, and when the next look is due (monotonic seconds); both at once, as others read them meanwhile.
        self._known: tuple[float, float | None] = (0.0, None)

    def looked(self, now: float, next_after: float) -> None:
        """At this moment (monotonic seconds), and again so many seconds later."""
        self._known = (self.seconds(now), now + next_after)

    def ended(self, now: float) -> None:
        """Nobody looks any more."""
        self._known = (self.seconds(now), None)

    def seconds(self, now: float) -> float:
        """So far, the current pause included."""
        seconds, due = self._known
        late = 0.0 if due is None else now - due
        return seconds + (late if late > LATE_SECONDS else 0.0)


_STILLNESS = Stillness()


@dataclass(frozen=True)
class Reading:
    """One moment: monotonic seconds, core-seconds since boot (machine) or since its start (worker), seconds for which this
    process stood still so far, and the kernel's load average of the last minute."""

    at: float
    busy: float
    worker: float = 0.0
    still: float = 0.0
    average: float = 0.0

    @classmethod
    def now(cls, worker_seconds: float = 0.0) -> Reading:
        times = psutil.cpu_times()
        # Steal is what other machines on the same host took from this one: no less busy than our own processes.
        idle = times.idle + getattr(times, "iowait", 0.0)
        busy = sum(times) - idle - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        now = time.monotonic()
        return cls(now, busy, worker_seconds, _STILLNESS.seconds(now), os.getloadavg()[0])

    def used_until(self, later: Reading) -> Used:
        """Raises ZeroDivisionError for the same moment."""
        seconds = later.at - self.at
        return Used((later.busy - self.busy) / seconds, (later.worker - self.worker) / seconds, seconds)


@dataclass(frozen=True)
class Used:
    """Cores in use on average between two readings, ``seconds`` apart: by all, and by the worker."""

    cores: float
    worker: float
    seconds: float

    @property
    def others(self) -> float:
        return self.cores - self.worker


class History:
    """What the machine did, looked at twice a second from ``start`` until ``stop``: for what turns out later to have been late.

    The load that the kernel tells is that of the last minute, and does not say what a moment was like. ``also`` is called after
    each look.
    """

    def __init__(self, also: Callable[[], None] = lambda: None) -> None:
        self._also = also
        self._readings = [Reading.now()]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lk-busyness", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Safe to call twice, or before ``start``."""
        self._over.set()

    def _look(self) -> None:
        try:
            while True:
                _STILLNESS.looked(time.monotonic(), HISTORY_SECONDS)
                if self._over.wait(HISTORY_SECONDS):
                    break
                self._readings.append(Reading.now())
                self._also()
        finally:
            _STILLNESS.ended(time.monotonic())

    def had_no_time(self, since: float, until: float, own: float = 0.0) -> bool:
        """Whether next to all cores were in use, by whomever, between two moments (monotonic seconds), or we stood still.
        ``own``: how many of these the worker is known to have used itself, which are its own business."""
        used = self._share(since, until)
        by_others = used - own / (os.cpu_count() or 1)
        busy = used > 1 - IDLE_SHARE and by_others > OTHERS_SHARE
        return busy or stood_still(self.stood_still(since, until)) is not None

    def held_up(self, since: float, until: float, limit: float, own: float = 0.0) -> bool:
        """Whether what took from one moment to the other (monotonic seconds), longer than ``limit`` (seconds), may owe that to
        this machine: it had no time meanwhile (see there), or stood still for as long as that."""
        return self.had_no_time(since, until, own) or until - since - self.stood_still(since, until) <= limit

    def most_in_use(self, at: float) -> float:
        """Cores in use before a moment (monotonic seconds), by whomever: the most of several averages, of which a load that was
        reported then may be one."""
        return max(cores_between(self._until(at), at - seconds, at) for seconds in REPORTED_SECONDS)

    def stood_still(self, since: float, until: float) -> float:
        """Seconds between two moments (monotonic) for which we stood still."""
        before, after = _around(self._until(until), since, until)
        return after.still - before.still

    def belies(self, load: float, at: float) -> bool:
        """Whether a load that was reported then cannot be that of the whole machine, which was in use for long before and by
        far more."""
        if at - AVERAGES_SECONDS[0] < self._readings[0].at:
            return False
        used = min(self._share(at - seconds, at) for seconds in AVERAGES_SECONDS)
        return used >= LEAST_THRESHOLD and load < used / 2

    def belies_average(self, load: float, at: float) -> bool:
        """Whether a load that was reported then cannot be the kernel's average, which was far above it for some seconds. A
        worker may share it among fewer cores than there are, so that one above it says nothing."""
        return load < min(self._averages(at), default=0.0) - 2 * ALIKE

    def is_average(self, load: float, at: float) -> bool:
        """Whether a load that was reported then may be the kernel's average, shared among all cores, which stood out: near 0
        all loads of a machine at rest are alike."""
        return any(average > ALIKE and abs(load - average) <= ALIKE for average in self._averages(at))

    def _averages(self, at: float) -> list[float]:
        """The kernel's average, shared among all cores, of the seconds of which a load may be that was reported then."""
        first, last = (bisect_left(self._readings, moment, key=_moment) for moment in (at - STALE_SECONDS, at))
        return [min(reading.average / (os.cpu_count() or 1), 1.0) for reading in self._readings[first : last + 1]]

    def average_rose(self, since: float, until: float) -> float:
        """By how much the kernel's average for a core rose between two moments (monotonic seconds)."""
        before, after = _around(self._until(until), since, until)
        return (after.average - before.average) / (os.cpu_count() or 1)

    def _share(self, since: float, until: float) -> float:
        return cores_between(self._until(until), since, until) / (os.cpu_count() or 1)

    def _until(self, until: float) -> Sequence[Reading]:
        return self._readings if until <= self._readings[-1].at else [*self._readings, Reading.now()]


def _moment(reading: Reading) -> float:
    return reading.at


def cores_between(readings: Sequence[Reading], since: float, until: float) -> float:
    """Cores in use on average between the last of these readings, oldest first, before ``since`` and the first one after
    ``until``."""
    before, after = _around(readings, since, until)
    return before.used_until(after).cores if after.at > before.at else 0.0


def _around(readings: Sequence[Reading], since: float, until: float) -> tuple[Reading, Reading]:
    before = readings[max(bisect_right(readings, since, key=_moment) - 1, 0)]
    return before, readings[min(bisect_left(readings, until, key=_moment), len(readings) - 1)]


def stood_still(seconds: float, waited: float = 0.0) -> str | None:
    """Why this machine, on which this run stood still for so long while it ``waited`` (seconds), cannot judge a deadline;
    None: it can."""
    matters = seconds > max(STOOD_STILL_SECONDS, STOOD_STILL_SHARE * waited)
    return f"this run did not get the CPU for {seconds:.0f} s" if matters else None


def is_calm() -> bool:
    """Whether the load of the last minute is well below what says that this machine is too busy."""
    return os.getloadavg()[0] <= CALM_SHARE * LOAD_PER_CORE * (os.cpu_count() or 1)


def too_busy(before: Reading | None = None, after: Reading | None = None) -> str | None:
    """Why this machine cannot judge a deadline that was missed between two readings; None: it can."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    if load > LOAD_PER_CORE * cores:
        return f"load {load:.1f} on {cores} cores"
    if before is None or after is None or after.at - before.at < 1:
        return None
    if (reason := stood_still(after.still - before.still, after.at - before.at)) is not None:
        return reason
    used = before.used_until(after)
    if used.cores > (1 - IDLE_SHARE) * cores and used.others > OTHERS_SHARE * cores:
        return f"others than the worker used {used.others:.1f} of {cores} cores for {used.seconds:.0f} s"
    return None


def filled_by_others(load: float, before: Reading, after: Reading) -> str | None:
    """Why a worker that reports this load (0 to 1) may rightly refuse calls although it has room for them; None: it may not.

    Many a worker's load is the CPU use of the whole machine, that of others included: psutil's, and the SDKs' outside of a
    container. Others are the reason if at least half of its load may be theirs.
    """
    if after.at <= before.at:
        return None
    cores = os.cpu_count() or 1
    used = before.used_until(after)
    if load < LEAST_THRESHOLD or used.others / cores < min(load, 1.0) / 2:
        return None
    return (
        f"the worker reports a load of {load:.2f}, and others used {used.others:.1f} of {cores} cores for {used.seconds:.0f} s"
    )


def filled_by_the_past(load: float, before: Reading, after: Reading) -> str | None:
    """The same of a load that may be the kernel's average (``os.getloadavg``), which is high for a minute after what others
    did: it is about that one now, and less than half of it is what the worker used meanwhile."""
    cores = os.cpu_count() or 1
    if after.at <= before.at or load < LEAST_THRESHOLD or abs(load - min(after.average / cores, 1.0)) > ALIKE:
        return None
    if before.used_until(after).worker > after.average / 2:
        return None
    return f"the worker reports a load of {load:.2f}, and the machine's load average is {after.average:.1f} on {cores} cores"
