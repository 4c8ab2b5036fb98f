"""Kubernetes: workloads with their autoscalers, Services, Ingresses and Secrets, across documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pytest_lkagents.manifests import amounts, fields, types_of_fields
from pytest_lkagents.manifests.model import (
    EVERYTHING,
    KUBERNETES,
    Deployment,
    Files,
    Given,
    Loss,
    Problem,
    Resources,
    StoredSecret,
    Variable,
)
from pytest_lkagents.manifests.readers import config_maps, kubernetes_scaling, kustomize, probes
from pytest_lkagents.manifests.readers.common import (
    command_of,
    doubt,
    environment_of,
    from_outside,
    given,
    has_livekit,
    is_stored,
    ports_of,
    runs_agent,
    whole,
    words_of,
)
from pytest_lkagents.manifests.tree import Node
from pytest_lkagents.secrets import holds_secret, looks_generated, url_passwords

Made = tuple[Node, Deployment]

# Rollout: of Argo, with the same pods, and ways to replace them of its own.
ROLLOUT = "Rollout"
WORKLOADS = ("Deployment", "StatefulSet", "ReplicaSet", "DaemonSet", ROLLOUT)
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
MAIN = "kubectl.kubernetes.io/default-container"
POD = ("spec", "template", "spec")
# One setting in a file of most formats: NAME=value, name = "value", name: value. What is more than a word is none: a call in a
# script, a path.
LINE = re.compile(r"""^\s*(?:export\s+)?["']?([A-Za-z][\w.-]*)["']?\s*[:=]\s*["']?([\w+/=-]+)["']?,?;?\s*$""", re.MULTILINE)


def reads(document: Node) -> bool:
    return document.text("apiVersion") is not None and document.text("kind") is not None and not _of_cloud_run(document)


def _of_cloud_run(document: Node) -> bool:
    return (document.text("apiVersion") or "").startswith(("serving.knative.dev/", "run.googleapis.com/"))


def _kind(document: Node) -> str:
    return document.text("kind") or ""


def _unserved(document: Node) -> Iterator[Problem]:
    """Why no current Kubernetes takes this document, if it does not: its kind is misspelt, or of another version."""
    version, kind = document.text("apiVersion") or "", _kind(document)
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
    kind = _kind(document)
    if kind in (*WORKLOADS, *SERVED) and document.text("metadata", "name") and document.text("apiVersion") is None:
        return Problem(document.place, f"{kind} without apiVersion")
    return None


def flat(documents: Sequence[Node]) -> list[Node]:
    """Lists (kind: List) taken apart."""
    found: list[Node] = []
    for document in documents:
        found += flat(document.items("items")) if _kind(document) == "List" else [document]
    return found


def read(documents: Sequence[Node], files: Files) -> None:
    """Of ``files.changed`` only what is stored in them."""
    every = [document for document in flat(documents) if reads(document)]
    changed = set(files.changed)
    known = [document for document in every if document.place.file not in changed]
    files.secrets += [found for document in every for found in stored(document)]
    made: list[Made] = []
    for document in known:
        files.problems += fields.unknown(document, fields.KUBERNETES.get(_kind(document), ()))
        files.problems += _unserved(document)
        if (document.text("apiVersion") or "") in SERVED.get(_kind(document), ()):
            files.problems += fields.of_other_kind(document, _kind(document))
            files.problems += types_of_fields.mistyped(document, _kind(document))
        if is_workload(document):
            made.append((document, workload(document)))
    services = [document for document in known if _kind(document) == "Service"]
    apart = set(files.for_development)
    rollouts: list[Made] = []
    for document in known:
        if _kind(document) == ROLLOUT:
            rollouts += _handed_over(document, _within(document, made, apart))
    for document in known:
        there = [service for service in services if document.place.file in apart or service.place.file not in apart]
        _attach(document, _within(document, made, apart), there, _within(document, rollouts, apart))
    made_elsewhere = kustomize.generated(documents)
    maps = [one for one in known if _kind(one) == "ConfigMap" and one.text("metadata", "name") not in made_elsewhere]
    for document, deployment in made:
        _stays_at_none(deployment)
        near = [one for one in maps if _namespace(one) == _namespace(document)]
        near = [one for one in near if _within(one, [(document, deployment)], apart)]
        # What lies in a file of the other environment is that one's, whatever lies beside it.
        near = [one for one in near if environment_of(one.place.file) in ("", deployment.environment)]
        deployment.referred = config_maps.referred(_main_container(document), near)
    files.deployments += [deployment for _, deployment in made]


