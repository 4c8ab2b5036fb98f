"""Which of all that files deploy are LiveKit workers: by name, image and command, and by what lies beside."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_lkagents.manifests.model import COMPOSE, DOCKERFILE, Deployment, Files
from pytest_lkagents.manifests.readers.common import AGENT, COMMANDS, WORKER, has_livekit, modes_of, runs_agent

# What starts web sites by the same words as workers.
SITES = {"npm", "yarn", "pnpm", "bun", "next"}
SITE = re.compile(
    r"(^|[^a-z])(react|next(js)?|vue|front-?end|web-?app|web-?site|playground|swift|flutter|android|embed)([^a-z]|$)"
)
# Servers of web applications: what starts one is no worker.
WEB_SERVERS = {"uvicorn", "gunicorn", "hypercorn", "daphne", "flask", "streamlit", "nginx", "caddy", "vite", "next"}
# What starts a program that is named beside it, or nothing.
PROGRAMS = {"python", "python3", "node", "deno", "tail", "sleep"}
# LiveKit's own servers, which have variables of the same names.
SERVER = re.compile(r"(^|/)livekit/(livekit-server|livekit-cli|ingress|egress|sip)(?![\w-])")
# What applications stand on, by the last part of its image's name.
BACKING = re.compile(
    r"redis|valkey|postgres(ql)?|postgis|pgvector|timescaledb|mysql|mariadb|mongo(db)?|rabbitmq|minio|kafka|zookeeper|nats|memcached"
    r"|elasticsearch|opensearch|qdrant|weaviate|chroma|milvus|clickhouse-server|nginx|traefik|caddy|haproxy|envoy|coturn"
    r"|grafana|prometheus|loki|jaeger|keycloak|adminer|pgadmin4|mailhog|mailpit|ollama"
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
# What hands out tokens has the same variables as a worker.
TOKENS = re.compile(r"(^|[^a-z])tokens?([-_]?(server|service|api|issuer|generator|endpoint))?$")

Images = Mapping[str | None, Deployment]


def pick(files: Files) -> list[Deployment]:
    """Beside a worker there may be others (a database, a web site), which are not judged by a worker's rules: those that look
    like one, or else what works with LiveKit, or else all that may be one. The others are named. What is for development does
    not decide which of the others are judged, and is as good as any where it is all that there is."""
    made = [one for one in files.deployments if one.platform is DOCKERFILE]
    images: Images = {image.name: image for image in made}
    candidates = [one for one in files.deployments if not _is_server(one, images)]
    deployed = [one for one in candidates if one.place.file not in files.for_development]
    apart = [one for one in candidates if one.place.file in files.for_development]
    # What only builds a stage for development is no worker, and says whose Dockerfile it is.
    developing = [part for part in files.parts if part.built_from is not None]
    agents = {one.built_from for one in developing if _is_worker(one, images)}
    built = _built(deployed, images)
    found = _workers(_others(deployed, deployed, images), built, images)
    if agents:
        # Beside an agent what only shares its variables is none.
        names = {image.name for image in built}
        found = [one for one in found if one.platform is not COMPOSE or _is_worker(one, images) or one.built_from in names]
        # What a developer runs says nothing of what another platform does.
        elsewhere = [one for one in deployed if one.platform not in (COMPOSE, DOCKERFILE) and _may_be_one(one, images)]
        found = found or elsewhere
    files.doubtful = bool(found) and not (built or agents or any(_is_worker(one, images) for one in found))
    if files.doubtful:
        agents = {one.built_from for one in developing if _mentions_livekit(one) and _may_be_one(one, images)}
    else:
        files.unsure = _unsure(found, built, images)
    workers = found + built
    # What runs it as it is makes it its own.
    others_of = {one.built_from for one in deployed if one not in found and one.command is None}
    workers += [one for one in deployed if one.platform is DOCKERFILE and one.name in agents - others_of and one not in built]
    built_apart = _built(apart, images)
    choose = _certain if workers or agents else _workers
    developed = choose(_others(apart, candidates, images), [*built, *built_apart], images) + built_apart
    if not workers and developed:
        workers, files.doubtful = _beside_development(deployed, developed, images)
        if not workers and not any(_may_be_one(one, images) and not _serves(one, images) for one in deployed):
            files.for_development = []
    workers += developed
    if not workers and not agents:
        workers = [one for one in candidates if _may_be_one(one, images)]
        files.doubtful = bool(workers)
        if workers and all(one.place.file in files.for_development for one in workers):
            files.for_development = []
    of_workers = {one.built_from for one in workers}
    workers += [image for image in made if image.name in of_workers and image not in workers]
    agents |= {one.place.file for one in workers if one.platform is DOCKERFILE}
    files.parts = [
        part
        for part in files.parts
        if part.built_from in agents or _is_of(part, agents) or _is_part_of_worker(part, workers, files.deployments)
    ]
    files.parts += [image for image in made if _is_of(image, agents) and image not in workers]
    kept = {id(deployment) for deployment in workers}
    over = [one for one in files.deployments if id(one) not in kept]
    files.passed_over += [*files.left_out, *(_why_not(one, files, images) for one in over)]
    files.left_out += [_why_not(one, files, images) for one in over if _might_have_been(one, files, images)]
    return workers


def _is_of(one: Deployment, dockerfiles: set[str | None]) -> bool:
    """Whether it is a stage of one of these."""
    return one.platform is DOCKERFILE and one.place.file in dockerfiles


def _might_have_been(one: Deployment, files: Files, images: Images) -> bool:
    """Whether it is called an agent and may have variables of LiveKit from elsewhere, or has such where others are workers by
    their names alone: worth a word with each verdict."""
    # Agents in JavaScript are started as web sites are, but have nobody who connects to them.
    site = _is_site(one, images) or (_serves(one, images) and bool(one.ports or one.exposures))
    if site or one.platform is DOCKERFILE or one.place.file in files.for_development:
        return False
    named = _is_worker(one, images) and bool(AGENT.search(_words(one))) and not _is_part(one)
    return (named and one.more_variables) or _is_in_doubt(one, files, images)


def _is_in_doubt(one: Deployment, files: Files, images: Images) -> bool:
    works = _mentions_livekit(one) and not _is_server(one, images)
    return bool(files.unsure) and works and _may_be_one(one, images)


def _why_not(deployment: Deployment, files: Files, images: Images) -> str:
    """What is said of one that is not judged. Beside names only, variables of LiveKit's are worth a word."""
    named = f"{deployment.place.file}: {deployment.name}"
    if _is_worker(deployment, images) and not _is_evident(deployment, images) and not _is_part(deployment):
        return f"{named} is named like a worker, and nothing else says that it is one"
    if _is_in_doubt(deployment, files, images):
        return f"{named} works with LiveKit, and nothing says that it is a worker"
    return f"{named} looks like no worker"


