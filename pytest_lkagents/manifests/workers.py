"""Which of all that files deploy are LiveKit workers, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

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
from pytest_lkagents.manifests.commands import modes_of
from pytest_lkagents.manifests.evidence import Candidate, Evidence
from pytest_lkagents.manifests.model import COMPOSE, DOCKERFILE, KUBERNETES, Deployment, Files
from pytest_lkagents.manifests.readers.common import is_editors
from pytest_lkagents.manifests.readers.dockerfile import for_livekit_cloud

# Why one is not judged.
NAMED = "is named like a worker, and nothing else says that it is one"
WORKS = "works with LiveKit, and nothing says that it is a worker"
BUILT = "is built from an agent's Dockerfile, and nothing says that it is a worker"
NOTHING = "looks like no worker"
POSSIBLE = "may be a worker as well as others"
PASSED = "may be a worker by all but its name"
IDLE = "starts no program by its command"
SERVES = "serves others, and nothing says that it is a worker"


@dataclass
class Layout:
    """What lies there, and which of it is judged."""

    deployed: list[Candidate]
    # In files for development.
    apart: list[Candidate]
    # What only builds a stage for development is no worker, and says whose Dockerfile it is.
    developing: list[Candidate]
    # Of what a Kustomization or another file makes something else.
    parts: list[Candidate] = field(default_factory=list)
    workers: list[Candidate] = field(default_factory=list)
    # What may be one as well as others: judged for secrets alone.
    possible: list[Candidate] = field(default_factory=list)
    # What may be one, and is called a server or a task.
    passed: list[Candidate] = field(default_factory=list)
    # What may be one, and serves others: judged for secrets alone.
    serving: list[Candidate] = field(default_factory=list)
    # The Dockerfiles of what is developed, where that is an agent.
    agents: set[str | None] = field(default_factory=set)
    doubtful: bool = False
    unsure: list[str] = field(default_factory=list)
    # Whether LiveKit Cloud has an agent, though perhaps no file for it lies there.
    in_cloud: bool = False

    @property
    def images(self) -> list[Candidate]:
        return [one for one in self.workers if one.is_dockerfile]

    @property
    def is_for_development(self) -> bool:
        """Whether that is all there is."""
        developed = bool(self.workers) and all(one in self.apart for one in self.workers)
        return developed and not self.possible and not any(one.may_be_worker and not one.serves for one in self.deployed)


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
    files.parts = [one.deployment for one in _parts(parts, others, layout)]
    _say(others, files, layout)
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


def _leave_what_serves(layout: Layout) -> None:
    """Where nothing says what the worker is, what others connect to is judged only where it is all that is deployed, but for
    what applications stand on. Beside a site, whatever else is there is in no agent's place."""
    if not layout.doubtful:
        return
    made = [one for one in layout.deployed + layout.parts if not (one.is_dockerfile or one.is_backing or one.is_server)]
    servers = [one for one in layout.workers if one in made and one.is_rather_a_server]
    servers = [one for one in servers if layout.in_cloud or any(_is_another(other, one) for other in made)]
    # Where one file opens a port of it, another one may lead to it by a proxy; and what is pulled may be set up by itself.
    names, pulled = {one.name for one in servers}, {one.image_name for one in servers if one.built_from is None} - {""}
    layout.serving = [
        one
        for one in layout.workers
        if one in made and (one.name in names or (one.image_name in pulled and not one.works_with_livekit))
    ]
    sources = {one.built_from for one in layout.serving}
    left = [one for one in layout.workers if one in layout.serving or (one.is_dockerfile and one.name in sources)]
    layout.workers = [one for one in layout.workers if one not in left]
    layout.doubtful = bool(layout.workers)


def _is_another(one: Candidate, other: Candidate) -> bool:
    """By its name; but what builds the same and runs it as it is may have one on each platform."""
    same = one.built_from == other.built_from is not None and one.runs_image_as_it_is and other.runs_image_as_it_is
    return one.name != other.name and not same


STEPS: tuple[Callable[[Layout], None], ...] = (
    _take_deployed,
    _take_last_stages,
    _take_developed,
    _take_whatever,
    _leave_what_serves,
)


