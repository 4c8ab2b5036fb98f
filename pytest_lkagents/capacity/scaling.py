"""What deployment files say about scaling, in the words of a Kubernetes HorizontalPodAutoscaler (v2).

Needs nothing but the standard library, so that readers of deployment files can make one without the simulation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PERCENT = "Percent"
PODS = "Pods"
MAX = "Max"
MIN = "Min"
DISABLED = "Disabled"
# Seconds: no policy counts over more.
LONGEST_PERIOD = 1800


@dataclass(frozen=True)
class Policy:
    """At most ``value`` replicas (Pods), or percent of the replicas there were (Percent), per ``period_s`` seconds."""

    kind: str
    value: int
    period_s: float

    def __post_init__(self) -> None:
        if self.kind not in (PERCENT, PODS):
            raise ValueError(f"policy type {self.kind!r} is not {PERCENT} or {PODS}")
        if self.value < 1 or not 0 < self.period_s <= LONGEST_PERIOD:
            raise ValueError(f"policy {self}: the value is at least 1, the period above 0 s and at most {LONGEST_PERIOD} s")


@dataclass(frozen=True)
class Rules:
    """``behavior.scaleUp`` or ``behavior.scaleDown``. A ratio of metric to target within 1 ± ``tolerance`` changes nothing."""

    stabilization_s: float
    policies: tuple[Policy, ...]
    select: str = MAX
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if self.select not in (MAX, MIN, DISABLED):
            raise ValueError(f"selectPolicy {self.select!r} is not {MAX}, {MIN} or {DISABLED}")
        if not 0 <= self.stabilization_s <= 3600:
            raise ValueError(f"a stabilization window of {self.stabilization_s:g} s is not from 0 to 3600 s")
        if not self.policies and self.select != DISABLED:
            raise ValueError("rules without a policy: leave the rules away to have the platform's own")


# Kubernetes' own, where a file says nothing (kubernetes.io, "Horizontal Pod Autoscaling", "Default Behavior").
UP = Rules(0, (Policy(PERCENT, 100, 15), Policy(PODS, 4, 15)))
DOWN = Rules(300, (Policy(PERCENT, 100, 15),))
# terminationGracePeriodSeconds where a file says nothing.
GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Scaling:
    """Between ``min_replicas`` and ``max_replicas``, so that the mean load of the ready replicas comes near ``target``.

    ``target`` is a load from 0 to 1, as the worker reports it; a file's CPU utilisation is a share of the *request* and has
    to be converted. None: no autoscaler, ``min_replicas`` for ever. A removed replica has ``grace_s`` seconds for the calls
    that it has; whoever reads the files subtracts what a preStop hook takes. ``sync_s``: how often the autoscaler looks
    (--horizontal-pod-autoscaler-sync-period). ``source``: the file, for messages. Raises ValueError.
    """

    min_replicas: int
    max_replicas: int
    target: float | None = None
    up: Rules = UP
    down: Rules = DOWN
    grace_s: float = GRACE_SECONDS
    sync_s: float = 15.0
    source: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ValueError(f"{self.min_replicas} to {self.max_replicas} replicas: at least 1, and no more than the maximum")
        if self.target is not None and not 0 < self.target < math.inf:
            raise ValueError(f"a target load of {self.target:g} is not above 0")
        if self.grace_s < 0 or self.sync_s <= 0:
            raise ValueError("the grace period is at least 0 s, the autoscaler's period above 0 s")

    @classmethod
    def fixed(cls, replicas: int, *, grace_s: float = GRACE_SECONDS) -> Scaling:
        """No autoscaler."""
        return cls(replicas, replicas, None, grace_s=grace_s)

    @property
    def ceiling(self) -> int:
        """The most replicas that there can be."""
        return self.max_replicas if self.target is not None else self.min_replicas
