"""Render blueprints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from pytest_lkagents.manifests import fields
from pytest_lkagents.manifests.commands import split
from pytest_lkagents.manifests.model import (
    RENDER,
    Autoscaler,
    Deployment,
    Files,
    Given,
    Loss,
    Probe,
    StoredSecret,
    Target,
    Variable,
)
from pytest_lkagents.manifests.readers.common import beside, doubt, environment_of, from_outside, given, grace_within, whole
from pytest_lkagents.manifests.tree import Node
from pytest_lkagents.secrets import is_secret

ONE_AT_A_TIME = "one instance at a time has the disk"
# What a blueprint is called unless told otherwise. Services of Koyeb and Porter have a ``type`` too, and none of these names.
NAMED = re.compile(r"render[\w.-]*\.ya?ml")
OWN = {
    *("buildCommand", "dockerCommand", "dockerfilePath", "envVars", "healthCheckPath", "image", "maxShutdownDelaySeconds"),
    *("numInstances", "plan", "preDeployCommand", "repo", "rootDir", "runtime", "startCommand"),
}


def reads(document: Node) -> bool:
    named = NAMED.fullmatch(PurePath(document.place.file).name)
    services = [entry for part, _ in _parts(document) for entry in part.items("services") if entry.get("type") is not None]
    return any(named or OWN & entry.value.keys() or entry.text("env") is not None for entry in services)


def _parts(document: Node) -> list[tuple[Node, str | None]]:
    """Where services and groups of variables stand, with the environment's name: at the top, or in projects and their
    environments. https://render.com/tutorials/advanced-blueprint-patterns/projects-and-environments"""
    projects = document.items("projects")
    apart = [node for node in (document.get("ungrouped"),) if node is not None]
    environments = [below for project in projects for below in project.items("environments")]
    return [(node, None) for node in (document, *apart, *projects)] + [(node, node.text("name")) for node in environments]


def read(document: Node, files: Files) -> None:
    parts = _parts(document)
    everywhere = _groups([part for part, _ in parts])
    for part, environment in parts:
        _read(part, environment, {**everywhere, **_groups([part])}, files)


def _groups(parts: Sequence[Node]) -> dict[str, list[Variable] | None]:
    """The variables of each group; None: which of several of this name is meant the file does not say."""
    found: dict[str, list[Variable] | None] = {}
    for group in (group for part in parts for group in part.items("envVarGroups")):
        name = group.text("name")
        if name is not None:
            found[name] = None if name in found else [_variable(entry) for entry in group.items("envVars")]
    return found


def _referred(own: Sequence[Variable], groups: Mapping[str, list[Variable] | None]) -> list[Variable]:
    """What a service takes from groups that lie there. Which of several wins the file does not say, nor what is in one that
    lies elsewhere."""
    linked = [groups.get(one.source or "") for one in own if one.name == "*"]
    known = [group for group in linked if group is not None]
    if len(known) < len(linked):
        return []
    times = Counter(name for group in known for name in {variable.name for variable in group})
    times.update(variable.name for variable in own)
    return [variable for group in known for variable in group if times[variable.name] == 1]


def _read(part: Node, environment: str | None, groups: Mapping[str, list[Variable] | None], files: Files) -> None:
    files.problems += fields.unknown(part, fields.RENDER)
    files.secrets += [
        StoredSecret(variable.name, variable.place)
        for group in part.items("envVarGroups")
        for variable in (_variable(entry) for entry in group.items("envVars"))
        if variable.literal and not from_outside(variable.literal)
        if is_secret(variable.name, variable.literal)
    ]
    for service in part.items("services"):
        kind = service.text("type")
        if kind not in ("web", "pserv", "worker"):
            continue
        name = service.text("name") or "unnamed"
        command = service.text("dockerCommand") or service.text("startCommand")
        place = service.at("dockerCommand" if service.get("dockerCommand") else "startCommand")
        made = Deployment(
            RENDER,
            name,
            service.place,
            environment_of(environment, name, part.place.file),
            given(service, "image", "url"),
            Given(split(command), place) if command else None,
            [_variable(entry) for entry in service.items("envVars")],
            exposures=[],
            replicas=whole(service, "numInstances"),
            sleeps=[],
            built_from=_built_from(service),
            # https://render.com/docs/background-workers
            in_background=kind == "worker",
        )
        made.referred = _referred(made.variables, groups)
        # The blueprint's schema says so: https://render.com/schema/render.yaml.json
        grace_within(made, service, "maxShutdownDelaySeconds")
        doubt(made, "replicas", made.replicas, service, "numInstances")
        if kind == "web":
            made.exposures = [Given("a web service (Render leads the internet to it)", service.at("type"))]
        if path := service.text("healthCheckPath"):
            made.probes.append(Probe("health", service.at("healthCheckPath"), None, path))
        if service.text("plan") == "free":
            made.sleeps = [Given("the free plan stops idle services", service.at("plan"))]
        if service.get("disk") is not None:
            # https://render.com/docs/disks#disk-limitations-and-considerations
            made.lost_at_rollout = Given(Loss(100, percent=True, reason=ONE_AT_A_TIME), service.at("disk"))
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


def _built_from(service: Node) -> str | None:
    """Its paths are those of the repository, where the blueprint stands at the top: https://render.com/docs/blueprint-spec"""
    if (service.text("runtime") or service.text("env")) != "docker":
        return None
    return beside(service.place.file, service.text("rootDir"), service.text("dockerfilePath") or "Dockerfile")


def _variable(entry: Node) -> Variable:
    name = entry.text("key") or "*"
    source = entry.text("fromGroup") or entry.text("fromService", "name") or entry.text("fromDatabase", "name")
    return Variable(name, entry.at("value"), entry.text("value"), source)
