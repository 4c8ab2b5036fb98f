"""How a worker's health is asked for."""

from __future__ import annotations

import itertools
import re
from urllib.parse import urlsplit

from pytest_lkagents.manifests.commands import SCRIPT, runs_agent, split
from pytest_lkagents.manifests.findings import Finding, Judgement, Needs
from pytest_lkagents.manifests.model import CLOUD_RUN, DOCKERFILE, HEALTH_PORT, KNATIVE, Deployment, Files, Probe
from pytest_lkagents.manifests.rules.common import of_production

# What the SDKs' health server answers.
HEALTH_PATHS = ("/", "/worker")
# Variables that say where something of the worker listens; those of others (REDIS_PORT) do not.
LISTENS = re.compile(r"PORT|(.*_)?(HEALTH|HTTP|SERVER|AGENT|WORKER|PROBE|LISTEN)\w*PORT")
# With these a shell starts more than one program, and a script may start anything.
MORE = re.compile(r"[;&|`\n]|\$\(|\.sh$")


@of_production
def health_probe(files: Files, needs: Needs) -> Judgement:
    made = Judgement()
    port = needs.health_port or HEALTH_PORT
    paths = (needs.health_path,) if needs.health_path not in (None, "/") else HEALTH_PATHS
    if needs.health_leads_to is not None and needs.health_leads_to.startswith("/"):
        paths = (*paths, needs.health_leads_to)
    for deployment in files.deployments:
        said = _what_says_something(deployment, files)
        for probe in deployment.probes:
            single = probe.ends and probe.failures == 1
            reason = _why_unknown(probe, paths, said, needs)
            if reason is not None:
                made.notes.append(f"{probe.place}: {reason}")
                if not single:
                    continue
            made.looked_at += 1
            if probe.any_answer:
                made.notes.append(f"{probe.place}: curl without --fail takes any answer, such as 503, for a good one")
            wrong = _wrong_probe(probe, port, paths) if reason is None and not _asks_where_it_leads(probe, needs) else None
            if wrong is not None:
                why = "A probe that cannot succeed has the platform restart, or never use, a worker that is well."
                made.findings.append(Finding(probe.place, wrong[0], wrong[1], why))
            elif single:
                made.findings.append(
                    Finding(
                        probe.failures_at or probe.place,
                        f"a single failed {probe.kind} {'probe' if probe.kind == 'liveness' else 'check'} ends the worker",
                        probe.limit
                        or f"{'failureThreshold' if probe.kind == 'liveness' else 'retries'} of at least 3, the default",
                        "A busy or draining worker may answer late once; its calls end with it.",
                    )
                )
    return made


def _what_says_something(deployment: Deployment, files: Files) -> list[Deployment]:
    """It, and what may be its image, or deployed of it."""

    def together(image: Deployment, other: Deployment) -> bool:
        return image.platform is DOCKERFILE is not other.platform and other.built_from in (None, image.name)

    return [deployment, *(one for one in files.deployments if together(one, deployment) or together(deployment, one))]


def _why_unknown(probe: Probe, paths: tuple[str | None, ...], said: list[Deployment], needs: Needs) -> str | None:
    """Why the file does not tell whether this probe can succeed, if so. A worker may have a health server of its own, which no
    file describes: red is only what nothing in the files speaks for."""
    if probe.port is None and probe.path is None and probe.nowhere is None:
        return f"what this {probe.kind} probe asks is not in the file, not judged"
    if needs.health_port is not None or probe.nowhere is not None:
        return None
    if probe.port is not None:
        named = _names(probe.port, said) if probe.port != HEALTH_PORT else None
        return named and f"a {probe.kind} probe on port {probe.port}, {named}; not judged without lk_health_port"
    if _path(probe) in paths or needs.health_path is not None or _is_plain(said):
        return None
    return (
        f"a {probe.kind} probe of {probe.path}, which a health server of the worker's own may answer; "
        "not judged without lk_health_port"
    )


def _names(port: int, said: list[Deployment]) -> str | None:
    """What in these speaks for a port of the worker."""
    for one in said:
        if port in one.ports:
            return (
                "which its container has to listen on"
                if one.platform in (CLOUD_RUN, KNATIVE)
                else "which the files name as its own"
            )
        for variable in one.variables:
            if variable.literal == str(port) or (variable.literal is None and LISTENS.fullmatch(variable.name.upper())):
                return f"which {variable.name} {'names' if variable.literal else 'may name'}"
        if one.command is not None and re.search(rf"(?<![\w.]){port}(?!\w)", " ".join(one.command.value)):
            return "which its command names"
    return None


def _is_plain(said: list[Deployment]) -> bool:
    """Whether the command that is seen starts an agent and nothing else, and no file speaks for another port than the usual."""
    command = next((one.command.value for one in said if one.command is not None), [])
    parts = [part for word in command for part in split(word)]
    scripts = [part for part in parts if SCRIPT.search(part)]
    modules = [module for flag, module in itertools.pairwise(parts) if flag == "-m"]
    alone = runs_agent(command) and len(scripts + modules) == 1 and not any(map(MORE.search, [*command, *parts]))
    ports = {port for one in said for port in one.ports}
    told = any(LISTENS.fullmatch(variable.name.upper()) for one in said for variable in one.variables)
    return alone and not told and ports <= {HEALTH_PORT} and not any(part.startswith("--port") for part in parts)


def _path(probe: Probe) -> str | None:
    return probe.path.split("?")[0] if probe.path is not None else None


def _asks_where_it_leads(probe: Probe, needs: Needs) -> bool:
    """Whether it asks itself for what a redirect of the worker's leads to, on another port or over TLS."""
    leads_to = urlsplit(needs.health_leads_to or "")
    port = leads_to.port or {"http": 80, "https": 443}.get(leads_to.scheme)
    return (probe.over, probe.port, _path(probe) or "/") == (leads_to.scheme, port, leads_to.path or "/")


def _wrong_probe(probe: Probe, port: int, paths: tuple[str | None, ...]) -> tuple[str, str] | None:
    if probe.over in ("https", "grpc") and (probe.port is not None or probe.path is not None):
        return f"a {probe.kind} probe over {probe.over}", "plain HTTP, which the worker's health endpoint speaks"
    if probe.nowhere is not None:
        return f"a {probe.kind} probe on port {probe.nowhere!r}, which its container does not name", f"port {port}"
    if probe.port is not None and probe.port != port:
        return f"a {probe.kind} probe on port {probe.port}", f"port {port}, where the worker answers"
    if probe.path is not None and _path(probe) not in paths:
        return f"a {probe.kind} probe of {probe.path}", " or ".join(path for path in paths if path)
    return None
