"""Kubernetes' workloads, each read from its own document: the worker's container, and how its pods are replaced."""

from __future__ import annotations

import math
import re

from pytest_lkagents.manifests import amounts
from pytest_lkagents.manifests.commands import runs_agent
from pytest_lkagents.manifests.fields import POD_AT
from pytest_lkagents.manifests.model import EVERYTHING, KUBERNETES, Deployment, Given, Loss, Problem, Resources, Variable
from pytest_lkagents.manifests.readers import probes
from pytest_lkagents.manifests.readers.common import (
    command_of,
    doubt,
    environment_of,
    given,
    has_livekit,
    ports_of,
    whole,
    words_of,
)
from pytest_lkagents.manifests.tree import Node

# Rollout: of Argo, with the same pods, and ways to replace them of its own.
ROLLOUT = "Rollout"
WORKLOADS = ("Deployment", "StatefulSet", "ReplicaSet", "DaemonSet", ROLLOUT)
MAIN = "kubectl.kubernetes.io/default-container"


def kind_of(document: Node) -> str:
    return document.text("kind") or ""


def is_workload(document: Node) -> bool:
    return kind_of(document) in WORKLOADS and bool(document.items(*POD_AT, "containers"))


def workload(document: Node) -> Deployment:
    pod = document.get(*POD_AT)
    assert pod is not None
    container = main_container(document)
    name = document.text("metadata", "name") or "unnamed"
    grace = pod.number("terminationGracePeriodSeconds")
    command = command_of(container)
    label, namespace = document.text("metadata", "labels", "environment"), document.text("metadata", "namespace")
    others = [other for other in pod.items("containers") + pod.items("initContainers") if other is not container]
    made = Deployment(
        KUBERNETES,
        name,
        document.place,
        environment_of(label, namespace, name, document.place.file),
        given(container, "image"),
        command,
        variables(container),
        _has_more(document, pod, container),
        grace_s=Given(grace, pod.at("terminationGracePeriodSeconds")) if grace is not None else None,
        grace_at=pod.place,
        pre_stop_s=_pre_stop(container),
        probes=probes.of_container(container),
        # Those of one pod share its network.
        ports=ports_of([port for one in pod.items("containers") for port in one.items("ports")], "containerPort"),
        resources=resources_of(container),
        lost_at_rollout=_loss(document),
        sleeps=[],
        per_node=kind_of(document) == "DaemonSet",
        stop_signal=given(container, "lifecycle", "stopSignal"),
        beside=[resources_of(other) for other in others if _runs_beside(other, pod)],
        other_variables=[variable for other in others for variable in variables(other)],
        other_commands=[words for other in others if (words := command_of(other)) is not None],
    )
    doubt(made, "grace_s", grace, pod, "terminationGracePeriodSeconds")
    _doubt_pre_stop(made, container)
    doubt_loss(made, document)
    count_workers(made, document)
    strategy = ("spec", "strategy", "rollingUpdate")
    if all(document.text(*strategy, name) in ("0", "0%") for name in ("maxSurge", "maxUnavailable")):
        made.problems.append(Problem(document.at(*strategy), "maxSurge and maxUnavailable may not both be 0"))
    _expose_host(made, pod, container)
    doubt_resources(made, container)
    if pod.get("resources") is not None:
        made.unclear["resources"] = Given("its containers share what the pod has", pod.at("resources"))
    return made


def _has_more(document: Node, pod: Node, container: Node) -> bool:
    """Whether variables may come from elsewhere: by ``envFrom``, in a file that is mounted or that Vault writes, or from a
    store that a Secret's value opens."""
    if container.items("envFrom"):
        return True
    annotations = document.entries("spec", "template", "metadata", "annotations")
    if any(name.partition("/")[0].startswith("vault.") for name, _ in annotations):
        return True
    if any(below not in NO_FILES for volume in pod.items("volumes") for below, _ in volume.entries()):
        return True
    sources = [entry.get("valueFrom") for entry in container.items("env")]
    return any(one is not None and (one.get("secretKeyRef") or one.get("configMapKeyRef")) for one in sources)


