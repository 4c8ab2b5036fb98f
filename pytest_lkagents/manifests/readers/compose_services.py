"""Services of Docker Compose, and of Swarm where one has a ``deploy`` section with what only Swarm reads."""

from __future__ import annotations

import re
from dataclasses import replace

from pytest_lkagents.manifests import amounts
from pytest_lkagents.manifests.commands import split
from pytest_lkagents.manifests.model import COMPOSE, EVERYTHING, Deployment, Given, Loss, Probe, Problem, Resources
from pytest_lkagents.manifests.readers import probes
from pytest_lkagents.manifests.readers.common import (
    beside,
    doubt,
    environment_of,
    from_outside,
    given,
    range_of,
    variables_of,
    whole,
)
from pytest_lkagents.manifests.tree import Node

# Compose itself passes these over: https://docs.docker.com/reference/compose-file/deploy/
SWARM_ONLY = ("endpoint_mode", "mode", "placement", "rollback_config", "update_config")
# What watches a host mounts such.
HOSTS = re.compile(r"/(var/(run|lib|log)|run|proc|sys|dev|etc/(localtime|timezone|hostname|machine-id|passwd)|)(/|:|$)")
# The tokens of stores of variables.
STORE = re.compile(r"(DOPPLER|INFISICAL|VAULT|OP_SERVICE_ACCOUNT|OP_CONNECT)_")
LIMITS, RESERVED = ("deploy", "resources", "limits"), ("deploy", "resources", "reservations")


def part_of(name: str, service: Node) -> Deployment:
    """What a service, or a part of one, says that is searched for secrets."""
    words = [*_words(service, "entrypoint"), *_words(service, "command")]
    return Deployment(
        COMPOSE,
        name,
        service.place,
        environment_of(name, service.place.file),
        None,
        Given(words, service.at("command" if service.get("command") else "entrypoint")) if words else None,
        variables_of(service, "environment"),
        other_variables=variables_of(service, "build", "args"),
    )


def deployment_of(name: str, service: Node) -> Deployment:
    grace = _duration(service.text("stop_grace_period"))
    swarm, each = _is_swarm(service), service.text("deploy", "mode") == "global"
    made = replace(
        part_of(name, service),
        image=given(service, "image"),
        grace_s=Given(grace, service.at("stop_grace_period")) if grace is not None else None,
        ports=_ports(service),
        resources=_resources(service),
        sleeps=[],
        per_node=each,
        stop_signal=given(service, "stop_signal"),
        built_from=_built_from(service),
        target=given(service, "build", "target"),
        more_variables=_has_more(service),
    )
    doubt(made, "grace_s", grace, service, "stop_grace_period", wanted="a unit is wanted, as in 600s")
    made.probes = _probes(made, service, swarm)
    _count(made, service, swarm and not each)
    _expose(made, service)
    _doubt_resources(made, service)
    made.lost_at_rollout = _loss(service, made.replicas, swarm)
    return made


def _built_from(service: Node) -> str | None:
    build = service.get("build")
    if build is None or build.get("dockerfile_inline") is not None:
        return None
    return beside(service.place.file, build.text() or build.text("context"), build.text("dockerfile") or "Dockerfile")


def _has_more(service: Node) -> bool:
    """Whether variables may come from elsewhere: what is built, or mounted, may hold a file of them, and a store's token opens
    more. What the engine or its host has of its own is none."""
    if any(service.get(name) is not None for name in ("env_file", "build", "configs", "secrets", "volumes_from")):
        return True
    mounted = [volume.text("source") or volume.text() or "" for volume in service.items("volumes")]
    if any(not HOSTS.match(source) for source in mounted):
        return True
    return any(STORE.match(variable.name) for variable in variables_of(service, "environment"))


def _duration(text: str | None) -> float | None:
    """Compose wants a unit: "missing unit in duration"."""
    return None if re.fullmatch(r"\s*[1-9][\d.]*\s*", text or "") else amounts.seconds(text)


def _words(service: Node, key: str) -> list[str]:
    node = service.get(key)
    if node is not None and isinstance(node.value, str):
        return split(node.value)
    return service.words(key) or []


def _is_swarm(service: Node) -> bool:
    """``docker compose config`` prints an empty ``placement`` for whatever has a ``deploy``."""
    found = [service.get("deploy", key) for key in SWARM_ONLY]
    return any(one is not None and one.value not in ({}, []) for one in found)


def _count(made: Deployment, service: Node, one_by_default: bool) -> None:
    made.replicas = whole(service, "deploy", "replicas") or whole(service, "scale")
    doubt(made, "replicas", whole(service, "deploy", "replicas"), service, "deploy", "replicas")
    doubt(made, "replicas", whole(service, "scale"), service, "scale")
    if made.replicas is None and one_by_default and "replicas" not in made.unclear:
        made.replicas = Given(1, service.at("deploy"), default=True)
    if made.replicas is not None and made.replicas.value == 0 and made.sleeps is not None:
        made.sleeps.append(Given("is deployed with 0 workers", made.replicas.place))


