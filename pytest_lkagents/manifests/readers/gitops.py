"""Flux and Argo CD: what has Kustomize change what lies in a folder, without a file of Kustomize's own.

https://fluxcd.io/flux/components/kustomize/kustomizations/ and https://argo-cd.readthedocs.io/en/stable/user-guide/kustomize/
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence

from pytest_lkagents.manifests.tree import Node

ARGO = ("Application", "ApplicationSet")
# What changes whatever lies there, and what changes only what it names.
FOR_ALL, PATCHES = ("images", "components", "replicas"), ("patches", "patchesStrategicMerge", "patchesJson6902")
KIND = re.compile(r"^kind:\s*[\"']?(\w+)", re.MULTILINE)


def is_of_flux(document: Node) -> bool:
    version = document.text("apiVersion") or ""
    return document.text("kind") == "Kustomization" and version.startswith("kustomize.toolkit.fluxcd.io/")


def sources(application: Node) -> list[Node]:
    """What an Application of Argo CD deploys, or one that an ApplicationSet makes."""
    found = []
    for above in (("spec",), ("spec", "template", "spec")):
        one = application.get(*above, "source")
        found += [*([one] if one is not None else []), *application.items(*above, "sources")]
    return found


def changed(documents: Sequence[Node], gathered: Mapping[str, set[str]]) -> set[str]:
    """The files, as they are named here, of which it makes something else. ``gathered``: what each of Kustomize's own
    Kustomizations is made of, which may lie elsewhere."""
    found: set[str] = set()
    for path, changes in [change for document in documents for change in _changes(document)]:
        kinds = list(_kinds(changes))
        if not kinds:
            continue
        files = {document.place.file for document in documents if _lies_in(document.place.file, path)}
        files |= {below for file in files for below in gathered.get(file, ())}
        found |= {
            document.place.file
            for document in documents
            if document.place.file in files and _is_object(document) and any(_is_meant(document, kind) for kind in kinds)
        }
    return found


def _changes(document: Node) -> Iterator[tuple[str, Node]]:
    """The paths, from the repository's top, of what it deploys, each with what changes that."""
    spec = document.get("spec")
    if is_of_flux(document) and spec is not None:
        yield spec.text("path") or "", spec
    for source in sources(document) if document.text("kind") in ARGO else []:
        changes = source.get("kustomize")
        if changes is not None:
            yield source.text("path") or "", changes


def _kinds(changes: Node) -> Iterator[str | None]:
    """Of what is changed; None: of any."""
    if any(changes.get(part) is not None for part in FOR_ALL):
        yield None
    for patch in [patch for part in PATCHES for patch in changes.items(part)]:
        text = patch.text("patch") or ""
        inline = KIND.search(text)
        yield patch.text("target", "kind") or patch.text("kind") or (inline[1] if inline else None)


def _is_object(document: Node) -> bool:
    """What is deployed, not what says how."""
    return document.text("kind") not in (None, "Kustomization", "Component")


def _is_meant(document: Node, kind: str | None) -> bool:
    """By a name or, as targets may have it, an expression."""
    if kind is None:
        return True
    try:
        return re.fullmatch(kind, document.text("kind") or "") is not None
    except re.error:
        return True


def _lies_in(file: str, path: str) -> bool:
    """A path is one from the repository's top, which may lie above what is read or below."""
    folder = posixpath.normpath(path).strip("/")
    return folder in (".", "") or f"/{folder}/" in f"/{file}"
