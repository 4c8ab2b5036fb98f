"""cerebrium.toml: https://docs.cerebrium.ai/toml-reference/toml-reference

Its variables are set in Cerebrium's dashboard. How it replaces instances that get no requests is not said.
"""

from __future__ import annotations

from pytest_lkagents.manifests import fields
from pytest_lkagents.manifests.model import CEREBRIUM, REQUESTS, Autoscaler, Deployment, Files, Given, Probe, Resources, Target
from pytest_lkagents.manifests.readers.common import beside, doubt, environment_of, given, line_of, ports_of, whole
from pytest_lkagents.manifests.tree import Node

DEPLOYMENT, HARDWARE, SCALING = ("cerebrium", "deployment"), ("cerebrium", "hardware"), ("cerebrium", "scaling")
CUSTOM = ("cerebrium", "runtime", "custom")
GRACE = (*SCALING, "response_grace_period")
# Services of others, whose images Cerebrium has.
PARTNERS = ("deepgram", "rime")
# Where the file sets none.
LEAST, TARGET_PERCENT, METRIC = 0, 100.0, "concurrency_utilization"
# A GB is taken as the reference writes it.
GIGABYTE = 1000**3
OF_REQUESTS = (METRIC, "requests_per_second")
SHARES = {"cpu_utilization": "cpu", "memory_utilization": "memory"}


def reads(document: Node) -> bool:
    return any(document.entries(*table) for table in (DEPLOYMENT, HARDWARE, SCALING, CUSTOM))


def read(document: Node, files: Files) -> None:
    files.problems += fields.unknown(document, fields.CEREBRIUM)
    name = document.text(*DEPLOYMENT, "name") or "unnamed"
    custom = document.get(*CUSTOM)
    if custom is None and any(document.get("cerebrium", "runtime", partner) is not None for partner in PARTNERS):
        files.passed_over.append(f"{document.place.file}: {name} looks like no worker")
        return
    words = line_of(document.get(*CUSTOM, "entrypoint"))
    grace = document.number(*GRACE)
    dockerfile, base = document.text(*CUSTOM, "dockerfile_path"), (*DEPLOYMENT, "docker_base_image_url")
    made = Deployment(
        CEREBRIUM,
        name,
        document.place,
        environment_of(name, document.place.file),
        # What its image is built on, unless a Dockerfile says that.
        given(document, *base) if document.text(*base) and not dockerfile else None,
        Given(words, document.at(*CUSTOM, "entrypoint")) if words else None,
        grace_s=Given(grace, document.at(*GRACE)) if grace is not None else None,
        probes=_probes(custom) if custom is not None else [],
        # It has to listen there.
        ports=ports_of([custom], "port") if custom is not None else [],
        resources=_resources(document),
        built_from=beside(document.place.file, dockerfile) if dockerfile else None,
    )
    doubt(made, "grace_s", grace, document, *GRACE)
    _expose(made, document)
    _scale(made, document)
    files.deployments.append(made)


def _probes(custom: Node) -> list[Probe]:
    """What fails its health check is restarted. Without a path the port is asked, over TCP."""
    port, health, ready = whole(custom, "port"), custom.text("healthcheck_endpoint"), custom.text("readycheck_endpoint")
    number = port.value if port is not None else None
    made = [Probe("readiness", custom.at("readycheck_endpoint"), number, ready)] if ready else []
    if health:
        return [Probe("health", custom.at("healthcheck_endpoint"), number, health, ends=True), *made]
    return [Probe("health", custom.at("port"), number, ends=True, over="tcp"), *made] if port is not None else made


def _resources(document: Node) -> Resources | None:
    """What is set is both request and limit. Both parts must be; a file without one says too little."""
    cores, size = document.number(*HARDWARE, "cpu"), document.number(*HARDWARE, "memory")
    if cores is None or size is None:
        return None
    cpu, memory = Given(cores, document.at(*HARDWARE, "cpu")), Given(int(size * GIGABYTE), document.at(*HARDWARE, "memory"))
    return Resources(cpu, cpu, memory, memory)


def _expose(made: Deployment, document: Node) -> None:
    """Every app has an address; who knows it needs a token, unless that is turned off. What holds where the file says nothing,
    the reference and the page on routing between apps say differently."""
    path = (*DEPLOYMENT, "disable_auth")
    said = (document.text(*path) or "").lower()
    if said == "true":
        made.exposures = [Given("an address that asks for no token", document.at(*path))]
    elif said == "false":
        made.exposures = []
    else:
        made.unclear["exposures"] = Given("no disable_auth, and what holds then is not clear", document.at(*path))


def _scale(made: Deployment, document: Node) -> None:
    least, most, buffer = ((*SCALING, name) for name in ("min_replicas", "max_replicas", "scaling_buffer"))
    minimum = whole(document, *least)
    doubt(made, "minimum", minimum, document, *least)
    if minimum is None and "minimum" not in made.unclear:
        minimum = Given(LEAST, document.at(*least), default=True)
    metric, maximum = document.text(*SCALING, "scaling_metric"), whole(document, *most)
    targets: tuple[Target, ...] = ()
    if metric in SHARES:
        targets = _targets(made, document, metric)
    elif (metric or METRIC) in OF_REQUESTS and (metric is not None or maximum is not None):
        targets = (Target(REQUESTS, document.at(*SCALING, "scaling_metric")),)
    made.autoscaler = Autoscaler(document.at(*SCALING), targets, minimum, maximum, wakes=True)
    made.sleeps = []
    if minimum is None or minimum.value > 1:
        return
    if metric not in SHARES and document.get(*buffer) is not None and document.number(*buffer) != 0:
        # By the reference it adds to the minimum, by the page on scaling to what requests ask for.
        made.unclear["minimum"] = Given("how many it keeps while there are no requests is not clear", document.at(*buffer))
    elif minimum.value == 0:
        made.sleeps = [Given(f"scales to zero replicas{', the default' if minimum.default else ''}", minimum.place)]


def _targets(made: Deployment, document: Node, metric: str) -> tuple[Target, ...]:
    """In per cent of what the hardware's table sets."""
    path = (*SCALING, "scaling_target")
    percent = document.number(*path)
    doubt(made, "targets", percent, document, *path)
    if percent is None and "targets" not in made.unclear:
        percent = TARGET_PERCENT
    return (Target(SHARES[metric], document.at(*path), percent / 100 if percent is not None else None),)
