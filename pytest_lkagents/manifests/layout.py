"""What lies there, and what of it is taken for a worker so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_lkagents.manifests.evidence import Candidate


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
