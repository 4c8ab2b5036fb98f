"""Dockerfiles: what the stage sets that is built, by default the last."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace

from pytest_lkagents.manifests.choice import RULES, by_evidence, choose, without_parts
from pytest_lkagents.manifests.commands import modes_of, runs_agent, split, told_in
from pytest_lkagents.manifests.evidence import Candidate
from pytest_lkagents.manifests.model import (
    COMPOSE,
    DOCKERFILE,
    Deployment,
    Files,
    Given,
    Platform,
    Probe,
    Problem,
    StoredSecret,
    Variable,
)
from pytest_lkagents.manifests.readers import probes
from pytest_lkagents.manifests.readers.common import FOR_DEVELOPMENT, environment_of, from_outside, range_of
from pytest_lkagents.manifests.readers.dockerfile_instructions import Instruction, instructions
from pytest_lkagents.manifests.readers.secret_entries import secret_lines
from pytest_lkagents.manifests.tree import Place
from pytest_lkagents.secrets import looks_generated, looks_random

# The SDK's command that fetches the models of an agent's plugins; a later stage copies these.
DOWNLOADS = re.compile(r"(?<![\w-])download-files(?![\w-])")


@dataclass
class Stage:
    """What an image of this stage has, also by the stage that it is made from."""

    image: Given[str] | None = None
    entry: Given[list[str]] | None = None
    command: Given[list[str]] | None = None
    # Whether these are lines of a shell. Such an ENTRYPOINT takes no CMD, and such a CMD comes to an ENTRYPOINT with its shell:
    # https://docs.docker.com/reference/dockerfile/#understand-how-cmd-and-entrypoint-interact
    shell_entry: bool = False
    shell_command: bool = False
    variables: list[Variable] = field(default_factory=list)
    check: Probe | None = None
    signal: Given[str] | None = None
    ports: list[int] = field(default_factory=list)
    # Whether CMD stands in the stage itself.
    own_command: bool = False


def read(file: str, text: str, files: Files) -> None:
    problems: list[Problem] = []
    found = instructions(file, text, problems)
    files.problems += problems
    if not any(instruction.name == "FROM" for instruction in found):
        if not problems:
            files.problems.append(Problem(Place(file, 1, ""), "a Dockerfile without FROM"))
        return
    # What stands before the first FROM belongs to no stage.
    first = last = Stage()
    stages: dict[str, Stage] = {}
    for instruction in found:
        place = Place(file, instruction.line, instruction.name)
        if instruction.name == "FROM":
            last = _from(instruction.rest, place, stages)
        else:
            _apply(instruction, place, last)
            if instruction.name != "RUN":
                files.secrets += _written(instruction, place)
    # Values of all stages stand in the file, whatever the last one takes of them.
    every = dict.fromkeys(variable for stage in (first, *stages.values()) for variable in stage.variables)
    others = [variable for variable in every if variable not in last.variables]
    made = _deployment(file, file, last)
    made.other_variables = others
    files.deployments.append(made)
    own = files.stages[file] = {
        **{name: _deployment(file, f"{file}, stage {name}", stage) for name, stage in stages.items()},
        **{name: made for name, stage in stages.items() if stage is last},
        "": made,
    }
    if any(instruction.name == "RUN" and DOWNLOADS.search(instruction.text) for instruction in found):
        commands = {name: one.command.value for name, one in own.items() if one.command is not None}
        # Of several scripts, each of a stage, none tells which of them starts the agent.
        alone = len({tuple(words) for words in commands.values()}) == 1
        for name, words in commands.items():
            own[name].holds_agent = alone or bool(modes_of(words))


SHELL = ["/bin/sh", "-c"]


def _deployment(file: str, name: str, stage: Stage) -> Deployment:
    made = Deployment(DOCKERFILE, name, Place(file, 1, ""), environment_of(file), stage.image)
    made.variables = stage.variables
    made.stop_signal = stage.signal
    made.ports = stage.ports
    made.probes = [stage.check] if stage.check is not None else []
    if stage.entry is not None or stage.command is not None:
        entry = stage.entry.value if stage.entry else []
        command = stage.command if stage.entry is None or not stage.shell_entry else None
        shell = SHELL if stage.entry is not None and stage.shell_command else []
        words = [*entry, *([*shell, *command.value] if command else [])]
        # Where the agent's command stands, as that is what others replace or leave.
        told = stage.entry if modes_of(entry) and modes_of(entry) == modes_of(words) else command or stage.entry
        assert told is not None
        made.command = Given(words, told.place)
    return made


def find_built(files: Files) -> None:
    """Which Dockerfile is built where its path may be meant from several folders: the first that lies there."""
    for one in files.deployments:
        one.built_from = next((path for path in (one.built_from, *one.or_built_from) if path in files.stages), one.built_from)


def choose_stages(files: Files) -> None:
    """What others build of a Dockerfile takes the place of its last stage, unless somebody builds that, or may do so: a worker
    that is deployed and does not say of what its image is built. What is for development says nothing of what others build."""
    # Once for all files: it looks at no stages and at nothing of Compose, which is all that changes below.
    pulled = _is_pulled([one for one in files.deployments if one.place.file not in files.for_development])
    for file, stages in files.stages.items():
        last, made = stages[""], {}
        deployed = [one for one in files.deployments if one.place.file not in files.for_development]
        by_cloud = last.of_livekit_cloud = is_built_by_livekit_cloud(file, files)
        shipped = by_cloud or pulled
        users = [one for one in deployed if one.built_from == file]
        apart = [one for one in files.deployments if one.built_from == file and one not in users]
        developing = [one for one in users if _is_for_development(one)]
        if shipped or len(users) > len(developing) or any(_stage(one, stages) is not last for one in developing):
            users = [one for one in users if one not in developing]
            apart += developing
            files.deployments = [one for one in files.deployments if one not in developing]
            files.parts += developing
            files.passed_over += [f"{one.place.file}: {one.name} builds a stage for development" for one in developing]
        tried = any(one.target is not None and _stage(one, stages) is last for one in apart)
        # Whoever tries out what is deployed builds the same stage.
        named = any(stage is last and bool(FOR_DEVELOPMENT.search(name)) for name, stage in stages.items())
        if not any(one.target for one in users) and (users or by_cloud or not (tried and named)):
            continue
        for one in users:
            stage = _stage(one, stages)
            if stage is None:
                files.passed_over.append(f"{one.place.file}: {one.name} builds a stage of {file} that is not known")
            else:
                one.built_from, made[stage.name] = stage.name, stage
        developed = named or (tried and not shipped)
        other = any(stage.command is not None and _is_agents(stage.command.value) for stage in made.values())
        unknown = any(_stage(one, stages) is None for one in users) or (shipped and other)
        if by_cloud or (shipped and not developed and not other):
            made[last.name] = last
        every = [*last.other_variables, *last.variables]
        if last.name not in made:
            if developed:
                in_doubt = shipped or not users
                reason = f"its last stage is {'built' if tried else 'named'} for development"
            elif unknown:
                in_doubt, reason = True, "whether its last stage is built these files do not say"
            else:
                # Compose may be for who develops what others build, who are not in these files.
                in_doubt, reason = (
                    all(one.platform is COMPOSE for one in users),
                    "its last stage is built by nothing in these files",
                )
            (files.left_out if in_doubt else files.passed_over).append(f"{file}: {reason}")
            files.deployments = [one for one in files.deployments if one is not last]
            made = made or {file: Deployment(DOCKERFILE, file, last.place, last.environment)}
        files.deployments += [stage for stage in made.values() if stage is not last]
        # The values of all stages stand in the file, whichever is built, and is a worker's.
        for stage in made.values():
            stage.other_variables = [variable for variable in every if variable not in stage.variables]
        files.parts += [stage for name, stage in stages.items() if name and stage not in made.values()]


def _is_pulled(deployed: list[Deployment]) -> bool:
    """Whether a platform runs a worker, or, where none has one for certain, what may be one, of an image that no file says how
    to build. A database or a web site beside a worker is built of something else."""
    of: dict[Platform, list[Candidate]] = {}
    for one in map(Candidate, deployed):
        # What a developer runs by Compose says nothing of what another platform does.
        if one.platform not in (COMPOSE, DOCKERFILE) and not one.is_server:
            of.setdefault(one.platform, []).append(one)
    every = [without_parts(some, beside=some) for some in of.values()]
    certain = [one for some in every for one in choose((by_evidence,), some, [])]
    workers = certain or [
        one for some in every for one in choose(RULES, some, []) or [one for one in some if one.may_be_worker]
    ]
    return any(one.built_from is None for one in workers)


def is_built_by_livekit_cloud(file: str, files: Files) -> bool:
    """Whether a livekit.toml lies beside it: `lk agent deploy` builds the Dockerfile of its folder, to its end.
    Source: https://docs.livekit.io/deploy/agents/builds/"""
    folder, _, name = file.rpartition("/")
    return name == "Dockerfile" and folder in for_livekit_cloud(files)


