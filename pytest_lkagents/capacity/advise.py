"""A better setting for a deployment that loses calls, and why: found by trying, the cheaper changes first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pytest_lkagents.capacity.result import Result
from pytest_lkagents.capacity.scaler import TINY
from pytest_lkagents.capacity.scaling import UP, Scaling

# Lower ones pay for more than three workers where one would do.
LOWEST_TARGET = 0.3
TARGET_STEP = 0.1


@dataclass(frozen=True)
class Advice:
    """``changes`` in words, and what the simulation then shows."""

    scaling: Scaling
    changes: tuple[str, ...]
    result: Result


def better(
    scaling: Scaling, longest_s: float, play: Callable[[Scaling], Result], good: Callable[[Result], bool]
) -> Advice | None:
    """The first of a few settings, each going further than the one before, with which ``good`` holds; None: none does.

    ``longest_s`` is the longest call; ``play`` simulates a setting. At most about eight simulations.
    """
    for tried, changes in _settings(scaling, longest_s):
        result = play(tried)
        if good(result):
            return Advice(tried, changes, result)
    return None


def _settings(scaling: Scaling, longest_s: float) -> Iterator[tuple[Scaling, tuple[str, ...]]]:
    """What is changed stays changed in the next one."""
    changes: tuple[str, ...] = ()
    if scaling.grace_s < longest_s:
        # Whole seconds, as files have them, and enough of them.
        scaling = dataclasses.replace(scaling, grace_s=math.ceil(longest_s - TINY))
        changes += (f"a grace period of {scaling.grace_s:.0f} s (beside a preStop hook's), as calls last so long",)
        yield scaling, changes
    if scaling.target is None:
        return
    if scaling.up != UP:
        scaling = dataclasses.replace(scaling, up=UP)
        changes += ("scaling up at once, with the platform's own policies (twice as many every 15 s)",)
        yield scaling, changes
    before = changes
    assert scaling.target is not None
    target = scaling.target - TARGET_STEP
    while target >= LOWEST_TARGET - 1e-9:
        scaling = dataclasses.replace(scaling, target=round(target, 2))
        changes = (*before, f"a target load of {target:.2f}, which leaves room until new workers have started")
        yield scaling, changes
        target -= TARGET_STEP
    before = changes
    least = scaling.min_replicas * 2
    while least < scaling.max_replicas:
        scaling = dataclasses.replace(scaling, min_replicas=least)
        changes = (*before, f"at least {least} workers, as the calls come faster than workers start")
        yield scaling, changes
        least *= 2
    scaling = dataclasses.replace(scaling, max_replicas=2 * scaling.max_replicas)
    yield scaling, (*changes, f"up to {scaling.max_replicas} workers")
