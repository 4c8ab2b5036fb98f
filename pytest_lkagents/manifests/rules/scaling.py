"""When an autoscaler adds and takes workers away."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pytest_lkagents.manifests.findings import Finding, Judgement, Needs
from pytest_lkagents.manifests.model import CORES_VARIABLE, KUBERNETES, REQUESTS, Autoscaler, Deployment, Files, Target
from pytest_lkagents.manifests.rules.common import cores_variable, of_production, seconds, some, unclear

# The SDKs' own threshold (the guide names an older one, 0.75), and how far below it an autoscaler has to be: the guide's
# example leaves 0.25; less than 0.1 is within what the load of a worker sways by itself.
THRESHOLD = 0.7
MARGIN = 0.1
# Kubernetes' own default, and what the guide calls to increase.
DOWN_SECONDS = 300.0
NO_REQUEST = "per cent of a CPU request, and not every container has one: it never scales, unless the cluster sets them"


def counted_cores(deployment: Deployment) -> float | None:
    """What a worker counts its load against: what it is told, or else its limit, or else (None) all of its machine."""
    told = cores_variable(deployment)
    if told is not None:
        try:
            return float(told.literal or "") or None
        except ValueError:
            return None
    resources = deployment.resources
    return resources.cpu_limit.value or None if resources and resources.cpu_limit else None


def load_target(deployment: Deployment) -> float | str:
    """The load at which the autoscaler adds workers, where the file tells one; else why it does not."""
    every = deployment.autoscaler.targets if deployment.autoscaler is not None else ()
    targets = _of_cpu(every)
    if not targets:
        return "what its metric means for the worker's load is unknown: no CPU target"
    if len(targets) < len(every):
        other = next(target.metric for target in every if target not in targets)
        return f"beside its CPU target it goes by {other}, and what that means for the worker's load is unknown"
    if deployment.platform is KUBERNETES and "resources" in deployment.unclear:
        return f"{deployment.unclear['resources'].value} ({deployment.unclear['resources'].place})"
    loads = []
    for target in targets:
        span = _load_span(deployment, target)
        if span is None or span[0] != span[1]:
            return _why_no_load(deployment, target, span)
        loads.append(span[0])
    # Of several metrics the one that asks for most workers counts.
    return min(loads)


def _of_cpu(targets: Sequence[Target]) -> list[Target]:
    return [one for one in targets if one.metric == "cpu" and (one.share is not None or one.cores is not None)]


def _without_request(deployment: Deployment, target: Target) -> bool:
    """Whether Kubernetes has nothing to take this target's per cent of: then the autoscaler does nothing."""
    if deployment.platform is not KUBERNETES or target.share is None:
        return False
    counted = [deployment.resources, *([] if target.alone else deployment.beside)]
    return any(resources is None or resources.cpu_request is None for resources in counted)


def _load_span(deployment: Deployment, target: Target) -> tuple[float, float] | None:
    """The lowest and the highest load of a worker at which this target may add workers; None: not known. What runs beside the
    worker in its pod counts too, and may use nothing, or as much as its limit."""
    share = target.share or 0.0
    if deployment.platform is not KUBERNETES:
        return share, share
    if _without_request(deployment, target):
        return None
    cores, beside = counted_cores(deployment), [] if target.alone else deployment.beside
    if cores is None:
        # All of its node: at least as many as are requested.
        return None if cores_variable(deployment) is not None else (0.0, math.inf if target.cores is not None else share)
    requests = [resources.cpu_request for resources in (deployment.resources, *beside) if resources is not None]
    requested = sum(request.value for request in requests if request is not None)
    used = target.cores if target.cores is not None else share * requested
    limits = [other.cpu_limit.value for other in beside if other.cpu_limit is not None]
    least = used - sum(limits) if len(limits) == len(beside) else 0.0
    return max(least, 0.0) / cores, used / cores


def _scaled(files: Files) -> list[tuple[Deployment, Autoscaler]]:
    """Each autoscaler with what it scales."""
    return [(deployment, scaler) for deployment in files.deployments for scaler in deployment.autoscalers]


def _adrift(files: Files) -> list[str]:
    return [f"{some(files.adrift, '; ')}; not judged"] if files.adrift else []


