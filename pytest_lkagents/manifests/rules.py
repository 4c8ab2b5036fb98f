"""The rules: each is written once, against the model. A rule says nothing where a file does not say enough."""

from __future__ import annotations

import re
from collections.abc import Callable

from pytest_lkagents.guide import RULE_BYTES, RULE_CORES
from pytest_lkagents.manifests.findings import Finding, Judgement, Needs
from pytest_lkagents.manifests.model import COMPOSE, KUBERNETES, Deployment, Files, Given, Platform, Probe, Target
from pytest_lkagents.manifests.readers.common import COMMANDS, DEVELOPMENT, from_outside, told_in
from pytest_lkagents.secrets import PLACEHOLDER, holds_secret, url_passwords

Rule = Callable[[Files, Needs], Judgement]

# The guide: "it may take up to 10 minutes or more" for a call to end.
DRAIN_SECONDS = 600.0
# A platform that ends a worker sooner cuts calls whatever the file says.
LEAST_SECONDS = 60.0
# The SDKs' own threshold (the guide names an older one, 0.75), and how far below it an autoscaler has to be: the guide's
# example leaves 0.25; less than 0.1 is within what the load of a worker sways by itself.
THRESHOLD = 0.7
MARGIN = 0.1
HEALTH_PORT = 8081
# Tells livekit-agents how many cores it has, where no limit does.
CORES_VARIABLE = "NUM_CPUS"
# Docker's own least memory limit.
LEAST_BYTES = 6 * 1024 * 1024
# What the SDKs' health server answers.
HEALTH_PATHS = ("/", "/worker")
# Kubernetes' own default, and what the guide calls to increase.
DOWN_SECONDS = 300.0
# Of what is passed over so many are named.
SHOWN = 5


def seconds(value: float) -> str:
    return f"{value:g} s"


def _unclear(made: Judgement, deployment: Deployment, *fields: str) -> bool:
    """Whether one of these cannot be judged; then it is said."""
    reasons = [deployment.unclear[name] for name in fields if name in deployment.unclear]
    made.notes += [f"{reason.place}: {reason.value}; not judged" for reason in reasons]
    return bool(reasons)


def readable(files: Files, _needs: Needs) -> Judgement:
    problems = [*files.problems, *(problem for deployment in files.deployments for problem in deployment.problems)]
    made = Judgement(looked_at=len(files.read) + len(problems))
    made.notes += [f"{file}: of no format that is known here, not judged" for file in files.strange]
    if files.templates:
        made.notes.append(
            f"{', '.join(files.templates[:SHOWN])}{_more(files.templates)}: a template, not judged; hand over what it makes, "
            "as in `helm template CHART | pytest --lk-manifests -`"
        )
    if files.passed_over:
        made.notes.append(f"not judged: {'; '.join(files.passed_over[:SHOWN])}{_more(files.passed_over)}")
    for problem in problems:
        made.findings.append(
            Finding(
                problem.place,
                problem.reason,
                "a file that the platform can read",
                "A file that cannot be read cannot be deployed.",
            )
        )
    return made


def _more(names: list[str]) -> str:
    return f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""


