"""What a worker is started from and with, and what leads to it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_lkagents.guide import RULE_BYTES, RULE_CORES
from pytest_lkagents.manifests.commands import COMMANDS, DEVELOPMENT, modes_of, split
from pytest_lkagents.manifests.findings import Finding, Judgement, Needs
from pytest_lkagents.manifests.model import COMPOSE, DOCKERFILE, KNATIVE, KUBERNETES, Deployment, Files, Given, Resources
from pytest_lkagents.manifests.readers.dockerfile import is_built_by_livekit_cloud
from pytest_lkagents.manifests.rules.common import cores_variable, of_production, unclear

# Docker's own least memory limit.
LEAST_BYTES = 6 * 1024 * 1024


@of_production
def no_inbound(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        if not deployment.exposures and (unclear(made, deployment, "exposures") or deployment.exposures is None):
            continue
        made.looked_at += 1
        for exposure in deployment.exposures:
            made.findings.append(
                Finding(
                    exposure.place,
                    f"{exposure.value} opens the worker to others",
                    "none: workers connect to LiveKit, nobody to them",
                    "An open port is an attack surface, and nothing that a worker needs.",
                )
            )
    return made


@of_production
def resources(files: Files, needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        set_ = deployment.resources
        if _is_local(deployment):
            continue
        if unclear(made, deployment, "resources"):
            made.nothing = "no resources that these files tell"
            continue
        if set_ is None:
            continue
        made.looked_at += 1
        missing = [
            name
            for name, value in (
                ("a CPU request", set_.cpu_request),
                ("a memory request", set_.memory_request),
                ("a memory limit", set_.memory_limit),
            )
            if value is None
        ]
        if missing:
            made.findings.append(
                Finding(
                    deployment.place,
                    f"{deployment.name} has no {', no '.join(part.split(' ', 1)[1] for part in missing)}",
                    "requests and limits: the guide starts with 4 cores and 8 GB for 25 sessions",
                    "Without them a worker shares what others leave, and may be the first that is ended.",
                )
            )
            continue
        if deployment.platform is KUBERNETES and set_.cpu_limit is None and cores_variable(deployment) is None:
            assert set_.cpu_request is not None
            made.findings.append(
                Finding(
                    set_.cpu_request.place,
                    f"{set_.cpu_request.value:g} cores requested, and no limit",
                    "a CPU limit, of as many cores as the worker is meant to use",
                    "Without a limit a worker counts its load against all cores of its node, and is never full on a large one.",
                )
            )
        assert set_.memory_limit is not None
        assert set_.memory_request is not None
        small = next((one for one in (set_.memory_limit, set_.memory_request) if one.value < LEAST_BYTES), None)
        if small is not None:
            made.findings.append(
                Finding(
                    small.place,
                    f"{small.value} bytes" if small.value else "less than a byte",
                    "an amount such as 8Gi; on Kubernetes m stands for thousandths",
                    "No process starts with so little."
                    if small is set_.memory_limit
                    else "What is requested is kept free: with so little, a worker may land where no memory is left.",
                )
            )
        made.findings += _above_limits(deployment, set_)
        if small is set_.memory_limit:
            continue
        if needs.sessions is None:
            continue
        cores = needs.sessions * (needs.cores_per_session or RULE_CORES)
        memory = needs.sessions * (needs.memory_per_session_bytes or RULE_BYTES)
        if set_.memory_limit.value < memory:
            made.findings.append(
                Finding(
                    set_.memory_limit.place,
                    f"{set_.memory_limit.value / 1e6:.0f} MB",
                    f"{memory / 1e6:.0f} MB for {needs.sessions} sessions",
                    "A worker over its memory limit is killed, with all its calls.",
                )
            )
        if set_.cpu_limit is not None and set_.cpu_limit.value < cores:
            made.findings.append(
                Finding(
                    set_.cpu_limit.place,
                    f"{set_.cpu_limit.value:g} cores",
                    f"{cores:.2f} cores for {needs.sessions} sessions",
                    "A worker without CPU serves all its calls badly.",
                )
            )
    return made


def _above_limits(deployment: Deployment, set_: Resources) -> Iterator[Finding]:
    """Kubernetes refuses a container that requests more than it may use."""
    if deployment.platform not in (KUBERNETES, KNATIVE):
        return
    for request, limit, unit, size in (
        (set_.cpu_request, set_.cpu_limit, "cores", 1),
        (set_.memory_request, set_.memory_limit, "MB", 1e6),
    ):
        if request is not None and limit is not None and request.value > limit.value:
            found = f"{request.value / size:g} {unit} requested, and a limit of {limit.value / size:g}"
            yield Finding(request.place, found, "a request of no more than the limit", "Kubernetes refuses such a pod.")


def _is_local(deployment: Deployment) -> bool:
    """Compose on a developer's machine, which needs no limits."""
    limit = deployment.resources.cpu_limit if deployment.resources is not None else None
    one = deployment.replicas is None or deployment.replicas.default
    return deployment.platform is COMPOSE and one and limit is None and "replicas" not in deployment.unclear