@of_production
def scale_up_below_threshold(files: Files, needs: Needs) -> Judgement:
    made = Judgement(notes=_adrift(files))
    most = (needs.load_threshold or THRESHOLD) - MARGIN
    for deployment, scaler in _scaled(files):
        targets = _of_cpu(scaler.targets)
        # Elsewhere the per cent are of what the worker has, whatever that is.
        if not targets:
            unclear(made, deployment, "targets")
            continue
        if deployment.platform is KUBERNETES and unclear(made, deployment, "resources"):
            continue
        spans = [(target, _load_span(deployment, target)) for target in targets]
        # Of several metrics the one that asks for most workers counts: one that fits is enough.
        if any(span is not None and span[1] <= most + 1e-9 for _, span in spans):
            made.looked_at += 1
            continue
        unsure = [_why_no_load(deployment, *pair) for pair in spans if pair[1] is None or pair[1][0] <= most + 1e-9]
        if any(target.metric not in ("cpu", "memory") and not target.elsewhere for target in scaler.targets):
            unsure.append("too high by itself, but another metric may scale up before")
        if unsure:
            made.notes.append(f"{targets[0].place}: {unsure[0]}; not judged")
            continue
        made.looked_at += 1
        target, span = min(((target, span) for target, span in spans if span is not None), key=lambda pair: pair[1])
        made.findings.append(
            Finding(
                target.place,
                f"scales up at {_said(target, span)}",
                f"at most {most:.2f} of the CPU, as the load threshold is {most + MARGIN:g}",
                "A worker that is full refuses calls; new ones have to be there before.",
            )
        )
    return made


def _said(target: Target, span: tuple[float, float]) -> str:
    if span == (target.share, target.share):
        return f"{target.share:.0%}"
    amount = f"{target.cores:g} cores for each pod" if target.cores is not None else f"{target.share:.0%} of the request"
    never = ", which is never reached" if span[0] > 1 else ""
    return f"{amount}, a load of {span[0]:.2f}{'' if span[0] == span[1] else ' or more'}{never}"


def _why_no_load(deployment: Deployment, target: Target, span: tuple[float, float] | None) -> str:
    if _without_request(deployment, target):
        return NO_REQUEST
    told = cores_variable(deployment)
    if span is None and told is not None and told.doubted:
        return f"{CORES_VARIABLE} may be set by a later source (envFrom)"
    if span is None:
        return f"how many cores the worker counts its load against is not in the file ({CORES_VARIABLE})"
    if counted_cores(deployment) is None:
        return "what load of the worker it means depends on its node, as there is no CPU limit"
    return f"a load of {span[0]:.2f} to {span[1]:.2f}, by what the containers beside the worker use"


@of_production
def stabilization(files: Files, needs: Needs) -> Judgement:
    made = Judgement(notes=_adrift(files))
    why = "Calls are long: rises in load stay, and a worker that is taken away has to drain first."
    for deployment, scaler in _scaled(files):
        if scaler.up_window is None or scaler.down_window is None:
            continue
        if unclear(made, deployment, "windows"):
            continue
        made.looked_at += 1
        up, down = scaler.up_window, scaler.down_window
        if scaler.up.select == "Disabled":
            made.findings.append(Finding(up.place, "it never scales up", "scaling up that is not disabled", why))
        elif scaler.down.select == "Disabled":
            continue  # it never scales down: no window counts
        elif up.value >= down.value:
            found = f"up after {seconds(up.value)}, down after {seconds(down.value)}"
            made.findings.append(Finding(up.place, found, "up sooner than down", why))
        elif down.value < DOWN_SECONDS:
            made.findings.append(
                Finding(down.place, f"down after {seconds(down.value)}", f"at least {seconds(DOWN_SECONDS)}, the default", why)
            )
    return made


@of_production
def scaling_metric(files: Files, needs: Needs) -> Judgement:
    made = Judgement(notes=_adrift(files))
    for _, scaler in _scaled(files):
        if not scaler.targets:
            continue
        made.looked_at += 1
        metrics = {target.metric for target in scaler.targets if not target.elsewhere}
        others = sorted({target.metric for target in scaler.targets if target.elsewhere})
        fixed = scaler.minimum is not None and scaler.maximum is not None and scaler.maximum.value <= scaler.minimum.value
        if metrics <= {REQUESTS} and not fixed:
            made.findings.append(
                Finding(
                    scaler.targets[0].place,
                    f"scales by {' and '.join([*metrics, *others])}",
                    "the metric that the worker's load follows, by default its CPU",
                    "What another container uses says nothing of how full the worker is."
                    if others
                    else "A worker gets no requests, as calls come over its own connection: none is ever added.",
                )
            )
        elif "memory" in metrics and metrics <= {"memory", REQUESTS}:
            made.findings.append(
                Finding(
                    scaler.targets[0].place,
                    f"scales by {' and '.join(['memory', *others])} only",
                    "the metric that the worker's load follows, by default its CPU",
                    "The autoscaler should use the same metric as the worker's load function.",
                )
            )
        elif needs.load_metric == "calls" and metrics <= {"cpu", "memory", REQUESTS}:
            made.findings.append(
                Finding(
                    scaler.targets[0].place,
                    f"scales by {' and '.join([*sorted(metrics), *others])}",
                    "the number of calls, which moves this worker's load (a metric of its own)",
                    "The worker is full by its count of calls while its CPU may be idle: no worker is added.",
                )
            )
    return made