# Volumes that are empty, of the pod itself or of its node.
NO_FILES = {"name", "emptyDir", "hostPath", "downwardAPI"}


def count_workers(made: Deployment, document: Node) -> None:
    if made.per_node:
        return
    replicas = whole(document, "spec", "replicas")
    doubt(made, "replicas", replicas, document, "spec", "replicas")
    if replicas is None and "replicas" not in made.unclear:
        replicas = Given(1, document.place, default=True)
    made.replicas = replicas


def _runs_beside(container: Node, pod: Node) -> bool:
    """Not an init container that has ended when the worker starts."""
    return container not in pod.items("initContainers") or container.text("restartPolicy") == "Always"


def main_container(document: Node) -> Node:
    """The one with LiveKit's variables, or that the file calls the default, or that is an agent's otherwise, or the first."""
    containers = document.items(*POD_AT, "containers")
    named = document.text("spec", "template", "metadata", "annotations", MAIN)
    for is_it in (
        lambda one: any((entry.text("name") or "").startswith("LIVEKIT_") for entry in one.items("env")),
        lambda one: named is not None and one.text("name") == named,
        lambda one: has_livekit(variables(one)),
        lambda one: runs_agent(words_of(one)),
    ):
        found = next((container for container in containers if is_it(container)), None)
        if found is not None:
            return found
    return containers[0]


def worker_names(document: Node) -> list[str | None]:
    """The name of the worker's container, and of others that may be workers too."""
    main = main_container(document)
    others = [one for one in document.items(*POD_AT, "containers") if one is not main]
    return [
        main.text("name"),
        *(one.text("name") for one in others if has_livekit(variables(one)) or runs_agent(words_of(one))),
    ]


def _expose_host(made: Deployment, pod: Node, container: Node) -> None:
    """A port on the node: asked for, or, on the node's network, what Kubernetes makes of each port that is named."""
    made.exposures = []
    on_host = pod.text("hostNetwork") == "true"
    for port in container.items("ports"):
        number = port.text("hostPort") or (port.text("containerPort") if on_host else None)
        if number and number != "0":
            made.exposures.append(Given(f"port {number} on its node", port.at("hostPort")))
    if on_host and not made.exposures:
        reason = "on its node's network, and which ports it opens the file does not say"
        made.unclear["exposures"] = Given(reason, pod.at("hostNetwork"))


def variables(container: Node) -> list[Variable]:
    found = []
    for entry in container.items("env"):
        name = entry.text("name")
        if not name:
            continue
        source = entry.get("valueFrom")
        if source is not None:
            where = [part for _, from_ in source.entries()[:1] for part in (from_.text("name"), from_.text("key")) if part]
            found.append(Variable(name, entry.place, None, "/".join(where) or None))
        else:
            text = entry.text("value")
            outside = text is None or "$(" in text or "{{" in text or "${" in text
            found.append(Variable(name, entry.at("value"), None if outside else text))
    for entry in container.items("envFrom"):
        for kind, reference in entry.entries():
            if kind in ("secretRef", "configMapRef"):
                found.append(Variable("*", entry.place, None, reference.text("name")))
    return found


def _pre_stop(container: Node) -> float:
    """Seconds that the preStop hook sleeps, as far as the file tells; without end where it does not."""
    hook = container.get("lifecycle", "preStop")
    if hook is None:
        return 0.0
    sleep = hook.number("sleep", "seconds")
    if sleep is not None:
        return sleep
    words = " ".join(hook.words("exec", "command") or [])
    if OPEN_ENDED.search(SAID.sub("", words)):
        return math.inf
    called = sum(map(float, CALLED.findall(SAID.sub("", words))))
    return called + sum(float(found) * UNITS[unit] for found, unit in re.findall(r"\bsleep\s+(\d+(?:\.\d+)?)([smh]?)\b", words))


def _doubt_pre_stop(made: Deployment, container: Node) -> None:
    """A hook that waits for something, or sends the signal itself, does not take what its sleeps come to: they may be of no
    drain, or be the drain. How long those of a program take (``time.sleep(120)``) its text does not say for certain."""
    hook = ("lifecycle", "preStop", "exec", "command")
    done = SAID.sub("", " ".join(container.words(*hook) or []))
    if HANDS_ON.search(done) or CALLED.search(done) or OPEN_ENDED.search(done):
        reason = "how much of the grace period its preStop hook takes is not in the file"
        made.unclear["pre_stop_s"] = Given(reason, container.at(*hook))