@of_production
def production_command(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    others = [one for one in files.deployments if one.built_from is None and one.platform not in (COMPOSE, DOCKERFILE)]
    for deployment in files.deployments:
        command = deployment.command
        if command is None or (deployment.platform is DOCKERFILE and _is_replaced(deployment, command, files, others)):
            continue
        modes = modes_of(command.value)
        if (
            deployment.platform is DOCKERFILE
            and modes
            and modes <= DEVELOPMENT
            and _is_set_elsewhere(deployment, command, files, others)
        ):
            made.notes.append(
                f"{command.place}: all that is deployed has a command of its own instead of {min(modes)!r}; not judged"
            )
            continue
        if modes - DEVELOPMENT and modes & DEVELOPMENT:
            choice = " and ".join(map(repr, sorted(modes)))
            made.notes.append(f"{command.place}: a condition decides between {choice}; not judged")
            continue
        if not modes:
            # Whatever it starts, this does not tell.
            made.notes += [
                f"{command.place}: what its {word!r} starts is not in the file; not judged" for word in _development(command)
            ]
            continue
        made.looked_at += 1
        if modes <= DEVELOPMENT:
            made.findings.append(
                Finding(
                    command.place,
                    f"the worker is started with {min(modes)!r}",
                    "start",
                    "Development mode reloads, logs more and does not drain: SIGTERM cuts its calls.",
                )
            )
    return made


def _development(command: Given[list[str]]) -> list[str]:
    """The first word of development in a command, wherever it stands."""
    return [part for word in command.value for part in split(word) if part in DEVELOPMENT][:1]


def _is_replaced(image: Deployment, command: Given[list[str]], files: Files, others: list[Deployment]) -> bool:
    """Whether all that is made of a Dockerfile has a command of its own, or (of what does not say of what it is made) one that
    does not tell: its CMD is no evidence then. An ENTRYPOINT alone stays where Compose sets ``command``."""
    users = [one for one in files.deployments if one.built_from == image.name]
    if not users:
        commands = [one.command for one in others if one.command is not None]
        opaque = any(not modes_of(command.value) and _development(command) for command in commands)
        return len(commands) == len(others) and opaque
    own = [one.command for one in users if one.command is not None]
    stays = command.place.field == "ENTRYPOINT" and any(one.place.field.endswith(".command") for one in own)
    return len(own) == len(users) and not stays and all(one.command is not None for one in others)


def _is_set_elsewhere(image: Deployment, command: Given[list[str]], files: Files, others: list[Deployment]) -> bool:
    """Whether all that is deployed, and does not say of what it is made, has a command that takes the place of this image's,
    and nothing runs it as it is. Arguments take the place of CMD alone: an ENTRYPOINT that tells the agent its command stays
    but where they start a program themselves."""
    if (
        not others
        or is_built_by_livekit_cloud(image.name, files)
        or any(one.built_from == image.name for one in files.deployments)
    ):
        return False
    commands = [one.command.value for one in others if one.command is not None]
    whole = all(modes_of(words) and words[0] not in COMMANDS for words in commands)
    return len(commands) == len(others) and (command.place.field == "CMD" or whole)


@of_production
def image_pinned(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        image = deployment.image
        if image is None:
            continue
        if deployment.platform is COMPOSE and deployment.built_from is not None:
            # A name for what is built; its Dockerfile says of what it is made.
            made.nothing = made.nothing or "every image that is named is built by Compose"
            continue
        name = image.value.rsplit("/", 1)[-1]
        tag = name.partition(":")[2]
        if tag != "latest" and re.search(r"\$\{?[A-Za-z_]|\{\{|<", image.value):
            made.nothing = "every image is named with a variable or a placeholder"
            continue
        made.looked_at += 1
        if "@sha256:" in image.value:
            continue
        if tag in ("", "latest"):
            made.findings.append(
                Finding(
                    image.place,
                    f"{image.value} {'is whatever was pushed last' if tag else 'names no version'}",
                    "a version or a digest",
                    "Two workers of one rollout may run different code, and a rollback finds the same image.",
                )
            )
    return made
