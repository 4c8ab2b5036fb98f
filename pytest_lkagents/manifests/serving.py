"""What others connect to: where it may be a worker all the same, and where it is taken for none."""

from __future__ import annotations

from pytest_lkagents.manifests.commands import modes_of
from pytest_lkagents.manifests.evidence import Candidate
from pytest_lkagents.manifests.layout import Layout


def without_servers(images: list[Candidate]) -> list[Candidate]:
    """Of an agent's folder a Dockerfile that starts a server is none of its own beside another that starts something else; a
    script may start both."""
    servers = [one for one in images if one.is_rather_a_server and one.runs_other and not modes_of(one.command)]
    agents = [one for one in images if one not in servers]
    beside = {one: [agent.command for agent in agents if agent.folder == one.folder] for one in servers}
    return [one for one in images if not beside.get(one) or one.command in beside[one]]


def leave_what_serves(layout: Layout) -> None:
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
