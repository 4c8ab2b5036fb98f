"""How workers are ended and replaced, and that some are always there."""

from __future__ import annotations

from pytest_lkagents.manifests.findings import Finding, Judgement, Needs
from pytest_lkagents.manifests.model import DOCKERFILE, Deployment, Files, Given, Platform
from pytest_lkagents.manifests.rules.common import of_production, seconds, unclear
from pytest_lkagents.manifests.tree import Place

# The guide: "it may take up to 10 minutes or more" for a call to end.
DRAIN_SECONDS = 600.0
# A platform that ends a worker sooner cuts calls whatever the file says.
LEAST_SECONDS = 60.0


@of_production
def grace_period(files: Files, needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        platform, signal = deployment.platform, deployment.stop_signal
        if signal is not None and _signal(signal) in KILLS:
            made.looked_at += 1
            what = f"{signal.value} ends the worker at once, and its calls"
            made.findings.append(Finding(signal.place, what, "SIGTERM, at which a worker drains", DRAINS))
            continue
        other = signal or _of_image(deployment, files)
        handled = other is None or _signal(other) in ASKS
        if not handled:
            made.nothing = "no stop signal at which a worker is known to drain"
        if other is not None and other is signal and not handled:
            made.notes.append(f"{other.place}: not judged: does the worker handle {other.value}?")
        if (platform.grace_default_s is None and not platform.grace_field) or unclear(made, deployment, "grace_s"):
            continue
        grace = deployment.grace_s.value if deployment.grace_s is not None else platform.grace_default_s
        if grace is None:
            made.notes.append(
                f"{_place_of_grace(deployment)}: no {platform.grace_field}; what holds then is set where it runs, not judged"
            )
            continue
        made.notes += [
            f"{own.place}: a worker that fails this probe has {seconds(own.value)} only, of {seconds(grace)}"
            for own in (probe.grace_s for probe in deployment.probes)
            if own is not None and own.value < grace
        ]
        most = platform.grace_most_s
        left = (grace if most is None or platform.most_perhaps else min(grace, most)) - deployment.pre_stop_s
        said = _limit_said(platform, grace, left, needs)
        made.notes += [said] if said else []
        if said and platform.most_perhaps:
            continue
        need = needs.drain_s or DRAIN_SECONDS
        # A grace period that is too short without the hook is so with it.
        if left < need <= grace and unclear(made, deployment, "pre_stop_s"):
            continue
        short = not said and left < need
        made.looked_at += handled or short
        if short:
            made.findings.append(_too_short(deployment, grace, needs))
    return made


def _signal(given: Given[str]) -> str:
    return given.value.upper().removeprefix("SIG")


def _of_image(deployment: Deployment, files: Files) -> Given[str] | None:
    """The stop signal of the Dockerfile that it is built from."""
    return next((one.stop_signal for one in files.deployments if one.platform is DOCKERFILE and _builds(one, deployment)), None)


def _builds(image: Deployment, deployment: Deployment) -> bool:
    return image.name == deployment.built_from


# Signals that no process can act upon, with their numbers; and those at which both SDKs' workers drain.
KILLS = ("KILL", "9", "STOP", "19")
ASKS = ("TERM", "15", "INT", "2")
DRAINS = "However long the grace period is, a worker drains only if it is asked to."


def _limit_said(platform: Platform, grace: float, left: float, needs: Needs) -> str | None:
    """Where a platform allows less than the guide's 10 minutes, its most is enough, unless more is declared; it is said."""
    most = platform.grace_most_s
    if most is None or most < LEAST_SECONDS or needs.drain_s is not None or most >= DRAIN_SECONDS or grace < most:
        return None
    if not platform.most_perhaps:
        asked = f", {seconds(grace)} asked for" if grace > most else ""
        return f"{platform.name} cuts calls after {seconds(most)}, however long they last{asked}"
    if left >= DRAIN_SECONDS:
        return None
    return (
        f"{seconds(grace)} are enough on Fargate, which allows {seconds(most)}, but not elsewhere; the file does not say where"
    )


def _too_short(deployment: Deployment, grace: float, needs: Needs) -> Finding:
    platform, given = deployment.platform, deployment.grace_s
    most, need = platform.grace_most_s, needs.drain_s or DRAIN_SECONDS
    what = seconds(grace)
    if given is None:
        what += f", {'the default of' if platform.grace_field else 'fixed by'} {platform.name}"
        what += f", for {deployment.grace_of.value}" if deployment.grace_of is not None else ""
    pre_stop_s = 0.0 if "pre_stop_s" in deployment.unclear else deployment.pre_stop_s
    if pre_stop_s:
        what += f", of which the preStop hook takes {seconds(pre_stop_s)}"
    why = "Calls that last longer than the grace period are cut at every rollout and scale-down."
    wanted = f"{platform.grace_field} of at least {seconds(need + pre_stop_s)}"
    if most is not None and need > most and platform.most_perhaps:
        wanted += "" if needs.drain_s is not None else f", or of {seconds(most)}, the most there is, on Fargate"
    elif most is not None and need > most:
        why += f" {platform.name} allows at most {seconds(most)}."
        at_most = f"{platform.grace_field} of {seconds(most)}, the most there is"
        wanted = at_most if grace < most else f"a platform that waits {seconds(need)}"
    return Finding(_place_of_grace(deployment), what, wanted, why, platform.source)


def _place_of_grace(deployment: Deployment) -> Place:
    """Where its grace period stands, or would."""
    told = deployment.grace_s or deployment.grace_of
    return told.place if told is not None else deployment.grace_at or deployment.place


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


@of_production
def rolling_update(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        loss, least = deployment.lost_at_rollout, _least(deployment)
        if loss is None and unclear(made, deployment, "lost_at_rollout"):
            made.nothing = "no way of replacing workers that is known here"
        if loss is None:
            continue
        if least is not None and least is deployment.replicas and least.value == 0:
            made.nothing = "no worker is deployed, which is for manifests.always-on"
            continue
        if not loss.value.anything:
            made.looked_at += 1
            continue
        everything = loss.value.everything
        if not everything and unclear(made, deployment, "replicas", "minimum"):
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
                    f"a rollout stops {all_} worker{'' if all_ == 'the only' else 's'} before others are there"
                    + (f", as {loss.value.reason}" if loss.value.reason else ""),
                    "new workers first" + (f": {deployment.platform.new_first}" if deployment.platform.new_first else ""),
                    "Calls that come meanwhile meet no worker.",
                )
            )
    return made


@of_production
def replicas(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        least = _least(deployment)
        if unclear(made, deployment, "replicas" if deployment.autoscaler is None else "minimum"):
            continue
        if least is None:
            continue
        if least.value == 0:
            made.nothing = "the least number of workers is 0, which is for manifests.always-on"
            continue
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


@of_production
def always_on(files: Files, _needs: Needs) -> Judgement:
    made = Judgement()
    for deployment in files.deployments:
        if not deployment.sleeps and (unclear(made, deployment, "replicas", "minimum", "sleeps") or deployment.sleeps is None):
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
