"""What was seen of a worker when the process of one job came to harm: of its other calls before and after, and of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Beside:
    """What became of a call when another one came to its worker, and of that one. Seconds from each agent's join to its first
    sound; None: it was not heard. ``problem``: what is wrong, in words."""

    older_heard_s: float | None
    newer_heard_s: float | None = None
    problem: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass
class Harm:
    """What came of one job's harm. Seconds count from the act; None: it did not happen. ``alone``: there was no other call,
    as the worker takes one at a time; ``beside``: what two calls were like before the act."""

    pid: int
    alone: bool = False
    trouble: str | None = None
    trouble_s: float | None = None
    worker_trouble: str | None = None
    served_s: float | None = None
    not_served: str | None = None
    worker_ended: bool = False
    evidence: dict[str, Any] = field(default_factory=dict)
    beside: Beside | None = None

    @property
    def clash(self) -> str | None:
        """What the two calls did to each other before the act, in words, so that there was none."""
        return self.beside.problem if self.beside is not None else None

    @property
    def harmed_calls(self) -> bool:
        """Whether another call was harmed, or the worker ended with it."""
        return self.trouble is not None or self.worker_ended

    @property
    def verdict(self) -> str | None:
        """What is wrong, the worst first."""
        if self.worker_trouble is not None:
            return self.worker_trouble
        if self.trouble is not None:
            return f"another call was harmed after {self.trouble_s} s: {self.trouble}"
        return self.not_served
