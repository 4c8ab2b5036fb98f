"""Cloud Run services and worker pools, as YAML: https://cloud.google.com/run/docs/reference/yaml/v1"""

from __future__ import annotations

from pytest_lkagents.manifests import amounts
from pytest_lkagents.manifests.model import CLOUD_RUN, CLOUD_RUN_POOL, Deployment, Files, Given, Resources, Variable
from pytest_lkagents.manifests.readers import probes
from pytest_lkagents.manifests.readers.common import (
    command_of,
    doubt,
    env_of,
    environment_of,
    given,
    ports_of,
    whole,
    words_of,
    worker_container,
)
from pytest_lkagents.manifests.tree import Node


def reads(document: Node) -> bool:
    version = document.text("apiVersion") or ""
    return _is_pool(document) or (version.startswith("serving.knative.dev/") and document.text("kind") == "Service")


def _is_pool(document: Node) -> bool:
    return (document.text("apiVersion") or "").startswith("run.googleapis.com/") and document.text("kind") == "WorkerPool"


def read(document: Node, files: Files) -> None:
    containers = document.items(*REVISION, "spec", "containers")
    if not containers:
        return
    container = worker_container(containers, _variables, words_of)
    name = document.text("metadata", "name") or "unnamed"
    made = Deployment(
        CLOUD_RUN_POOL if _is_pool(document) else CLOUD_RUN,
        name,
        document.place,
        environment_of(name, document.place.file),
        given(container, "image"),
        command_of(container),
        _variables(container),
        exposures=[],
        resources=_resources(container),
        sleeps=[],
        other_variables=[variable for other in containers if other is not container for variable in _variables(other)],
    )
    limits = ("resources", "limits")
    for part in ("cpu", "memory"):
        doubt(made, "resources", amounts.quantity(container.text(*limits, part)), container, *limits, part)
    made.probes = probes.of_container(container)
    made.ports = ports_of([port for one in containers for port in one.items("ports")], "containerPort") or [USUAL_PORT]
    if _is_pool(document):
        _count_pool(made, document)
    else:
        _count(made, document)
        _expose(made, document)
    files.deployments.append(made)


# Where the file names no port: https://cloud.google.com/run/docs/container-contract#port
USUAL_PORT = 8080
SERVICE, REVISION = ("metadata", "annotations"), ("spec", "template")
NOTES = (*REVISION, "metadata", "annotations")
THROTTLED = (*NOTES, "run.googleapis.com/cpu-throttling")
INGRESS = (*SERVICE, "run.googleapis.com/ingress")


def _variables(container: Node) -> list[Variable]:
    return env_of(container, "valueFrom", "secretKeyRef", "name")


# Where the file sets none: https://cloud.google.com/run/docs/configuring/services/cpu and .../memory-limits
CLOUD_RUN_CORES, CLOUD_RUN_BYTES = 1.0, 512 * amounts.MEGABYTE


def _resources(container: Node) -> Resources:
    limits = ("resources", "limits")
    cores, size = (amounts.quantity(container.text(*limits, part)) for part in ("cpu", "memory"))
    cpu = Given(CLOUD_RUN_CORES if cores is None else cores, container.at(*limits, "cpu"), default=cores is None)
    memory = Given(CLOUD_RUN_BYTES if size is None else int(size), container.at(*limits, "memory"), default=size is None)
    return Resources(cpu, cpu, memory, memory)


def _count(made: Deployment, document: Node) -> None:
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
        without = f", the default without {ways[0][-1]}" if made.replicas is None else ""
        sleeps.append(Given(f"scales to zero instances{without}", document.at(*ways[0])))
    throttled = document.text(*THROTTLED)
    if throttled in (None, "true"):
        without = f", the default without {THROTTLED[-1]}" if throttled is None else ""
        sleeps.append(Given(f"has CPU only while a request is served{without}", document.at(*THROTTLED)))
    made.sleeps = sleeps
    doubt(made, "sleeps", throttled if throttled in ("true", "false") else None, document, *THROTTLED)


def _count_pool(made: Deployment, document: Node) -> None:
    """Its instances run all the time, and nothing leads to them; their number is set by hand, and 1 by default.
    https://cloud.google.com/run/docs/configuring/workerpools/manual-scaling"""
    path = (*SERVICE, "run.googleapis.com/manualInstanceCount")
    made.replicas = whole(document, *path)
    doubt(made, "replicas", made.replicas, document, *path)
    if made.replicas is None and "replicas" not in made.unclear:
        made.replicas = Given(1, document.at(*SERVICE), default=True)
    if made.replicas is not None and made.replicas.value == 0:
        made.sleeps = [Given("has no instance at all", made.replicas.place)]


def _expose(made: Deployment, document: Node) -> None:
    """https://cloud.google.com/run/docs/securing/ingress"""
    ingress = document.text(*INGRESS)
    if ingress == "internal":
        return
    if ingress not in (None, "all") or document.text(*SERVICE, "run.googleapis.com/default-url-disabled") == "true":
        where = "whether a load balancer or a domain leads to it, the file does not say"
        made.unclear["exposures"] = Given(where, document.at(*INGRESS))
        return
    made.exposures = [Given(f"ingress all{'' if ingress else ', the default,'}", document.at(*INGRESS))]
