"""Which of some candidates are workers: rules, of which the first decides that finds any. ``images``: workers' Dockerfiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_lkagents.manifests.evidence import Candidate
from pytest_lkagents.manifests.model import COMPOSE

Rule = Callable[[list[Candidate], list[Candidate]], list[Candidate]]


def by_evidence(some: list[Candidate], images: list[Candidate]) -> list[Candidate]:
    """What a file says to be a worker is one, or what runs a worker's image as it is."""
    workers = [one for one in some if one.is_worker or (one.runs_image_as_it_is and is_built_from(one, images))]
    # LiveKit's own web site for agents is named after them.
    workers = [one for one in workers if not one.is_site] or workers
    kept = [one for one in workers if _counts(one, workers, some, images)]
    # Beside names alone what works with LiveKit and is called a voicebot is as good as any.
    names_alone = {one.platform for one in workers} - {one.platform for one in kept if one.is_evident or one.works_with_livekit}
    kept += [one for one in some if one.platform in names_alone and one.is_voice]
    # Rather a name than another, such as a site's backend.
    lost = names_alone - {one.platform for one in kept}
    return [one for one in some if one in kept or (one in workers and one.platform in lost)]


def by_place(some: list[Candidate], images: list[Candidate]) -> list[Candidate]:
    """Where nothing is called one, what is kept in an agent's place may be; rather than all of a project what works with
    LiveKit. Of several things that a platform runs the place tells none."""
    kept = [one for one in _possible(some, images) if one.is_kept_as_agent]
    return [one for one in kept if one.works_with_livekit] or lone(kept)


def by_livekit(some: list[Candidate], images: list[Candidate]) -> list[Candidate]:
    """Where nothing is called a worker, what works with LiveKit may be one; or else what has its variables from elsewhere, or
    is kept in a place that is named after it."""
    possible = _possible(some, images)
    works = [one for one in possible if one.works_with_livekit] or [one for one in possible if one.refers_to_livekit]
    kept = [one for one in possible if "livekit" in one.image_text.lower() and not one.is_called_backend]
    return rather(works) or lone(kept)


def rather(some: list[Candidate]) -> list[Candidate]:
    """Where nothing is called a worker, what is called a server or a task is one only where its platform runs nothing else."""
    others = [one for one in some if not one.is_called_backend]
    there = {one.platform for one in others}
    return [one for one in some if one in others or one.platform not in there]


def the_only_one(some: list[Candidate], images: list[Candidate]) -> list[Candidate]:
    """Something runs a worker's image, and of several no file says which. What Compose runs may be all that a developer needs
    beside it."""
    alone = [one for one in _possible(some, images) if one.platform is not COMPOSE]
    return alone if images and len(alone) == 1 else []


RULES: tuple[Rule, ...] = (by_evidence, by_place, by_livekit, the_only_one)


def choose(rules: Sequence[Rule], some: list[Candidate], images: list[Candidate]) -> list[Candidate]:
    return next((found for rule in rules if (found := rule(some, images))), [])


def beyond_compose(some: list[Candidate]) -> list[Candidate]:
    """What a developer runs by Compose says nothing of what another platform does."""
    return [one for one in some if one.platform is not COMPOSE and one.may_be_worker]


def without_parts(some: list[Candidate], beside: list[Candidate]) -> list[Candidate]:
    """Beside one that certainly starts an agent what its name says to be something else is none. On each platform only beside
    another worker, as what one platform runs says nothing of what another one does."""
    if not any(one.starts_agent for one in beside):
        return some
    there = {one.platform for one in beside if one.starts_agent or (one.is_worker and not one.is_part)}
    return [one for one in some if one.platform not in there or one.starts_agent or not one.is_part]


def lone(some: list[Candidate]) -> list[Candidate]:
    """Those of which their platform runs nothing else, but for the same thing elsewhere."""
    return [one for one in some if _is_one_thing([other for other in some if other.platform is one.platform])]


def _is_one_thing(some: list[Candidate]) -> bool:
    found, rest = some[:1], some[1:]
    for one in found:
        same = [other for other in rest if _is_same(one, other) or _is_same(other, one)]
        found += same
        rest = [other for other in rest if other not in same]
    return not rest


def _is_same(one: Candidate, other: Candidate) -> bool:
    """A name may be that of another project's, unless it stands beside, or for another environment. What Dockerfiles begin
    with says nothing of what they make."""
    if one.is_dockerfile:
        return one.folder == other.folder
    beside = one.folder == other.folder or one.deployment.environment != other.deployment.environment
    return _is_of_one_image(one, other) or (beside and one.name == other.name)


def is_built_from(one: Candidate, images: list[Candidate]) -> bool:
    return any(one.built_from == image.name for image in images)


def _counts(one: Candidate, workers: list[Candidate], some: list[Candidate], images: list[Candidate]) -> bool:
    """Whether it is a worker beside the others: a name is no evidence beside what starts an agent, unless it is of the same;
    and what has no variables of LiveKit's is no worker beside what has them. Those that are not in the file may be."""
    evident = [other for other in workers if other.is_evident]
    if one.works_with_livekit or is_built_from(one, images) or any(_is_akin(one, other) for other in evident):
        return True
    if one.deployment.more_variables:
        return not any(other.starts_agent and (other.platform, other.folder) == (one.platform, one.folder) for other in evident)
    known = [*evident, *(other for other in some if other.works_with_livekit and other.may_be_worker)]
    return all(other.platform is not one.platform for other in known)


def _is_akin(one: Candidate, other: Candidate) -> bool:
    """Whether both have one name, build or image."""
    return one.name == other.name or _is_of_one_image(one, other)


def _is_of_one_image(one: Candidate, other: Candidate) -> bool:
    built = one.built_from is not None and one.built_from == other.built_from
    pulled = one.built_from is None and one.image_name == other.image_name != ""
    return built or pulled


def _possible(some: list[Candidate], images: list[Candidate]) -> list[Candidate]:
    """What may be a worker. Where a worker's image lies there, what certainly runs something else is none, nor is what runs
    another image that lies there."""
    possible = [one for one in some if one.may_be_worker]
    if not images:
        return possible
    other = [one for one in possible if one.runs_image_as_it_is and one.image is not None and not is_built_from(one, images)]
    return [one for one in possible if one not in other and not one.runs_other]