def _is_part_of_worker(part: Deployment, workers: list[Deployment], every: list[Deployment]) -> bool:
    """By its variables, by the service that other files make of it, or else by its name."""
    if has_livekit(part.variables) or _starts_agent(part):
        return True
    if any(one.platform is COMPOSE and one.name == part.name for one in every):
        return any(one.platform is COMPOSE and one.name == part.name for one in workers)
    name = part.name.lower()
    named = AGENT.search(name) or WORKER.search(name)
    return bool(named) and not OTHER_AGENT.search(name) and not _is_part(part) and not _is_site(part, {})


def _built(some: list[Deployment], images: Images) -> list[Deployment]:
    """Of the Dockerfiles among these those of workers."""
    made = [one for one in some if one.platform is DOCKERFILE]
    return _without_parts([one for one in made if _is_worker(one, images)], made, images)


def _others(some: list[Deployment], beside: list[Deployment], images: Images) -> list[Deployment]:
    return _without_parts([one for one in some if one.platform is not DOCKERFILE], beside, images)


def _certain(deployed: list[Deployment], built: list[Deployment], images: Images) -> list[Deployment]:
    """Of what is deployed what a file says to be a worker, ``built`` being the images of workers."""
    files_of = {image.name for image in built}
    # Another command makes something else of the same image.
    workers = [one for one in deployed if _is_worker(one, images) or (one.command is None and one.built_from in files_of)]
    # LiveKit's own web site for agents is named after them.
    if any(not _is_site(one, images) for one in workers):
        workers = [one for one in workers if not _is_site(one, images)]
    evident = [one for one in workers if _is_evident(one, images)]
    starting = {(one.platform, _folder(one)) for one in evident if _starts_agent(_starting(one, images))}
    there = {one.platform for one in evident}
    mentioning = {one.platform for one in deployed if _mentions_livekit(one) and _may_be_one(one, images)}

    def is_kept(one: Deployment) -> bool:
        """A name is no evidence beside what starts an agent, unless it is of the same; and what has no variables of LiveKit's
        is no worker beside what has them. Those that are not in the file may be."""
        if _mentions_livekit(one) or one.built_from in files_of or any(_is_akin(one, other) for other in evident):
            return True
        if one.more_variables:
            return (one.platform, _folder(one)) not in starting
        return one.platform not in there | mentioning

    kept = list(filter(is_kept, workers))
    # Beside names alone what works with LiveKit and is called a voicebot is as good as any; rather a name than another, such as
    # a site's backend.
    alone = {one.platform for one in workers} - {one.platform for one in kept if _mentions_livekit(one)} - there
    voices = [one for one in deployed if one.platform in alone and _is_voice(one, images) and one not in workers]
    lost = alone - {one.platform for one in [*kept, *voices]}
    return [one for one in workers if one in kept or one.platform in lost] + voices


