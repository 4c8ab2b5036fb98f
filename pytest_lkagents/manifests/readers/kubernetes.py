"""Kubernetes: workloads with their autoscalers, Services, Ingresses and Secrets, across documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_lkagents.manifests import fields
from pytest_lkagents.manifests.commands import runs_agent
from pytest_lkagents.manifests.model import Deployment, Files, Given, Problem, Resources
from pytest_lkagents.manifests.readers import (
    config_maps,
    kubernetes_others,
    kubernetes_routes,
    kubernetes_scaling,
    kubernetes_secrets,
    kubernetes_types,
    kustomize,
)
from pytest_lkagents.manifests.readers.common import environment_of, from_outside, words_of
from pytest_lkagents.manifests.readers.kubernetes_workloads import (
    ROLLOUT,
    WORKLOADS,
    count_workers,
    doubt_loss,
    is_workload,
    kind_of,
    main_container,
    resources_of,
    worker_names,
    workload,
)
from pytest_lkagents.manifests.tree import Node

Made = tuple[Node, Deployment]

# What current releases serve, by kind; others were removed: https://kubernetes.io/docs/reference/using-api/deprecation-guide/
SERVED = {
    **dict.fromkeys(("Deployment", "StatefulSet", "ReplicaSet", "DaemonSet"), ("apps/v1",)),
    kubernetes_scaling.HPA: ("autoscaling/v2", "autoscaling/v1"),
    "PodDisruptionBudget": ("policy/v1",),
    "Ingress": ("networking.k8s.io/v1",),
    **dict.fromkeys(("Service", "ConfigMap", "Secret"), ("v1",)),
}
# Kubernetes' own; in others the same kinds may be something else.
GROUPS = ("", "apps", "autoscaling", "extensions", "networking.k8s.io", "policy")


def reads(document: Node) -> bool:
    version, kind = document.text("apiVersion"), document.text("kind")
    if version is None or kind is None or _of_cloud_run(document):
        return False
    # Other tools' files have both names, too (skaffold/v4beta6). Groups that are not Kubernetes' own have a dot.
    group = version.rpartition("/")[0]
    return group in (*GROUPS, "batch") or "." in group or kind in (*WORKLOADS, *SERVED)


def _of_cloud_run(document: Node) -> bool:
    return (document.text("apiVersion") or "").startswith(("serving.knative.dev/", "run.googleapis.com/"))


def _unserved(document: Node) -> Iterator[Problem]:
    """Why no current Kubernetes takes this document, if it does not: its kind is misspelt, or of another version."""
    version, kind = document.text("apiVersion") or "", kind_of(document)
    if version.rpartition("/")[0] not in GROUPS or kind.endswith("List"):
        return
    if kind in SERVED:
        if version not in SERVED[kind]:
            reason = f"no current Kubernetes has {kind} in {version}, but in {SERVED[kind][0]}"
            yield Problem(document.at("apiVersion"), reason)
    elif (meant := fields.meant(kind, frozenset(SERVED))) is not None:
        yield Problem(document.at("kind"), f"there is no kind {kind!r}; {meant!r} is meant")


def without_version(document: Node) -> Problem | None:
    """What is only not read as it names no version."""
    kind = kind_of(document)
    if kind in (*WORKLOADS, *SERVED) and document.text("metadata", "name") and document.text("apiVersion") is None:
        return Problem(document.place, f"{kind} without apiVersion")
    return None


def flat(documents: Sequence[Node]) -> list[Node]:
    """Lists (kind: List) taken apart."""
    found: list[Node] = []
    for document in documents:
        found += flat(document.items("items")) if kind_of(document) == "List" else [document]
    return found


def read(documents: Sequence[Node], files: Files) -> None:
    """Of ``files.changed`` only what is stored in them."""
    every = [document for document in flat(documents) if reads(document)]
    changed = set(files.changed)
    known = [document for document in every if document.place.file not in changed]
    files.secrets += [found for document in every for found in kubernetes_secrets.stored(document)]
    made: list[Made] = []
    for document in known:
        files.problems += fields.unknown(document, fields.KUBERNETES.get(kind_of(document), ()))
        files.problems += _unserved(document)
        if (document.text("apiVersion") or "") in SERVED.get(kind_of(document), ()):
            files.problems += fields.of_other_kind(document, kind_of(document))
            files.problems += kubernetes_types.mistyped(document, kind_of(document))
            if kind_of(document) == kubernetes_scaling.HPA:
                files.problems += fields.of_other_version(document)
                files.problems += kubernetes_types.unscalable(document)
        if kind_of(document) == kubernetes_scaling.KEDA:
            files.problems += kubernetes_types.mistyped_triggers(document)
        if is_workload(document):
            made.append((document, workload(document)))
    services = [document for document in known if kind_of(document) == "Service"]
    apart = set(files.for_development)
    rollouts: list[Made] = []
    for document in known:
        if kind_of(document) == ROLLOUT:
            rollouts += _handed_over(document, _within(document, made, apart))
    for document in known:
        there = [service for service in services if document.place.file in apart or service.place.file not in apart]
        _attach(document, _within(document, made, apart), there, _within(document, rollouts, apart))
        if kind_of(document) in kubernetes_scaling.KINDS and document.place.file not in apart:
            files.adrift += _adrift(document, made + rollouts, every)
    maps = [one for one in every if kind_of(one) == "ConfigMap"]
    # What a file says of these need not hold.
    unsure = kustomize.generated(documents) | {_name(one) for one in maps if one.place.file in changed}
    maps = [one for one in maps if _name(one) not in unsure]
    for document, deployment in made:
        _stays_at_none(deployment)
        near = [one for one in maps if _namespace(one) == _namespace(document)]
        near = [one for one in near if _within(one, [(document, deployment)], apart)]
        # What is of the other environment by its label or file is that one's, whatever lies beside it.
        near = [one for one in near if _environment(one) in ("", deployment.environment)]
        deployment.referred = config_maps.referred(main_container(document), near)
    files.deployments += [deployment for _, deployment in made]
    for document in known:
        kubernetes_others.read(document, files)
    files.unruled += [said for document, deployment in made for said in _agents_beside(document, deployment)]


def _agents_beside(document: Node, deployment: Deployment) -> Iterator[str]:
    """Of several agents in one pod one is judged."""
    main = main_container(document)
    for one in document.items("spec", "template", "spec", "containers"):
        if one is not main and runs_agent(words_of(one)):
            yield f"{document.place.file}: {deployment.name} has a second agent, its container {one.text('name')}"


def _stays_at_none(deployment: Deployment) -> None:
    """A HorizontalPodAutoscaler leaves a workload of 0 alone, KEDA raises it:
    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#implicit-maintenance-mode-deactivation"""
    replicas = deployment.replicas
    if replicas is not None and replicas.value == 0 and not any(scaler.wakes for scaler in deployment.autoscalers):
        deployment.sleeps = [*(deployment.sleeps or []), Given("is deployed with 0 workers", replicas.place)]


