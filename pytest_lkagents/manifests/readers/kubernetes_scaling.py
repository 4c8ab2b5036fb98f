"""Kubernetes' autoscalers, HorizontalPodAutoscaler and KEDA's ScaledObject: from a document to the model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from pytest_lkagents.manifests import amounts
from pytest_lkagents.manifests.model import REQUESTS, Autoscaler, Deployment, Given, Pace, Step, Target
from pytest_lkagents.manifests.readers.common import doubt, from_outside, whole
from pytest_lkagents.manifests.tree import Node, Place

# Of containers: the worker's, then others that may be workers too.
Names = Sequence[str | None]

HPA, KEDA = "HorizontalPodAutoscaler", "ScaledObject"
KINDS = (HPA, KEDA)
# Of KEDA's add-on, which counts requests: https://github.com/kedacore/http-add-on
HTTP = "HTTPScaledObject"
# What web servers count of their own: a pod's metric, as what another one counts may foretell calls.
OF_REQUESTS = re.compile(r"(^|_)https?_requests?(_|$)")
# What the HPA does where a file says nothing: no wait up, 300 s down; KEDA hands its own to the HPA.
UP_SECONDS, DOWN_SECONDS = 0.0, 300.0
BEHAVIOR = ("spec", "behavior")
KEDA_BEHAVIOR = ("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior")
WINDOW = "stabilizationWindowSeconds"
# Where a HorizontalPodAutoscaler names no metric: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/
HPA_CPU = 0.8
# KEDA's own maximum.
KEDA_MOST = 100
KEDA_PAUSED = "autoscaling.keda.sh/paused-replicas"
# Triggers that can tell nothing of no worker, so that one is always kept: https://keda.sh/docs/latest/scalers/cpu/
KEDA_OWN = ("cpu", "memory")


def attach(document: Node, deployment: Deployment, workers: Names) -> None:
    """``workers``: the names of the worker's container, and of others that may be workers too."""
    keda = document.text("kind") == KEDA
    scaler = _keda(document, workers) if keda else _hpa(document, workers)
    least = ("spec", "minReplicaCount" if keda else "minReplicas")
    doubt(deployment, "minimum", whole(document, *least), document, *least)
    base = KEDA_BEHAVIOR if keda else BEHAVIOR
    for path in ((*base, "scaleUp", WINDOW), (*base, "scaleDown", WINDOW)):
        doubt(deployment, "windows", document.number(*path), document, *path)
    if "minimum" in deployment.unclear:
        scaler = dataclasses.replace(scaler, minimum=None)
    if deployment.autoscaler is not None:
        deployment.unclear["minimum"] = Given(f"beside the autoscaler at {deployment.autoscaler.place}", document.place)
        deployment.more_autoscalers.append(scaler)
    else:
        deployment.autoscaler = scaler
    sleeps = list(deployment.sleeps or [])
    if scaler.minimum is not None and scaler.minimum.value == 0:
        default = ", the default" if scaler.minimum.default else ""
        sleeps.append(Given(f"scales to zero workers{default}", scaler.minimum.place))
    if keda:
        sleeps += _keda_sleeps(document)
    deployment.sleeps = sleeps


def sleeps_without_requests(document: Node) -> Given[str] | None:
    """Of what scales by requests."""
    least = ("spec", "replicas", "min")
    none = (document.text(*least) or "0") == "0"
    return Given("scales to zero workers without requests", document.at(*least)) if none else None


def _hpa(document: Node, workers: Names) -> Autoscaler:
    targets = []
    for metric in document.items("spec", "metrics"):
        for source in ("resource", "containerResource"):
            name = metric.text(source, "name")
            if name:
                share = metric.number(source, "target", "averageUtilization")
                amount = amounts.quantity(metric.text(source, "target", "averageValue"))
                place = metric.at(source, "target", "averageValue" if share is None and amount else "averageUtilization")
                of = metric.text(source, "container") if source == "containerResource" else None
                targets.append(_target(name, place, share, of, workers, amount))
        for source in ("pods", "object", "external"):
            if metric.get(source) is not None:
                name = metric.text(source, "metric", "name") or source
                of_requests = source == "pods" and OF_REQUESTS.search(name)
                targets.append(Target(REQUESTS if of_requests else name, metric.place))
    share = document.number("spec", "targetCPUUtilizationPercentage")
    if share is not None:
        targets.append(Target("cpu", document.at("spec", "targetCPUUtilizationPercentage"), share / 100))
    if _names_no_metric(document):
        targets.append(Target("cpu", document.at("spec"), HPA_CPU))
    return Autoscaler(
        document.place,
        tuple(targets),
        whole(document, "spec", "minReplicas") or Given(1, document.at("spec"), default=True),
        whole(document, "spec", "maxReplicas"),
        _window(document, (*BEHAVIOR, "scaleUp"), UP_SECONDS),
        _window(document, (*BEHAVIOR, "scaleDown"), DOWN_SECONDS),
        _pace(document, (*BEHAVIOR, "scaleUp")),
        _pace(document, (*BEHAVIOR, "scaleDown")),
        kubernetes=True,
    )


