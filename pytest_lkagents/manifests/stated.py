"""What files say of one deployment, and what follows from their words alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pytest_lkagents.manifests.commands import runs_agent
from pytest_lkagents.manifests.model import CLOUD_RUN_POOL, DOCKERFILE, HEALTH_PORT, Deployment, Platform
from pytest_lkagents.manifests.readers.common import has_livekit


@dataclass(frozen=True, eq=False)
class Stated:
    """A deployment, and its image where a Dockerfile for it lies there. What is asked of it is found out once."""

    deployment: Deployment
    image: Stated | None = None

    @property
    def name(self) -> str:
        return self.deployment.name

    @property
    def platform(self) -> Platform:
        return self.deployment.platform

    @property
    def file(self) -> str:
        return self.deployment.place.file

    @property
    def folder(self) -> str:
        return self.file.rpartition("/")[0]

    @property
    def built_from(self) -> str | None:
        return self.deployment.built_from

    @property
    def is_dockerfile(self) -> bool:
        return self.platform is DOCKERFILE

    @property
    def runs_image_as_it_is(self) -> bool:
        """Another command makes something else of the same image."""
        return self.deployment.command is None

    @property
    def own_command(self) -> list[str]:
        return self.deployment.command.value if self.deployment.command is not None else []

    @cached_property
    def own_programs(self) -> set[str]:
        return _programs(self.own_command)

    @property
    def command(self) -> list[str]:
        """What starts it: its own command, or else that of its image."""
        return self.image.own_command if self.runs_image_as_it_is and self.image is not None else self.own_command

    @cached_property
    def programs(self) -> set[str]:
        return _programs(self.command)

    @property
    def image_text(self) -> str:
        return self.deployment.image.value if self.deployment.image is not None else ""

    @cached_property
    def image_name(self) -> str:
        """Without where it is kept, and its tag."""
        return self.image_text.partition("@")[0].rpartition("/")[2].partition(":")[0]

    @cached_property
    def called(self) -> str:
        """Of a Dockerfile its own name and that of its folder: what is above says where somebody keeps the project."""
        return (" ".join(self.name.split("/")[-2:]) if self.is_dockerfile else self.name).lower()

    @cached_property
    def words(self) -> str:
        """What it and its image are called. Where an image is kept is often named after the whole project."""
        return f"{self.called} {self.image_name}".lower()

    @property
    def has_livekit(self) -> bool:
        """Whether it has variables of LiveKit's."""
        return has_livekit(self.deployment.variables)

    @property
    def refers_to_livekit(self) -> bool:
        """Whether it has them from elsewhere in these files, where all of a project may have theirs."""
        return has_livekit(self.deployment.referred)

    @cached_property
    def works_with_livekit(self) -> bool:
        """As an agent does, and a web site beside it."""
        return self.has_livekit or "livekit" in self.words

    @property
    def is_in_background(self) -> bool:
        """Whether nothing leads to it, as to a worker pool."""
        return self.platform is CLOUD_RUN_POOL or self.deployment.in_background

    @property
    def has_visitors(self) -> bool:
        """Whether somebody is to connect to it, but to ask for its health."""
        ports = {*self.deployment.ports} - {HEALTH_PORT}
        return not self.is_in_background and bool(ports or self.deployment.exposures)

    @cached_property
    def starts_agent(self) -> bool:
        return runs_agent(self.command)


def _programs(command: list[str]) -> set[str]:
    """Its words, also where it is a shell's, without the paths of programs."""
    return {part.rpartition("/")[2] for word in command for part in word.split()}
