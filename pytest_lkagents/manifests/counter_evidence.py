"""What says of one deployment that it is something else than a worker, and that it serves others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from pytest_lkagents.manifests.commands import AGENT, modes_of, starts_nothing
from pytest_lkagents.manifests.model import HEALTH_PORT
from pytest_lkagents.manifests.stated import Stated

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
# Workers of queues.
QUEUES = {"celery", "rq", "arq", "dramatiq", "sidekiq", "temporal"}
QUEUE = re.compile(rf"(^|[^a-z])({'|'.join(sorted(QUEUES))})([^a-z]|$)")
# What hands out tokens has the same variables as a worker.
TOKENS = re.compile(r"(^|[^a-z])tokens?([-_]?(server|service|api|issuer|generator|endpoint))?$")
# Servers and tasks beside an agent, which mostly have the same variables, too.
BACKEND = re.compile(
    r"(^|[^a-z])(api|back-?end|web(-?hooks?)?|admin|dashboard|gateway|migrat(e|ions?)|scheduler|cron)([^a-z]|$)"
)


@dataclass(frozen=True, eq=False)
class CounterEvidence(Stated):
    """What speaks against a worker."""

    image: CounterEvidence | None = None

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