def _names_no_metric(document: Node) -> bool:
    metrics = document.get("spec", "metrics")
    elsewhere = (
        ("spec", "targetCPUUtilizationPercentage"),
        ("metadata", "annotations", "autoscaling.alpha.kubernetes.io/metrics"),
    )
    return (metrics is None or metrics.value == []) and all(document.get(*path) is None for path in elsewhere)


def _target(
    name: str, place: Place, per_cent: float | None, container: str | None, workers: Names, amount: float | None
) -> Target:
    """``container``: the only one that counts; another one's use says nothing of the worker's load. ``amount``: what a pod
    uses, where it is not told in per cent."""
    if container is not None and container != workers[0]:
        return Target(f"{name} of {container}", place, elsewhere=container not in workers and not from_outside(container))
    cores = amount if name == "cpu" and per_cent is None else None
    return Target(name, place, per_cent / 100 if per_cent is not None else None, container is not None, cores)


def _pace(document: Node, path: tuple[str, ...]) -> Pace:
    steps = []
    for policy in document.items(*path, "policies"):
        kind, value, period = policy.text("type"), policy.number("value"), policy.number("periodSeconds")
        if kind in ("Pods", "Percent") and value is not None and period is not None:
            steps.append(Step(kind, int(value), period))
    return Pace(tuple(steps), document.text(*path, "selectPolicy") or "Max", document.number(*path, "tolerance"))


def _window(document: Node, path: tuple[str, ...], default: float) -> Given[float]:
    seconds = document.number(*path, WINDOW)
    return Given(default if seconds is None else seconds, document.at(*path, WINDOW))


def _keda(document: Node, workers: Names) -> Autoscaler:
    targets = []
    for trigger in document.items("spec", "triggers"):
        kind = trigger.text("type") or "unknown"
        value = trigger.number("metadata", "value")
        used = trigger.text("metricType") or trigger.text("metadata", "type") or "Utilization"
        share = value if used == "Utilization" and kind in KEDA_OWN else None
        amount = amounts.quantity(trigger.text("metadata", "value")) if used == "AverageValue" else None
        of = trigger.text("metadata", "containerName") if kind in KEDA_OWN else None
        targets.append(_target(kind, trigger.at("metadata", "value"), share, of, workers, amount))
    base = KEDA_BEHAVIOR
    return dataclasses.replace(
        Autoscaler(document.place, tuple(targets)),
        minimum=_keda_least(document),
        maximum=whole(document, "spec", "maxReplicaCount") or Given(KEDA_MOST, document.at("spec")),
        up_window=_window(document, (*base, "scaleUp"), UP_SECONDS),
        down_window=_window(document, (*base, "scaleDown"), DOWN_SECONDS),
        up=_pace(document, (*base, "scaleUp")),
        down=_pace(document, (*base, "scaleDown")),
        kubernetes=True,
        wakes=True,
    )


def _only_own(document: Node) -> bool:
    triggers = document.items("spec", "triggers")
    return bool(triggers) and all(trigger.text("type") in KEDA_OWN for trigger in triggers)


def _keda_least(document: Node) -> Given[int]:
    place = document.at("spec", "minReplicaCount")
    least = whole(document, "spec", "minReplicaCount") or Given(0, place, default=True)
    return Given(1, place, default=True) if least.value == 0 and _only_own(document) else least


def _keda_sleeps(document: Node) -> list[Given[str]]:
    idle, paused = ("spec", "idleReplicaCount"), ("metadata", "annotations", KEDA_PAUSED)
    found = []
    if document.number(*idle) == 0 and not _only_own(document):
        found.append(Given("scales to zero workers when idle", document.at(*idle)))
    if document.number(*paused) == 0:
        found.append(Given("is paused at 0 workers", document.at(*paused)))
    return found
