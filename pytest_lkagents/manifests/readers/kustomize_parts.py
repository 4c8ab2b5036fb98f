"""What Kustomizations with patches write out: the variables of the workloads that they change, and those of the patches.

What holds in the end is for `kustomize build` to say; all of it stands in the repository, also a literal that a patch replaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pytest_lkagents.manifests.fields import POD_AT
from pytest_lkagents.manifests.model import KUBERNETES, Deployment, Files, StoredSecret
from pytest_lkagents.manifests.readers import kubernetes, kubernetes_secrets, kustomize
from pytest_lkagents.manifests.readers.common import beside
from pytest_lkagents.manifests.readers.kubernetes_workloads import WORKLOADS, is_workload, variables, workload
from pytest_lkagents.manifests.tree import Block, Node, Place, Unreadable, read_yaml

Made = tuple[Node, Deployment]

STORES = ("Secret", "ConfigMap")
# What has variables as workloads have, and is judged as no worker.
TASKS = ("CronJob", "Job", "Pod")
# What an operation replaces, removes or puts in between: then another entry may stand at a number than in the workload's file.
MOVES = re.compile(r"(/spec(/template(/spec(/(initContainers|containers)(/\d+(/env(/\d+(/name)?)?)?)?)?)?)?)?")
# No list has more entries than such a number says.
LONGEST_NUMBER = 6


@dataclass(frozen=True)
class Patch:
    """A patch of one Kustomization, with those of the workloads that lie there that it changes."""

    one: Node
    target: Node | None
    body: Node
    there: list[Made]

    @property
    def named(self) -> str:
        """Empty where any name fits."""
        # Beside a target the patch's own name means nothing.
        name = self.target.text("name") if self.target is not None else self.body.text("metadata", "name")
        return name if name and re.search("[A-Za-z]", name) else ""

    @property
    def is_of_workload(self) -> bool:
        return self.target is None or any(_fits(self.target.text("kind"), kind) for kind in WORKLOADS)

    @property
    def may_be_of_task(self) -> bool:
        """Whether the one that it names may be no workload; what fits others too may be for a worker that lies elsewhere."""
        kind = self.target.text("kind") if self.target is not None else None
        return bool(self.named) and not self.selects and not (kind and any(_fits(kind, known) for known in WORKLOADS))

    @property
    def selects(self) -> bool:
        """Whether it changes some only of those that are called so."""
        return any(self.target is not None and self.target.get(f"{by}Selector") for by in ("label", "annotation"))


def read(documents: Sequence[Node], files: Files, gathered: kustomize.Gathered) -> None:
    """After what Kubernetes reads: parts of whatever the workloads are, as far as they lie there."""
    kustomizations = list(filter(kustomize.reads, documents))
    by_file: dict[str, list[Node]] = {}
    for document in documents:
        by_file.setdefault(document.place.file, []).append(document)
    apart = {beside(one.place.file, path) for one in kustomizations for path in kustomize.patch_files(one)}
    files_changed = set(files.changed)
    lying = {str(path) for file in by_file for path in (PurePosixPath(file), *PurePosixPath(file).parents)}
    changed = [document for document in kubernetes.flat(documents) if document.place.file in files_changed]
    made = [(one, workload(one)) for one in changed if one.place.file not in apart and is_workload(one)]
    files.parts += [deployment for _, deployment in made]
    patches: list[Patch] = []
    for one in kustomizations:
        # What a Component changes is gathered by who includes it.
        near = [pair for pair in made if pair[0].place.file in gathered[one.place.file] or one.text("kind") == "Component"]
        for target, body in _bodies(one, by_file):
            patches.append(Patch(one, target, body, [pair for pair in near if _is_meant(pair[0], target, body)]))
    stores, tasks = (
        [document for document in kubernetes.flat(documents) if document.text("kind") in kinds] for kinds in (STORES, TASKS)
    )
    moving: dict[Place, list[Patch]] = {}
    for patch in patches:
        for document, _ in patch.there if _moves(patch.body) else []:
            moving.setdefault(document.place, []).append(patch)
    for patch in patches:
        one, body = patch.one, patch.body
        if isinstance(body.value, list):
            files.secrets += _stored(patch, stores)
        elif body.place.file == one.place.file:
            files.secrets += kubernetes_secrets.stored(body)
        for document, deployment in patch.there:
            before = [other for other in moving.get(document.place, []) if _comes_before(other, patch, gathered)]
            files.parts += _part(patch, deployment, None if before or patch.selects else document)
        elsewhere = not gathered[one.place.file] <= lying
        is_of_task = (not elsewhere or patch.may_be_of_task) and any(
            task.place.file in gathered[one.place.file] and _is_meant(task, patch.target, body) for task in tasks
        )
        if not (patch.there and (patch.named or not elsewhere)) and patch.is_of_workload and not is_of_task:
            files.parts += _part(patch, Deployment(KUBERNETES, patch.named, one.place), None)


def _stored(patch: Patch, stores: Sequence[Node]) -> list[StoredSecret]:
    """What operations put into a Secret or ConfigMap: /data/NAME, or all of /data. Which it is, its target tells, or else
    what lies there."""
    target, body = patch.target, patch.body
    if target is None:
        return []
    kinds = {kind for kind in STORES if _fits(target.text("kind"), kind)}
    if len(kinds) > 1:
        kinds = {kind for one in stores if _is_meant(one, target, body) and (kind := one.text("kind")) is not None}
    found = []
    for operation in body.items() if len(kinds) == 1 else []:
        value, (_, *steps) = operation.get("value"), (operation.text("path") or "").split("/")
        if value is None or len(steps) not in (1, 2):
            continue
        for name in steps[1:]:
            value = Node(value.place, {name.replace("~1", "/").replace("~0", "~"): value})
        found += kubernetes_secrets.stored(Node(body.place, {"kind": Node(body.place, *kinds), steps[0]: value}))
    return found


def _part(patch: Patch, deployment: Deployment, document: Node | None) -> list[Deployment]:
    """``document``: where the entries stand at the numbers that the patch gives them."""
    entries = Node(patch.body.place, list(_entries(patch.body, document)))
    found = variables(Node(patch.body.place, {"env": entries}))
    return [replace(deployment, variables=[*deployment.variables, *found])] if found else []


def _comes_before(other: Patch, patch: Patch, gathered: kustomize.Gathered) -> bool:
    """Whether it may be applied first: of the same Kustomization, of one that this one gathers, or of a Component."""
    below = gathered[patch.one.place.file]
    return (
        other.one.place.file == patch.one.place.file
        or other.one.text("kind") == "Component"
        or not below.isdisjoint((other.one.place.file, beside(other.one.place.file, ".")))
    )


def _moves(body: Node) -> bool:
    """Whether it may change the numbers or names of a workload's variables. A strategic merge puts new ones first."""
    if not isinstance(body.value, list):
        return body.get(*POD_AT) is not None
    changing = [one for one in body.items() if one.text("op") != "test"]
    return any(MOVES.fullmatch(path) for one in changing for path in (one.text("path"), one.text("from")) if path is not None)