def _folder(deployment: Deployment) -> str:
    return deployment.place.file.rpartition("/")[0]


def _is_voice(deployment: Deployment, images: Images) -> bool:
    """By its name, and nobody is to connect to it."""
    named = bool(VOICE.search(deployment.name.lower())) and not (deployment.ports or deployment.exposures)
    works = _mentions_livekit(deployment) and not _serves(deployment, images)
    return named and works and _may_be_one(deployment, images)


def _is_akin(one: Deployment, other: Deployment) -> bool:
    images = [_image_name(each) or None for each in (one, other)]
    same = one.built_from == other.built_from if one.built_from is not None else images[0] == images[1] is not None
    return one is other or one.name == other.name or same


def _is_evident(deployment: Deployment, images: Images) -> bool:
    """Whether more than a name says that this is a worker: its command, LiveKit's variables, or an image with such."""
    image = images.get(deployment.built_from) if deployment.command is None else None
    command = deployment.command.value if deployment.command is not None else []
    # A worker of something else works with LiveKit, too.
    named = AGENT.search(_words(deployment)) or not _programs(_starting(deployment, images))
    told = bool(modes_of(command)) or (_mentions_livekit(deployment) and named)
    if _starts_agent(deployment) or (told and _is_worker(deployment, images)):
        return True
    return image is not None and _is_evident(image, images)


def _unsure(workers: list[Deployment], built: list[Deployment], images: Images) -> list[str]:
    """Those that are workers by their names alone, or as they work with LiveKit. An agent's image that lies there speaks for a
    name."""
    image = any(_is_evident(one, images) for one in built)
    return [one.name for one in workers if not (_is_evident(one, images) or (image and _is_worker(one, images)))]


def _workers(deployed: list[Deployment], built: list[Deployment], images: Images) -> list[Deployment]:
    """Of what is deployed, ``built`` being the images of workers."""
    workers = _certain(deployed, built, images)
    if workers:
        return workers
    others = [one for one in deployed if _may_be_one(one, images)]
    if built:
        # A worker's image lies there: what certainly runs something else is none, nor is what is built from another one.
        others = [one for one in others if not _runs_other(one, images) and not _is_of_other(one, built, images)]
    workers = [one for one in others if _mentions_livekit(one)]
    if not workers and built:
        # Which of several is the worker's, no image says; what Compose runs may be all that a developer needs beside it.
        alone = [one for one in others if one.platform is not COMPOSE]
        workers = alone if len(alone) == 1 else []
    return workers


def _beside_development(
    deployed: list[Deployment], developed: list[Deployment], images: Images
) -> tuple[list[Deployment], bool]:
    """Where only files for development have a worker: what is deployed by its name, or of its image; or else (then it is not
    certain) whatever may be one, but for what Compose runs beside it."""
    others = [one for one in deployed if one.platform is not DOCKERFILE and _may_be_one(one, images)]
    others = [one for one in others if not _runs_other(one, images)]
    names = {one.name for one in developed}
    sources = {one.built_from for one in developed} - {None}
    same = [one for one in others if one.name in names or one.built_from in sources]
    if same:
        return same, False
    alone = [one for one in others if one.platform is not COMPOSE]
    return alone, bool(alone)


def _name(deployment: Deployment) -> str:
    """Of a Dockerfile its own name and that of its folder: what is above says where somebody keeps the project."""
    is_file = deployment.platform is DOCKERFILE
    return " ".join(deployment.name.split("/")[-2:]) if is_file else deployment.name


def _words(deployment: Deployment) -> str:
    return f"{_name(deployment)} {deployment.image.value if deployment.image else ''}".lower()


def _image_name(deployment: Deployment) -> str:
    image = deployment.image.value if deployment.image is not None else ""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def _is_server(deployment: Deployment, images: Images) -> bool:
    """Whether it is one of LiveKit's own, or built from one."""
    found = [deployment, images.get(deployment.built_from)]
    return any(one is not None and one.image is not None and bool(SERVER.search(one.image.value)) for one in found)


