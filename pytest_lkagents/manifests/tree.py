"""A document as a tree of values that know where they stand, whatever its format."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

# A file that is deeper was not written to be deployed; nor mostly a document that is larger once its aliases are followed, or a
# file with more such documents.
DEEPEST = 60
MOST_NODES = 100_000
MOST_IN_FILE = 1_000_000


class Unreadable(Exception):
    """A file that cannot be read: ``line`` counts from 1, ``reason`` is in a few words."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line, self.reason = line, reason


class TooLarge(Unreadable):
    """A document that is in order, as far as is known, and too large to be looked at."""


class FileTooLarge(TooLarge):
    """So are all documents of a file together."""


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


# CloudFormation's functions, whose values are known when it is deployed. `!Sub` is a text with such values in it.
INTRINSICS = frozenset(
    [
        *("!Base64", "!Cidr", "!FindInMap", "!GetAtt", "!GetAZs", "!If", "!ImportValue"),
        *("!Join", "!Length", "!Ref", "!Select", "!Split", "!ToJsonString", "!Transform"),
    ]
)


def read_yaml(file: str, text: str, skipped: list[TooLarge] | None = None) -> Iterator[Node]:
    """Each document of a YAML or JSON file that is not empty; what CloudFormation fills in is ``${...}``. One that is too large
    is not given, but told in ``skipped``. Raises Unreadable, and FileTooLarge."""
    import yaml

    # JSON may be indented with tabs, which YAML forbids; within JSON's strings a tab cannot stand.
    if text.lstrip().startswith(("{", "[")):
        text = text.replace("\t", " ")
    loader = yaml.SafeLoader
    count = every = 0

    def build(node: yaml.Node, field: str, depth: int) -> Node:
        nonlocal count, every
        count += 1
        every += 1
        line = node.start_mark.line + 1
        if node.tag in INTRINSICS:
            return Node(Place(file, line, field), f"${{{node.value if isinstance(node, yaml.ScalarNode) else node.tag[1:]}}}")
        if depth > DEEPEST:
            raise Unreadable(line, "nested too deeply, or an alias that contains itself")
        if count > MOST_NODES:
            raise TooLarge(line, f"a document of more than {MOST_NODES} values")
        if every > MOST_IN_FILE:
            raise FileTooLarge(line, f"a file of more than {MOST_IN_FILE} values")
        place = Place(file, line, field)
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Node] = {}
            merged: dict[str, Node] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise Unreadable(key.start_mark.line + 1, "a name that is no text")
                if key.tag == "tag:yaml.org,2002:merge":
                    sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                    for source in sources:
                        below = build(source, field, depth + 1).value
                        if isinstance(below, dict):
                            merged = {**below, **merged}
                    continue
                if key.value in found:
                    raise Unreadable(key.start_mark.line + 1, f"{key.value!r} stands there twice")
                below_field = f"{field}.{key.value}" if field else key.value
                child = build(value, below_field, depth + 1)
                # The line of the name: a value may begin on the next one.
                found[key.value] = Node(Place(file, key.start_mark.line + 1, below_field), child.value)
            return Node(place, {**merged, **found})
        if isinstance(node, yaml.SequenceNode):
            return Node(place, [build(entry, f"{field}[{i}]", depth + 1) for i, entry in enumerate(node.value)])
        return Node(place, _scalar(node))

    try:
        for root in yaml.compose_all(text, Loader=loader):
            count = 0
            if root is None:
                continue
            try:
                made = build(root, "", 0)
            except FileTooLarge:
                raise
            except TooLarge as problem:
                if skipped is not None:
                    skipped.append(problem)
                continue
            if made.value is not None:
                yield made
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(mark.line + 1 if mark else 1, error.problem or "not YAML") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Unreadable(line, "a character that YAML forbids") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Unreadable(1, str(error).splitlines()[0] or "not YAML") from None


# Text without quotes that is a truth value in YAML 1.1, and none in 1.2.
SWITCHES = {**dict.fromkeys(("y", "yes", "on"), True), **dict.fromkeys(("n", "no", "off"), False)}
SWITCH = re.compile(r"[yYnN]|yes|no|on|off|Yes|No|On|Off|YES|NO|ON|OFF")


class Switch(str):
    """Such a text; who reads YAML 1.2 takes it as it is."""


class Block(str):
    """A text that begins on the line below."""


def by_yaml_1_1(node: Node) -> Node:
    """As kubectl reads it: https://github.com/kubernetes-sigs/yaml"""
    return node.rebuilt(lambda one: replace(one, value=SWITCHES[one.value.lower()]) if isinstance(one.value, Switch) else one)


def _scalar(node: Any) -> Any:
    """As YAML 1.2's core schema and most platforms read it: ``yes`` and dates stay text."""
    text = str(node.value)
    # With a tag (`!!str y`) more stands there than its value.
    if node.style is None and SWITCH.fullmatch(text) and node.end_mark.index - node.start_mark.index == len(text):
        return Switch(text)
    if node.style in ("|", ">"):
        return Block(text)
    if node.style in ("'", '"') or node.tag == "tag:yaml.org,2002:str":
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?", text):
        return float(text)
    return text


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