def _bodies(one: Node, by_file: Mapping[str, Sequence[Node]]) -> Iterator[tuple[Node | None, Node]]:
    """Each with what it names as its target."""
    entries = [(entry, entry.text("path"), entry.get("patch")) for entry in kustomize.patch_entries(one)]
    merged = [(entry, entry.text(), entry) for entry in one.items("patchesStrategicMerge")]
    for entry, path, text in [*entries, *merged]:
        bodies = [body for body in by_file.get(beside(one.place.file, path), []) if body is not one] if path else []
        for body in bodies or (_inlined(text) if text is not None else []):
            yield entry.get("target"), body


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


def _is_meant(workload: Node, target: Node | None, body: Node) -> bool:
    """Whether a patch changes this workload, as far as kinds and names tell."""
    if target is None:
        return all(workload.text(*path) == body.text(*path) for path in (("kind",), ("metadata", "name")))
    group, _, version = (workload.text("apiVersion") or "").rpartition("/")
    # A namespace that the file does not say is set by a Kustomization, or where it is applied.
    namespace = workload.text("metadata", "namespace")
    return (
        _fits(target.text("kind"), workload.text("kind"))
        and _fits(target.text("name"), workload.text("metadata", "name"))
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


def _entries(body: Node, document: Node | None) -> Iterator[Node]:
    """The variables that a patch sets, each as in ``env``: a part of a workload, or operations on one (RFC 6902).
    ``document``: what tells the names of entries that are named by their numbers alone."""
    if not isinstance(body.value, list):
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
