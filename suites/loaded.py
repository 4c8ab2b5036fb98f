"""What was seen of a worker whose load was raised over its threshold, or towards it, and fell again."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from pytest_lkagents.wire.model import Answer

from .placed import RECOVER_SECONDS, Placed
from .reports import EQUAL

# So many calls that each raise a load, by however little, are no noise of a load that was always the same before; and by the
# same, they are counted.
LEAST_STEPS = 3
# A burner that gets so much of the allowed cores has all of them, but for noise.
USED_UP = 0.85


@dataclass
class Loaded:
    """``worker`` and ``peer`` (empty: two cannot run side by side) are their names, as the roles may have other workers by now.
    ``moved_by`` is what raised the load ("cpu" or "calls"; None: nothing did). ``sank_to`` is a load to which it fell for no
    reason; ``patience`` is how long it has to be free again. ``other_is_free``: the peer had room for a call whenever one was
    to be placed. Times are seconds."""

    worker: str
    peer: str
    idle: float
    top: float
    # That it is full at rest, in words; empty if it is not.
    full_at_rest: str = ""
    moved_by: str | None = None
    full_after: float | None = None
    asked_when_full: Answer | None = None
    # What its health endpoint answers then, if that was 200 before and is not any more.
    unhealthy_when_full: int | None = None
    certainly_full: bool = False
    cores_used: float | None = None
    # By the worker during the calls that were placed on it, on average.
    cores_with_calls: float | None = None
    # Whether every report was the same; and why its load may be one that was not to rise, in words.
    unmoved: bool = False
    may_not_show: str | None = None
    sank_to: float | None = None
    cores_allowed: float = 1.0
    calls: int = 0
    steps: list[tuple[int, float, bool]] = field(default_factory=list)
    job_pids: set[int] = field(default_factory=set)
    refused_call: Placed | None = None
    calls_tried: int = 0
    other_is_free: bool = True
    patience: float = RECOVER_SECONDS
    # When all calls were over, and when it last accepted a job while they were not, which did not come (monotonic seconds).
    ended: float = 0.0
    promised: float = 0.0
    recovered_after: float | None = None
    asked_after: Answer | None = None
    # Of one that calls raised, without filling it: a load that stayed the same when they were over, and for how long.
    stayed_at: float | None = None
    stayed_s: float = 0.0
    # Of a worker that counts its calls: a load that stays although all of them are over, and what was promised came to nothing.
    still_counted: float | None = None
    not_burnt: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether the worker itself says that it is over its threshold."""
        refused = self.asked_when_full is not None and self.asked_when_full.available is False
        return self.full_after is not None or refused

    @property
    def called_too_little(self) -> bool:
        """Whether each call raised its load, and there were too few to tell that from noise."""
        return 0 < len(self.steps) < LEAST_STEPS and self.climbs

    @property
    def climbs(self) -> bool:
        """Whether it rose with each call, by no trifle."""
        return all(round(higher, 3) > round(lower, 3) for lower, higher in itertools.pairwise(self.with_calls))

    @property
    def counts_calls(self) -> bool:
        """Whether it rose by the same with each of several calls."""
        steps = self.first_steps(len(self.steps))
        return len(steps) >= LEAST_STEPS and all(math.isclose(step, steps[0], abs_tol=EQUAL) for step in steps)

    def first_steps(self, count: int) -> list[float]:
        """By how much the first ``count`` calls raised it."""
        return [higher - lower for lower, higher in itertools.pairwise(self.with_calls[: count + 1])]

    @property
    def with_calls(self) -> list[float]:
        """At rest, and with one call, two calls and so on."""
        return [self.idle, *(load for _, load, _ in self.steps)]

    @property
    def used_up(self) -> bool:
        """Whether its container used all the CPU that it may."""
        return self.cores_used is not None and self.cores_used >= USED_UP * self.cores_allowed
