"""What holds pods and is no workload that the rules are for, and what names a chart of Helm's alone."""

from __future__ import annotations

from pytest_lkagents.manifests.commands import runs_agent
from pytest_lkagents.manifests.fields import POD_AT
from pytest_lkagents.manifests.model import KUBERNETES, Deployment, Files
from pytest_lkagents.manifests.readers import helm_values
from pytest_lkagents.manifests.readers.common import command_of, has_livekit, words_of
from pytest_lkagents.manifests.readers.kubernetes_workloads import kind_of, variables
from pytest_lkagents.manifests.tree import Node

# Where each kind has its pod. Tasks end by themselves, and are no workers; the others may be.
TASKS = {
    "Job": POD_AT,
    "CronJob": ("spec", "jobTemplate", *POD_AT),
    "ScaledJob": ("spec", "jobTargetRef", "template", "spec"),
}
UNRULED = {"Pod": ("spec",), "ReplicationController": POD_AT, "DeploymentConfig": POD_AT}


def read(document: Node, files: Files) -> None:
    kind = kind_of(document)
    containers = document.items(*(TASKS | UNRULED).get(kind, ()), "containers")
    if containers:
        _search(document, containers, files)
    if helm_values.names_chart(document):
        files.charts.append(document.place.file)
        files.secrets += helm_values.of_chart(document)


def _search(document: Node, containers: list[Node], files: Files) -> None:
    kind, name = kind_of(document), document.text("metadata", "name") or "unnamed"
    every = [variable for container in containers for variable in variables(container)]
    commands = [command for one in containers if (command := command_of(one)) is not None]
    if not (has_livekit(every) or any(runs_agent(words_of(one)) for one in containers)):
        return
    files.parts.append(Deployment(KUBERNETES, name, document.place, variables=every, other_commands=commands))
    if kind in UNRULED:
        files.unruled.append(f"{document.place.file}: {name} is a {kind}, which no rule is for")
