"""Knative Services of clusters of one's own, whose format Cloud Run has too: https://knative.dev/docs/serving/"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_lkagents.manifests.model import KNATIVE, REQUESTS, Autoscaler, Deployment, Files, Given, Target
from pytest_lkagents.manifests.readers import probes
from pytest_lkagents.manifests.readers.common import (
    command_of,
    doubt,
    environment_of,
    given,
    ports_of,
    whole,
    words_of,
    worker_container,
)
from pytest_lkagents.manifests.readers.kubernetes_workloads import doubt_resources, resources_of, variables
from pytest_lkagents.manifests.tree import Node

REVISION = ("spec", "template")
POD, NOTES = (*REVISION, "spec"), (*REVISION, "metadata", "annotations")
SCALING = "autoscaling.knative.dev/"
VISIBILITY = "networking.knative.dev/visibility"
# Of these Cloud Run has two as well, in this spelling: https://cloud.google.com/run/docs/reference/yaml/v1
SHARED = (f"{SCALING}minScale", f"{SCALING}maxScale")
# Those of Google's own.
GOOGLES = ("run.googleapis.com/", "cloud.googleapis.com/")
# What Cloud Run refuses of a pod, and of a container: https://cloud.google.com/run/docs/reference/rest/v1/RevisionSpec
NOT_OF_CLOUD_RUN = ("affinity", "imagePullSecrets", "tolerations", "topologySpreadConstraints")
# Where the file names no port.
USUAL_PORT = 8080
# Its own preStop hook holds SIGTERM back until no request has come for so long.
QUIET_SECONDS = 30.0


def reads(document: Node) -> bool:
    """What is of Knative by something that Cloud Run does not have. The format alone may be of both."""
    if not (document.text("apiVersion") or "").startswith("serving.knative.dev/") or document.text("kind") != "Service":
        return False
    names = list(_names(document))
    if any(name.startswith(GOOGLES) for name in names):
        return False
    own = any(name.startswith((SCALING, "networking.knative.dev/")) and name not in SHARED for name in names)
    pod = document.get(*POD)
    return own or (pod is not None and _is_for_a_cluster(pod))


def _names(document: Node) -> Iterator[str]:
    for above in ((), REVISION):
        for part in ("labels", "annotations"):
            yield from (name for name, _ in document.entries(*above, "metadata", part))


def _is_for_a_cluster(pod: Node) -> bool:
    sources = [entry for container in pod.items("containers") for entry in container.items("env")]
    return (
        any(pod.get(name) is not None for name in NOT_OF_CLOUD_RUN)
        or any(container.items("envFrom") for container in pod.items("containers"))
        or any(entry.get("valueFrom", "configMapKeyRef") is not None for entry in sources)
    )


def read(document: Node, files: Files) -> None:
    containers = document.items(*POD, "containers")
    if not containers:
        return
    container = worker_container(containers, variables, words_of)
    name = document.text("metadata", "name") or "unnamed"
    label, namespace = document.text("metadata", "labels", "environment"), document.text("metadata", "namespace")
    wait = (*POD, "timeoutSeconds")
    grace = document.number(*wait)
    made = Deployment(
        KNATIVE,
        name,
        document.place,
        environment_of(label, namespace, name, document.place.file),
        given(container, "image"),
        command_of(container),
        variables(container),
        grace_s=Given(grace, document.at(*wait)) if grace is not None else None,
        grace_at=document.at(*POD),
        pre_stop_s=QUIET_SECONDS,
        probes=probes.of_container(container),
        ports=ports_of([port for one in containers for port in one.items("ports")], "containerPort") or [USUAL_PORT],
        exposures=[],
        resources=resources_of(container),
        other_variables=[variable for other in containers if other is not container for variable in variables(other)],
    )
    doubt(made, "grace_s", grace, document, *wait)
    made.unclear["pre_stop_s"] = Given("how long Knative's own preStop hook waits is not in the file", document.at(*wait))
    doubt_resources(made, container)
    _count(made, document)
    # https://knative.dev/docs/serving/services/private-services/
    if "cluster-local" not in (document.text("metadata", part, VISIBILITY) for part in ("labels", "annotations")):
        made.exposures = [Given("a Knative Service that is not cluster-local", document.at("metadata", "labels", VISIBILITY))]
    files.deployments.append(made)


def _count(made: Deployment, document: Node) -> None:
    """Kubernetes' own autoscaler keeps one at least, Knative's none, unless the cluster is set up otherwise:
    https://knative.dev/docs/serving/autoscaling/scale-bounds/"""
    least, most = _either(document, "min-scale", "minScale"), _either(document, "max-scale", "maxScale")
    kind, metric = (document.text(*NOTES, f"{SCALING}{name}") or "" for name in ("class", "metric"))
    count = whole(document, *least)
    doubt(made, "replicas", count, document, *least)
    made.sleeps, made.replicas = [], count
    if not (count is not None and count.value > 0) and kind.startswith("hpa.") and "replicas" not in made.unclear:
        made.replicas = Given(1, document.at(*least), default=True)
    elif count is not None and count.value == 0:
        made.sleeps = [Given("scales to zero workers", count.place)]
    elif count is None:
        where = "how many are kept without min-scale (by default none) is set where it runs"
        made.unclear.setdefault("replicas", Given(where, document.at(*least)))
    if "replicas" in made.unclear:
        made.unclear["minimum"] = made.unclear["replicas"]
    if kind.startswith("hpa.") or metric:
        name = metric or "cpu"
        target = Target(REQUESTS if name in ("concurrency", "rps") else name, document.at(*NOTES, f"{SCALING}metric"))
        made.autoscaler = Autoscaler(document.at(*NOTES), (target,), made.replicas, whole(document, *most))


def _either(document: Node, *names: str) -> tuple[str, ...]:
    """The path of the first of these annotations that is there, or of the first one."""
    paths = [(*NOTES, f"{SCALING}{name}") for name in names]
    return next((path for path in paths if document.get(*path) is not None), paths[0])
