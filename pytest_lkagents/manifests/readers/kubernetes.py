"""Kubernetes: workloads with their autoscalers (HPA, KEDA), Services, Ingresses and Secrets, across documents."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from pytest_lkagents.manifests import amounts, fields
from pytest_lkagents.manifests.model import (
    EVERYTHING,
    KUBERNETES,
    Autoscaler,
    Deployment,
    Files,
    Given,
    Loss,
    Pace,
    Probe,
    Resources,
    Step,
    StoredSecret,
    Target,
    Variable,
)
from pytest_lkagents.manifests.readers.common import (
    doubt,
    environment_of,
    from_outside,
    given,
    has_livekit,
    runs_agent,
    whole,
)
from pytest_lkagents.manifests.tree import Node, Place
from pytest_lkagents.secrets import holds_secret

Made = tuple[Node, Deployment]

WORKLOADS = ("Deployment", "StatefulSet", "ReplicaSet", "DaemonSet")
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
MAIN = "kubectl.kubernetes.io/default-container"
POD = ("spec", "template", "spec")


def reads(document: Node) -> bool:
    return document.text("apiVersion") is not None and document.text("kind") is not None and not _serving(document)


def _serving(document: Node) -> bool:
    return (document.text("apiVersion") or "").startswith("serving.knative.dev/")


def _kind(document: Node) -> str:
    return document.text("kind") or ""


def flat(documents: Sequence[Node]) -> list[Node]:
    """Lists (kind: List) taken apart."""
    found: list[Node] = []
    for document in documents:
        found += flat(document.items("items")) if _kind(document) == "List" else [document]
    return found


def read(documents: Sequence[Node], files: Files) -> None:
    known = [document for document in flat(documents) if reads(document)]
    made: list[Made] = []
    for document in known:
        files.problems += fields.misspelt(document, fields.KUBERNETES.get(_kind(document), ()))
        if _kind(document) in WORKLOADS and document.items(*POD, "containers"):
            made.append((document, _workload(document)))
        elif _kind(document) in ("Secret", "ConfigMap"):
            files.secrets += _stored(document)
    services = [document for document in known if _kind(document) == "Service"]
    for document in known:
        _attach(document, made, services)
    for _, deployment in made:
        _stays_at_none(deployment)
    files.deployments += [deployment for _, deployment in made]


def _stored(document: Node) -> list[StoredSecret]:
    """Values in a Secret, and in a ConfigMap those that are named like a secret."""
    secret = _kind(document) == "Secret"
    return [
        StoredSecret(name, value.place)
        for part in (("data", "stringData") if secret else ("data",))
        for name, value in document.entries(part)
        if (_is_value(part, value.text() or "") if secret else _is_secret(name, value.text()))
    ]


def _is_secret(name: str, text: str | None) -> bool:
    return text is not None and not from_outside(text) and holds_secret(name, text)


def _stays_at_none(deployment: Deployment) -> None:
    """A HorizontalPodAutoscaler leaves a workload of 0 alone, KEDA raises it:
    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#implicit-maintenance-mode-deactivation"""
    scaler, replicas = deployment.autoscaler, deployment.replicas
    if replicas is not None and replicas.value == 0 and not (scaler is not None and scaler.wakes):
        deployment.sleeps = [*(deployment.sleeps or []), Given("is deployed with 0 workers", replicas.place)]


