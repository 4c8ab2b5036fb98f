"""Straight lines through measurements, with their error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t for 95 % (two-sided), by degrees of freedom from 1 on: with few points two standard errors are far too few.
STUDENT_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


def errors_of_95(points: int) -> float:
    """How many standard errors a slope lies within with a probability of 95 %, of a line through so many points (three at
    least)."""
    freedom = points - 2
    # Further on, the first terms of its series.
    return STUDENT_95[freedom - 1] if freedom <= len(STUDENT_95) else 1.96 + 2.5 / freedom


@dataclass(frozen=True)
class Line:
    """A least-squares line ``base + slope * x``; ``stderr`` is the slope's standard error, in the slope's unit."""

    base: float
    slope: float
    stderr: float

    def at(self, x: float) -> float:
        return self.base + self.slope * x

    def exceeds(self, bound: float) -> bool:
        """Whether it rises by more than ``bound`` per unit of x beyond doubt."""
        return self.slope - 2 * self.stderr > bound


def line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """Raises ValueError for less than three points, which have no standard error, or when all ``xs`` are the same."""
    count = len(xs)
    if count < 3 or count != len(ys):
        raise ValueError("a line with an error needs three points")
    middle, level = sum(xs) / count, sum(ys) / count
    spread = sum((x - middle) ** 2 for x in xs)
    if spread == 0:
        raise ValueError("a line needs different points")
    slope = sum((x - middle) * (y - level) for x, y in zip(xs, ys, strict=True)) / spread
    base = level - slope * middle
    rest = sum((y - base - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    return Line(base, slope, math.sqrt(rest / (count - 2) / spread))