def for_livekit_cloud(files: Files) -> set[str]:
    """The folders of which LiveKit Cloud builds an agent."""
    tomls = [one.rpartition("/") for one in files.read if one.endswith(".toml") and one not in files.for_development]
    return {folder for folder, _, name in tomls if name.startswith("livekit.")}


def _stage(user: Deployment, stages: dict[str, Deployment]) -> Deployment | None:
    """The stage that is built; None: the file has no such, or does not say."""
    return stages.get(user.target.value.lower() if user.target is not None else "")


def _is_agents(command: list[str]) -> bool:
    return runs_agent(command) or bool(modes_of(command))


def _is_for_development(user: Deployment) -> bool:
    """As a profile of such a name."""
    return user.platform is COMPOSE and user.target is not None and bool(FOR_DEVELOPMENT.search(user.target.value))


def _from(rest: str, place: Place, stages: dict[str, Stage]) -> Stage:
    """A stage of this file goes on as that one ended."""
    words = [word for word in rest.split() if not word.startswith("--")]
    base = words[0] if words else ""
    before = stages.get(base.lower())
    if before is not None:
        made = replace(before, own_command=False, variables=[*before.variables], ports=[*before.ports])
    else:
        made = Stage(None if base == "scratch" else Given(base, place))
    named = len(words) >= 3 and words[1].lower() == "as"
    # One without a name can only be the last, or copied from by its number.
    stages[words[2].lower() if named else str(len(stages))] = made
    return made