def _is_value(part: str, text: str) -> bool:
    """Whether a Secret's entry is more than a stand-in. Base64 is decoded to see."""
    import base64
    import binascii

    from pytest_lkagents.secrets import is_placeholder

    if part == "data":
        try:
            text = base64.b64decode(text, validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return False
    return not is_placeholder(text) and "{{" not in text and "${" not in text and not text.startswith(("ws://", "wss://"))


def _workload(document: Node) -> Deployment:
    pod = document.get(*POD)
    assert pod is not None
    container = _main_container(document)
    name = document.text("metadata", "name") or "unnamed"
    grace = pod.number("terminationGracePeriodSeconds")
    words = (container.words("command") or []) + (container.words("args") or [])
    command = Given(words, container.at("command" if container.get("command") else "args")) if words else None
    label, namespace = document.text("metadata", "labels", "environment"), document.text("metadata", "namespace")
    others = [other for other in pod.items("containers") + pod.items("initContainers") if other is not container]
    made = Deployment(
        KUBERNETES,
        name,
        document.place,
        environment_of(label, namespace, name, document.place.file),
        given(container, "image"),
        command,
        _variables(container),
        Given(grace, pod.at("terminationGracePeriodSeconds")) if grace is not None else None,
        _pre_stop(container),
        _probes(container),
        resources=_resources(container),
        lost_at_rollout=_loss(document),
        sleeps=[],
        per_node=_kind(document) == "DaemonSet",
        beside=[_resources(other) for other in others if _runs_beside(other, pod)],
        other_variables=[variable for other in others for variable in _variables(other)],
    )
    doubt(made, "grace_s", grace, pod, "terminationGracePeriodSeconds")
    _count(made, document)
    _expose_host(made, pod, container)
    _doubt_resources(made, pod, container)
    return made


def _count(made: Deployment, document: Node) -> None:
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


def _main_container(document: Node) -> Node:
    """The one with LiveKit's variables, or that the file calls the default, or that is an agent's otherwise, or the first."""
    containers = document.items(*POD, "containers")
    named = document.text("spec", "template", "metadata", "annotations", MAIN)
    for is_it in (
        lambda one: any((entry.text("name") or "").startswith("LIVEKIT_") for entry in one.items("env")),
        lambda one: named is not None and one.text("name") == named,
        lambda one: has_livekit(_variables(one)),
        lambda one: runs_agent((one.words("command") or []) + (one.words("args") or [])),
    ):
        found = next((container for container in containers if is_it(container)), None)
        if found is not None:
            return found
    return containers[0]


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


def _variables(container: Node) -> list[Variable]:
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
    """Seconds that the preStop hook sleeps, as far as the file tells."""
    hook = container.get("lifecycle", "preStop")
    if hook is None:
        return 0.0
    sleep = hook.number("sleep", "seconds")
    if sleep is not None:
        return sleep
    words = " ".join(hook.words("exec", "command") or [])
    return sum(float(found) * UNITS[unit] for found, unit in re.findall(r"\bsleep\s+(\d+(?:\.\d+)?)([smh]?)\b", words))


# Of the sleep command.
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def _probes(container: Node) -> list[Probe]:
    named = {entry.text("name"): entry.number("containerPort") for entry in container.items("ports")}
    found = []
    for kind in ("liveness", "readiness", "startup"):
        probe = container.get(f"{kind}Probe")
        if probe is None:
            continue
        failures = probe.number("failureThreshold")
        action = next((name for name in ("httpGet", "tcpSocket") if probe.get(name) is not None), None)
        port = probe.number(action, "port") if action else None
        if action and port is None:
            port = named.get(probe.text(action, "port"))
        path = (probe.text("httpGet", "path") or "/") if action == "httpGet" else None
        if action and probe.text(action, "host") is not None:
            port = path = None  # another host's, which this does not tell
        place = probe.at(action, "port") if action else probe.place
        times = int(failures) if failures is not None else None
        found.append(Probe(kind, place, int(port) if port else None, path, times, ends=kind == "liveness"))
    return found


def _resources(container: Node) -> Resources:
    def cores(part: str) -> Given[float] | None:
        amount = amounts.cores(container.text("resources", part, "cpu"))
        return Given(amount, container.at("resources", part, "cpu")) if amount is not None else None

    def size(part: str) -> Given[int] | None:
        amount = amounts.size(container.text("resources", part, "memory"))
        return Given(amount, container.at("resources", part, "memory")) if amount is not None else None

    # A request that is left out is taken from the limit.
    return Resources(cores("requests") or cores("limits"), cores("limits"), size("requests") or size("limits"), size("limits"))


def _doubt_resources(made: Deployment, pod: Node, container: Node) -> None:
    for part in ("requests", "limits"):
        cpu, memory = ("resources", part, "cpu"), ("resources", part, "memory")
        doubt(made, "resources", amounts.cores(container.text(*cpu)), container, *cpu)
        doubt(made, "resources", amounts.size(container.text(*memory)), container, *memory)
    if pod.get("resources") is not None:
        made.unclear["resources"] = Given("its containers share what the pod has", pod.at("resources"))


def _loss(document: Node) -> Given[Loss] | None:
    update, kind = ("spec", "updateStrategy"), _kind(document)
    if kind == "Deployment":
        return _deployment_loss(document)
    if document.text(*update, "type") == "OnDelete":
        return None
    if kind == "StatefulSet" and not document.number(*update, "rollingUpdate", "partition"):
        return Given(Loss(1), document.at(*update))  # each after the one before, its place being free first
    most = document.text(*update, "rollingUpdate", "maxUnavailable")
    if kind == "DaemonSet" and most == "100%":
        return Given(EVERYTHING, document.at(*update, "rollingUpdate", "maxUnavailable"))
    return None


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


# -- What belongs to a workload


def _attach(document: Node, made: list[Made], services: list[Node]) -> None:
    kind = _kind(document)
    if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for workload, deployment in _near(document, [pair for pair in made if _scales(document, pair[0])]):
            _scale(document, workload, deployment)
    elif kind == "Service" and document.text("spec", "type") in ("LoadBalancer", "NodePort"):
        for _, deployment in _near(document, [pair for pair in made if _selects(document, pair[0])]):
            _expose(deployment, Given(f"a Service of type {document.text('spec', 'type')}", document.at("spec", "type")))
    elif kind == "Ingress":
        _attach_ingress(document, made, services)
    elif kind == "LimitRange":
        for _, deployment in _near(document, made):
            _fill(document, deployment)


def _expose(deployment: Deployment, exposure: Given[str]) -> None:
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


def _scales(scaler: Node, workload: Node) -> bool:
    target = ("spec", "scaleTargetRef")
    # KEDA's default; a HorizontalPodAutoscaler has to name the kind.
    kind = scaler.text(*target, "kind") or ("Deployment" if _kind(scaler) == "ScaledObject" else None)
    return scaler.text(*target, "name") == workload.text("metadata", "name") and kind in (None, _kind(workload))


def _scale(document: Node, workload: Node, deployment: Deployment) -> None:
    main = _main_container(workload).text("name")
    keda = _kind(document) == "ScaledObject"
    scaler = _keda(document, main) if keda else _hpa(document, main)
    least = ("spec", "minReplicaCount" if keda else "minReplicas")
    doubt(deployment, "minimum", whole(document, *least), document, *least)
    base = KEDA_BEHAVIOR if keda else BEHAVIOR
    for path in ((*base, "scaleUp", WINDOW), (*base, "scaleDown", WINDOW)):
        doubt(deployment, "windows", document.number(*path), document, *path)
    if "minimum" in deployment.unclear:
        scaler = dataclasses.replace(scaler, minimum=None)
    if deployment.autoscaler is not None:
        deployment.unclear["minimum"] = Given(f"beside the autoscaler at {deployment.autoscaler.place}", document.place)
    deployment.autoscaler = scaler
    sleeps = list(deployment.sleeps or [])
    if scaler.minimum is not None and scaler.minimum.value == 0:
        default = ", the default" if scaler.minimum.default else ""
        sleeps.append(Given(f"scales to zero workers{default}", scaler.minimum.place))
    if keda:
        sleeps += _keda_sleeps(document)
    deployment.sleeps = sleeps


def _attach_ingress(document: Node, made: list[Made], services: list[Node]) -> None:
    """An Ingress leads to Services, and those to what they select. Where its Service is in no file, only its name is known."""
    names = {name for _, node in _walk(document) if (name := node.text("service", "name"))}
    there = [service for service in services if _namespace(service) in (None, _namespace(document)) or not _namespace(document)]
    for service in there:
        if service.text("metadata", "name") in names:
            for _, deployment in _near(service, [pair for pair in made if _selects(service, pair[0])]):
                _expose(deployment, Given("an Ingress", document.place))
    unknown = names - {service.text("metadata", "name") for service in there}
    for workload, deployment in _near(document, made):
        if unknown & {deployment.name, workload.text("metadata", "labels", "app")}:
            deployment.unclear["exposures"] = Given("an Ingress, whose Service is in no file", document.place)


def _fill(document: Node, deployment: Deployment) -> None:
    """What a LimitRange sets where a container sets nothing."""
    had = deployment.resources
    for limit in document.items("spec", "limits"):
        if had is None or limit.text("type") != "Container":
            continue
        default = _resources(Node(limit.place, {"resources": Node(limit.place, _as_resources(limit))}))
        deployment.resources = had = Resources(
            had.cpu_request or default.cpu_request,
            had.cpu_limit or default.cpu_limit,
            had.memory_request or default.memory_request,
            had.memory_limit or default.memory_limit,
        )


def _as_resources(limit: Node) -> dict[str, Node]:
    parts = {"requests": limit.get("defaultRequest"), "limits": limit.get("default")}
    return {name: node for name, node in parts.items() if node is not None}


def _walk(node: Node) -> list[tuple[str, Node]]:
    found = [("", node)]
    below = [entry for _, entry in node.entries()] + node.items()
    for entry in below:
        found += _walk(entry)
    return found


def _selects(service: Node, workload: Node) -> bool:
    selector = {name: value.text() for name, value in service.entries("spec", "selector")}
    labels = {name: value.text() for name, value in workload.entries("spec", "template", "metadata", "labels")}
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def _hpa(document: Node, main: str | None) -> Autoscaler:
    targets = []
    for metric in document.items("spec", "metrics"):
        for source in ("resource", "containerResource"):
            name = metric.text(source, "name")
            if name:
                share = metric.number(source, "target", "averageUtilization")
                place = metric.at(source, "target", "averageUtilization")
                of = metric.text(source, "container") if source == "containerResource" else None
                targets.append(_target(name, place, share, of, main))
        for source in ("pods", "object", "external"):
            if metric.get(source) is not None:
                targets.append(Target(metric.text(source, "metric", "name") or source, metric.place))
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


def _target(name: str, place: Place, per_cent: float | None, container: str | None, main: str | None) -> Target:
    """``container``: the only one that counts; another one's use says nothing of the worker's load."""
    if container is not None and container != main:
        return Target(f"{name} of {container}", place)
    return Target(name, place, per_cent / 100 if per_cent is not None else None, alone=container is not None)


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


def _keda(document: Node, main: str | None) -> Autoscaler:
    targets = []
    for trigger in document.items("spec", "triggers"):
        kind = trigger.text("type") or "unknown"
        value = trigger.number("metadata", "value")
        used = trigger.text("metricType") or trigger.text("metadata", "type") or "Utilization"
        share = value if used == "Utilization" and kind in KEDA_OWN else None
        of = trigger.text("metadata", "containerName") if kind in KEDA_OWN else None
        targets.append(_target(kind, trigger.at("metadata", "value"), share, of, main))
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


# Triggers that can tell nothing of no worker, so that one is always kept: https://keda.sh/docs/latest/scalers/cpu/
KEDA_OWN = ("cpu", "memory")


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
