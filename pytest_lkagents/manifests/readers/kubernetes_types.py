"""Values of another type than Kubernetes takes: `kubectl apply` refuses the document."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_lkagents.manifests.fields import CONTAINER_AT, EACH, OF_KIND, POD_AT, at
from pytest_lkagents.manifests.model import Problem
from pytest_lkagents.manifests.readers.common import PLAIN
from pytest_lkagents.manifests.tree import Node

Paths = tuple[tuple[str, ...], ...]

_PROBES = [(*CONTAINER_AT, f"{kind}Probe") for kind in ("liveness", "readiness", "startup")]
_COUNTS = ("failureThreshold", "initialDelaySeconds", "periodSeconds", "successThreshold", "timeoutSeconds")
# Where a whole number must stand, and where readers doubt what is none: text that is one is left to be found.
NUMBERS: dict[str, Paths] = {
    **dict.fromkeys(
        OF_KIND,
        (
            *((*probe, name) for probe in _PROBES for name in _COUNTS),
            *((*probe, "grpc", "port") for probe in _PROBES),
            (*CONTAINER_AT, "ports", EACH, "containerPort"),
        ),
    ),
    "HorizontalPodAutoscaler": (("spec", "maxReplicas"),),
}
DOUBTED: dict[str, Paths] = {
    **dict.fromkeys(OF_KIND, (("spec", "replicas"), (*POD_AT, "terminationGracePeriodSeconds"))),
    "HorizontalPodAutoscaler": (("spec", "minReplicas"), ("spec", "behavior", EACH, "stabilizationWindowSeconds")),
}
# Numbers, or names of ports, which have a letter; and numbers, or text in per cent.
PORTS: Paths = tuple((*probe, how, "port") for probe in _PROBES for how in ("httpGet", "tcpSocket"))
PORTIONS: Paths = tuple(
    ("spec", strategy, "rollingUpdate", name)
    for strategy in ("strategy", "updateStrategy")
    for name in ("maxSurge", "maxUnavailable")
)
DIGITS = re.compile(r"[0-9]+")
# Numbers that are per cent, and are written without the sign.
SHARES: Paths = (
    ("spec", "targetCPUUtilizationPercentage"),
    *(("spec", "metrics", EACH, source, "target", "averageUtilization") for source in ("resource", "containerResource")),
)
SHARE = re.compile(r"[0-9]+ ?%?")


def mistyped(document: Node, kind: str) -> Iterator[Problem]:
    """A problem for each number that is text and the other way round, where Kubernetes takes one of the two only. What is still
    to be filled in is passed over. Values of variables are not shown."""
    for paths, refused, takes in (
        (NUMBERS.get(kind, ()), PLAIN, "a number only"),
        (DOUBTED.get(kind, ()), DIGITS, "a number only"),
        (SHARES if kind == "HorizontalPodAutoscaler" else (), SHARE, "a number only"),
        (PORTS if kind in OF_KIND else (), DIGITS, "a number, or the name of a port, which has a letter"),
        (PORTIONS if kind in OF_KIND else (), PLAIN, "a number, or text in per cent"),
    ):
        for node in (node for path in paths for node in at(document, path)):
            if isinstance(node.value, str) and refused.fullmatch(node.value):
                yield Problem(node.place, f"{node.value!r} is text, where Kubernetes takes {takes}")
    for part in ("containers", "initContainers") if kind in OF_KIND else ():
        for entry in at(document, (*POD_AT, part, EACH, "env", EACH)):
            value = entry.get("value")
            if value is not None and isinstance(value.value, (bool, int, float)):
                reason = f"the value of {entry.text('name')} is a number or a truth value, where Kubernetes takes text only"
                yield Problem(value.place, f"{reason}, in quotes")


def unscalable(document: Node) -> Iterator[Problem]:
    """A problem for what of a HorizontalPodAutoscaler the API refuses whatever its types are."""
    least, most = document.number("spec", "minReplicas"), document.number("spec", "maxReplicas")
    if least is not None and most is not None and least > most:
        reason = f"{least:g} workers at least and {most:g} at most, which Kubernetes refuses"
        yield Problem(document.at("spec", "minReplicas"), reason)
    for source in ("resource", "containerResource"):
        for metric in at(document, ("spec", "metrics", EACH, source)):
            old = next((name for name in OLD_TARGETS if metric.get(name) is not None), None)
            if old is not None:
                reason = f"there is no field {old!r} here; 'target' with {OLD_TARGETS[old]!r} is meant"
                yield Problem(metric.at(old), reason)
            elif not any(metric.get("target", name) for name in ("averageUtilization", "averageValue")):
                yield Problem(metric.place, "neither averageUtilization nor averageValue is given, and Kubernetes wants one")


# Of autoscaling/v2beta1, which no current Kubernetes has: what they are called now, in "target".
OLD_TARGETS = {"targetAverageUtilization": "averageUtilization", "targetAverageValue": "averageValue"}


def mistyped_triggers(document: Node) -> Iterator[Problem]:
    """A problem for each number or truth value in the metadata of a trigger of KEDA's."""
    for value in at(document, ("spec", "triggers", EACH, "metadata", EACH)):
        if isinstance(value.value, (bool, int, float)):
            name = value.place.field.rpartition(".")[2]
            yield Problem(value.place, f"{name!r} is a number or a truth value, where KEDA takes text only, in quotes")