def stored(document: Node) -> list[StoredSecret]:
    """Values in a Secret, and in a ConfigMap those that are named like a secret, also in a file that is kept in it."""
    if _kind(document) == "ConfigMap":
        return [
            StoredSecret(found, value.place)
            for name, value in document.entries("data")
            for found in _secrets_in(name, value.text() or "")
        ]
    if _kind(document) != "Secret":
        return []
    return [
        StoredSecret(name, value.place)
        for part in ("data", "stringData")
        for name, value in document.entries(part)
        if _is_value(part, name, value.text() or "")
    ]


def _secrets_in(name: str, text: str) -> list[str]:
    """What is secret in an entry of a ConfigMap, in words that do not show it."""
    lines = [(name, text)] if "\n" not in text else [(found[1], found[2]) for found in LINE.finditer(text)]
    named = [(name, value) for name, value in lines if not from_outside(value)]
    found = [name for name, value in named if holds_secret(name, value) and ("\n" not in text or looks_generated(value))]
    return found + ([f"a password in the URL of {name}"] if url_passwords(text) else [])


def _stays_at_none(deployment: Deployment) -> None:
    """A HorizontalPodAutoscaler leaves a workload of 0 alone, KEDA raises it:
    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#implicit-maintenance-mode-deactivation"""
    replicas = deployment.replicas
    if replicas is not None and replicas.value == 0 and not any(scaler.wakes for scaler in deployment.autoscalers):
        deployment.sleeps = [*(deployment.sleeps or []), Given("is deployed with 0 workers", replicas.place)]


def _is_value(part: str, name: str, text: str) -> bool:
    """Whether a Secret's entry is a secret's value. Base64 is decoded to see."""
    import base64
    import binascii

    if part == "data":
        try:
            # A block of several lines is one value.
            text = base64.b64decode("".join(text.split()), validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return False
    return is_stored(name, text)


def is_workload(document: Node) -> bool:
    return _kind(document) in WORKLOADS and bool(document.items(*POD, "containers"))


def workload(document: Node) -> Deployment:
    pod = document.get(*POD)
    assert pod is not None
    container = _main_container(document)
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
        Given(grace, pod.at("terminationGracePeriodSeconds")) if grace is not None else None,
        _pre_stop(container),
        probes.of_container(container),
        # Those of one pod share its network.
        ports_of([port for one in pod.items("containers") for port in one.items("ports")], "containerPort"),
        resources=_resources(container),
        lost_at_rollout=_loss(document),
        sleeps=[],
        per_node=_kind(document) == "DaemonSet",
        stop_signal=given(container, "lifecycle", "stopSignal"),
        beside=[_resources(other) for other in others if _runs_beside(other, pod)],
        other_variables=[variable for other in others for variable in variables(other)],
    )
    doubt(made, "grace_s", grace, pod, "terminationGracePeriodSeconds")
    _doubt_pre_stop(made, container)
    _doubt_loss(made, document)
    _count(made, document)
    strategy = ("spec", "strategy", "rollingUpdate")
    if all(document.text(*strategy, name) in ("0", "0%") for name in ("maxSurge", "maxUnavailable")):
        made.problems.append(Problem(document.at(*strategy), "maxSurge and maxUnavailable may not both be 0"))
    _expose_host(made, pod, container)
    _doubt_resources(made, pod, container)
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
        lambda one: has_livekit(variables(one)),
        lambda one: runs_agent(words_of(one)),
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
    """Seconds that the preStop hook sleeps, as far as the file tells."""
    hook = container.get("lifecycle", "preStop")
    if hook is None:
        return 0.0
    sleep = hook.number("sleep", "seconds")
    if sleep is not None:
        return sleep
    words = " ".join(hook.words("exec", "command") or [])
    called = sum(map(float, CALLED.findall(SAID.sub("", words))))
    return called + sum(float(found) * UNITS[unit] for found, unit in re.findall(r"\bsleep\s+(\d+(?:\.\d+)?)([smh]?)\b", words))


