"""Render, Fly.io, ECS, Cloud Run and LiveKit Cloud: one worker a document, or a list of them."""

from __future__ import annotations

import re
import shlex

from pytest_lkagents.manifests import amounts, fields
from pytest_lkagents.manifests.model import (
    CLOUD_RUN,
    ECS,
    ECS_INSTANCES,
    EVERYTHING,
    FARGATE,
    FLY,
    RENDER,
    Autoscaler,
    Deployment,
    Files,
    Given,
    Platform,
    Probe,
    Resources,
    StoredSecret,
    Target,
    Variable,
)
from pytest_lkagents.manifests.readers.common import (
    AGENT,
    WORKER,
    doubt,
    environment_of,
    from_outside,
    given,
    has_livekit,
    runs_agent,
    variables_of,
    whole,
)
from pytest_lkagents.manifests.tree import Node
from pytest_lkagents.secrets import holds_secret

MEGABYTE = 1024 * 1024


def words_of(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


# -- Render


def is_render(document: Node) -> bool:
    return any(entry.get("type") is not None for entry in document.items("services"))


def read_render(document: Node, files: Files) -> None:
    files.problems += fields.misspelt(document, fields.RENDER)
    files.secrets += [
        StoredSecret(variable.name, variable.place)
        for group in document.items("envVarGroups")
        for variable in (_render_variable(entry) for entry in group.items("envVars"))
        if variable.literal and not from_outside(variable.literal) and holds_secret(variable.name, variable.literal)
    ]
    for service in document.items("services"):
        kind = service.text("type")
        if kind not in ("web", "pserv", "worker"):
            continue
        name = service.text("name") or "unnamed"
        command = service.text("dockerCommand") or service.text("startCommand")
        place = service.at("dockerCommand" if service.get("dockerCommand") else "startCommand")
        grace = service.number("maxShutdownDelaySeconds")
        made = Deployment(
            RENDER,
            name,
            service.place,
            environment_of(name, document.place.file),
            given(service, "image", "url"),
            Given(words_of(command), place) if command else None,
            [_render_variable(entry) for entry in service.items("envVars")],
            Given(grace, service.at("maxShutdownDelaySeconds")) if grace is not None else None,
            exposures=[],
            replicas=whole(service, "numInstances"),
            sleeps=[],
        )
        doubt(made, "grace_s", grace, service, "maxShutdownDelaySeconds")
        doubt(made, "replicas", made.replicas, service, "numInstances")
        if kind == "web":
            made.exposures = [Given("a web service, which Render opens to the internet", service.at("type"))]
        if path := service.text("healthCheckPath"):
            made.probes.append(Probe("health", service.at("healthCheckPath"), None, path))
        if service.text("plan") == "free":
            made.sleeps = [Given("the free plan stops idle services", service.at("plan"))]
        scaling = service.get("scaling")
        if scaling is not None:
            targets = [
                Target(metric, scaling.at(key), share / 100)
                for metric, key in (("cpu", "targetCPUPercent"), ("memory", "targetMemoryPercent"))
                if (share := scaling.number(key)) is not None
            ]
            made.autoscaler = Autoscaler(
                scaling.place, tuple(targets), whole(scaling, "minInstances"), whole(scaling, "maxInstances")
            )
        files.deployments.append(made)


def _render_variable(entry: Node) -> Variable:
    name = entry.text("key") or "*"
    source = entry.text("fromGroup") or entry.text("fromService", "name") or entry.text("fromDatabase", "name")
    return Variable(name, entry.at("value"), entry.text("value"), source)


# -- Fly.io


def is_fly(document: Node, file: str) -> bool:
    named = file.rsplit("/", 1)[-1].startswith("fly.")
    return document.get("app") is not None and (named or document.get("primary_region") is not None)


def read_fly(document: Node, files: Files) -> None:
    files.problems += fields.misspelt(document, fields.FLY)
    name = document.text("app") or "unnamed"
    grace = amounts.seconds(document.text("kill_timeout"))
    group = _fly_group(document)
    command = document.get("processes", group) or document.get("experimental", "cmd")
    made = Deployment(
        FLY,
        name,
        document.place,
        environment_of(name, document.place.file),
        given(document, "build", "image"),
        Given(command.words() or [], command.place) if command is not None and command.words() else None,
        variables_of(document, "env"),
        Given(grace, document.at("kill_timeout")) if grace is not None else None,
        exposures=[],
        resources=_fly_resources(document, group),
        sleeps=[],
    )
    doubt(made, "grace_s", grace, document, "kill_timeout")
    for service in _fly_services(document, group):
        _fly_service(made, service)
    for _, check in document.entries("checks"):
        if not _is_for(check, group, document):
            continue
        port = check.number("port")
        path_text = (check.text("path") or "/") if check.text("type") == "http" else None
        made.probes.append(Probe("health", check.at("port"), int(port) if port else None, path_text))
    if document.text("deploy", "strategy") == "immediate":
        made.lost_at_rollout = Given(EVERYTHING, document.at("deploy", "strategy"))
    files.deployments.append(made)


def _fly_group(document: Node) -> str:
    """The process group that is the worker's, by its command or its name; else the first that the file names."""
    groups = document.entries("processes")
    for name, command in groups:
        if runs_agent(command.words() or []):
            return name
    names = [name for name, _ in groups]
    told = [name for pattern in (AGENT, WORKER) for name in names if pattern.search(name.lower())]
    return (told or names or [FLY_GROUP])[0]


# What Fly.io calls the only group where a file names none.
FLY_GROUP = "app"


def _is_for(node: Node, group: str, document: Node) -> bool:
    """Without names a service or a check is for the default group: "app", or the first by name.
    https://fly.io/docs/reference/configuration/#the-processes-section"""
    names = sorted(name for name, _ in document.entries("processes")) or [FLY_GROUP]
    default = FLY_GROUP if FLY_GROUP in names else names[0]
    return group in (node.words("processes") or [default])


def _fly_services(document: Node, group: str) -> list[Node]:
    single = document.get("http_service")
    found = ([single] if single is not None else []) + document.items("services")
    return [service for service in found if _is_for(service, group, document)]


def _fly_service(made: Deployment, service: Node) -> None:
    if service.place.field == "http_service" or service.items("ports"):
        made.exposures = [*(made.exposures or []), Given("a public service", service.place)]
    stops = service.text("auto_stop_machines")
    if stops in ("true", "stop", "suspend") and not service.number("min_machines_running"):
        place = service.at("auto_stop_machines")
        made.sleeps = [*(made.sleeps or []), Given("idle machines are stopped, all of them", place)]
    for kind in ("tcp_checks", "http_checks", "checks"):
        for check in service.items(kind):
            port = service.number("internal_port")
            made.probes.append(Probe("health", check.place, int(port) if port else None, check.text("path")))


# Sizes by name, and the memory that comes with each of their cores: https://fly.io/docs/machines/guides-examples/machine-sizing
FLY_SIZE = re.compile(r"(shared-cpu|performance)-(\d+)x")
FLY_MEMORY = {"shared-cpu": 256, "performance": 2048}


def _fly_resources(document: Node, group: str) -> Resources | None:
    """None where the file sets no size: a machine keeps the one that it has."""
    single = document.get("vm")
    machines = document.items("vm") or ([single] if single is not None else [])
    named = [machine for machine in machines if group in (machine.words("processes") or [])]
    node = next(iter(named or [machine for machine in machines if not machine.words("processes")]), None)
    if node is None:
        return None
    size = FLY_SIZE.fullmatch(node.text("size") or "")
    if size is None and node.get("size") is not None:
        return None
    count = node.number("cpus") or (float(size[2]) if size else 1.0)
    memory = node.number("memory_mb")
    bytes_ = int(memory * MEGABYTE) if memory is not None else amounts.size(_fly_memory(node), binary=True)
    if size is None and not bytes_:
        return None
    cpu = Given(count, node.at("cpus"))
    usual = int(size[2]) * FLY_MEMORY[size[1]] * MEGABYTE if size else 0
    all_ = Given(bytes_ or usual, node.at("memory_mb" if memory is not None else "memory"))
    return Resources(cpu, cpu, all_, all_)


def _fly_memory(node: Node) -> str | None:
    """A number without a unit is in megabytes."""
    text = node.text("memory")
    return f"{text}mb" if text is not None and text.isdigit() else text


# -- ECS


def is_ecs(document: Node) -> bool:
    return bool(document.items("containerDefinitions") or document.items("taskDefinition", "containerDefinitions"))


def read_ecs(document: Node, files: Files) -> None:
    task = document.get("taskDefinition") or document
    files.problems += fields.misspelt(task, fields.ECS)
    containers = task.items("containerDefinitions")
    container = _ecs_main(containers)
    family = task.text("family") or container.text("name") or "unnamed"
    grace = container.number("stopTimeout")
    words = [*(container.words("entryPoint") or []), *(container.words("command") or [])]
    made = Deployment(
        _ecs_platform(task),
        family,
        document.place,
        environment_of(family, document.place.file),
        given(container, "image"),
        Given(words, container.at("command" if container.get("command") else "entryPoint")) if words else None,
        _ecs_variables(container),
        Given(grace, container.at("stopTimeout")) if grace is not None else None,
        resources=_ecs_resources(task, container),
        other_variables=[variable for other in containers if other is not container for variable in _ecs_variables(other)],
    )
    doubt(made, "grace_s", grace, container, "stopTimeout")
    _ecs_doubt_resources(made, task, container)
    _ecs_expose(made, task, container)
    if container.get("healthCheck", "command") is not None:
        failures = container.number("healthCheck", "retries")
        times = int(failures) if failures is not None else None
        # The service replaces a task whose essential container is unhealthy:
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/healthcheck.html
        essential = container.text("essential") != "false"
        made.probes.append(Probe("health", container.at("healthCheck", "retries"), failures=times, ends=essential))
    files.deployments.append(made)


def _ecs_main(containers: list[Node]) -> Node:
    """The one with LiveKit's variables, or that runs an agent, or the first."""
    for container in containers:
        if has_livekit(_ecs_variables(container)):
            return container
    agents = [container for container in containers if runs_agent(container.words("command") or [])]
    return (agents or containers)[0]


def _ecs_variables(container: Node) -> list[Variable]:
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


def _ecs_platform(task: Node) -> Platform:
    """Where it runs, as far as a task definition says; on Fargate there is no other network mode than awsvpc."""
    launches = _launches(task)
    if launches == {"FARGATE"}:
        return FARGATE
    if (launches and launches <= OWN_INSTANCES) or task.text("networkMode") in ("bridge", "host", "none", "default"):
        return ECS_INSTANCES
    return ECS


def _ecs_expose(made: Deployment, task: Node, container: Node) -> None:
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


def _ecs_cores(text: str | None) -> float | None:
    """Units of 1024, or ``1 vCPU``. No units are no request."""
    matched = re.fullmatch(r"(\d*\.?\d+)\s*(vcpus?)?", (text or "").strip().lower())
    return float(matched[1]) / (1 if matched[2] else 1024) if matched else None


def _ecs_bytes(text: str | None) -> int | None:
    """MiB, or ``2 GB``, by which ECS means 2048 MiB."""
    matched = re.fullmatch(r"(\d*\.?\d+)\s*(gb)?", (text or "").strip().lower())
    return int(float(matched[1]) * (1024 if matched[2] else 1) * MEGABYTE) if matched else None


def _ecs_resources(task: Node, container: Node) -> Resources:
    """A container may use what its task has: its own ``cpu`` is its share where others want theirs, no limit."""

    def cores(node: Node) -> Given[float] | None:
        amount = _ecs_cores(node.text("cpu"))
        return Given(amount, node.at("cpu")) if amount else None

    def size(node: Node, key: str) -> Given[int] | None:
        amount = _ecs_bytes(node.text(key))
        return Given(amount, node.at(key)) if amount else None

    most = size(container, "memory") or size(task, "memory")
    return Resources(cores(container) or cores(task), cores(task), size(container, "memoryReservation") or most, most)


def _ecs_doubt_resources(made: Deployment, task: Node, container: Node) -> None:
    for node in (task, container):
        doubt(made, "resources", _ecs_cores(node.text("cpu")), node, "cpu")
        doubt(made, "resources", _ecs_bytes(node.text("memory")), node, "memory")


# -- Cloud Run


def is_cloud_run(document: Node) -> bool:
    return (document.text("apiVersion") or "").startswith("serving.knative.dev/") and document.text("kind") == "Service"


def read_cloud_run(document: Node, files: Files) -> None:
    containers = document.items(*REVISION, "spec", "containers")
    if not containers:
        return
    container = _cloud_run_main(containers)
    name = document.text("metadata", "name") or "unnamed"
    words = _cloud_run_words(container)
    made = Deployment(
        CLOUD_RUN,
        name,
        document.place,
        environment_of(name, document.place.file),
        given(container, "image"),
        Given(words, container.at("command" if container.get("command") else "args")) if words else None,
        _cloud_run_variables(container),
        exposures=[],
        resources=_cloud_run_resources(container),
        sleeps=[],
        other_variables=[
            variable for other in containers if other is not container for variable in _cloud_run_variables(other)
        ],
    )
    limits = ("resources", "limits")
    doubt(made, "resources", amounts.cores(container.text(*limits, "cpu")), container, *limits, "cpu")
    doubt(made, "resources", amounts.size(container.text(*limits, "memory")), container, *limits, "memory")
    _cloud_run_count(made, document)
    _cloud_run_expose(made, document)
    files.deployments.append(made)


SERVICE, REVISION = ("metadata", "annotations"), ("spec", "template")
NOTES = (*REVISION, "metadata", "annotations")
THROTTLED = (*NOTES, "run.googleapis.com/cpu-throttling")
INGRESS = (*SERVICE, "run.googleapis.com/ingress")


def _cloud_run_main(containers: list[Node]) -> Node:
    for container in containers:
        if has_livekit(_cloud_run_variables(container)):
            return container
    agents = [container for container in containers if runs_agent(_cloud_run_words(container))]
    return (agents or containers)[0]


def _cloud_run_words(container: Node) -> list[str]:
    return (container.words("command") or []) + (container.words("args") or [])


def _cloud_run_variables(container: Node) -> list[Variable]:
    return [
        Variable(
            entry.text("name") or "",
            entry.at("value"),
            None if from_outside(entry.text("value")) else entry.text("value"),
            entry.text("valueFrom", "secretKeyRef", "name"),
        )
        for entry in container.items("env")
    ]


# Where the file sets none: https://cloud.google.com/run/docs/configuring/services/cpu and .../memory-limits
CLOUD_RUN_CORES, CLOUD_RUN_BYTES = 1.0, 512 * MEGABYTE


def _cloud_run_resources(container: Node) -> Resources:
    limits = ("resources", "limits")
    cores, size = amounts.cores(container.text(*limits, "cpu")), amounts.size(container.text(*limits, "memory"))
    cpu = Given(CLOUD_RUN_CORES if cores is None else cores, container.at(*limits, "cpu"), default=cores is None)
    memory = Given(CLOUD_RUN_BYTES if size is None else size, container.at(*limits, "memory"), default=size is None)
    return Resources(cpu, cpu, memory, memory)


def _cloud_run_count(made: Deployment, document: Node) -> None:
    """A service's own minimum counts as its revision's does; scaled by hand, neither counts.
    https://cloud.google.com/run/docs/configuring/min-instances and .../services/manual-scaling"""
    ways: list[tuple[str, ...]] = [(*NOTES, "autoscaling.knative.dev/minScale"), (*SERVICE, "run.googleapis.com/minScale")]
    if document.text(*SERVICE, "run.googleapis.com/scalingMode") == "manual":
        ways = [(*SERVICE, "run.googleapis.com/manualInstanceCount")]
    found = []
    for path in ways:
        count = whole(document, *path)
        doubt(made, "replicas", count, document, *path)
        found += [count] if count is not None else []
    sleeps = []
    made.replicas = max(found, key=lambda count: count.value, default=None)
    if (made.replicas is None and "replicas" not in made.unclear) or (made.replicas is not None and made.replicas.value == 0):
        sleeps.append(Given("scales to zero instances", document.at(*ways[0])))
    throttled = document.text(*THROTTLED)
    if throttled in (None, "true"):
        sleeps.append(Given("has CPU only while a request is served", document.at(*THROTTLED)))
    made.sleeps = sleeps
    doubt(made, "sleeps", throttled if throttled in ("true", "false") else None, document, *THROTTLED)


def _cloud_run_expose(made: Deployment, document: Node) -> None:
    """https://cloud.google.com/run/docs/securing/ingress"""
    ingress = document.text(*INGRESS)
    if ingress == "internal":
        return
    if ingress not in (None, "all") or document.text(*SERVICE, "run.googleapis.com/default-url-disabled") == "true":
        where = "whether a load balancer or a domain leads to it, the file does not say"
        made.unclear["exposures"] = Given(where, document.at(*INGRESS))
        return
    made.exposures = [Given(f"ingress all{'' if ingress else ', the default,'}", document.at(*INGRESS))]


# -- LiveKit Cloud


def is_livekit(document: Node, file: str) -> bool:
    return file.rsplit("/", 1)[-1].startswith("livekit.") and (
        document.get("project") is not None or document.get("agent") is not None
    )
