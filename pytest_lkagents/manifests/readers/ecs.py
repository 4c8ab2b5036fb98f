"""ECS task definitions."""

from __future__ import annotations

import re
from dataclasses import replace

from pytest_lkagents.manifests import amounts, fields
from pytest_lkagents.manifests.model import (
    ECS,
    ECS_INSTANCES,
    FARGATE,
    Deployment,
    Files,
    Given,
    Platform,
    Resources,
    Variable,
)
from pytest_lkagents.manifests.readers import probes
from pytest_lkagents.manifests.readers.common import doubt, environment_of, from_outside, given, ports_of, worker_container
from pytest_lkagents.manifests.tree import Node


def reads(document: Node) -> bool:
    return bool(document.items("containerDefinitions") or document.items("taskDefinition", "containerDefinitions"))


def read(document: Node, files: Files) -> None:
    task = document.get("taskDefinition") or document
    files.problems += fields.unknown(task, fields.ECS)
    files.deployments.append(deployment_of(task))


def deployment_of(task: Node) -> Deployment:
    """``task``: a task definition with at least one container."""
    containers = task.items("containerDefinitions")
    container = worker_container(containers, _variables, lambda one: one.words("command") or [])
    family = task.text("family") or container.text("name") or "unnamed"
    grace = container.number("stopTimeout")
    words = [*(container.words("entryPoint") or []), *(container.words("command") or [])]
    made = Deployment(
        _platform(task),
        family,
        task.place,
        environment_of(family, task.place.file),
        given(container, "image"),
        Given(words, container.at("command" if container.get("command") else "entryPoint")) if words else None,
        _variables(container),
        grace_s=Given(grace, container.at("stopTimeout")) if grace is not None else None,
        grace_of=Given(container.text("name") or "unnamed", container.at("stopTimeout")),
        ports=ports_of([mapping for one in containers for mapping in one.items("portMappings")], "containerPort"),
        resources=_resources(task, container),
        other_variables=[variable for other in containers if other is not container for variable in _variables(other)],
    )
    doubt(made, "grace_s", grace, container, "stopTimeout")
    _doubt_resources(made, task, container)
    _expose(made, task, container)
    test = container.words("healthCheck", "command")
    if test is not None:
        failures = container.number("healthCheck", "retries")
        times = int(failures) if failures is not None else None
        # The service replaces a task whose essential container is unhealthy:
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/healthcheck.html
        essential = container.text("essential") != "false"
        place = container.at("healthCheck", "command")
        probe = probes.of_command("health", test, place, failures=times, ends=essential)
        made.probes.append(replace(probe, failures_at=container.at("healthCheck", "retries")))
    return made


def _variables(container: Node) -> list[Variable]:
    return [
        *(
            Variable(
                entry.text("name") or "", entry.at("value"), None if from_outside(entry.text("value")) else entry.text("value")
            )
            for entry in container.items("environment")
        ),
        *(
            Variable(entry.text("name") or "", entry.place, None, entry.text("valueFrom"))
            for entry in container.items("secrets")
        ),
    ]


OWN_INSTANCES = {"EC2", "EXTERNAL"}


def _launches(task: Node) -> set[str]:
    return {entry.text() or "" for entry in task.items("requiresCompatibilities")}


def _platform(task: Node) -> Platform:
    """Where it runs, as far as a task definition says; on Fargate there is no other network mode than awsvpc."""
    launches = _launches(task)
    if launches == {"FARGATE"}:
        return FARGATE
    if (launches and launches <= OWN_INSTANCES) or task.text("networkMode") in ("bridge", "host", "none", "default"):
        return ECS_INSTANCES
    return ECS


def _expose(made: Deployment, task: Node, container: Node) -> None:
    """With awsvpc a mapping opens nothing by itself: the service's security groups and load balancers do, or do not."""
    place = task.at("networkMode")
    # https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RegisterTaskDefinition.html
    mode = task.text("networkMode") or ("bridge" if _launches(task) <= OWN_INSTANCES else "awsvpc")
    mappings = container.items("portMappings")
    if mode == "none" or container.text("disableNetworking") == "true":
        made.exposures = []
    elif mode in ("bridge", "default") or (mode == "host" and mappings):
        # A mapping without a port of the host takes any free one there.
        made.exposures = [
            Given(f"port {mapping.text('containerPort') or mapping.text('containerPortRange')} on its host", mapping.place)
            for mapping in mappings
        ]
    elif mode == "host":
        made.unclear["exposures"] = Given("on its host's network, and which ports it opens the file does not say", place)
    else:
        made.unclear["exposures"] = Given("whether it is open, its service's security groups say", place)


def _cores(text: str | None) -> float | None:
    """Units of 1024, or ``1 vCPU``. No units are no request."""
    matched = re.fullmatch(r"(\d*\.?\d+)\s*(vcpus?)?", (text or "").strip().lower())
    return float(matched[1]) / (1 if matched[2] else 1024) if matched else None


def _bytes(text: str | None) -> int | None:
    """MiB, or ``2 GB``, by which ECS means 2048 MiB."""
    matched = re.fullmatch(r"(\d*\.?\d+)\s*(gb)?", (text or "").strip().lower())
    return int(float(matched[1]) * (1024 if matched[2] else 1) * amounts.MEGABYTE) if matched else None


def _resources(task: Node, container: Node) -> Resources:
    """A container may use what its task has: its own ``cpu`` is its share where others want theirs, no limit."""

    def cores(node: Node) -> Given[float] | None:
        amount = _cores(node.text("cpu"))
        return Given(amount, node.at("cpu")) if amount else None

    def size(node: Node, key: str) -> Given[int] | None:
        amount = _bytes(node.text(key))
        return Given(amount, node.at(key)) if amount else None

    most = size(container, "memory") or size(task, "memory")
    return Resources(cores(container) or cores(task), cores(task), size(container, "memoryReservation") or most, most)


def _doubt_resources(made: Deployment, task: Node, container: Node) -> None:
    for node in (task, container):
        doubt(made, "resources", _cores(node.text("cpu")), node, "cpu")
        doubt(made, "resources", _bytes(node.text("memory")), node, "memory")
