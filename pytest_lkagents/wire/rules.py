"""Rules on whole messages: keep back, drop, delay, duplicate. Everything here runs on the tap's event loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Kept = TypeVar("Kept")

HOLD, DROP, DELAY, DUPLICATE = "hold", "drop", "delay", "duplicate"
FATES = {HOLD: "held", DROP: "dropped", DELAY: "delayed", DUPLICATE: "duplicated"}


@dataclass(eq=False)
class Rule(Generic[Kept]):
    """``kinds`` empty: every kind. ``count`` is the number of messages that it was applied to so far."""

    action: str
    source: str
    kinds: frozenset[str]
    seconds: float = 0.0
    count: int = 0
    kept: list[Kept] = field(default_factory=list)

    def matches(self, source: str, kind: str) -> bool:
        return source == self.source and (not self.kinds or kind in self.kinds)


class RuleBook(Generic[Kept]):
    """The rules in force. The oldest one that matches a message decides."""

    def __init__(self) -> None:
        self._rules: list[Rule[Kept]] = []
        self._sources: frozenset[str] = frozenset()

    def add(self, rule: Rule[Kept]) -> None:
        self._change([*self._rules, rule])

    def remove(self, rule: Rule[Kept]) -> bool:
        """False if it was not in force (any more)."""
        if rule not in self._rules:
            return False
        self._change([known for known in self._rules if known is not rule])
        return True

    def _change(self, rules: list[Rule[Kept]]) -> None:
        self._rules = rules
        self._sources = frozenset(rule.source for rule in rules)

    def any(self, source: str) -> bool:
        """Whether messages of this source have to be looked at before they are forwarded."""
        return source in self._sources

    def first(self, source: str, kind: str) -> Rule[Kept] | None:
        """The rule for this message, counted; None if it just passes."""
        for rule in self._rules:
            if rule.matches(source, kind):
                rule.count += 1
                return rule
        return None


class Held:
    """A rule in force, for the test that asked for it. Usable from any thread."""

    def __init__(self, rule: Rule[Kept], end: Callable[[], None]) -> None:
        self._rule = rule
        self._end = end

    @property
    def count(self) -> int:
        """How many messages it was applied to so far."""
        return self._rule.count

    def release(self) -> None:
        """End the rule; what it kept back is forwarded in order. Leaving the context does the same."""
        self._end()
