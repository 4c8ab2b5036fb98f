"""What is taken for no worker: what of it is one's all the same, and what is said of it."""

from __future__ import annotations

from pytest_lkagents.manifests.evidence import Candidate, Evidence
from pytest_lkagents.manifests.layout import Layout
from pytest_lkagents.manifests.model import KUBERNETES, Files

# Why one is not judged.
NAMED = "is named like a worker, and nothing else says that it is one"
WORKS = "works with LiveKit, and nothing says that it is a worker"
BUILT = "is built from an agent's Dockerfile, and nothing says that it is a worker"
NOTHING = "looks like no worker"
POSSIBLE = "may be a worker as well as others"
PASSED = "may be a worker by all but its name"
IDLE = "starts no program by its command"
SERVES = "serves others, and nothing says that it is a worker"


def parts_of_workers(parts: list[Candidate], others: list[Candidate], layout: Layout) -> list[Candidate]:
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


def name_others(others: list[Candidate], files: Files, layout: Layout) -> None:
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
