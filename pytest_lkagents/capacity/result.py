"""What a simulation shows. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# A result stays this small however many calls and hours it is about.
POINTS = 240
EXAMPLES = 20


@dataclass(frozen=True)
class Point:
    """The fleet at ``at_s``, and what was lost since the point before."""

    at_s: float
    ready: int
    starting: int
    draining: int
    calls: int
    refused: int
    cut: int


@dataclass(frozen=True)
class Result:
    """``calls`` came, and were served, refused (``unseen`` of them without a worker being asked: the server saw none below
    its target load), cut by the end of a grace period, or were ``in_progress`` at the end.

    ``strained``: calls that were accepted although the worker's load, had it been known at once, was at its threshold
    already. ``utilisation``: time of calls as a share of what all replicas (starting and draining ones too, they are paid
    for) could have carried below the threshold. ``mean_load``: of the ready replicas. ``refusals_s`` and ``cuts_s``: the first
    such moments.
    """

    calls: int
    served: int
    refused: int
    cut: int
    in_progress: int
    unseen: int
    strained: int
    utilisation: float
    mean_load: float
    replica_hours: float
    most_replicas: int
    refusals_s: tuple[float, ...]
    cuts_s: tuple[float, ...]
    series: tuple[Point, ...] = field(repr=False)

    @property
    def lost(self) -> int:
        return self.refused + self.cut

    def evidence(self) -> dict[str, Any]:
        """JSON data, units in the names."""
        return {
            "calls": self.calls,
            "served": self.served,
            "refused": self.refused,
            "refused_unasked": self.unseen,
            "cut": self.cut,
            "strained": self.strained,
            "utilisation": round(self.utilisation, 3),
            "mean_load": round(self.mean_load, 3),
            "replica_hours": round(self.replica_hours, 2),
            "most_replicas": self.most_replicas,
            "first_refusals_s": [round(when, 1) for when in self.refusals_s],
            "first_cuts_s": [round(when, 1) for when in self.cuts_s],
        }
