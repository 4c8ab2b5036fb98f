"""DigitalOcean App Platform's app specs, also under ``spec``, as deploy templates have them:
https://docs.digitalocean.com/products/app-platform/reference/app-spec/

Defaults and bounds are also those of its API: https://docs.digitalocean.com/reference/api/digitalocean/#tag/Apps
"""

from __future__ import annotations

import posixpath
import re

from pytest_lkagents.manifests import amounts, fields
from pytest_lkagents.manifests.commands import split
from pytest_lkagents.manifests.model import (
    APP_PLATFORM,
    REQUESTS,
    Autoscaler,
    Deployment,
    Files,
    Given,
    Probe,
    Resources,
    StoredSecret,
    Target,
    Variable,
)
from pytest_lkagents.manifests.readers.common import (
    beside,
    doubt,
    environment_of,
    from_outside,
    grace_within,
    ports_of,
    whole,
    within,
)
from pytest_lkagents.manifests.tree import Node
from pytest_lkagents.secrets import is_placeholder

COMPONENTS = ("services", "workers", "jobs", "static_sites")
# Of these each component has one: where its code comes from, as only this format writes it, or a size or kind of its platform.
MARKS = (
    ("git", "repo_clone_url"),
    ("github", "repo"),
    ("gitlab", "repo"),
    ("bitbucket", "repo"),
    ("image", "registry_type"),
    ("environment_slug",),
    ("instance_size_slug",),
)
# What the platform has encrypted stands in the file like this: EV[1:...].
ENCRYPTED = "EV["
SIZE = re.compile(r"apps-[sd]-(\d+)vcpu-(\d+(?:\.\d+)?)gb(-fixed)?")
# Where the file sets none.
USUAL_SIZE, USUAL_PORT = "apps-s-1vcpu-0.5gb", 8080
MOST_INSTANCES, MOST_PERCENT = 250, 100
OF_REQUESTS = ("requests_per_second", "request_duration")
GRACE = ("termination", "grace_period_seconds")


def reads(document: Node) -> bool:
    spec = _spec(document)
    if spec.text("name") is None or document.get("apiVersion") is not None:
        return False
    return any(_is_component(one) for kind in COMPONENTS for one in spec.items(kind))


def _spec(document: Node) -> Node:
    below = document.get("spec")
    return below if below is not None and isinstance(below.value, dict) else document


def _is_component(node: Node) -> bool:
    """Unlike a service of Render it has no ``type``."""
    return node.get("type") is None and any(node.text(*mark) is not None for mark in MARKS)


def read(document: Node, files: Files) -> None:
    spec = _spec(document)
    files.problems += fields.unknown(spec, fields.APP_PLATFORM)
    for kind in ("services", "workers"):
        for component in spec.items(kind):
            if not isinstance(component.value, dict):
                continue
            made = _deployment_of(component, spec)
            # https://docs.digitalocean.com/products/app-platform/how-to/manage-workers/
            made.in_background = kind == "workers"
            if kind == "services":
                made.probes = [*_probes(component, "health", "health_check"), *made.probes]
                _expose(made, component, spec)
                _sleep(made, component)
                made.ports = _ports(component)
            files.deployments.append(made)
            credentials = component.text("image", "registry_credentials")
            if credentials is not None and _is_plain(credentials):
                files.secrets.append(StoredSecret("registry_credentials", component.at("image", "registry_credentials")))


def _is_plain(credentials: str) -> bool:
    """``user:token``, neither encrypted nor still to be filled in."""
    _, colon, token = credentials.partition(":")
    return bool(colon) and not credentials.startswith(ENCRYPTED) and not from_outside(credentials) and not is_placeholder(token)


def _deployment_of(component: Node, spec: Node) -> Deployment:
    name = component.text("name") or "unnamed"
    command = component.text("run_command")
    made = Deployment(
        APP_PLATFORM,
        name,
        component.place,
        environment_of(name, spec.text("name"), component.place.file),
        _image(component),
        Given(split(command), component.at("run_command")) if command else None,
        _variables(component, spec),
        probes=_probes(component, "liveness", "liveness_health_check"),
        exposures=[],
        resources=_resources(component),
        sleeps=[],
        built_from=_built_from(component),
    )
    if made.resources is None:
        size = component.text("instance_size_slug")
        known = size is not None and not from_outside(size)
        reason = f"what {size} has its name does not tell" if known else "its value is not in the file"
        made.unclear["resources"] = Given(reason, component.at("instance_size_slug"))
    grace_within(made, component, *GRACE)
    _count(made, component)
    if spec.text("maintenance", "archive") == "true":
        # https://docs.digitalocean.com/products/app-platform/how-to/archive-restore/
        made.sleeps = [Given("the app is archived", spec.at("maintenance", "archive"))]
    return made


def _image(component: Node) -> Given[str] | None:
    """Without a tag it is the latest. The registry may be left out."""
    image = component.get("image")
    if image is None or image.text("repository") is None:
        return None
    name = "/".join(part for part in (image.text("registry"), image.text("repository")) if part)
    digest, tag = image.text("digest"), image.text("tag")
    if digest is not None:
        return Given(f"{name}@{digest if ':' in digest else f'sha256:{digest}'}", image.at("digest"))
    return Given(f"{name}:{tag}", image.at("tag")) if tag is not None else Given(name, image.place)