def _apply(instruction: Instruction, place: Place, stage: Stage) -> None:
    def at(text: str) -> Place:
        return replace(place, line=instruction.line_of(text))

    if instruction.name == "ENV":
        stage.variables += [Variable(name, at(f"{name}="), value) for name, value in _pairs(instruction.rest)]
    elif instruction.name == "ARG":
        pairs = [word.partition("=") for word in split(instruction.rest)]
        stage.variables += [
            Variable(name, at(name + equals), value if equals else None, "build") for name, equals, value in pairs
        ]
    elif instruction.name == "ENTRYPOINT":
        stage.entry, stage.shell_entry = Given(_words(instruction.rest), place), not _is_list(instruction.rest)
        # https://docs.docker.com/reference/dockerfile/#understand-how-cmd-and-entrypoint-interact
        stage.command = stage.command if stage.own_command else None
    elif instruction.name == "CMD":
        stage.command, stage.own_command = Given(_words(instruction.rest), place), True
        stage.shell_command = not _is_list(instruction.rest)
    elif instruction.name == "STOPSIGNAL":
        stage.signal = Given(instruction.rest.strip("\"'"), place)
    elif instruction.name == "EXPOSE":
        stage.ports += [port for word in instruction.rest.split() for port in range_of(word)]
    elif instruction.name == "RUN":
        told = told_in([instruction.rest])
        stage.variables += [Variable(name, at(value), value, "build") for name, value in told if looks_random(value)]
        stage.variables += _scripted(instruction, place)
    elif instruction.name == "HEALTHCHECK":
        # The options first, as in `--interval=5s CMD curl ...`; NONE takes that of the base image away.
        test = re.sub(r"^(--\S+\s+)*", "", instruction.rest)
        what, _, asks = test.partition(" ")
        stage.check = probes.of_command("health", _words(asks.strip()), place) if what.upper() == "CMD" else None


def _scripted(instruction: Instruction, place: Place) -> list[Variable]:
    """What the here-documents of a RUN say: mostly a shell's script. In one of another language a call may stand there."""
    return [
        Variable(name, replace(place, line=line), value, "build")
        for text, line in instruction.here
        for name, value in told_in([text])
        if looks_generated(value) and "(" not in value and not from_outside(value)
    ]


def _written(instruction: Instruction, place: Place) -> list[StoredSecret]:
    """The secrets in files that COPY and ADD write from here-documents."""
    if not instruction.here:
        return []
    text = "".join(f"{text}\n" for text, _ in instruction.here)
    # Where they are written to is named last.
    found = secret_lines(instruction.rest.split()[-1], text)
    return [StoredSecret(what, replace(place, line=instruction.here[number][1])) for what, number in found]


def _words(text: str) -> list[str]:
    return [str(word) for word in json.loads(text)] if _is_list(text) else split(text)


def _is_list(text: str) -> bool:
    """Whether it is the exec form, which is JSON; else a shell runs it."""
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _pairs(text: str) -> list[tuple[str, str]]:
    if "=" not in text.split(None, 1)[0]:
        name, _, value = text.partition(" ")
        return [(name, value.strip())]
    pairs = [word.partition("=") for word in split(text)]
    return [(name, value) for name, equals, value in pairs if equals]
