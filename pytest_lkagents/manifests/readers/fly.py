"""fly.toml."""

from __future__ import annotations

import re

from pytest_lkagents.manifests import amounts, fields
from pytest_lkagents.manifests.commands import AGENT, WORKER, runs_agent
from pytest_lkagents.manifests.model import EVERYTHING, FLY, Deployment, Files, Given, Probe, Resources
from pytest_lkagents.manifests.readers.common import beside, doubt, environment_of, given, line_of, ports_of, variables_of
from pytest_lkagents.manifests.tree import Node

OWN = re.compile(r"fly([._-].*)?\.toml")


def reads(document: Node) -> bool:
    if OWN.fullmatch(document.place.file.rsplit("/", 1)[-1]):
        # `fly deploy --app NAME` needs no ``app``.
        return any(name in fields.FLY[0][1] for name, _ in document.entries())
    return document.get("app") is not None and document.get("primary_region") is not None


def read(document: Node, files: Files) -> None:
    files.problems += fields.unknown(document, fields.FLY)
    name = document.text("app") or "unnamed"
    grace = amounts.seconds(document.text("kill_timeout"))
    group = _group(document)
    command = document.get("processes", group) or document.get("experimental", "cmd")
    words = line_of(command)
    made = Deployment(
        FLY,
        name,
        document.place,
        environment_of(name, document.place.file),
        given(document, "build", "image"),
        Given(words, command.place) if command is not None and words else None,
        variables_of(document, "env"),
        grace_s=Given(grace, document.at("kill_timeout")) if grace is not None else None,
        exposures=[],
        resources=_resources(document, group),
        sleeps=[],
        stop_signal=given(document, "kill_signal"),
        other_variables=variables_of(document, "build", "args"),
        built_from=_built_from(document),
        # The other one is no field of it, which is a problem, and shows what is meant.
        target=given(document, "build", "build-target") or given(document, "build", "target"),
    )
    doubt(made, "grace_s", grace, document, "kill_timeout")
    for service in _services(document, group):
        _service(made, service)
        made.ports += ports_of([service], "internal_port")
    # A table of tables, or an array of those that have a name: both are flyctl's.
    for check in [check for _, check in document.entries("checks")] + document.items("checks"):
        if not _is_for(check, group, document):
            continue
        port = check.number("port")
        path_text = (check.text("path") or "/") if check.text("type") == "http" else None
        made.probes.append(Probe("health", check.at("port"), int(port) if port else None, path_text))
    strategy = given(document, "deploy", "strategy")
    if strategy is not None and strategy.value == "immediate":
        made.lost_at_rollout = Given(EVERYTHING, strategy.place)
    elif strategy is not None:
        made.unclear["lost_at_rollout"] = Given(f"how Fly.io replaces workers by {strategy.value!r}", strategy.place)
    files.deployments.append(made)


def _built_from(document: Node) -> str | None:
    if any(document.get("build", other) is not None for other in ("image", "builder", "buildpacks")):
        return None
    return beside(document.place.file, document.text("build", "dockerfile") or "Dockerfile")


def _group(document: Node) -> str:
    """The process group that is the worker's, by its command or its name; else the first that the file names."""
    groups = document.entries("processes")
    for name, command in groups:
        if runs_agent(line_of(command)):
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


def _services(document: Node, group: str) -> list[Node]:
    single = document.get("http_service")
    found = ([single] if single is not None else []) + document.items("services")
    return [service for service in found if _is_for(service, group, document)]


def _service(made: Deployment, service: Node) -> None:
    if service.place.field == "http_service" or service.items("ports"):
        made.exposures = [*(made.exposures or []), Given("a public service", service.place)]
    stops = service.text("auto_stop_machines")
    if stops in ("true", "stop", "suspend"):
        place, kept = service.at("auto_stop_machines"), service.number("min_machines_running")
        if kept:
            # It counts connections from outside, of which a worker has none: https://fly.io/docs/reference/fly-proxy-autostop-autostart
            reason = f"idle machines are stopped, all but {kept:g}; how many there are the file does not say (wanted: off)"
            made.unclear["sleeps"] = Given(reason, place)
        else:
            made.sleeps = [*(made.sleeps or []), Given("idle machines are stopped, all of them", place)]
    for kind in ("tcp_checks", "http_checks", "checks"):
        for check in service.items(kind):
            port = service.number("internal_port")
            made.probes.append(Probe("health", check.place, int(port) if port else None, check.text("path")))


# Sizes by name, and the memory that comes with each of their cores: https://fly.io/docs/machines/guides-examples/machine-sizing
FLY_SIZE = re.compile(r"(shared-cpu|performance)-(\d+)x")
FLY_MEMORY = {"shared-cpu": 256, "performance": 2048}


def _resources(document: Node, group: str) -> Resources | None:
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
    bytes_ = int(memory * amounts.MEGABYTE) if memory is not None else amounts.size(_memory(node), binary=True)
    if size is None and not bytes_:
        return None
    cpu = Given(count, node.at("cpus"))
    usual = int(size[2]) * FLY_MEMORY[size[1]] * amounts.MEGABYTE if size else 0
    all_ = Given(bytes_ or usual, node.at("memory_mb" if memory is not None else "memory"))
    return Resources(cpu, cpu, all_, all_)


def _memory(node: Node) -> str | None:
    """A number without a unit is in megabytes."""
    text = node.text("memory")
    return f"{text}mb" if text is not None and text.isdigit() else text