def grace_period(files: Files, needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        platform, signal = deployment.platform, deployment.stop_signal
        if signal is not None and signal.value.upper().removeprefix("SIG") in KILLS:
            made.looked_at += 1
            what = f"{signal.value} ends the worker at once, and its calls"
            made.findings.append(Finding(signal.place, what, "SIGTERM, at which a worker drains", DRAINS))
            continue
        if (platform.grace_default_s is None and not platform.grace_field) or _unclear(made, deployment, "grace_s"):
            continue
        grace = deployment.grace_s.value if deployment.grace_s is not None else platform.grace_default_s
        if grace is None:
            made.notes.append(
                f"{deployment.place}: no {platform.grace_field}; what holds then is set where it runs, not judged"
            )
            continue
        most = platform.grace_most_s
        left = (grace if most is None or platform.most_perhaps else min(grace, most)) - deployment.pre_stop_s
        said = _limit_said(platform, grace, left, needs)
        made.notes += [said] if said else []
        if said and platform.most_perhaps:
            continue
        made.looked_at += 1
        if not said and left < (needs.drain_s or DRAIN_SECONDS):
            made.findings.append(_too_short(deployment, grace, needs))
    return made


# Signals that no process can act upon.
KILLS = ("KILL", "9")
DRAINS = "However long the grace period is, a worker drains only if it is asked to."


def _limit_said(platform: Platform, grace: float, left: float, needs: Needs) -> str | None:
    """Where a platform allows less than the guide's 10 minutes, its most is enough, unless more is declared; it is said."""
    most = platform.grace_most_s
    if most is None or most < LEAST_SECONDS or needs.drain_s is not None or most >= DRAIN_SECONDS or grace < most:
        return None
    if not platform.most_perhaps:
        return f"{platform.name} cuts calls after {seconds(most)}, however long they last"
    if left >= DRAIN_SECONDS:
        return None
    return (
        f"{seconds(grace)} are enough on Fargate, which allows {seconds(most)}, but not elsewhere; the file does not say where"
    )


def _too_short(deployment: Deployment, grace: float, needs: Needs) -> Finding:
    platform, given = deployment.platform, deployment.grace_s
    most, need = platform.grace_most_s, needs.drain_s or DRAIN_SECONDS
    what = f"{seconds(grace)}{'' if given is not None else f', the default of {platform.name}'}"
    if deployment.pre_stop_s:
        what += f", of which the preStop hook takes {seconds(deployment.pre_stop_s)}"
    why = "Calls that last longer than the grace period are cut at every rollout and scale-down."
    wanted = f"{platform.grace_field} of at least {seconds(need + deployment.pre_stop_s)}"
    if most is not None and need > most and platform.most_perhaps:
        wanted += "" if needs.drain_s is not None else f", or of {seconds(most)}, the most there is, on Fargate"
    elif most is not None and need > most:
        why += f" {platform.name} allows at most {seconds(most)}."
        wanted = f"{seconds(most)}, the most there is" if grace < most else f"a platform that waits {seconds(need)}"
    return Finding(given.place if given is not None else deployment.place, what, wanted, why, platform.source)


def _cores(deployment: Deployment) -> float | None:
    """What a worker counts its load against: what it is told, or else its limit, or else (None) all of its machine."""
    told = next((variable for variable in deployment.variables if variable.name == CORES_VARIABLE), None)
    if told is not None:
        try:
            return float(told.literal or "") or None
        except ValueError:
            return None
    resources = deployment.resources
    return resources.cpu_limit.value or None if resources and resources.cpu_limit else None


def _load_per_share(deployment: Deployment) -> float:
    """Kubernetes counts CPU against the request, the worker's own load counts it against its limit."""
    resources = deployment.resources
    if deployment.platform is KUBERNETES and resources and resources.cpu_request and resources.cpu_limit:
        return resources.cpu_request.value / resources.cpu_limit.value if resources.cpu_limit.value else 1.0
    return 1.0


def load_target(deployment: Deployment) -> float | None:
    """The load at which the autoscaler adds workers; None where it goes by something else."""
    scaler = deployment.autoscaler
    shares = [target.share for target in scaler.targets if target.metric == "cpu" and target.share] if scaler else []
    # Of several metrics the one that asks for most workers counts.
    return min(shares) * _load_per_share(deployment) if shares else None


def _load_span(deployment: Deployment, target: Target) -> tuple[float, float] | None:
    """The lowest and the highest load of a worker at which this target may add workers; None: not known. What runs beside the
    worker in its pod counts too, and may use nothing, or as much as its limit."""
    share, resources = target.share or 0.0, deployment.resources
    if deployment.platform is not KUBERNETES:
        return share, share
    beside = [] if target.alone else deployment.beside
    if resources is None or resources.cpu_request is None or any(other.cpu_request is None for other in beside):
        return None  # Kubernetes counts nothing then
    cores = _cores(deployment)
    if cores is None:
        told = any(variable.name == CORES_VARIABLE for variable in deployment.variables)
        # All of its node: at least as many as are requested.
        return None if told else (0.0, share)
    requested = resources.cpu_request.value + sum(other.cpu_request.value for other in beside if other.cpu_request)
    limits = [other.cpu_limit.value for other in beside if other.cpu_limit is not None]
    least = share * requested - sum(limits) if len(limits) == len(beside) else 0.0
    return max(least, 0.0) / cores, share * requested / cores


def scale_up_below_threshold(files: Files, needs: Needs) -> Judgement:
    made = Judgement()
    most = (needs.load_threshold or THRESHOLD) - MARGIN
    for deployment in files.deployments:
        every = deployment.autoscaler.targets if deployment.autoscaler is not None else ()
        targets = [target for target in every if target.metric == "cpu" and target.share is not None]
        if not targets or _unclear(made, deployment, "resources"):
            continue
        spans = [(target, _load_span(deployment, target)) for target in targets]
        # Of several metrics the one that asks for most workers counts: one that fits is enough.
        if any(span is not None and span[1] <= most + 1e-9 for _, span in spans):
            made.looked_at += 1
            continue
        unsure = [_why_no_load(deployment, span) for _, span in spans if span is None or span[0] <= most + 1e-9]
        if any(target.metric not in ("cpu", "memory") for target in every):
            unsure.append("too high by itself, but another metric may scale up before")
        if unsure:
            made.notes.append(f"{targets[0].place}: {unsure[0]}; not judged")
            continue
        made.looked_at += 1
        target, span = min(((target, span) for target, span in spans if span is not None), key=lambda pair: pair[1])
        of = "" if span == (target.share, target.share) else f" of the request, a load of {span[0]:.2f}"
        of += "" if span[0] == span[1] else " or more"
        made.findings.append(
            Finding(
                target.place,
                f"scales up at {target.share:.0%}{of}",
                f"at most {most:.2f} of the CPU, as the load threshold is {most + MARGIN:g}",
                "A worker that is full refuses calls; new ones have to be there before.",
            )
        )
    return made


def _why_no_load(deployment: Deployment, span: tuple[float, float] | None) -> str:
    if span is None:
        return "per cent of a CPU request, of which not all is in the file"
    if _cores(deployment) is None:
        return "what load of the worker it means depends on its node, as there is no CPU limit"
    return f"a load of {span[0]:.2f} to {span[1]:.2f}, by what the containers beside the worker use"


def stabilization(files: Files, needs: Needs) -> Judgement:
    made = Judgement()
    why = "Calls are long: rises in load stay, and a worker that is taken away has to drain first."
    for deployment in files.deployments:
        scaler = deployment.autoscaler
        if scaler is None or scaler.up_window is None or scaler.down_window is None:
            continue
        if _unclear(made, deployment, "windows"):
            continue
        made.looked_at += 1
        up, down = scaler.up_window, scaler.down_window
        if scaler.up.select == "Disabled":
            made.findings.append(Finding(up.place, "it never scales up", "up sooner than down", why))
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


def scaling_metric(files: Files, needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        scaler = deployment.autoscaler
        if scaler is None or not scaler.targets:
            continue
        made.looked_at += 1
        if all(target.metric == "memory" for target in scaler.targets):
            made.findings.append(
                Finding(
                    scaler.targets[0].place,
                    "scales by memory only",
                    "the metric that the worker's load follows, by default its CPU",
                    "The autoscaler should use the same metric as the worker's load function.",
                )
            )
        elif needs.load_metric == "calls" and all(target.metric in ("cpu", "memory") for target in scaler.targets):
            made.findings.append(
                Finding(
                    scaler.targets[0].place,
                    f"scales by {' and '.join(sorted({target.metric for target in scaler.targets}))}",
                    "the number of calls, which moves this worker's load (a metric of its own)",
                    "The worker is full by its count of calls while its CPU may be idle: no worker is added.",
                )
            )
    return made


def health_probe(files: Files, needs: Needs) -> Judgement:
    made = Judgement()
    port = needs.health_port or HEALTH_PORT
    paths = (needs.health_path,) if needs.health_path not in (None, "/") else HEALTH_PATHS
    for deployment in files.deployments:
        for probe in deployment.probes:
            if probe.port is None and probe.path is None and not probe.ends:
                continue  # a command that ends nothing, and does not tell what it asks
            made.looked_at += 1
            wrong = _wrong_probe(probe, port, paths)
            if wrong is not None:
                why = "A probe that cannot succeed has the platform restart, or never use, a worker that is well."
                made.findings.append(Finding(probe.place, wrong[0], wrong[1], why))
            elif probe.ends and probe.failures == 1:
                made.findings.append(
                    Finding(
                        probe.place,
                        f"a single failed {probe.kind} {'probe' if probe.kind == 'liveness' else 'check'} ends the worker",
                        f"{'failureThreshold' if probe.kind == 'liveness' else 'retries'} of at least 3, the default",
                        "A busy or draining worker may answer late once; its calls end with it.",
                    )
                )
    return made


def _wrong_probe(probe: Probe, port: int, paths: tuple[str | None, ...]) -> tuple[str, str] | None:
    if probe.over in ("https", "grpc") and (probe.port is not None or probe.path is not None):
        return f"a {probe.kind} probe over {probe.over}", "plain HTTP, which the worker's health endpoint speaks"
    if probe.port is not None and probe.port != port:
        return f"a {probe.kind} probe on port {probe.port}", f"port {port}, where the worker answers"
    if probe.path is not None and probe.path.split("?")[0] not in paths:
        return f"a {probe.kind} probe of {probe.path}", " or ".join(path for path in paths if path)
    return None


def no_inbound(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        if not deployment.exposures and (_unclear(made, deployment, "exposures") or deployment.exposures is None):
            continue
        made.looked_at += 1
        for exposure in deployment.exposures:
            made.findings.append(
                Finding(
                    exposure.place,
                    f"{exposure.value} opens the worker to others",
                    "none: workers connect to LiveKit, nobody to them",
                    "An open port is an attack surface, and nothing that a worker needs.",
                )
            )
    return made


def secrets(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    why = "Who can read the file, its history or its copies has the key."
    for deployment in files.deployments:
        for variable in deployment.variables + deployment.other_variables:
            made.looked_at += 1
            found = _secret_in(variable.name, variable.literal)
            if found is not None:
                made.findings.append(Finding(variable.place, found, OUTSIDE, why))
        command = deployment.command
        for name, value in told_in(command.value) if command is not None else ():
            if holds_secret(name, value) and not from_outside(value):
                assert command is not None
                made.looked_at += 1
                made.findings.append(Finding(command.place, f"the value of {name} is in the command", OUTSIDE, why))
    for stored in files.secrets:
        made.looked_at += 1
        found = f"the value of {stored.name} is in the file"
        made.findings.append(Finding(stored.place, found, "a Secret that is made outside of these files", why))
    return made


OUTSIDE = "a reference to the platform's secret store"


def _secret_in(name: str, value: str | None) -> str | None:
    """What is secret in a variable's literal, in words that do not show it."""
    if value is None:
        return None
    if holds_secret(name, value):
        return f"{name} is a literal"
    return f"{name} has a password in its URL" if url_passwords(value) else None


def separate_environments(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    seen: dict[str, dict[str, tuple[str, Deployment]]] = {"staging": {}, "production": {}}
    for deployment in files.deployments:
        stage = seen.get(deployment.environment)
        if stage is None:
            continue
        for variable in deployment.variables:
            if variable.name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
                value = variable.literal
                if value and not PLACEHOLDER.match(value.partition("://")[2] or value):
                    stage.setdefault(f"{variable.name}={value}", (variable.name, deployment))
    if not (seen["staging"] and seen["production"]):
        return made
    made.looked_at = 1
    for same in sorted(set(seen["staging"]) & set(seen["production"])):
        name, deployment = seen["staging"][same]
        place = next(variable.place for variable in deployment.variables if variable.name == name)
        other = seen["production"][same][1].place.file
        made.findings.append(
            Finding(
                place,
                f"{name} is the same as in {other}",
                "a LiveKit project of its own for staging",
                "Workers of one project share its calls: a new version in staging serves production's callers.",
            )
        )
    return made


def resources(files: Files, needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        set_ = deployment.resources
        if set_ is None or _is_local(deployment) or _unclear(made, deployment, "resources"):
            continue
        made.looked_at += 1
        missing = [
            name
            for name, value in (
                ("a CPU request", set_.cpu_request),
                ("a memory request", set_.memory_request),
                ("a memory limit", set_.memory_limit),
            )
            if value is None
        ]
        if missing:
            made.findings.append(
                Finding(
                    deployment.place,
                    f"{deployment.name} has no {', no '.join(part.split(' ', 1)[1] for part in missing)}",
                    "requests and limits: the guide starts with 4 cores and 8 GB for 25 sessions",
                    "Without them a worker shares what others leave, and may be the first that is ended.",
                )
            )
            continue
        told = any(variable.name == CORES_VARIABLE for variable in deployment.variables)
        if deployment.platform is KUBERNETES and set_.cpu_limit is None and not told:
            assert set_.cpu_request is not None
            made.findings.append(
                Finding(
                    set_.cpu_request.place,
                    f"{set_.cpu_request.value:g} cores requested, and no limit",
                    "a CPU limit, of as many cores as the worker is meant to use",
                    "Without a limit a worker counts its load against all cores of its node, and is never full on a large one.",
                )
            )
        if set_.memory_limit is not None and set_.memory_limit.value < LEAST_BYTES:
            made.findings.append(
                Finding(
                    set_.memory_limit.place,
                    f"{set_.memory_limit.value} bytes",
                    "an amount such as 8Gi; on Kubernetes m stands for thousandths",
                    "No process starts with so little.",
                )
            )
            continue
        if needs.sessions is None:
            continue
        cores = needs.sessions * (needs.cores_per_session or RULE_CORES)
        memory = needs.sessions * (needs.memory_per_session_bytes or RULE_BYTES)
        assert set_.memory_limit is not None
        if set_.memory_limit.value < memory:
            made.findings.append(
                Finding(
                    set_.memory_limit.place,
                    f"{set_.memory_limit.value / 1e6:.0f} MB",
                    f"{memory / 1e6:.0f} MB for {needs.sessions} sessions",
                    "A worker over its memory limit is killed, with all its calls.",
                )
            )
        if set_.cpu_limit is not None and set_.cpu_limit.value < cores:
            made.findings.append(
                Finding(
                    set_.cpu_limit.place,
                    f"{set_.cpu_limit.value:g} cores",
                    f"{cores:.2f} cores for {needs.sessions} sessions",
                    "A worker without CPU serves all its calls badly.",
                )
            )
    return made


def _is_local(deployment: Deployment) -> bool:
    """Compose on a developer's machine, which needs no limits."""
    limit = deployment.resources.cpu_limit if deployment.resources is not None else None
    one = deployment.replicas is None or deployment.replicas.default
    return deployment.platform is COMPOSE and one and limit is None and "replicas" not in deployment.unclear


def _least(deployment: Deployment) -> Given[int] | None:
    """How many workers there are at least; None: not known."""
    scaler, own = deployment.autoscaler, deployment.replicas
    asleep = own is not None and own.value == 0 and not (scaler is not None and scaler.wakes)
    return own if asleep or scaler is None or scaler.minimum is None else scaler.minimum


def _at_rollout(deployment: Deployment) -> tuple[int, int] | None:
    """How many workers there may be when a rollout begins, beginning with the fewest: as many as the file says, which is
    applied then, or as many as the autoscaler keeps at least. None: not known."""
    scaler, own = deployment.autoscaler, deployment.replicas
    counts = [own.value] if own is not None and not (own.default and scaler is not None) else []
    if scaler is not None and scaler.minimum is not None:
        counts.append(scaler.minimum.value)
    awake = [max(count, 1) for count in counts]
    return (min(awake), max(awake)) if awake else None


def rolling_update(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        loss, least = deployment.lost_at_rollout, _least(deployment)
        if loss is None or (least is not None and least is deployment.replicas and least.value == 0):
            continue
        everything = loss.value.everything
        if not everything and _unclear(made, deployment, "replicas", "minimum"):
            continue
        span = None if "replicas" in deployment.unclear or "minimum" in deployment.unclear else _at_rollout(deployment)
        if span is None and not everything:
            continue
        if span is not None and loss.value.of(span[1]) < span[1] and loss.value.of(span[0]) >= span[0]:
            made.notes.append(
                f"{loss.place}: stops all of {span[0]} workers, not of {span[1]}, and either may be there; not judged"
            )
            continue
        made.looked_at += 1
        if span is None or loss.value.of(span[1]) >= span[1]:
            all_ = "all" if span is None or span[0] != span[1] else "the only" if span[1] == 1 else f"all {span[1]}"
            made.findings.append(
                Finding(
                    loss.place,
                    f"a rollout stops {all_} worker{'' if all_ == 'the only' else 's'} before others are there",
                    "new workers first: a Deployment with maxUnavailable 0, or update_config order start-first",
                    "Calls that come meanwhile meet no worker.",
                )
            )
    return made


def replicas(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        least = _least(deployment)
        if _unclear(made, deployment, "replicas" if deployment.autoscaler is None else "minimum"):
            continue
        if least is None or least.value == 0:
            continue  # none is not for this rule
        made.looked_at += 1
        if least.value == 1:
            made.findings.append(
                Finding(
                    least.place,
                    "one worker, the default" if least.default else "one worker",
                    "at least 2",
                    "When the only worker ends, calls wait until another one has started.",
                )
            )
    return made


def production_command(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        command = deployment.command
        if command is None:
            continue
        words = [part for word in command.value for part in re.split(r"[\s;&|]+", word)]
        if not COMMANDS & set(words):
            continue  # whatever it starts, this does not tell
        made.looked_at += 1
        odd = next((word for word in words if word in DEVELOPMENT), None)
        if odd is not None and "start" not in words:
            made.findings.append(
                Finding(
                    command.place,
                    f"the worker is started with {odd!r}",
                    "start",
                    "Development mode reloads, logs more and does not drain: SIGTERM cuts its calls.",
                )
            )
    return made


def image_pinned(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        image = deployment.image
        if image is None:
            continue
        name = image.value.rsplit("/", 1)[-1]
        tag = name.partition(":")[2]
        if tag != "latest" and re.search(r"\$\{?[A-Za-z_]|\{\{|<", image.value):
            continue
        made.looked_at += 1
        if "@sha256:" in image.value:
            continue
        if tag in ("", "latest"):
            made.findings.append(
                Finding(
                    image.place,
                    f"{image.value} {'is whatever was pushed last' if tag else 'names no version'}",
                    "a version or a digest",
                    "Two workers of one rollout may run different code, and a rollback finds the same image.",
                )
            )
    return made


def always_on(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        if not deployment.sleeps and (_unclear(made, deployment, "replicas", "minimum", "sleeps") or deployment.sleeps is None):
            continue
        made.looked_at += 1
        for trait in deployment.sleeps:
            made.findings.append(
                Finding(
                    trait.place,
                    trait.value,
                    "a worker that runs all the time",
                    "A worker gets no requests: it holds a connection, and calls come over that.",
                )
            )
    return made