def _doubt_pre_stop(made: Deployment, container: Node) -> None:
    """A hook that waits for something, or sends the signal itself, does not take what its sleeps come to: they may be of no
    drain, or be the drain. How long those of a program take (``time.sleep(120)``) its text does not say for certain."""
    hook = ("lifecycle", "preStop", "exec", "command")
    done = SAID.sub("", " ".join(container.words(*hook) or []))
    if HANDS_ON.search(done) or CALLED.search(done):
        reason = "how much of the grace period its preStop hook takes is not in the file"
        made.unclear["pre_stop_s"] = Given(reason, container.at(*hook))


CALLED = re.compile(r"\bsleep\(\s*(\d+(?:\.\d+)?)\s*\)")
# Loops, and what sends signals; not in what is only said.
HANDS_ON = re.compile(r"\b(while|until|for|kill|pkill|killall)\b")
SAID = re.compile(r"\b(echo|printf|logger|touch)\b[^;&|\n]*|#[^\n]*")
# Of the sleep command.
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def _resources(container: Node) -> Resources:
    def cores(part: str) -> Given[float] | None:
        amount = amounts.quantity(container.text("resources", part, "cpu"))
        return Given(amount, container.at("resources", part, "cpu")) if amount is not None else None

    def size(part: str) -> Given[int] | None:
        amount = amounts.quantity(container.text("resources", part, "memory"))
        return Given(int(amount), container.at("resources", part, "memory")) if amount is not None else None

    # A request that is left out is taken from the limit.
    return Resources(cores("requests") or cores("limits"), cores("limits"), size("requests") or size("limits"), size("limits"))


def _doubt_resources(made: Deployment, pod: Node, container: Node) -> None:
    for part in ("requests", "limits"):
        cpu, memory = ("resources", part, "cpu"), ("resources", part, "memory")
        doubt(made, "resources", amounts.quantity(container.text(*cpu)), container, *cpu)
        doubt(made, "resources", amounts.quantity(container.text(*memory)), container, *memory)
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


def _doubt_loss(made: Deployment, document: Node) -> None:
    if _kind(document) == ROLLOUT and document.get("spec", "strategy") is not None:
        made.unclear["lost_at_rollout"] = Given("how Argo Rollouts replaces workers", document.at("spec", "strategy"))


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
        if (_kind(workload), deployment.name) == (rollout.text(*reference, "kind"), rollout.text(*reference, "name"))
    ]
    found = _near(rollout, named)
    for _, deployment in found:
        deployment.unclear.pop("replicas", None)
        deployment.lost_at_rollout = None
        _doubt_loss(deployment, rollout)
        _count(deployment, rollout)
    # As what scales it names the Rollout, with the Deployment's pods.
    return [(Node(rollout.place, {**rollout.value, "spec": _with_pods(rollout, workload)}), one) for workload, one in found]


def _with_pods(rollout: Node, workload: Node) -> Node:
    spec, pods = rollout.get("spec"), workload.get("spec", "template")
    assert spec is not None
    return Node(spec.place, {**spec.value, "template": pods})


def _attach(document: Node, made: list[Made], services: list[Node], rollouts: list[Made]) -> None:
    kind = _kind(document)
    if kind in kubernetes_scaling.KINDS:
        for workload, deployment in _near(document, [pair for pair in made + rollouts if _scales(document, pair[0])]):
            kubernetes_scaling.attach(document, deployment, _main_container(workload).text("name"))
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
    kind = scaler.text(*target, "kind") or ("Deployment" if _kind(scaler) == kubernetes_scaling.KEDA else None)
    return scaler.text(*target, "name") == workload.text("metadata", "name") and kind in (None, _kind(workload))


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
