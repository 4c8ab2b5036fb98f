"""Kustomize: which files a Kustomization makes something else of, so that what they say by themselves is not what is deployed.

What it makes is for `kustomize build` to say; a Kustomization that only gathers files changes nothing that is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_lkagents.manifests.model import Files, StoredSecret
from pytest_lkagents.manifests.readers import gitops, helm_values, kustomize_patches
from pytest_lkagents.manifests.readers.common import beside
from pytest_lkagents.manifests.readers.secret_entries import is_stored
from pytest_lkagents.manifests.tree import Node
from pytest_lkagents.secrets import is_secret

GROUP = "kustomize.config.k8s.io/"
NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
# Where it names what it is made of; a Component's files are changed with it.
GATHERED = ("resources", "bases", "components")
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

# The files, as they are named here, that each Kustomization is made of, by its own file.
Gathered = Mapping[str, set[str]]


def reads(document: Node) -> bool:
    """A Kustomization or Component; in a file of its name it need not say what it is."""
    kind, version = document.text("kind"), document.text("apiVersion")
    if kind is None and version is None:
        return document.place.file.rpartition("/")[2] in NAMES
    return kind in (None, "Kustomization", "Component") and (version or GROUP).startswith(GROUP)


def read(documents: Sequence[Node], files: Files, gathered: Gathered) -> None:
    """Before what Kubernetes reads: which files are changed, and what is stored in generators."""
    kustomizations = list(filter(reads, documents))
    changed = _changed(kustomizations, gathered) | gitops.changed(documents, gathered)
    files.changed += sorted(changed & {document.place.file for document in documents})
    files.strange = [file for file in files.strange if file not in files.changed]
    files.secrets += [found for one in kustomizations for found in _stored(one)]
    of_helm = [one for one in kustomizations if one.items("helmCharts")]
    files.charts += [one.place.file for one in of_helm]
    files.secrets += [found for one in of_helm for found in helm_values.of_kustomization(one)]


def gather(documents: Sequence[Node]) -> Gathered:
    """Found out once: there may be hundreds of them."""
    kustomizations = list(filter(reads, documents))
    folders: dict[str, list[Node]] = {}
    for one in kustomizations:
        if one.place.file.rpartition("/")[2] in NAMES:
            folders.setdefault(beside(one.place.file, "."), []).append(one)
    return {one.place.file: _resources(one, folders, set()) for one in kustomizations}


def _changed(kustomizations: Sequence[Node], gathered: Gathered) -> set[str]:
    """The files, as they are named here, of patches, and those of which Kustomizations with patches, images and the like are
    made."""
    found: set[str] = set()
    for one in kustomizations:
        found |= {beside(one.place.file, path) for path in kustomize_patches.files_of(one)}
        if any(one.get(part) is not None for part in CHANGES):
            found |= gathered[one.place.file]
    return found


def _stored(document: Node) -> list[StoredSecret]:
    """What its generators put into Secrets and ConfigMaps, where it stands in the file itself and is a secret's value."""
    found = []
    for generator in ("secretGenerator", "configMapGenerator"):
        for literal in [literal for entry in document.items(generator) for literal in entry.items("literals")]:
            name, _, value = (literal.text() or "").partition("=")
            if is_stored(name, value) and (generator == "secretGenerator" or is_secret(name, value)):
                found.append(StoredSecret(name, literal.place))
    return found


def generated(documents: Sequence[Node]) -> set[str | None]:
    """The names of the ConfigMaps that Kustomizations make, or put values into."""
    entries = [entry for one in documents if reads(one) for entry in one.items("configMapGenerator")]
    return {name for entry in entries if (name := entry.text("name"))}


def _resources(one: Node, folders: Mapping[str, Sequence[Node]], seen: set[str]) -> set[str]:
    """The files that it gathers, and those that the Kustomizations among them gather."""
    if one.place.file in seen:
        return set()
    seen.add(one.place.file)
    found: set[str] = set()
    for entry in [word for part in GATHERED for word in one.words(part) or []]:
        path = beside(one.place.file, entry)
        found.add(path)
        for other in folders.get(path, []):
            found |= _resources(other, folders, seen)
    return found
