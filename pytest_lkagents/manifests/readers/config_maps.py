"""What a container takes from ConfigMaps, where these lie there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_lkagents.manifests.model import CORES_VARIABLE, Variable
from pytest_lkagents.manifests.readers.common import from_outside
from pytest_lkagents.manifests.tree import Node


def referred(container: Node, maps: Sequence[Node]) -> list[Variable]:
    """``maps``: those of its namespace. What ``env`` sets comes before what ``envFrom`` does, and of that the last: a source
    that is not known, such as a Secret, may take the place of any before it, whose value is then not known either. How many
    cores there are nobody keeps in a Secret."""
    known: dict[str | None, dict[str, Node]] = {}

    def data_of(name: str | None) -> dict[str, Node]:
        if name not in known:
            known[name] = dict(_data(container, name, maps))
        return known[name]

    own = {entry.text("name"): entry for entry in container.items("env")}
    found: dict[str, Node] = {}
    replaced: set[str] = set()
    for entry in container.items("envFrom"):
        data = data_of(entry.text("configMapRef", "name"))
        prefix = entry.text("prefix") or ""
        more = {f"{prefix}{key}": value for key, value in data.items() if f"{prefix}{key}" not in own}
        told = {CORES_VARIABLE} if entry.get("secretRef") is not None else set()
        replaced = replaced - more.keys() if data else replaced | {one for one in found if one.startswith(prefix)} - told
        found |= more
    for name, entry in own.items():
        reference = ("valueFrom", "configMapKeyRef")
        value = data_of(entry.text(*reference, "name")).get(entry.text(*reference, "key") or "")
        if name is not None and value is not None:
            found[name] = value
    return [
        Variable(
            name,
            value.place,
            None if name in replaced or from_outside(value.text()) else value.text(),
            doubted=name in replaced,
        )
        for name, value in found.items()
    ]


def _data(container: Node, name: str | None, maps: Sequence[Node]) -> Iterator[tuple[str, Node]]:
    """Of the one in the container's folder, or else in the nearest above it: another folder may be another environment's. Of
    several there, or where one lies below its folder, no file says which it takes."""
    named = [one for one in maps if name is not None and one.text("metadata", "name") == name]
    folder = _folder(container)
    above = [one for one in named if not _folder(one) or f"{folder}/".startswith(f"{_folder(one)}/")]
    nearest = max(map(len, map(_folder, above)), default=0)
    found = [one for one in above if len(_folder(one)) == nearest]
    below = [one for one in named if _folder(one).startswith(f"{folder}/" if folder else "") and _folder(one) != folder]
    for only in found if len(found) == 1 and not below else []:
        yield from only.entries("data")


def _folder(node: Node) -> str:
    return node.place.file.rpartition("/")[0]
