"""YAML and JSON as trees, with the line of each value; and what the two versions of YAML take differently."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pytest_lkagents.manifests.tree import Node, Place, Unreadable

# A file that is deeper was not written to be deployed; nor mostly a document that is larger once its aliases are followed, or a
# file with more such documents.
DEEPEST = 60
MOST_NODES = 100_000
MOST_IN_FILE = 1_000_000
# CloudFormation's functions, whose values are known when it is deployed. `!Sub` is a text with such values in it.
INTRINSICS = frozenset(
    [
        *("!Base64", "!Cidr", "!FindInMap", "!GetAtt", "!GetAZs", "!If", "!ImportValue"),
        *("!Join", "!Length", "!Ref", "!Select", "!Split", "!ToJsonString", "!Transform"),
    ]
)
# Text without quotes that is a truth value in YAML 1.1, and none in 1.2.
SWITCHES = {**dict.fromkeys(("y", "yes", "on"), True), **dict.fromkeys(("n", "no", "off"), False)}
SWITCH = re.compile(r"[yYnN]|yes|no|on|off|Yes|No|On|Off|YES|NO|ON|OFF")
# Whole numbers, also those that the library takes for text, as YAML 1.1 has them otherwise: 0o17, 089.
WHOLE = re.compile(r"[-+]?[0-9]{1,18}|0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20}")


class TooLarge(Unreadable):
    """A document that is in order, as far as is known, and too large to be looked at."""


class FileTooLarge(TooLarge):
    """So are all documents of a file together."""


class Switch(str):
    """A text of SWITCH; who reads YAML 1.2 takes it as it is."""


class Octal(int):
    """A number that YAML 1.1 takes for an octal one, as it begins with 0; here it is as YAML 1.2 has it."""


class Block(str):
    """A text that begins on the line below."""


class Literal(Block):
    """A text that begins on the line below and stands there line by line, as behind ``|``."""


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
                # A name such as ``.env`` would be taken for two.
                own = f'["{key.value}"]' if "." in key.value else f".{key.value}" if field else key.value
                child = build(value, f"{field}{own}", depth + 1)
                # The line of the name: a value may begin on the next one, or, by an alias, elsewhere.
                named = Place(file, key.start_mark.line + 1, f"{field}{own}")
                apart = isinstance(child.value, Literal) and child.place.line != named.line
                found[key.value] = Node(named, Block(child.value) if apart else child.value)
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


def place_in(node: Node, line: int) -> Place:
    """Where a line of its text stands, counted from 0; where that is not written line by line, where the text does."""
    return replace(node.place, line=node.place.line + 1 + line) if isinstance(node.value, Literal) else node.place


def by_yaml_1_1(node: Node) -> Node:
    """As kubectl reads it: https://github.com/kubernetes-sigs/yaml"""

    def reread(one: Node) -> Node:
        if isinstance(one.value, Switch):
            return replace(one, value=SWITCHES[one.value.lower()])
        return replace(one, value=int(f"{one.value:d}", 8)) if isinstance(one.value, Octal) else one

    return node.rebuilt(reread)


def _scalar(node: Any) -> Any:
    """As YAML 1.2's core schema and most platforms read it: ``yes`` and dates stay text."""
    text = str(node.value)
    # With a tag (`!!str y`) more stands there than its value.
    plain = node.style is None and node.end_mark.index - node.start_mark.index == len(text)
    if plain and SWITCH.fullmatch(text):
        return Switch(text)
    if plain and WHOLE.fullmatch(text):
        return _whole(text)
    if node.style in ("|", ">"):
        return Literal(text) if node.style == "|" else Block(text)
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


def _whole(text: str) -> int:
    if text[:2] in ("0x", "0o"):
        return int(text, 0)
    return Octal(text) if re.fullmatch(r"[-+]?0[0-7]+", text) else int(text)
