"""What says of one deployment that it is a LiveKit worker, and what says that it is something else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from pytest_lkagents.manifests.commands import AGENT, COMMANDS, WORKER, modes_of, runs_agent, starts_nothing
from pytest_lkagents.manifests.model import CLOUD_RUN_POOL, DOCKERFILE, HEALTH_PORT, Deployment, Platform
from pytest_lkagents.manifests.readers.common import has_livekit

# What starts web sites by the same words as workers.
SITES = {"npm", "yarn", "pnpm", "bun", "next"}
SITE = re.compile(
    r"(^|[^a-z])(react|next(js)?|vue|front-?end|web-?app|web-?site|playground|swift|flutter|android|embed)([^a-z]|$)"
)
# Servers of web applications: what starts one is no worker.
WEB_SERVERS = {"uvicorn", "fastapi", "gunicorn", "hypercorn", "daphne", "flask", "streamlit", "nginx", "caddy", "vite", "next"}
# What starts a program that is named beside it, or nothing.
PROGRAMS = {"python", "python3", "node", "deno", "java", "dotnet", "php", "ruby", "bundle", "tail", "sleep"}
# LiveKit's own servers, which have variables of the same names.
SERVER = re.compile(r"(^|/)livekit/(livekit-server|livekit-cli|ingress|egress|sip)(?![\w-])")
# What applications stand on, by the last part of its image's name.
BACKING = re.compile(
    r"redis|valkey|postgres(ql)?|postgis|pgvector|timescaledb|mysql|mariadb|mongo(db)?|rabbitmq|minio|kafka|zookeeper|nats|memcached"
    r"|elasticsearch|opensearch|qdrant|weaviate|chroma|milvus|clickhouse-server|nginx|traefik|caddy|haproxy|envoy|coturn"
    r"|grafana|prometheus|loki|jaeger|keycloak|adminer|pgadmin4|mailhog|mailpit|ollama|redpanda|sonarqube|langfuse(-worker)?|etcd"
    r"|asterisk|freeswitch|kamailio|opensips|rtpengine"
)
# What stands beside an agent and is named after it. What comes before that word is what an agent is for.
PART = re.compile(
    r"(^|[^a-z])(agents?|workers?)([^a-z].*)?[^a-z](ui|api|db|database|redis|cache|dashboard|admin|gateway|proxy|tokens?)([^a-z]|$)"
)
# Agents of other kinds, as their makers name them.
OTHER_AGENT = re.compile(
    r"(?<![a-z])(promtail|telegraf|datadog|dd|grafana|newrelic|vault|elastic|buildkite|jenkins|azure|otel|fluent|zabbix|puppet"
    r"|teamcity|gitlab|beszel|portainer|consul|wazuh|netdata|dozzle|checkmk|woodpecker|cloudwatch|ssm|spire)"
    r"[-_/]([a-z]+[-_])?agent"
)
# Workers of queues, and what an agent is called in one word; what has more behind that is a part of one.
QUEUES = {"celery", "rq", "arq", "dramatiq", "sidekiq", "temporal"}
QUEUE = re.compile(rf"(^|[^a-z])({'|'.join(sorted(QUEUES))})([^a-z]|$)")
VOICE = re.compile(r"(^|[^a-z])voice[-_]?(bot|agent|worker)s?[^a-z]*$")
# What a project is called after its agent, before the name of a part of it.
PROJECT = re.compile(r"(?!livekit)[a-z].*[-_.]agents?[-_.]")
# What hands out tokens has the same variables as a worker.
TOKENS = re.compile(r"(^|[^a-z])tokens?([-_]?(server|service|api|issuer|generator|endpoint))?$")
# Servers and tasks beside an agent, which mostly have the same variables, too.
BACKEND = re.compile(
    r"(^|[^a-z])(api|back-?end|web(-?hooks?)?|admin|dashboard|gateway|migrat(e|ions?)|scheduler|cron)([^a-z]|$)"
)


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
class Candidate:
    """A deployment, and its image where a Dockerfile for it lies there. What is asked of it is found out once."""

    deployment: Deployment
    image: Candidate | None = None

    # -- What the file says

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

    @property
    def is_in_background(self) -> bool:
        """Whether nothing leads to it, as to a worker pool."""
        return self.platform is CLOUD_RUN_POOL or self.deployment.in_background

    @property
    def has_visitors(self) -> bool:
        """Whether somebody is to connect to it, but to ask for its health."""
        ports = {*self.deployment.ports} - {HEALTH_PORT}
        return not self.is_in_background and bool(ports or self.deployment.exposures)

    # -- What speaks for a worker

    @cached_property
    def works_with_livekit(self) -> bool:
        """As an agent does, and a web site beside it."""
        return self.has_livekit or "livekit" in self.words

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
    def starts_agent(self) -> bool:
        return runs_agent(self.command)

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
        other = PROGRAMS & _programs(self.own_command) or self.has_visitors
        return bool(modes_of(self.own_command)) or not other

    @property
    def _is_named(self) -> bool:
        """Beside what works with LiveKit less of a name is enough."""
        if self.is_backing or self.is_web_server or self.is_of_queue:
            return False
        if not self.works_with_livekit:
            return self.is_called_agent and not (self.is_other_agent or self.is_site)
        programs = _programs(self.own_command)
        return self.is_called_agent or self.is_called_worker or bool(COMMANDS & programs and not SITES & programs)

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

    # -- What speaks against one

    @property
    def is_server(self) -> bool:
        """Whether it is one of LiveKit's own, or built from one."""
        return bool(SERVER.search(self.image_text)) or (self.image is not None and self.image.is_server)

    @cached_property
    def is_backing(self) -> bool:
        """Whether applications stand on it, or it is built from such, or as such by its name."""
        named = BACKING.fullmatch(self.name) and self.built_from is not None and not self.works_with_livekit
        return bool(named or BACKING.fullmatch(self.image_name)) or (self.image is not None and self.image.is_backing)

    @property
    def is_web_server(self) -> bool:
        return bool(WEB_SERVERS & self.programs)

    @property
    def is_idle(self) -> bool:
        """Whether its command starts no program."""
        return starts_nothing(self.command)

    @property
    def serves(self) -> bool:
        """Whether it is started as web servers or sites are; so are agents in JavaScript."""
        return bool((WEB_SERVERS | SITES) & self.programs)

    @cached_property
    def is_of_queue(self) -> bool:
        """Whether it works for a queue of jobs: by its command, or by a name that is no agent's."""
        words = self.words
        named = bool(QUEUE.search(words)) and not (AGENT.search(words) or "livekit" in words or "voice" in words)
        return (named or bool(QUEUES & self.programs)) and not (modes_of(self.command) or self.starts_agent)

    @property
    def hands_out_tokens(self) -> bool:
        return bool(TOKENS.search(self.name.lower()))

    @cached_property
    def is_site(self) -> bool:
        """Whether its name or image says that it is what callers use, and its command does not say otherwise."""
        return bool(SITE.search(self.words)) and not self.starts_agent

    @cached_property
    def is_other_agent(self) -> bool:
        """What runs on each node usually watches it."""
        words = f"{self.called} {self.image_text}".lower()
        return bool(OTHER_AGENT.search(words)) or self.deployment.per_node

    @cached_property
    def is_part(self) -> bool:
        """Whether it is named as a part of an agent, which says something beside an agent only."""
        return bool(PART.search(self.called))

    @property
    def runs_other(self) -> bool:
        """Whether a program is named that is no agent's; a script may start anything."""
        return (self.serves or bool(PROGRAMS & self.programs)) and not self.starts_agent

    @property
    def is_called_backend(self) -> bool:
        """Whether it is named as a server or a task, which says something beside an agent only."""
        return bool(BACKEND.search(self.called))

    @property
    def is_quiet(self) -> bool:
        """Whether nobody is to connect to it, also by what its image exposes, and no program is named that it starts, unless
        the SDK's command stands behind it."""
        image = self.image if self.runs_image_as_it_is else None
        named = PROGRAMS & self.programs and not modes_of(self.command)
        return not (named or self.has_visitors or (image is not None and image.has_visitors))

    @property
    def is_rather_a_server(self) -> bool:
        """Whether somebody is to connect to it, and it starts another program than an agent, is called a server, or has nothing
        of LiveKit."""
        image = self.image if self.runs_image_as_it_is else None
        asked_alone = {*self.deployment.ports} == {HEALTH_PORT}
        visited = (self.has_visitors and not asked_alone) or (image is not None and image.has_visitors)
        visited = visited and not self.is_in_background
        livekit = self.works_with_livekit or self.refers_to_livekit
        certain = self.starts_agent or self.deployment.of_livekit_cloud
        return visited and (self.runs_other or self.is_called_backend or not livekit) and not certain

    @cached_property
    def may_be_worker(self) -> bool:
        """Whether it is nothing else for certain."""
        other = self.is_server or self.is_backing or self.is_web_server or self.is_of_queue
        return not (other or self.hands_out_tokens or self.is_site)


def _programs(command: list[str]) -> set[str]:
    """Its words, also where it is a shell's, without the paths of programs."""
    return {part.rpartition("/")[2] for word in command for part in word.split()}