def _may_be_one(deployment: Deployment, images: Images) -> bool:
    """Whether it is nothing else for certain."""
    other = BACKING.fullmatch(_image_name(deployment)) or TOKENS.search(deployment.name.lower())
    serves = WEB_SERVERS & _programs(_starting(deployment, images))
    return not other and not serves and not _is_of_queue(deployment, images) and not _is_site(deployment, images)


def _is_of_queue(deployment: Deployment, images: Images) -> bool:
    """Whether it works for a queue of jobs: by its command, or by a name that is no agent's. Where an image is kept says
    nothing."""
    starting, words = _starting(deployment, images), f"{_name(deployment)} {_image_name(deployment)}".lower()
    command = starting.command.value if starting.command is not None else []
    named = bool(QUEUE.search(words)) and not (AGENT.search(words) or "livekit" in words or "voice" in words)
    return not modes_of(command) and not _starts_agent(starting) and (named or bool(QUEUES & _programs(starting)))


def _mentions_livekit(deployment: Deployment) -> bool:
    """Whether it works with LiveKit: an agent does, and so does a web site beside it."""
    return has_livekit(deployment.variables) or "livekit" in _words(deployment)


def _programs(deployment: Deployment) -> set[str]:
    """The words of its command, also of one that is a shell's, without the paths of programs."""
    command = deployment.command.value if deployment.command is not None else []
    return {part.rpartition("/")[2] for word in command for part in word.split()}


def _starts_agent(deployment: Deployment) -> bool:
    """Whether the command in the file is an agent's."""
    return deployment.command is not None and runs_agent(deployment.command.value)


def _starting(deployment: Deployment, images: Images) -> Deployment:
    """Whose command starts it: its own, or else that of its image."""
    image = images.get(deployment.built_from)
    return deployment if deployment.command is not None or image is None else image


def _runs_other(deployment: Deployment, images: Images) -> bool:
    """Whether its command, or that of its image, names a program that is no agent's; a script may start anything."""
    starting = _starting(deployment, images)
    return not _starts_agent(starting) and bool((WEB_SERVERS | SITES | PROGRAMS) & _programs(starting))


def _is_of_other(deployment: Deployment, built: list[Deployment], images: Images) -> bool:
    """Whether its image alone says what it runs, and is none of a worker's (``built``)."""
    image = images.get(deployment.built_from)
    return deployment.command is None and image is not None and all(one is not image for one in built)


def _is_site(deployment: Deployment, images: Images) -> bool:
    """Whether its name or image says that it is what callers use, and its command does not say otherwise."""
    return bool(SITE.search(_words(deployment))) and not _starts_agent(_starting(deployment, images))


def _serves(deployment: Deployment, images: Images) -> bool:
    """Whether its command, or that of its image, is a web server's."""
    return bool((WEB_SERVERS | SITES) & _programs(_starting(deployment, images)))


def _without_parts(some: list[Deployment], beside: list[Deployment], images: Images) -> list[Deployment]:
    """Beside one that certainly starts an agent what its name says to be something else is none. On each platform only beside
    another worker, as what one platform runs says nothing of what another one does."""
    certain = {id(one) for one in beside if _starts_agent(_starting(one, images))}
    if not certain:
        return some
    there = {one.platform for one in beside if id(one) in certain or (_is_worker(one, images) and not _is_part(one))}
    return [one for one in some if one.platform not in there or not _is_part(one) or _starts_agent(_starting(one, images))]


def _is_part(deployment: Deployment) -> bool:
    return bool(PART.search(_name(deployment).lower()))


def _is_worker(deployment: Deployment, images: Images) -> bool:
    """Whether a file says that this is a LiveKit worker: by its name, its image or its command."""
    if _starts_agent(deployment):
        return True
    made_of = [one for one in (deployment, images.get(deployment.built_from)) if one is not None]
    if any(BACKING.fullmatch(_image_name(one)) for one in made_of) or WEB_SERVERS & _programs(_starting(deployment, images)):
        return False
    if _is_of_queue(deployment, images):
        return False
    starts = _programs(deployment)
    words = _words(deployment)
    if _mentions_livekit(deployment):
        started = COMMANDS & starts and not SITES & starts
        return bool(WORKER.search(words) or AGENT.search(words) or started)
    # What runs on each node usually watches it.
    other = OTHER_AGENT.search(words) or deployment.per_node or _is_site(deployment, images)
    return bool(AGENT.search(words)) and not other