def _variables(component: Node, spec: Node) -> list[Variable]:
    """Its own, and those of the whole app that it does not set itself."""
    own = [_variable(entry) for entry in component.items("envs")]
    names = {variable.name for variable in own}
    return own + [variable for entry in spec.items("envs") if (variable := _variable(entry)).name not in names]


def _variable(entry: Node) -> Variable:
    value = entry.text("value")
    literal = None if from_outside(value) or (value or "").startswith(ENCRYPTED) else value
    return Variable(entry.text("key") or "*", entry.at("value"), literal)


def _probes(component: Node, kind: str, field: str) -> list[Probe]:
    """None or one: https://docs.digitalocean.com/products/app-platform/how-to/manage-health-checks/"""
    check = component.get(field)
    if check is None or not isinstance(check.value, dict):
        return []
    # ``path`` is its older name.
    path = check.text("http_path") or check.text("path")
    failures, ends = whole(check, "failure_threshold"), kind == "liveness"
    return [
        Probe(
            kind,
            check.at("port"),
            _port(component, check, own=ends),
            path if path and not from_outside(path) else None,
            failures.value if failures is not None else None,
            ends,
            over="http" if path else "tcp",
            limit="failure_threshold of at least 3; the default is 18",
            failures_at=check.at("failure_threshold"),
        )
    ]


def _port(component: Node, check: Node, *, own: bool) -> int | None:
    """Without one of its own a health check asks the service's port; of a liveness check (``own``) the reference does not say
    that. A service that has internal ports only has no such port."""
    if own or check.get("port") is not None:
        port = whole(check, "port")
    elif component.get("http_port") is not None or component.items("internal_ports"):
        port = whole(component, "http_port")
    else:
        return USUAL_PORT
    return port.value if port is not None else None


def _ports(service: Node) -> list[int]:
    found = ports_of([service], "http_port") + ports_of(service.items("internal_ports"))
    return found or ([] if service.items("internal_ports") else [USUAL_PORT])


def _expose(made: Deployment, service: Node, spec: Node) -> None:
    """https://docs.digitalocean.com/products/app-platform/how-to/manage-internal-routing/"""
    rules = spec.items("ingress", "rules")
    places = [rule.at("component", "name") for rule in rules if rule.text("component", "name") == made.name]
    places += [service.at("routes")] if service.items("routes") else []
    if places:
        made.exposures = [Given("a route from the internet", places[0])]
    elif service.items("internal_ports") and service.get("http_port") is None:
        made.exposures = []
    elif rules:
        made.unclear["exposures"] = Given("none of the routes leads to it; whether anything does, is not said", service.place)
    else:
        made.exposures = [Given("a service (App Platform leads the internet to it)", service.place)]


def _sleep(made: Deployment, service: Node) -> None:
    """https://docs.digitalocean.com/products/app-platform/how-to/scale-to-zero/"""
    path = ("inactivity_sleep", "after_seconds")
    after = service.number(*path)
    doubt(made, "sleeps", after, service, *path)
    if after is not None and after > 0:
        made.sleeps = [*(made.sleeps or []), Given("is put to sleep while nothing asks it", service.at(*path))]


def _resources(component: Node) -> Resources | None:
    """As the size's name tells, in which a GB has 1024 MB; of older sizes (basic-xxs) the reference gives the name only."""
    place, text = component.at("instance_size_slug"), component.text("instance_size_slug")
    default = component.get("instance_size_slug") is None
    size = SIZE.fullmatch(USUAL_SIZE if default else text or "")
    if size is None:
        return None
    cpu = Given(float(size[1]), place, default)
    memory = Given(int(float(size[2]) * 1024 * amounts.MEGABYTE), place, default)
    return Resources(cpu, cpu, memory, memory)


def _count(made: Deployment, component: Node) -> None:
    """Instances are 1 by default, and set by the autoscaler alone where there is one."""
    scaling = component.get("autoscaling")
    if scaling is None:
        made.replicas = within(made, "replicas", component, "instance_count", most=MOST_INSTANCES)
        if made.replicas is None and "replicas" not in made.unclear:
            made.replicas = Given(1, component.place, default=True)
        return
    minimum = within(made, "minimum", scaling, "min_instance_count", most=MOST_INSTANCES)
    maximum = within(made, "maximum", scaling, "max_instance_count", most=MOST_INSTANCES)
    percent = within(made, "targets", scaling, "metrics", "cpu", "percent", most=MOST_PERCENT)
    targets = [Target("cpu", percent.place, percent.value / 100)] if percent is not None else []
    targets += [Target(REQUESTS, metric.place) for name, metric in scaling.entries("metrics") if name in OF_REQUESTS]
    made.autoscaler = Autoscaler(scaling.place, tuple(targets), minimum, maximum)


def _built_from(component: Node) -> str | None:
    """Its path is that of the repository. A spec in ``.do`` stands one below the top; any other is taken to stand there."""
    path = component.text("dockerfile_path")
    if path is None or from_outside(path):
        return None
    file = component.place.file
    up = ".." if posixpath.basename(posixpath.dirname(file)) == ".do" else None
    return beside(file, up, path.lstrip("/"))
