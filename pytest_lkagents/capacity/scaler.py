"""The Kubernetes HorizontalPodAutoscaler as a function of what it sees.

Sources: kubernetes.io, "Horizontal Pod Autoscaling" (algorithm details, scaling policies, stabilization window), and for
what the page leaves open the controller itself (kubernetes/kubernetes, pkg/controller/podautoscaler). Standard library only.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from pytest_lkagents.capacity.scaling import DISABLED, LONGEST_PERIOD, MIN, PERCENT, Rules, Scaling

# Replicas are whole numbers: what floating point adds to a quotient must not cost one more.
TINY = 1e-9


@dataclass(frozen=True)
class Seen:
    """``measured`` replicas have ``mean_load`` on average; ``unready`` ones have no metric yet (they start, or have not been
    ready for a whole period of the metric). Replicas that are being removed do not count."""

    mean_load: float
    measured: int
    unready: int = 0


def recommended(current: int, seen: Seen, target: float, tolerance_up: float = 0.1, tolerance_down: float = 0.1) -> int:
    """Replicas that would bring the mean load to ``target``: ceil(measured * load / target), or ``current`` where the
    ratio is near 1 or there is nothing to judge by. On the way up, unready replicas count as idle."""
    if not seen.measured:
        return current
    ratio, counted = seen.mean_load / target, seen.measured
    if seen.unready and ratio > 1:
        counted += seen.unready
        ratio *= seen.measured / counted
        if ratio < 1:  # once those are ready there will be enough
            return current
    if -tolerance_down - TINY <= ratio - 1 <= tolerance_up + TINY:
        return current
    wanted = math.ceil(ratio * counted - TINY)
    return max(wanted, current) if ratio > 1 else min(wanted, current)


class Autoscaler:
    """One HorizontalPodAutoscaler: remembers what it recommended and changed, no further back than its windows."""

    def __init__(self, scaling: Scaling, replicas: int) -> None:
        """``replicas``: how many there are when it begins to look. Raises ValueError without a target."""
        if scaling.target is None:
            raise ValueError("no autoscaler: there is no target")
        self._scaling, self._target = scaling, scaling.target
        # The number that it finds counts as its first recommendation, so that it does not begin by removing.
        self._recommended = deque([(0.0, replicas)])
        self._changes: deque[tuple[float, int]] = deque()

    def decide(self, now: float, current: int, seen: Seen) -> int:
        """The number of replicas wanted at ``now`` (seconds, not before the last call's)."""
        scaling = self._scaling
        if not scaling.min_replicas <= current <= scaling.max_replicas:
            return min(max(current, scaling.min_replicas), scaling.max_replicas)
        desired = recommended(current, seen, self._target, scaling.up.tolerance, scaling.down.tolerance)
        wanted = self._limited(now, current, self._stabilized(now, current, desired))
        if wanted != current:
            self._changes.append((now, wanted - current))
        return wanted

    def _stabilized(self, now: float, current: int, desired: int) -> int:
        """The present number, raised to the lowest recommendation of the window for the way up, and then lowered to the highest
        of the window for the way down, as the controller does (stabilizeRecommendationWithBehaviors)."""
        up_window, down_window = self._scaling.up.stabilization_s, self._scaling.down.stabilization_s
        up = min([desired, *(count for when, count in self._recommended if when > now - up_window)])
        down = max([desired, *(count for when, count in self._recommended if when > now - down_window)])
        _forget(self._recommended, now - max(up_window, down_window))
        self._recommended.append((now, desired))
        return min(max(current, up), down)

    def _limited(self, now: float, current: int, wanted: int) -> int:
        """No faster than the policies allow, and within minimum and maximum."""
        scaling = self._scaling
        if wanted > current:
            limit = max(current, self._limit(scaling.up, now, current, up=True))
            return min(wanted, limit, scaling.max_replicas)
        if wanted < current:
            limit = min(current, self._limit(scaling.down, now, current, up=False))
            return max(wanted, limit, scaling.min_replicas)
        return current

    def _limit(self, rules: Rules, now: float, current: int, *, up: bool) -> int:
        """How far the policies let the number go. Each starts from the number at the beginning of its own period, whatever was
        added and removed since (calculateScaleUpLimitWithScalingRules); a percentage is rounded in favour of a change, as the
        page's example does (10 % of 72 are 8)."""
        if rules.select == DISABLED:
            return current
        _forget(self._changes, now - LONGEST_PERIOD)
        limits = []
        for policy in rules.policies:
            began = current - sum(change for when, change in self._changes if when > now - policy.period_s)
            step = math.ceil(began * policy.value / 100 - TINY) if policy.kind == PERCENT else policy.value
            limits.append(began + step if up else began - step)
        return min(limits) if up == (rules.select == MIN) else max(limits)


def _forget(entries: deque[tuple[float, int]], before: float) -> None:
    while entries and entries[0][0] <= before:
        entries.popleft()