def _split(some: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """The Dockerfiles of workers, and what platforms run. Of an agent's folder one that starts a server is none of its own
    beside another that starts something else; a script may start both."""
    images = [one for one in some if one.is_dockerfile and one.is_worker]
    servers = [one for one in images if one.is_rather_a_server and one.runs_other and not modes_of(one.command)]
    agents = [one for one in images if one not in servers]
    beside = {one: [agent.command for agent in agents if agent.folder == one.folder] for one in servers}
    images = [one for one in images if not beside.get(one) or one.command in beside[one]]
    return images, [one for one in some if not one.is_dockerfile]


# -- What is not judged


def _parts(parts: list[Candidate], others: list[Candidate], layout: Layout) -> list[Candidate]:
    """Those of workers, and the stages of agents' Dockerfiles that are not judged. Where nothing says which of the workloads
    that a Kustomization changes is one, those that may be, as of others."""
    agents = layout.agents | {one.file for one in layout.images}
    stages = [one for one in [*parts, *others] if one.is_dockerfile and one.file in agents]
    rest = [one for one in parts if one not in stages and not one.is_server]
    found = [one for one in rest if one.built_from in agents or _is_of_worker(one, others, layout)]
    if not (found or layout.workers):
        found = [one for one in rest if one.platform is KUBERNETES and one.may_be_worker]
    # In a cluster what works with LiveKit has the worker's keys, whatever it is.
    beside = [one for one in others if one.platform is KUBERNETES and one.has_livekit and not one.is_server]
    # What is kept up for who works in it has the worker's variables.
    idle = [one for one in others if one.is_idle and one.is_worker and one not in beside]
    # So may have what is built in an agent's folder.
    folders = {one.folder for one in layout.images}
    apart = [one for one in others if one.is_dockerfile and one.is_worker and one.folder in folders]
    idle += [one for one in apart if one not in stages + idle]
    return found + stages + beside + idle + [one for one in layout.possible + layout.serving if one in others]


def _is_of_worker(part: Candidate, others: list[Candidate], layout: Layout) -> bool:
    """By its variables, by the service or workload that other files make of it, or else by its name."""
    # A patch of whatever a base has that does not lie there may be a worker's.
    if part.has_livekit or part.evidence is Evidence.STARTS or not part.name:
        return True
    for some, is_worker in ((layout.workers, True), (others, False)):
        if any(one.platform is part.platform and one.name == part.name for one in some):
            return is_worker
    named = part.is_called_agent or part.is_called_worker
    return named and not (part.is_other_agent or part.is_part or part.is_site)


def _say(others: list[Candidate], files: Files, layout: Layout) -> None:
    """Which are not judged, and which of them may be workers all the same: worth a word with each verdict."""
    said = [(one, _why_not(one, layout)) for one in others]
    judged = {one.file for one in layout.images}
    files.passed_over += [*files.left_out, *(f"{_named(one, judged)} {why}" for one, why in said)]
    said = [(one, why) for one, why in said if one.file not in files.for_development and _is_worth_a_word(one, why)]
    files.left_out += [f"{_named(one, judged)} {why}" for one, why in said]
    if layout.possible:
        first, more = _named(layout.possible[0], judged), len(layout.possible) - 1
        files.left_out.append(f"{first} and {more} more: neither a name, a command nor LIVEKIT_... says which is the worker")


def _named(one: Candidate, judged: set[str]) -> str:
    """With its file, which is in a Dockerfile's name; of one of which another stage is judged this is the last."""
    if one.name in judged:
        return f"{one.name}, last stage"
    return one.name if one.is_dockerfile else f"{one.file}: {one.name}"


def _why_not(one: Candidate, layout: Layout) -> str:
    if one in layout.possible:
        return POSSIBLE
    if one.is_idle:
        return IDLE
    if one in layout.serving:
        return SERVES
    if one.is_worker and not (one.is_evident or one.is_part or one.is_server):
        return NAMED
    if one.may_be_worker and one.runs_image_as_it_is and one.built_from in layout.agents:
        return BUILT
    works = one.works_with_livekit and one.may_be_worker
    # Where others are workers by their names or variables alone, LiveKit's variables are as good a sign; elsewhere an API has
    # them, too.
    told = layout.unsure or layout.doubtful or (one.is_quiet and not (one.is_part or one.is_called_backend))
    if works and told:
        return WORKS
    # Such a name says little, unless something else says of what is judged that it works with LiveKit.
    little = one in layout.passed or (layout.doubtful and not any(worker.works_with_livekit for worker in layout.workers))
    if little and one.is_called_backend and one.may_be_worker and one.is_quiet and one.deployment.more_variables:
        return PASSED
    return NOTHING


def _is_worth_a_word(one: Candidate, why: str) -> bool:
    # Agents in JavaScript are started as web sites are, but have nobody who connects to them.
    if why != SERVES and (one.is_dockerfile or one.is_site or (one.serves and one.has_visitors)):
        return False
    # LiveKit's variables may come from elsewhere.
    return why in (WORKS, BUILT, PASSED, SERVES) or (why == NAMED and one.is_called_agent and one.deployment.more_variables)
