"""TOML as a tree, with the lines of tables and keys."""

from __future__ import annotations

import re
import sys
from typing import Any

from pytest_lkagents.manifests.tree import Node, Place, Unreadable

TABLE = re.compile(r"^\s*(\[{1,2})\s*(.+?)\s*\]{1,2}\s*(#.*)?$")
KEY = re.compile(r"""^\s*("[^"]*"|'[^']*'|[A-Za-z0-9_.-]+)\s*=""")


def read_toml(file: str, text: str) -> Node:
    """The whole file. Lines are those of tables and keys as they are usually written; elsewhere the nearest one above.
    Raises Unreadable."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.search(r"line (\d+)", str(error))
        raise Unreadable(int(found[1]) if found else 1, re.sub(r"\s*\(at .*\)$", "", str(error))) from None
    lines = _toml_lines(text)

    def build(value: Any, path: tuple[str, ...], field: str, above: int) -> Node:
        line = lines.get(path, above)
        place = Place(file, line, field)
        if isinstance(value, dict):
            return Node(
                place,
                {
                    name: build(below, (*path, name), f"{field}.{name}" if field else name, line)
                    for name, below in value.items()
                },
            )
        if isinstance(value, list):
            return Node(place, [build(below, (*path, str(i)), f"{field}[{i}]", line) for i, below in enumerate(value)])
        known = value if isinstance(value, (str, int, float, bool)) else str(value)
        return Node(place, known)

    return build(data, (), "", 1)


def _toml_lines(text: str) -> dict[tuple[str, ...], int]:
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := TABLE.match(line):
            names = tuple(part.strip().strip("\"'") for part in header[2].split("."))
            # Below an array of tables its last entry is meant.
            table = ()
            for i, name in enumerate(names):
                table = (*table, name)
                last = i == len(names) - 1
                if last and header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    lines.setdefault(table, number)
                if table in counts:
                    table = (*table, str(counts[table]))
            lines.setdefault(table, number)
        elif key := KEY.match(line):
            names = tuple(part.strip().strip("\"'") for part in ([key[1]] if key[1][0] in "\"'" else key[1].split(".")))
            for i in range(1, len(names) + 1):
                lines.setdefault((*table, *names[:i]), number)
    return lines
