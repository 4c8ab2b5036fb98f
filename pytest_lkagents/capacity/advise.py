"""A better setting for a deployment that loses calls, and why: found by trying, the cheaper changes first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Change:
    """One of the fields of a Scaling, and in words what it is to be."""

    field: str
    value: Any
    words: str


def better(
    scaling: Scaling, longest_s: float, play: Callable[[Scaling], Result], good: Callable[[Result], bool]
) -> Advice | None:
    """The first of a few settings, each going further than the one before, with which ``good`` holds, less what it does not
    need of them; None: none does.

    ``longest_s`` is the longest call; ``play`` simulates a setting. At most about twelve simulations.
    """
    for changes in _settings(scaling, longest_s):
        advice = _tried(scaling, changes, play)
        if good(advice.result):
            return _pruned(scaling, changes, advice, play, good)
    return None


def _tried(scaling: Scaling, changes: Sequence[Change], play: Callable[[Scaling], Result]) -> Advice:
    changed = dataclasses.replace(scaling, **{change.field: change.value for change in changes})
    return Advice(changed, tuple(change.words for change in changes), play(changed))


def _pruned(
    scaling: Scaling,
    changes: Sequence[Change],
    advice: Advice,
    play: Callable[[Scaling], Result],
    good: Callable[[Result], bool],
) -> Advice:
    """Without those changes that came first and did not do it, where it is as good without them."""
    for change in changes[:-1]:
        fewer = [kept for kept in changes if kept is not change]
        if fewer and good((found := _tried(scaling, fewer, play)).result):
            changes, advice = fewer, found
    return advice


def _settings(scaling: Scaling, longest_s: float) -> Iterator[list[Change]]:
    """What is changed stays changed in the next one."""
    changes: list[Change] = []
    if scaling.grace_s < longest_s:
        # Whole seconds, as files have them, and enough of them.
        grace = math.ceil(longest_s - TINY)
        changes = [Change("grace_s", grace, f"a grace period of {grace} s (beside a preStop hook's), as calls last so long")]
        yield changes
    if scaling.target is None:
        return
    if scaling.up != UP:
        words = "scaling up at once, with the platform's own policies (twice as many every 15 s)"
        changes = [*changes, Change("up", UP, words)]
        yield changes
    before = changes
    target = scaling.target - TARGET_STEP
    while target >= LOWEST_TARGET - TINY:
        words = f"a target load of {target:.2f}, which leaves room until new workers have started"
        changes = [*before, Change("target", round(target, 2), words)]
        yield changes
        target -= TARGET_STEP
    before = changes
    least = scaling.min_replicas * 2
    while least < scaling.max_replicas:
        words = f"at least {least} workers, as the calls come faster than workers start"
        changes = [*before, Change("min_replicas", least, words)]
        yield changes
        least *= 2
    most = 2 * scaling.max_replicas
    yield [*changes, Change("max_replicas", most, f"up to {most} workers")]
