"""Docker Compose: which files are its own, and which of their services are whole once they have what they extend."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePath

from pytest_lkagents.manifests import fields
from pytest_lkagents.manifests.model import Files
from pytest_lkagents.manifests.readers.common import FOR_DEVELOPMENT
from pytest_lkagents.manifests.readers.compose_services import deployment_of, part_of
from pytest_lkagents.manifests.readers.secret_entries import secrets_in
from pytest_lkagents.manifests.tree import Node

# Compose merges such a file into the one beside it: alone it describes nothing.
OVERRIDE = re.compile(r"(docker-)?compose\.override\.ya?ml")
OWN = re.compile(r"(docker-)?compose[\w.-]*\.ya?ml")
# Helm's values and azd's projects, which have ``services`` too.
OTHERS = re.compile(r"values([.-].*)?\.ya?ml|azure\.ya?ml")
# What services have, but for their variables.
KEYS = fields.COMPOSE[0][1] - {"environment"}


def reads(document: Node) -> bool:
    services, name = document.entries("services"), PurePath(document.place.file).name
    if not services or document.get("apiVersion") is not None or OTHERS.fullmatch(name):
        return False
    # Akash has ``services`` with an ``image``, and beside them what Compose refuses:
    # https://akash.network/docs/developers/deployment/akash-sdl/syntax-reference
    if document.get("deployment") is not None and not OWN.fullmatch(name):
        return False
    return _is_own(document) or any(_is_part(service) for _, service in services)


def _is_own(document: Node) -> bool:
    """Whether its name or a service says for certain that it is Compose's."""
    services = [service for _, service in document.entries("services")]
    return bool(OWN.fullmatch(PurePath(document.place.file).name)) or any(
        _is_whole(service) or service.get("extends") for service in services
    )


def _is_whole(service: Node) -> bool:
    """Whether there is something to start; else it is a part of a service in another file. Helm's ``image`` is a mapping."""
    return service.text("image") is not None or any(service.get(part) is not None for part in ("build", "provider"))


def _is_part(service: Node) -> bool:
    """Whether this can be nothing but a part: variables, and something else that Compose has, and not Helm's ``image``."""
    variables = service.entries("environment") or service.items("environment")
    return bool(variables and KEYS & service.value.keys()) and service.get("image") is None


def _is_for_development(service: Node) -> bool:
    """`docker compose up` starts what has profiles only where one of them is asked for."""
    profiles = service.words("profiles") or []
    return bool(profiles) and all(map(FOR_DEVELOPMENT.search, profiles))


def read(document: Node, files: Files) -> None:
    if _is_own(document):
        files.problems += fields.unknown(document, fields.COMPOSE)
    contents = [(name, config.get("content")) for name, config in document.entries("configs")]
    files.secrets += [found for name, content in contents if content is not None for found in secrets_in(name, content)]
    services = {name: service for name, service in document.entries("services") if isinstance(service.value, dict)}
    if OVERRIDE.fullmatch(PurePath(document.place.file).name):
        files.passed_over.append(f"{document.place.file}: Compose merges it into the file beside it")
        files.parts += [part_of(name, service) for name, service in services.items()]
        return
    wholes = {name: _extended(name, services, ()) for name in services}
    # What a developer starts leaves what it extends the deployed one.
    deployed = [name for name, whole in wholes.items() if whole is not None and not _is_for_development(whole)]
    extended = {_base(services[name]) for name in deployed}
    tasks = {name for whole in wholes.values() if whole is not None for name in _awaited(whole)}
    for name, service in services.items():
        whole_service = wholes[name]
        if whole_service is None:
            files.passed_over.append(f"{document.place.file}: {name} extends what is not in this file")
            files.parts.append(part_of(name, service))
        elif not _is_whole(whole_service):
            files.passed_over.append(f"{document.place.file}: {name} is a whole service only with another file")
            files.parts.append(part_of(name, whole_service))
        elif _is_for_development(whole_service):
            files.passed_over.append(f"{document.place.file}: {name} is started only by a profile for development")
            files.parts.append(part_of(name, whole_service))
        elif name in tasks:
            files.passed_over.append(f"{document.place.file}: {name} is a task, for whose end others wait")
            files.parts.append(part_of(name, whole_service))
        elif name in extended and _runs_none(whole_service):
            files.passed_over.append(f"{document.place.file}: {name} runs nowhere, and is there for others to extend")
            files.parts.append(part_of(name, whole_service))
        else:
            files.deployments.append(deployment_of(name, whole_service))


def _awaited(service: Node) -> list[str]:
    """The services that have to end before this one starts, as no worker does."""
    waits = service.entries("depends_on")
    return [name for name, how in waits if how.text("condition") == "service_completed_successfully"]


def _runs_none(service: Node) -> bool:
    return 0 in (service.number("deploy", "replicas"), service.number("scale"))


def _base(service: Node) -> str | None:
    """What it extends, if that is in this file."""
    extends = service.get("extends")
    return None if extends is None or extends.get("file") is not None else extends.text() or extends.text("service")


def _extended(name: str, services: dict[str, Node], above: tuple[str, ...]) -> Node | None:
    """The service with what it extends; None where that stands in another file, or nowhere."""
    service = services.get(name)
    if service is None or name in above:
        return None
    if service.get("extends") is None:
        return service
    base = _base(service)
    if base is None:
        return None
    below = _extended(base, services, (*above, name))
    return None if below is None else _merged(_as_own(below, below.place.field, service.place.field), service)


def _as_own(node: Node, base: str, own: str) -> Node:
    """What a service takes from another one, at its line there, as a field of its own."""
    return node.rebuilt(lambda one: replace(one, place=replace(one.place, field=own + one.place.field.removeprefix(base))))


def _merged(below: Node, above: Node) -> Node:
    """As Compose merges: mappings by name, lists one after the other, and of anything else the one above."""
    if isinstance(below.value, dict) and isinstance(above.value, dict):
        both = {name: _merged(below.value[name], node) for name, node in above.value.items() if name in below.value}
        return Node(above.place, {**below.value, **above.value, **both})
    name = above.place.field.rpartition(".")[2]
    if isinstance(below.value, list) and isinstance(above.value, list) and name not in ("command", "entrypoint", "test"):
        return Node(above.place, [*below.value, *above.value])
    return above
