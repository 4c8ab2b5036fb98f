"""A document as a tree of values that know where they stand, whatever its format."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Unreadable(Exception):
    """A file that cannot be read: ``line`` counts from 1, ``reason`` is in a few words."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line, self.reason = line, reason


@dataclass(frozen=True)
class Place:
    """``field`` is a dotted path, such as ``spec.template.spec.containers[0].image``."""

    file: str
    line: int
    field: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f" {self.field}" if self.field else "")


@dataclass(frozen=True)
class Node:
    """``value`` is a dict of Nodes by name, a list of Nodes, or a text, number, boolean or None."""

    place: Place
    value: Any

    def get(self, *path: str | int) -> Node | None:
        """What is at this path below; None where there is nothing, or null."""
        found: Node = self
        for step in path:
            below: Node | None = None
            if isinstance(found.value, dict) and isinstance(step, str):
                below = found.value.get(step)
            elif isinstance(found.value, list) and isinstance(step, int) and step < len(found.value):
                below = found.value[step]
            if below is None:
                return None
            found = below
        return None if found.value is None else found

    def items(self, *path: str | int) -> list[Node]:
        """The entries of the list there; empty where there is none."""
        found = self.get(*path)
        return list(found.value) if found is not None and isinstance(found.value, list) else []

    def entries(self, *path: str | int) -> list[tuple[str, Node]]:
        """Names and values of the mapping there; empty where there is none."""
        found = self.get(*path)
        return list(found.value.items()) if found is not None and isinstance(found.value, dict) else []

    def text(self, *path: str | int) -> str | None:
        """A scalar there, as text."""
        found = self.get(*path)
        if found is None or isinstance(found.value, (dict, list)):
            return None
        return str(found.value).lower() if isinstance(found.value, bool) else str(found.value)

    def number(self, *path: str | int) -> float | None:
        found = self.get(*path)
        if found is None or isinstance(found.value, (dict, list, bool)):
            return None
        try:
            number = float(found.value)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None

    def rebuilt(self, each: Callable[[Node], Node]) -> Node:
        """The same tree; ``each`` says what becomes of a node's place, and of its value where that is a scalar."""
        made = each(self)
        if isinstance(self.value, dict):
            return Node(made.place, {name: below.rebuilt(each) for name, below in self.value.items()})
        return Node(made.place, [below.rebuilt(each) for below in self.value]) if isinstance(self.value, list) else made

    def words(self, *path: str | int) -> list[str] | None:
        """A list of scalars there, or one text cut at its spaces."""
        found = self.get(*path)
        if found is None or isinstance(found.value, dict):
            return None
        if isinstance(found.value, list):
            return [word for entry in found.value if isinstance(entry, Node) and (word := entry.text()) is not None]
        return str(found.value).split()

    def at(self, *path: str | int) -> Place:
        """The place of what is there, or of the nearest thing above it."""
        found = self
        for number in range(len(path), 0, -1):
            below = self.get(*path[:number])
            if below is not None:
                found = below
                break
        return found.place

    def plain(self) -> Any:
        """Without the places."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value
