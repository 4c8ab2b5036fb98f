"""What says of one deployment that it is a LiveKit worker."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from pytest_lkagents.manifests.commands import AGENT, COMMANDS, WORKER, modes_of, runs_agent
from pytest_lkagents.manifests.counter_evidence import BACKEND, PROGRAMS, SITES, TOKENS, CounterEvidence

# What an agent is called in one word; what has more behind that is a part of one.
VOICE = re.compile(r"(^|[^a-z])voice[-_]?(bot|agent|worker)s?[^a-z]*$")
# What a project is called after its agent, before the name of a part of it.
PROJECT = re.compile(r"(?!livekit)[a-z].*[-_.]agents?[-_.]")


class Evidence(IntEnum):
    """What says that it is a worker, the weakest first."""

    NOTHING = 0
    # A name as workers have.
    NAMED = 1
    # Beside such a name what workers are told: LiveKit's variables, or a command of its SDK.
    TOLD = 2
    # An agent is what it starts, or what LiveKit Cloud builds of it.
    STARTS = 3


@dataclass(frozen=True, eq=False)
class Candidate(CounterEvidence):
    """A deployment that may be a worker: what speaks for it, weighed against what does not."""

    image: Candidate | None = None

    @cached_property
    def is_called_agent(self) -> bool:
        """By its own name; by its image's only where its own is not that of something beside an agent. Of an image that ends in
        its own (``support-agent-scoring`` of ``scoring``) the rest is the project's name, where it is more than ``agent``."""
        image, own = self.image_name.lower(), self.name.lower()
        of_project = image.endswith(own) and PROJECT.fullmatch(image.removesuffix(own)) and not WORKER.search(own)
        beside = self.is_called_backend or self.hands_out_tokens or of_project
        return bool(AGENT.search(self.called) or (AGENT.search(image) and not beside))

    @property
    def is_kept_as_agent(self) -> bool:
        """Whether its image is an agent's by its name, or kept where an agent's are, as all of a project's may be."""
        image = self.image_name.lower()
        named = AGENT.search(image) and not (BACKEND.search(image) or TOKENS.search(image))
        kept = AGENT.search(self.image_text.lower()) and not self.is_called_backend
        return bool(named or kept) and not self.is_other_agent

    @cached_property
    def is_called_worker(self) -> bool:
        return bool(WORKER.search(self.words))

    @cached_property
    def evidence(self) -> Evidence:
        """Of its own: what its image says may only speak against it."""
        if runs_agent(self.own_command) or self.deployment.of_livekit_cloud:
            return Evidence.STARTS
        if self.starts_what_it_holds:
            return Evidence.TOLD
        if not self._is_named:
            return Evidence.NOTHING
        # A worker of something else works with LiveKit, too, and starts a program of its own.
        told = self.works_with_livekit and (self.is_called_agent or not self.programs)
        return Evidence.TOLD if told or modes_of(self.own_command) else Evidence.NAMED

    @property
    def starts_what_it_holds(self) -> bool:
        """Whether an image that is made for an agent starts it: by the SDK's command, or, where nobody is to connect to it, by
        a script (``pnpm start``) and no other program."""
        if not self.deployment.holds_agent or self.is_web_server:
            return False
        other = PROGRAMS & self.own_programs or self.has_visitors
        return bool(modes_of(self.own_command)) or not other

    @property
    def _is_named(self) -> bool:
        """Beside what works with LiveKit less of a name is enough."""
        if self.is_backing or self.is_web_server or self.is_of_queue:
            return False
        if not self.works_with_livekit:
            return self.is_called_agent and not (self.is_other_agent or self.is_site)
        started = bool(COMMANDS & self.own_programs and not SITES & self.own_programs)
        return self.is_called_agent or self.is_called_worker or started

    @property
    def is_worker(self) -> bool:
        """Whether anything says so, if only its name."""
        return self.evidence >= Evidence.NAMED

    @cached_property
    def is_evident(self) -> bool:
        """Whether more than a name says that it is a worker, of it or of the image that it runs."""
        if self.evidence >= Evidence.TOLD:
            return True
        return self.runs_image_as_it_is and self.image is not None and self.image.is_evident

    @property
    def is_voice(self) -> bool:
        """Whether it is called a voicebot, works with LiveKit, and nobody is to connect to it."""
        named = bool(VOICE.search(self.name.lower()))
        return named and self.works_with_livekit and self.may_be_worker and not (self.has_visitors or self.serves)
