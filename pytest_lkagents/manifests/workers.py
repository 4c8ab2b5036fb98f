"""Which of all that files deploy are LiveKit workers."""

from __future__ import annotations

from collections.abc import Callable

from pytest_lkagents.manifests.choice import (
    RULES,
    beyond_compose,
    by_evidence,
    choose,
    is_built_from,
    lone,
    rather,
    without_parts,
)
from pytest_lkagents.manifests.evidence import Candidate
from pytest_lkagents.manifests.layout import Layout
from pytest_lkagents.manifests.model import COMPOSE, DOCKERFILE, Deployment, Files
from pytest_lkagents.manifests.not_judged import name_others, parts_of_workers
from pytest_lkagents.manifests.readers.common import is_editors
from pytest_lkagents.manifests.readers.dockerfile import for_livekit_cloud
from pytest_lkagents.manifests.serving import leave_what_serves, without_servers


def pick(files: Files) -> list[Deployment]:
    """Beside a worker there may be others (a database, a web site), which are not judged by a worker's rules: those that look
    like one, or else what works with LiveKit, or else all that may be one. The others are named."""
    images: dict[str | None, Candidate] = {one.name: Candidate(one) for one in files.deployments if one.platform is DOCKERFILE}
    every = [Candidate(one, images.get(one.built_from)) for one in files.deployments]
    parts = [Candidate(one, images.get(one.built_from)) for one in files.parts]
    candidates = [one for one in every if not (one.is_server or one.is_idle)]
    layout = Layout(
        deployed=[one for one in candidates if one.file not in files.for_development],
        apart=[one for one in candidates if one.file in files.for_development],
        developing=[one for one in parts if one.built_from is not None],
        parts=parts,
        in_cloud=bool(for_livekit_cloud(files)),
    )
    for step in STEPS:
        step(layout)
    if layout.is_for_development:
        files.for_development = list(filter(is_editors, files.for_development))
    sources = {one.built_from for one in layout.workers}
    layout.workers += [one for one in every if one.is_dockerfile and one.name in sources and one not in layout.workers]
    files.doubtful, files.unsure = layout.doubtful, layout.unsure
    others = [one for one in every if one not in layout.workers]
    files.parts = [one.deployment for one in parts_of_workers(parts, others, layout)]
    name_others(others, files, layout)
    return [one.deployment for one in layout.workers]


# -- The steps, in their order


def _take_deployed(layout: Layout) -> None:
    """What is deployed comes before what is for development."""
    images, others = _split(without_parts(layout.deployed, beside=layout.deployed))
    layout.agents = {one.built_from for one in layout.developing if one.is_worker}
    found = choose(RULES, others, images)
    if layout.agents:
        # Whose agent it is is known: what else shares its variables in Compose is none.
        found = [one for one in found if one.platform is not COMPOSE or one.is_worker or is_built_from(one, images)]
        found = found or beyond_compose(others)
    layout.workers = found + images
    if images or layout.agents or any(one.is_worker for one in found):
        # An agent's image that lies there speaks for a name.
        evident = any(one.is_evident for one in images)
        layout.unsure = [one.name for one in found if not (one.is_evident or (evident and one.is_worker))]
    elif found:
        layout.doubtful = True
        layout.agents = {one.built_from for one in layout.developing if one.works_with_livekit and one.may_be_worker}


def _take_last_stages(layout: Layout) -> None:
    """Of an agent's Dockerfile the last stage is deployed. What runs it as it is makes it its own."""
    taken = {one.built_from for one in layout.deployed if one.runs_image_as_it_is and one not in layout.workers}
    own = layout.agents - taken
    layout.workers += [one for one in layout.deployed if one.is_dockerfile and one.name in own and one not in layout.workers]


def _take_developed(layout: Layout) -> None:
    """What is for development does not decide which of the others are judged, unless it alone has a worker."""
    images, others = _split(without_parts(layout.apart, beside=layout.deployed + layout.apart))
    rules = (by_evidence,) if layout.workers or layout.agents else RULES
    developed = choose(rules, others, layout.images + images) + images
    if developed and not layout.workers:
        _take_like(developed, layout)
    layout.workers += developed


def _take_like(developed: list[Candidate], layout: Layout) -> None:
    """What is deployed by the same name or of the same image; or else (then it is not certain) whatever may be a worker, but
    for what Compose runs beside it."""
    others = [one for one in layout.deployed if not one.is_dockerfile and one.may_be_worker and not one.runs_other]
    names = {one.name for one in developed}
    sources = {one.built_from for one in developed} - {None}
    same = [one for one in others if one.name in names or one.built_from in sources]
    if same:
        layout.workers = same
    else:
        others = [one for one in others if one.platform is not COMPOSE]
        # Nothing like an API in the place of an agent.
        servers = [one for one in others if one.is_called_backend and any(agent.is_worker for agent in developed)]
        _take_lone([one for one in others if one not in servers], layout)
        layout.passed += servers


def _take_whatever(layout: Layout) -> None:
    """Where nothing says what the worker is, what may be one is judged, first of what is deployed."""
    if layout.workers or layout.agents:
        return
    deployed, apart = ([one for one in some if one.may_be_worker] for some in (layout.deployed, layout.apart))
    _take_lone(deployed or apart, layout)
    layout.workers += apart if deployed else []


def _take_lone(some: list[Candidate], layout: Layout) -> None:
    """What may be a worker, but for several things on one platform, of which most are none."""
    found = rather(some)
    layout.workers = lone(found)
    layout.possible = [one for one in found if one not in layout.workers]
    layout.passed = [one for one in some if one not in found]
    layout.doubtful = bool(layout.workers)


STEPS: tuple[Callable[[Layout], None], ...] = (
    _take_deployed,
    _take_last_stages,
    _take_developed,
    _take_whatever,
    leave_what_serves,
)


def _split(some: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """The Dockerfiles of workers, and what platforms run."""
    images = [one for one in some if one.is_dockerfile and one.is_worker]
    return without_servers(images), [one for one in some if not one.is_dockerfile]
