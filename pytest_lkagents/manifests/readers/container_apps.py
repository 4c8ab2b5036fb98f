"""Azure Container Apps, as YAML or JSON: https://learn.microsoft.com/azure/container-apps/azure-resource-manager-api-spec"""

from __future__ import annotations

from pytest_lkagents.manifests import amounts, fields
from pytest_lkagents.manifests.model import (
    CONTAINER_APPS,
    REQUESTS,
    Autoscaler,
    Deployment,
    Files,
    Given,
    Resources,
    StoredSecret,
    Target,
    Variable,
)
from pytest_lkagents.manifests.readers import probes
from pytest_lkagents.manifests.readers.common import (
    command_of,
    doubt,
    env_of,
    environment_of,
    from_outside,
    given,
    ports_of,
    whole,
    words_of,
    worker_container,
)
from pytest_lkagents.manifests.readers.secret_entries import is_stored
from pytest_lkagents.manifests.tree import Node

CONFIGURATION, TEMPLATE = ("properties", "configuration"), ("properties", "template")
GRACE = (*TEMPLATE, "terminationGracePeriodSeconds")
SCALE = (*TEMPLATE, "scale")
# Where the file sets none: https://learn.microsoft.com/azure/container-apps/scale-app
LEAST, MOST = 0, 10


def reads(document: Node) -> bool:
    named = (document.text("type") or "").lower() == "microsoft.app/containerapps"
    return bool(document.items(*TEMPLATE, "containers")) and (named or document.get(*CONFIGURATION) is not None)


def _is_job(document: Node) -> bool:
    """Whether it is a job, which the same fields describe: https://learn.microsoft.com/azure/container-apps/jobs"""
    type_ = document.text("type")
    if type_ is not None:
        return type_.lower() == "microsoft.app/jobs"
    return any(document.get(*CONFIGURATION, own) is not None for own in ("triggerType", "replicaTimeout"))


def read(document: Node, files: Files) -> None:
    """Of a job only the secrets: it ends by itself, as no worker does."""
    files.secrets += [
        StoredSecret(entry.text("name") or "a secret", entry.at("value"))
        for entry in document.items(*CONFIGURATION, "secrets")
        if not from_outside(entry.text("value")) and is_stored(entry.text("name") or "", entry.text("value") or "")
    ]
    containers = document.items(*TEMPLATE, "containers")
    container = worker_container(containers, _variables, words_of)
    name = document.text("name") or container.text("name") or "unnamed"
    grace, ingress = document.number(*GRACE), document.get(*CONFIGURATION, "ingress")
    made = Deployment(
        CONTAINER_APPS,
        name,
        document.place,
        environment_of(name, document.place.file),
        given(container, "image"),
        command_of(container),
        _variables(container),
        grace_s=Given(grace, document.at(*GRACE)) if grace is not None else None,
        probes=probes.of_list(container),
        ports=ports_of([ingress, *ingress.items("additionalPortMappings")], "targetPort") if ingress is not None else [],
        exposures=[],
        resources=_resources(container),
        beside=[_resources(other) for other in containers if other is not container],
        other_variables=[variable for other in containers if other is not container for variable in _variables(other)],
    )
    if _is_job(document):
        files.parts.append(made)
        files.passed_over.append(f"{document.place.file}: {name} is a job")
        return
    files.problems += fields.unknown(document, fields.CONTAINER_APPS)
    doubt(made, "grace_s", grace, document, *GRACE)
    external = (*CONFIGURATION, "ingress", "external")
    if document.text(*external) == "true":
        made.exposures = [Given("an external ingress", document.at(*external))]
    _scale(made, document)
    files.deployments.append(made)


def _variables(container: Node) -> list[Variable]:
    return env_of(container, "secretRef")


def _resources(container: Node) -> Resources:
    """What is set is both request and limit."""
    cores, size = container.number("resources", "cpu"), amounts.quantity(container.text("resources", "memory"))
    cpu = Given(cores, container.at("resources", "cpu")) if cores is not None else None
    memory = Given(int(size), container.at("resources", "memory")) if size is not None else None
    return Resources(cpu, cpu, memory, memory)


def _scale(made: Deployment, document: Node) -> None:
    least, most = (*SCALE, "minReplicas"), (*SCALE, "maxReplicas")
    minimum = whole(document, *least)
    doubt(made, "minimum", minimum, document, *least)
    if minimum is None and "minimum" not in made.unclear:
        minimum = Given(LEAST, document.at(*least), default=True)
    targets = tuple(_target(rule) for rule in document.items(*SCALE, "rules"))
    made.autoscaler = Autoscaler(
        document.at(*SCALE),
        targets,
        minimum,
        whole(document, *most) or Given(MOST, document.at(*SCALE), default=True),
        wakes=True,
    )
    made.sleeps = []
    if minimum is not None and minimum.value == 0:
        made.sleeps = [Given(f"scales to zero replicas{', the default' if minimum.default else ''}", minimum.place)]


def _target(rule: Node) -> Target:
    """Its own kinds are HTTP, TCP and queues; all others are KEDA's."""
    kind = rule.text("custom", "type")
    if kind is None:
        kind = next((name for name, _ in rule.entries() if name != "name"), "http")
        return Target(REQUESTS if kind in ("http", "tcp") else kind, rule.place)
    share = rule.number("custom", "metadata", "value") if kind in ("cpu", "memory") else None
    place = rule.at("custom", "metadata", "value")
    if (rule.text("custom", "metadata", "type") or "Utilization") != "Utilization":
        share = None
    return Target(kind, place, share / 100 if share is not None else None)