# -- What belongs to a workload


def _within(document: Node, found: list[Made], apart: set[str]) -> list[Made]:
    """What is for development by its file's name (``apart``) says nothing of what other files deploy."""
    return [pair for pair in found if document.place.file not in apart or pair[1].place.file in apart]


def _handed_over(rollout: Node, made: list[Made]) -> list[Made]:
    """A Rollout may name a Deployment instead of pods: it runs those in its stead, as many as it says itself, and replaces them
    in its own way. https://argo-rollouts.readthedocs.io/en/stable/migrating/#reference-deployment-from-rollout"""
    reference = ("spec", "workloadRef")
    named = [
        (workload, deployment)
        for workload, deployment in made
        if (kind_of(workload), deployment.name) == (rollout.text(*reference, "kind"), rollout.text(*reference, "name"))
    ]
    found = _near(rollout, named)
    for _, deployment in found:
        deployment.unclear.pop("replicas", None)
        deployment.lost_at_rollout = None
        doubt_loss(deployment, rollout)
        count_workers(deployment, rollout)
    # As what scales it names the Rollout, with the Deployment's pods.
    return [(Node(rollout.place, {**rollout.value, "spec": _with_pods(rollout, workload)}), one) for workload, one in found]


def _with_pods(rollout: Node, workload: Node) -> Node:
    spec, pods = rollout.get("spec"), workload.get("spec", "template")
    assert spec is not None
    return Node(spec.place, {**spec.value, "template": pods})


def _attach(document: Node, made: list[Made], services: list[Node], rollouts: list[Made]) -> None:
    kind = kind_of(document)
    if kind in kubernetes_scaling.KINDS:
        for workload, deployment in _near(document, [pair for pair in made + rollouts if _scales(document, pair[0])]):
            kubernetes_scaling.attach(document, deployment, worker_names(workload))
    elif kind == kubernetes_scaling.HTTP and (trait := kubernetes_scaling.sleeps_without_requests(document)) is not None:
        for _, deployment in _near(document, [pair for pair in made if _scales(document, pair[0])]):
            deployment.sleeps = [*(deployment.sleeps or []), trait]
    elif kind == "Service" and (exposure := kubernetes_routes.exposure(document)) is not None:
        _open(document, made, exposure, document)
    elif kind == "LimitRange":
        for _, deployment in _near(document, made):
            _fill(document, deployment)
    else:
        _attach_route(document, made, services)


