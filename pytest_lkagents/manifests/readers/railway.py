"""railway.json and railway.toml: https://docs.railway.com/config-as-code/reference

What such a file does not say is set in Railway's dashboard, and not known here.
"""

from __future__ import annotations

import re

from pytest_lkagents.manifests import fields
from pytest_lkagents.manifests.commands import split
from pytest_lkagents.manifests.model import RAILWAY, Deployment, Files, Given, Loss, Probe
from pytest_lkagents.manifests.readers.common import beside, doubt, environment_of, from_above, whole
from pytest_lkagents.manifests.tree import Node

# The settings of this environment count for more than those of all.
PRODUCTION = ("environments", "production", "deploy")
# Of several services in one repository each is told the path of its file, which may have any name.
OWN = re.compile(r"(.+[._-])?railway([._-].+)?\.(json|toml)")


def reads(document: Node) -> bool:
    named = OWN.fullmatch(document.place.file.rsplit("/", 1)[-1])
    return named is not None and (document.get("deploy") is not None or document.get("build") is not None)


def read(document: Node, files: Files) -> None:
    files.problems += fields.unknown(document, fields.RAILWAY)
    own, all_ = document.get(*PRODUCTION), document.get("deploy")
    deploy = Node(document.place, dict((all_.entries() if all_ else []) + (own.entries() if own else [])))
    command = deploy.text("startCommand")
    grace = deploy.get("drainingSeconds")
    # A text is refused: "Expected number, received string".
    seconds = grace.number() if grace is not None and not isinstance(grace.value, str) else None
    file, dockerfile = document.place.file, (document.text("build", "dockerfilePath") or "").lstrip("/")
    made = Deployment(
        RAILWAY,
        "railway",
        document.place,
        environment_of(file),
        command=Given(split(command), deploy.at("startCommand")) if command else None,
        grace_s=Given(seconds, grace.place) if seconds is not None and grace is not None else None,
        lost_at_rollout=_loss(deploy),
        built_from=beside(file, dockerfile or "Dockerfile"),
        # A path is one of the service's root directory, which is the repository's top or, as set in the dashboard, a folder.
        or_built_from=from_above(file, dockerfile) if dockerfile else [],
    )
    doubt(made, "grace_s", seconds, deploy, "drainingSeconds", wanted="a number is wanted")
    _count(made, deploy)
    if deploy.text("sleepApplication") is not None:
        made.sleeps = []
    if deploy.text("sleepApplication") == "true":
        made.sleeps = [Given("is put to sleep when it sends nothing for a while", deploy.at("sleepApplication"))]
    if deploy.text("cronSchedule") is not None:
        made.sleeps = [*(made.sleeps or []), Given("runs at some times only", deploy.at("cronSchedule"))]
    if path := deploy.text("healthcheckPath"):
        made.probes = [Probe("health", deploy.at("healthcheckPath"), None, path)]
    files.deployments.append(made)


def _loss(deploy: Node) -> Given[Loss]:
    """The old deployment is stopped when the new one is active, but where they would share a volume:
    https://docs.railway.com/volumes/reference"""
    if deploy.text("requiredMountPath") is not None:
        reason = "one deployment at a time has the volume"
        return Given(Loss(100, percent=True, reason=reason), deploy.at("requiredMountPath"))
    return Given(Loss(0), deploy.place)


def _count(made: Deployment, deploy: Node) -> None:
    regions = [whole(region, "numReplicas") for _, region in deploy.entries("multiRegionConfig")]
    counts = [count.value for count in regions if count is not None]
    if counts:
        made.replicas = Given(sum(counts), deploy.at("multiRegionConfig"))
        return
    made.replicas = whole(deploy, "numReplicas")
    doubt(made, "replicas", made.replicas, deploy, "numReplicas")
