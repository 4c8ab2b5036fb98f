"""Call traces: when calls come and how long they take. Needs the extra ``manifests``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pytest_lkagents.capacity.csv_trace import read_rows

Seconds = NDArray[np.float64]

HOUR = 3600.0
DAY = 24 * HOUR
KINDS = ("steady", "daily", "burst")
# Calls of four minutes on average with a long tail, none longer than the ten minutes that the guide asks a grace period for;
# where that is less, they are shorter in proportion.
MEAN_SECONDS = 240.0
LONGEST_SECONDS = 600.0
MEAN_SHARE = MEAN_SECONDS / LONGEST_SECONDS
# How unlike each other the calls are: the standard deviation of the logarithm of their length.
SPREAD = 0.6
# A fleet is not met by all its calls at once: they grow to their level over this time.
RAMP_SECONDS = 1800.0


@dataclass(frozen=True)
class Trace:
    """``start_s`` (sorted) and ``duration_s``: arrays of the same length, one entry per call, seconds. It is watched for
    ``length_s``; calls that still run then are neither served nor lost. A standard one ``rises_to`` so many calls at a time."""

    name: str
    start_s: Seconds
    duration_s: Seconds
    length_s: float
    rises_to: float | None = None

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def longest_s(self) -> float:
        return float(self.duration_s.max()) if len(self) else 0.0


def steady(in_progress: float, *, seed: int = 0, length_s: float = 4 * HOUR, longest_s: float = LONGEST_SECONDS) -> Trace:
    """Calls come at random at one rate, after half an hour of growth: ``in_progress`` at a time on average."""
    return _poisson("steady", in_progress, lambda t: np.minimum(1.0, t / RAMP_SECONDS), length_s, seed, longest_s)


def daily(
    in_progress: float, *, seed: int = 0, length_s: float = DAY, night: float = 0.1, longest_s: float = LONGEST_SECONDS
) -> Trace:
    """One wave per day, from its lowest point (``night``, as a share) to ``in_progress`` calls at a time and back."""

    def wave(t: Seconds) -> Seconds:
        return night + (1 - night) * (1 - np.cos(2 * np.pi * t / DAY)) / 2

    return _poisson("daily", in_progress, wave, length_s, seed, longest_s)


def burst(
    in_progress: float,
    *,
    seed: int = 0,
    length_s: float = 2 * HOUR,
    quiet: float = 0.2,
    rise_s: float = 120,
    longest_s: float = LONGEST_SECONDS,
) -> Trace:
    """Quiet (a share) for an hour, then within two minutes as many calls as lead to ``in_progress`` at a time, for 20 minutes;
    then quiet again."""
    begins, lasts = 1 * HOUR, 1200.0
    times = [0, begins, begins + rise_s, begins + rise_s + lasts, begins + 2 * rise_s + lasts]
    return _poisson("burst", in_progress, lambda t: np.interp(t, times, [quiet, quiet, 1, 1, quiet]), length_s, seed, longest_s)


def standard(kind: str, in_progress: float, *, longest_s: float = LONGEST_SECONDS) -> Trace:
    """The trace of this kind, with calls of up to ``longest_s``. Raises ValueError for another kind."""
    made = {"steady": steady, "daily": daily, "burst": burst}.get(kind)
    if made is None:
        raise ValueError(f"trace {kind!r} is not one of {', '.join(KINDS)}")
    return made(in_progress, longest_s=longest_s)


def from_csv(path: Path) -> Trace:
    """A file's calls, sorted by start and counted from the first one: seconds of a day begin in the middle of it. Raises
    ValueError with file, line and what is wanted."""
    starts, durations = (np.frombuffer(column, dtype=np.float64) for column in read_rows(path))
    order = np.argsort(starts, kind="stable")
    starts, durations = starts[order] - starts.min(), durations[order]
    return Trace(path.name, starts, durations, float((starts + durations).max()))


def _middle(longest_s: float) -> float:
    """The mean of the logarithm of a call's length, before it is cut."""
    return math.log(min(MEAN_SECONDS, MEAN_SHARE * longest_s)) - SPREAD**2 / 2


def durations(count: int, rng: np.random.Generator, longest_s: float = LONGEST_SECONDS) -> Seconds:
    """Lengths of ``count`` calls, log-normal, then cut at ``longest_s``."""
    return np.minimum(rng.lognormal(_middle(longest_s), SPREAD, count), longest_s)


def mean_seconds(longest_s: float = LONGEST_SECONDS) -> float:
    """The mean of these lengths: of a log-normal one up to where it is cut, and of what is cut."""
    middle, below = _middle(longest_s), statistics.NormalDist().cdf
    at = (math.log(longest_s) - middle) / SPREAD
    return math.exp(middle + SPREAD**2 / 2) * below(at - SPREAD) + longest_s * below(-at)


def _poisson(
    name: str, in_progress: float, share: Callable[[Seconds], Seconds], length_s: float, seed: int, longest_s: float
) -> Trace:
    """Arrivals of a Poisson process with the rate ``in_progress / mean_seconds(longest_s) * share(t)``, by thinning: ``share``
    is at most 1. By Little's law that rate leads to ``in_progress`` calls at a time."""
    if not in_progress > 0 or not length_s > 0 or not longest_s > 0:
        raise ValueError(f"{in_progress:g} calls of up to {longest_s:g} s at a time for {length_s:g} s: all are above 0")
    rng = np.random.default_rng(seed)
    starts = np.sort(rng.uniform(0, length_s, rng.poisson(in_progress / mean_seconds(longest_s) * length_s)))
    starts = starts[rng.random(len(starts)) < share(starts)]
    return Trace(name, starts, durations(len(starts), rng, longest_s=longest_s), length_s, in_progress)