def _adrift(scaler: Node, made: list[Made], every: list[Node]) -> Iterator[str]:
    """Why an autoscaler scales nothing that is read here, if so."""
    scaled = [pair for pair in made if _scales(scaler, pair[0])]
    kind, name = (scaler.text("spec", "scaleTargetRef", part) for part in ("kind", "name"))
    if _near(scaler, scaled) or name is None or from_outside(name):
        return
    kind = kind or "Deployment"
    if scaled:
        yield f"{scaler.place}: {kind} {name}, which it scales, is in another namespace"
    elif not any(_name(one) == name and kind_of(one) == kind for one in every):
        yield f"{scaler.place}: {kind} {name}, which it scales, is in no file"


def _open(service: Node, made: list[Made], exposure: Given[str], source: Node) -> None:
    """What a Service selects, by what leads to that (``source``). What else runs in a pod may hand on to the worker what
    comes."""
    for one, deployment in _near(service, [pair for pair in made if _selects(service, pair[0])]):
        beside = kubernetes_routes.leads_beside(service, one)
        if beside or kubernetes_routes.is_internal(source):
            reason = f"{exposure.value} {'leads to another container of its pod' if beside else 'is for its own network alone'}"
            deployment.unclear["exposures"] = Given(reason, exposure.place)
        elif exposure not in (deployment.exposures or []):
            deployment.exposures = [*(deployment.exposures or []), exposure]


def _near(document: Node, found: list[Made]) -> list[Made]:
    """Those in its namespace; or, as far as files name none (it is given when they are applied), those that may be. Where even
    it names none, those in its folder, if there are any."""
    space = _namespace(document)
    exact = [pair for pair in found if _namespace(pair[0]) == space]
    near = exact or [pair for pair in found if space is None or _namespace(pair[0]) is None]
    folder = document.place.file.rpartition("/")[0]
    beside = [pair for pair in near if pair[0].place.file.rpartition("/")[0] == folder]
    return beside if space is None and beside else near


def _namespace(document: Node) -> str | None:
    return document.text("metadata", "namespace")


def _name(document: Node) -> str | None:
    return document.text("metadata", "name")


def _environment(document: Node) -> str:
    return environment_of(document.text("metadata", "labels", "environment"), document.place.file)


def _scales(scaler: Node, workload: Node) -> bool:
    target = ("spec", "scaleTargetRef")
    # KEDA's default; a HorizontalPodAutoscaler has to name the kind.
    kind = scaler.text(*target, "kind") or ("Deployment" if kind_of(scaler) == kubernetes_scaling.KEDA else None)
    return scaler.text(*target, "name") == workload.text("metadata", "name") and kind in (None, kind_of(workload))


def _attach_route(document: Node, made: list[Made], services: list[Node]) -> None:
    """It leads to Services, and those to what they select. Where its Service is in no file, only its name is known."""
    what = kubernetes_routes.said(document)
    for name, elsewhere in kubernetes_routes.services(document):
        space = elsewhere or _namespace(document)
        there = [one for one in services if _name(one) == name and (_namespace(one) in (None, space) or not space)]
        for service in there:
            _open(service, made, Given(what, document.place), document)
        for one, deployment in _near(document, made) if not there else []:
            if name in (deployment.name, one.text("metadata", "labels", "app")):
                deployment.unclear["exposures"] = Given(f"{what}, whose Service is in no file", document.place)


def _fill(document: Node, deployment: Deployment) -> None:
    """What a LimitRange sets where a container sets nothing."""
    had = deployment.resources
    for limit in document.items("spec", "limits"):
        if had is None or limit.text("type") != "Container":
            continue
        default = resources_of(Node(limit.place, {"resources": Node(limit.place, _as_resources(limit))}))
        deployment.resources = had = Resources(
            had.cpu_request or default.cpu_request,
            had.cpu_limit or default.cpu_limit,
            had.memory_request or default.memory_request,
            had.memory_limit or default.memory_limit,
        )


def _as_resources(limit: Node) -> dict[str, Node]:
    parts = {"requests": limit.get("defaultRequest"), "limits": limit.get("default")}
    return {name: node for name, node in parts.items() if node is not None}


def _selects(service: Node, workload: Node) -> bool:
    selector = {name: value.text() for name, value in service.entries("spec", "selector")}
    labels = {name: value.text() for name, value in workload.entries("spec", "template", "metadata", "labels")}
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())