def _expose(made: Deployment, service: Node) -> None:
    made.exposures = []
    if service.text("network_mode") == "host":
        reason = "on its host's network, and which ports it opens the file does not say"
        made.unclear["exposures"] = Given(reason, service.at("network_mode"))
        return  # the engine takes no notice of ports then
    for port in service.items("ports"):
        text = _published(port)
        if text is None:
            made.unclear["exposures"] = Given("which address it is bound to is not in the file", port.place)
        elif text:
            made.exposures.append(Given(f"port {text}", port.place))


def _ports(service: Node) -> list[int]:
    """Those of the container: the last part of ``ports``, ``target``, and ``expose``."""
    words = [port.text("target") or (port.text() or "").rpartition(":")[2] for port in service.items("ports")]
    return [port for word in [*words, *(service.words("expose") or [])] for port in range_of(word)]


def _published(port: Node) -> str | None:
    """The port as the file writes it; empty where it is bound to loopback, for who works on the machine; None where the
    address comes from outside."""
    if isinstance(port.value, dict):
        address = port.text("host_ip") or ""
        # Without a number the engine takes a free one.
        text = port.text("published") or f"{port.text('target') or ''} (on any port of its host)"
        return None if "$" in address else "" if _is_loopback(address) else text
    text = port.text() or ""
    plain = re.sub(r"\$\{[^}]*\}|\$\w+", "$", text)
    if _is_loopback(plain):
        return ""
    # A variable stands for an address, or for all of it.
    return None if plain == "$" or (plain.startswith("$") and plain.count(":") > 1) else text


def _is_loopback(text: str) -> bool:
    return text.startswith(("127.", "[::1]", "::1", "localhost"))


# What a list begins with; of any other one the engine runs nothing:
# https://github.com/compose-spec/compose-spec/blob/main/05-services.md#healthcheck
TESTS = ("CMD", "CMD-SHELL", "NONE")


def _probes(made: Deployment, service: Node, swarm: bool) -> list[Probe]:
    test = service.words("healthcheck", "test")
    if not test or test == ["NONE"] or service.text("healthcheck", "disable") == "true":
        return []
    first = service.text("healthcheck", "test", 0)
    if first is not None and first not in TESTS and not from_outside(first):
        reason = "a test that is a list, and does not begin with CMD, CMD-SHELL or NONE, is never run"
        made.problems.append(Problem(service.at("healthcheck", "test"), reason))
        return []
    failures = service.number("healthcheck", "retries")
    times = int(failures) if failures is not None else None
    # Swarm replaces what is unhealthy; Compose alone only shows it.
    probe = probes.of_command("health", test, service.at("healthcheck", "test"), failures=times, ends=swarm)
    return [replace(probe, failures_at=service.at("healthcheck", "retries"))]


def _resources(service: Node) -> Resources:
    def cores(*path: str) -> Given[float] | None:
        amount = amounts.cores(service.text(*path))
        return Given(amount, service.at(*path)) if amount is not None else None

    def size(*path: str) -> Given[int] | None:
        amount = amounts.size(service.text(*path), binary=True)
        return Given(amount, service.at(*path)) if amount is not None else None

    cpu, memory = cores(*LIMITS, "cpus") or cores("cpus"), size(*LIMITS, "memory") or size("mem_limit")
    return Resources(
        cores(*RESERVED, "cpus") or cpu, cpu, size(*RESERVED, "memory") or size("mem_reservation") or memory, memory
    )


def _doubt_resources(made: Deployment, service: Node) -> None:
    for path in ((*LIMITS, "cpus"), (*RESERVED, "cpus"), ("cpus",)):
        doubt(made, "resources", amounts.cores(service.text(*path)), service, *path)
    for path in ((*LIMITS, "memory"), (*RESERVED, "memory"), ("mem_limit",), ("mem_reservation",)):
        doubt(made, "resources", amounts.size(service.text(*path)), service, *path)


def _loss(service: Node, replicas: Given[int] | None, swarm: bool) -> Given[Loss] | None:
    """Swarm stops the old one first unless told otherwise, as many at once as ``parallelism`` says. Compose stops the old one
    first too; how many of several at once is not documented."""
    place = service.at("deploy", "update_config", "order")
    if not swarm:
        return Given(EVERYTHING, place) if replicas is not None and replicas.value == 1 else None
    update = service.get("deploy", "update_config") or Node(place, {})
    order, parallel = update.text("order"), update.number("parallelism")
    if order == "start-first":
        return Given(Loss(0), place)
    if order not in (None, "stop-first") or (parallel is None and update.get("parallelism") is not None):
        return None
    together = 1 if parallel is None else int(parallel)
    if together == 0:
        return Given(replace(EVERYTHING, reason="parallelism 0 means all at once"), update.at("parallelism"))
    return Given(Loss(together), place)
