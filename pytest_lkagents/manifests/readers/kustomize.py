"""Kustomize: which files a Kustomization makes something else of, so that what they say by themselves is not what is deployed.

What it makes is for `kustomize build` to say; a Kustomization that only gathers files changes nothing that is judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_lkagents.manifests.readers.common import beside
from pytest_lkagents.manifests.tree import Node

NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
# What changes a workload: https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/
CHANGES = (
    "patches",
    "patchesStrategicMerge",
    "patchesJson6902",
    "images",
    "replicas",
    "components",
    "transformers",
    "replacements",
)


def changed(documents: Sequence[Node]) -> set[str]:
    """The files, as they are named here, of patches, and those of which Kustomizations with patches, images and the like are
    made."""
    files = {document.place.file for document in documents}
    found: set[str] = set()
    for one in filter(_is_kustomization, documents):
        found |= {beside(one.place.file, path) for path in _patches(one)}
        if any(one.get(part) is not None for part in CHANGES):
            found |= _resources(one, documents, set())
    return found & files


def _is_kustomization(document: Node) -> bool:
    return (document.text("kind") or "") == "Kustomization" and (document.text("apiVersion") or "").startswith("kustomize.")


def _patches(one: Node) -> list[str]:
    entries = one.items("patches") + one.items("patchesJson6902")
    return [path for entry in entries if (path := entry.text("path"))] + (one.words("patchesStrategicMerge") or [])


def _resources(one: Node, documents: Sequence[Node], seen: set[str]) -> set[str]:
    """The files that it gathers, and those that the Kustomizations among them gather."""
    if one.place.file in seen:
        return set()
    seen.add(one.place.file)
    found: set[str] = set()
    for entry in (one.words("resources") or []) + (one.words("bases") or []):
        path = beside(one.place.file, entry)
        found.add(path)
        for other in filter(_is_kustomization, documents):
            if other.place.file in {beside(f"{path}/x", name) for name in NAMES}:
                found |= _resources(other, documents, seen)
    return found
