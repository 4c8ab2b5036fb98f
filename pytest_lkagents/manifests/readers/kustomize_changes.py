"""What a patch sets by itself: variables of a workload, and what is stored in a Secret or ConfigMap."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pytest_lkagents.manifests.fields import POD_AT
from pytest_lkagents.manifests.model import StoredSecret, Variable
from pytest_lkagents.manifests.readers import kubernetes_secrets
from pytest_lkagents.manifests.readers.kubernetes_workloads import WORKLOADS, variables
from pytest_lkagents.manifests.readers.kustomize_patches import Patch
from pytest_lkagents.manifests.tree import Node

STORES = ("Secret", "ConfigMap")
# What an operation replaces, removes or puts in between: then another entry may stand at a number than in the workload's file.
MOVES = re.compile(r"(/spec(/template(/spec(/(initContainers|containers)(/\d+(/env(/\d+(/name)?)?)?)?)?)?)?)?")
# No list has more entries than such a number says.
LONGEST_NUMBER = 6


def stored(patch: Patch, stores: Sequence[Node]) -> list[StoredSecret]:
    """``stores``: the Secrets and ConfigMaps that lie there. A part in a file of its own is read as any document is."""
    if patch.is_operations:
        return _stored_by_operations(patch, stores)
    return kubernetes_secrets.stored(patch.body) if patch.body.place.file == patch.one.place.file else []


def _stored_by_operations(patch: Patch, stores: Sequence[Node]) -> list[StoredSecret]:
    """What operations put into a Secret or ConfigMap: /data/NAME, or all of /data. Which it is, its target tells, or else
    what lies there."""
    if patch.target is None:
        return []
    body, kinds = patch.body, patch.kinds_of(STORES)
    if len(kinds) > 1:
        kinds = {kind for one in stores if patch.changes(one) and (kind := one.text("kind")) is not None}
    found = []
    for operation in body.items() if len(kinds) == 1 else []:
        value, (_, *steps) = operation.get("value"), (operation.text("path") or "").split("/")
        if value is None or len(steps) not in (1, 2):
            continue
        for name in steps[1:]:
            value = Node(value.place, {name.replace("~1", "/").replace("~0", "~"): value})
        found += kubernetes_secrets.stored(Node(body.place, {"kind": Node(body.place, *kinds), steps[0]: value}))
    return found


def variables_set(patch: Patch, document: Node | None) -> list[Variable]:
    """``document``: the workload's, which tells the names of entries that are named by their numbers alone; None where other
    entries may stand there."""
    entries = _entries(patch, document)
    return variables(Node(patch.body.place, {"env": Node(patch.body.place, list(entries))}))


def _entries(patch: Patch, document: Node | None) -> Iterator[Node]:
    """The variables that it sets, each as in ``env``."""
    body = patch.body
    if not patch.is_operations:
        yield from _below(body) if body.text("kind") in WORKLOADS else []
        return
    tested: dict[str, Node] = {}
    for operation in body.items():
        value, (*above, last) = operation.get("value"), (operation.text("path") or "").split("/")
        entry = "/".join(above)
        if value is None:
            continue
        if above[-1:] == ["env"]:
            yield value
        elif above[-2:-1] != ["env"]:
            yield from value.items() if last == "env" else _below(value)
        elif last == "name":
            tested[entry] = value
        elif last == "value":
            # Of an entry by its number what is tested, or set, beside it tells the name, or else the workload's file.
            name = tested.get(entry) or (_at(document, entry, "name") if document is not None else None)
            if name is not None:
                yield Node(value.place, {"name": name, "value": value})


def _at(document: Node, pointer: str, *path: str) -> Node | None:
    """What is at a JSON pointer (RFC 6901), below which ``path`` follows."""
    steps = pointer.split("/")[1:]
    return document.get(*(int(step) if step.isdecimal() and len(step) <= LONGEST_NUMBER else step for step in steps), *path)


def _below(node: Node) -> Iterator[Node]:
    for name, below in node.entries():
        yield from below.items() if name == "env" else _below(below)
    for entry in node.items():
        yield from _below(entry)


def moves(patch: Patch) -> bool:
    """Whether it may change the numbers or names of a workload's variables. A strategic merge puts new ones first."""
    if not patch.is_operations:
        return patch.body.get(*POD_AT) is not None
    changing = [one for one in patch.body.items() if one.text("op") != "test"]
    return any(MOVES.fullmatch(path) for one in changing for path in (one.text("path"), one.text("from")) if path is not None)
