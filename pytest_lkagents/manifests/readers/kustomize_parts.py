"""What Kustomizations with patches write out: the variables of the workloads that they change, and those of the patches.

What holds in the end is for `kustomize build` to say; all of it stands in the repository, also a literal that a patch replaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from pytest_lkagents.manifests.model import KUBERNETES, Deployment, Files
from pytest_lkagents.manifests.readers import kubernetes, kustomize, kustomize_changes, kustomize_patches
from pytest_lkagents.manifests.readers.common import beside
from pytest_lkagents.manifests.readers.kubernetes import Made
from pytest_lkagents.manifests.readers.kubernetes_workloads import is_workload, workload
from pytest_lkagents.manifests.readers.kustomize_patches import Patch
from pytest_lkagents.manifests.tree import Node, Place

# What has variables as workloads have, and is judged as no worker.
TASKS = ("CronJob", "Job", "Pod")

# A patch, with those of the workloads that lie there that it changes.
Placed = tuple[Patch, Sequence[Made]]


def read(documents: Sequence[Node], files: Files, gathered: kustomize.Gathered) -> None:
    """After what Kubernetes reads: parts of whatever the workloads are, as far as they lie there."""
    flat = kubernetes.flat(documents)
    kustomizations = list(filter(kustomize.reads, documents))
    made = _changed_workloads(flat, kustomizations, set(files.changed))
    files.parts += [deployment for _, deployment in made]
    placed = list(_placed(documents, kustomizations, made, gathered))
    stores = [document for document in flat if document.text("kind") in kustomize_changes.STORES]
    tasks = [document for document in flat if document.text("kind") in TASKS]
    files_there = {document.place.file for document in documents}
    lying = {str(path) for file in files_there for path in (PurePosixPath(file), *PurePosixPath(file).parents)}
    moving = _moving(placed)
    for patch, there in placed:
        files.secrets += kustomize_changes.stored(patch, stores)
        for document, deployment in there:
            before = [other for other in moving.get(document.place, []) if _comes_before(other, patch, gathered)]
            files.parts += _part(patch, deployment, None if before or patch.selects else document)
        of_it = gathered[patch.one.place.file]
        elsewhere = not of_it <= lying
        is_of_task = (not elsewhere or patch.may_be_of_task) and any(
            task.place.file in of_it and patch.changes(task) for task in tasks
        )
        if not (there and (patch.named or not elsewhere)) and patch.is_of_workload and not is_of_task:
            files.parts += _part(patch, Deployment(KUBERNETES, patch.named, patch.one.place), None)


def _changed_workloads(flat: Sequence[Node], kustomizations: Sequence[Node], changed: set[str]) -> list[Made]:
    """Those in files that Kustomizations change, but for what are patches themselves."""
    apart = {beside(one.place.file, path) for one in kustomizations for path in kustomize_patches.files_of(one)}
    looked_at = changed - apart
    return [(one, workload(one)) for one in flat if one.place.file in looked_at and is_workload(one)]


def _placed(
    documents: Sequence[Node], kustomizations: Sequence[Node], made: Sequence[Made], gathered: kustomize.Gathered
) -> Iterator[Placed]:
    """The patches of each Kustomization, in order."""
    by_file: dict[str, list[Node]] = {}
    for document in documents:
        by_file.setdefault(document.place.file, []).append(document)
    for one in kustomizations:
        # What a Component changes is gathered by who includes it.
        near = [pair for pair in made if pair[0].place.file in gathered[one.place.file] or one.text("kind") == "Component"]
        for patch in kustomize_patches.patches_of(one, by_file):
            yield patch, [pair for pair in near if patch.changes(pair[0])]


def _moving(placed: Sequence[Placed]) -> dict[Place, list[Patch]]:
    """The patches after which other entries may stand at the numbers of a workload's file, by the workload's place."""
    found: dict[Place, list[Patch]] = {}
    for patch, there in placed:
        for document, _ in there if kustomize_changes.moves(patch) else []:
            found.setdefault(document.place, []).append(patch)
    return found


def _comes_before(other: Patch, patch: Patch, gathered: kustomize.Gathered) -> bool:
    """Whether it may be applied first: of the same Kustomization, of one that this one gathers, or of a Component."""
    below = gathered[patch.one.place.file]
    return (
        other.one.place.file == patch.one.place.file
        or other.one.text("kind") == "Component"
        or not below.isdisjoint((other.one.place.file, beside(other.one.place.file, ".")))
    )


def _part(patch: Patch, deployment: Deployment, document: Node | None) -> list[Deployment]:
    """The deployment with what the patch sets, if that is anything. ``document``: see ``variables_set``."""
    found = kustomize_changes.variables_set(patch, document)
    return [replace(deployment, variables=[*deployment.variables, *found])] if found else []