# For as long as a variable says, or for ever.
OPEN_ENDED = re.compile(r"\bsleep\s+(infinity|inf)\b|\bsleep\s+[\"']?\$")
CALLED = re.compile(r"\bsleep\(\s*(\d+(?:\.\d+)?)\s*\)")
# Loops, and what sends signals; not in what is only said.
HANDS_ON = re.compile(r"\b(while|until|for|kill|pkill|killall)\b")
SAID = re.compile(r"\b(echo|printf|logger|touch)\b[^;&|\n]*|#[^\n]*")
# Of the sleep command.
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def resources_of(container: Node) -> Resources:
    def cores(part: str) -> Given[float] | None:
        amount = amounts.quantity(container.text("resources", part, "cpu"))
        return Given(amount, container.at("resources", part, "cpu")) if amount is not None else None

    def size(part: str) -> Given[int] | None:
        amount = amounts.quantity(container.text("resources", part, "memory"))
        return Given(int(amount), container.at("resources", part, "memory")) if amount is not None else None

    # A request that is left out is taken from the limit.
    return Resources(cores("requests") or cores("limits"), cores("limits"), size("requests") or size("limits"), size("limits"))


def doubt_resources(made: Deployment, container: Node) -> None:
    for part in ("requests", "limits"):
        cpu, memory = ("resources", part, "cpu"), ("resources", part, "memory")
        doubt(made, "resources", amounts.quantity(container.text(*cpu)), container, *cpu)
        doubt(made, "resources", amounts.quantity(container.text(*memory)), container, *memory)


def _loss(document: Node) -> Given[Loss] | None:
    update, kind = ("spec", "updateStrategy"), kind_of(document)
    if kind == "Deployment":
        return _deployment_loss(document)
    if document.text(*update, "type") == "OnDelete":
        return None
    if kind == "StatefulSet" and _may_stop_several(document):
        return None
    if kind == "StatefulSet" and not document.number(*update, "rollingUpdate", "partition"):
        return Given(Loss(1), document.at(*update))  # each after the one before, its place being free first
    most = document.text(*update, "rollingUpdate", "maxUnavailable")
    if kind == "DaemonSet" and most == "100%":
        return Given(EVERYTHING, document.at(*update, "rollingUpdate", "maxUnavailable"))
    return None


def doubt_loss(made: Deployment, document: Node) -> None:
    if kind_of(document) == ROLLOUT and document.get("spec", "strategy") is not None:
        made.unclear["lost_at_rollout"] = Given("how Argo Rollouts replaces workers", document.at("spec", "strategy"))
    elif kind_of(document) == "StatefulSet" and _may_stop_several(document):
        where = document.at("spec", "updateStrategy", "rollingUpdate", "maxUnavailable")
        made.unclear["lost_at_rollout"] = Given("how many it stops at once depends on the cluster's version", where)


def _may_stop_several(document: Node) -> bool:
    """A StatefulSet with ``maxUnavailable``, which clusters before 1.35 do not heed by default:
    https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#maximum-unavailable-pods"""
    return document.text("spec", "updateStrategy", "rollingUpdate", "maxUnavailable") not in (None, "1")


def _deployment_loss(document: Node) -> Given[Loss] | None:
    strategy = ("spec", "strategy")
    if document.text(*strategy, "type") == "Recreate":
        return Given(EVERYTHING, document.at(*strategy, "type"))
    path = (*strategy, "rollingUpdate", "maxUnavailable")
    unavailable = amounts.portion(document.text(*path) or "25%")
    surge = amounts.portion(document.text(*strategy, "rollingUpdate", "maxSurge") or "25%")
    if unavailable is None or surge is None:
        return None
    # Where both come to none, Kubernetes lets one be unavailable.
    least = 1 if surge[0] == 0 else 0
    return Given(Loss(*unavailable, least), document.at(*path))
