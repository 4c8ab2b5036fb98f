"""Patches of Kustomizations: where each stands, and whom it changes as far as kinds and names tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_lkagents.manifests.readers.common import beside
from pytest_lkagents.manifests.readers.kubernetes_workloads import WORKLOADS
from pytest_lkagents.manifests.tree import Node, Place, Unreadable
from pytest_lkagents.manifests.yaml_files import Block, read_yaml


@dataclass(frozen=True)
class Patch:
    """``one`` is the Kustomization that has it, ``target`` what it names as such: None where the body itself says what it
    changes. The body is a part of that, or a list of operations on it (RFC 6902)."""

    one: Node
    target: Node | None
    body: Node

    @property
    def is_operations(self) -> bool:
        return isinstance(self.body.value, list)

    @property
    def named(self) -> str:
        """Empty where any name fits."""
        # Beside a target the patch's own name means nothing.
        name = self.target.text("name") if self.target is not None else self.body.text("metadata", "name")
        return name if name and re.search("[A-Za-z]", name) else ""

    @property
    def is_of_workload(self) -> bool:
        return bool(self.kinds_of(WORKLOADS))

    @property
    def may_be_of_task(self) -> bool:
        """Whether the one that it names may be no workload; what fits others too may be for a worker that lies elsewhere."""
        kind = self.target.text("kind") if self.target is not None else None
        return bool(self.named) and not self.selects and not (kind and self.is_of_workload)

    @property
    def selects(self) -> bool:
        """Whether it changes some only of those that are called so."""
        return any(self.target is not None and self.target.get(f"{by}Selector") for by in ("label", "annotation"))

    def kinds_of(self, known: Iterable[str]) -> set[str]:
        """Those of these kinds that its target may be of: all where it names none."""
        pattern = self.target.text("kind") if self.target is not None else None
        return {kind for kind in known if _fits(pattern, kind)}

    def changes(self, document: Node) -> bool:
        """As far as kinds and names tell."""
        target = self.target
        if target is None:
            return all(document.text(*path) == self.body.text(*path) for path in (("kind",), ("metadata", "name")))
        group, _, version = (document.text("apiVersion") or "").rpartition("/")
        # A namespace that the file does not say is set by a Kustomization, or where it is applied.
        namespace = document.text("metadata", "namespace")
        return (
            _fits(target.text("kind"), document.text("kind"))
            and _fits(target.text("name"), document.text("metadata", "name"))
            and _fits(target.text("group"), group)
            and _fits(target.text("version"), version)
            and (namespace is None or _fits(target.text("namespace"), namespace))
        )


def _fits(pattern: str | None, text: str | None) -> bool:
    """Kinds and names of targets are regular expressions:
    https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/patches/"""
    if pattern and "[:" in pattern:
        return False  # Go's classes, which Python does not have
    try:
        return not pattern or re.fullmatch(pattern, text or "") is not None
    except (re.error, OverflowError, RecursionError):
        return False


# -- Where they stand


def is_json_patch(document: Node) -> bool:
    """Operations on a resource, which name no kind: https://www.rfc-editor.org/rfc/rfc6902"""
    operations = document.items()
    return bool(operations) and all(one.text("op") and one.text("path") for one in operations)


def files_of(one: Node) -> list[str]:
    """The files of a Kustomization's patches, as it names them."""
    return [path for entry in _entries(one) if (path := entry.text("path"))] + (one.words("patchesStrategicMerge") or [])


def patches_of(one: Node, by_file: Mapping[str, Sequence[Node]]) -> Iterator[Patch]:
    """Those of a Kustomization whose bodies stand in it, or in files that lie there."""
    entries = [(entry, entry.text("path"), entry.get("patch")) for entry in _entries(one)]
    merged = [(entry, entry.text(), entry) for entry in one.items("patchesStrategicMerge")]
    for entry, path, text in [*entries, *merged]:
        bodies = [body for body in by_file.get(beside(one.place.file, path), []) if body is not one] if path else []
        for body in bodies or (_inlined(text) if text is not None else []):
            yield Patch(one, entry.get("target"), body)


def _entries(one: Node) -> list[Node]:
    return one.items("patches") + one.items("patchesJson6902")


def _inlined(text: Node) -> list[Node]:
    """The documents of a patch that stands in the Kustomization itself, with their lines there."""
    try:
        return [document.rebuilt(lambda one: _moved(one, text)) for document in read_yaml(text.place.file, text.text() or "")]
    except Unreadable:
        return []


def _moved(node: Node, to: Node) -> Node:
    # In quotes its lines are no lines of the file.
    line = to.place.line + (node.place.line if isinstance(to.value, Block) else 0)
    below = node.place.field
    return Node(Place(to.place.file, line, f"{to.place.field}{'.' if below[:1] not in ('', '[') else ''}{below}"), node.value)
