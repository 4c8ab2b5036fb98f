"""What several formats share."""

from __future__ import annotations

import itertools
import posixpath
import re
import shlex
from collections.abc import Callable, Sequence

from pytest_lkagents.manifests.model import Deployment, Given, Problem, Variable
from pytest_lkagents.manifests.tree import Node, Place

# Whoever has such a file beside another one does not deploy it; nor such a profile of Compose.
FOR_DEVELOPMENT = re.compile(r"(^|[._-])(dev|development|local)([._-]|$)", re.IGNORECASE)
# Of an editor's container, which nobody rolls out, whatever its files are called: https://containers.dev
EDITORS = ".devcontainer"
STAGES = {
    "staging": re.compile(r"(^|[^a-z])(stag(e|ing)|test|dev|development|qa|preview)([^a-z]|$)"),
    "production": re.compile(r"(^|[^a-z])(prod|production|live)([^a-z]|$)"),
}
# Of a file's path so many parts: what is above them is where somebody keeps the project.
PATH_PARTS = 3
# A value that the deployment's tooling fills in.
VARIABLE = re.compile(r"\$\{?[A-Za-z_]|\$\(|\{\{")
# ... and what Compose takes where it does not.
FALLBACK = re.compile(r"\$\{\w+:?-([^${}]+)\}")


# What is to be filled in is marked by a sign, or written in capitals.
PLAIN = re.compile(r"(?=.*[a-z0-9])[a-z0-9.]+([ -][a-z0-9.]+)*|\d+(\.\d+)? ?[A-Za-z]{1,3}")


def is_editors(file: str) -> bool:
    return EDITORS in file.split("/")


def given(node: Node, *path: str | int) -> Given[str] | None:
    text = node.text(*path)
    return Given(text, node.at(*path)) if text is not None else None


def whole(node: Node, *path: str | int) -> Given[int] | None:
    number = node.number(*path)
    return Given(int(number), node.at(*path)) if number is not None else None


def ports_of(nodes: Sequence[Node], *path: str) -> list[int]:
    """The numbers at a path of each, as ports are written."""
    return [int(number) for node in nodes if (number := node.number(*path))]


# Of so many ports a range is one that somebody listens on; more of them are for media.
MOST_PORTS = 100


def range_of(text: str) -> list[int]:
    """``8081``, ``8081/tcp`` or ``8080-8089`` as numbers; none of what is not in the file."""
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?(?:/\w+)?", text)
    if found is None:
        return []
    return list(range(int(found[1]), int(found[2] or found[1]) + 1))[:MOST_PORTS]


def doubt(made: Deployment, field: str, value: object, node: Node, *path: str | int, wanted: str = "") -> None:
    """Where something stands that is no such value, nothing is known of the field, not even that a default holds. It is a
    problem of its own where it is plain words or an amount, which nobody fills in."""
    if value is not None or node.get(*path) is None:
        return
    text = node.text(*path)
    if text is not None and PLAIN.fullmatch(text):
        made.unclear.setdefault(field, Given(f"{text!r} is no such value", node.at(*path)))
        made.problems.append(
            Problem(node.at(*path), f"{text!r} is no value that the platform takes here{wanted and f'; {wanted}'}")
        )
    else:
        made.unclear.setdefault(field, Given("its value is not in the file", node.at(*path)))


def environment_of(*names: str | None) -> str:
    """ "staging" or "production", as the first says that says one of the two, else nothing."""
    for name in names:
        text = "/".join((name or "").lower().split("/")[-PATH_PARTS:])
        said = [stage for stage, pattern in STAGES.items() if pattern.search(text)]
        if len(said) == 1:
            return said[0]
    return ""


def variables_of(node: Node, *path: str | int) -> list[Variable]:
    """A mapping NAME: value, or a list of NAME=value; a NAME alone takes its value from outside."""
    found = [_variable(name, value.place, value.text()) for name, value in node.entries(*path)]
    for entry in node.items(*path):
        name, equals, value = (entry.text() or "").partition("=")
        if name:
            found.append(_variable(name, entry.place, value if equals else None))
    return found


def _variable(name: str, place: Place, text: str | None) -> Variable:
    fallback = FALLBACK.fullmatch(text or "")
    return Variable(name, place, None if from_outside(text) else text, fallback=fallback[1] if fallback else None)


def words_of(container: Node) -> list[str]:
    """Command and arguments, as pods and what follows them write these."""
    return (container.words("command") or []) + (container.words("args") or [])


def command_of(container: Node) -> Given[list[str]] | None:
    words = words_of(container)
    return Given(words, container.at("command" if container.get("command") else "args")) if words else None


def env_of(container: Node, *source: str) -> list[Variable]:
    """The list ``env`` of a container; ``source`` is where an entry names the store's."""
    return [
        Variable(
            entry.text("name") or "",
            entry.at("value"),
            None if from_outside(entry.text("value")) else entry.text("value"),
            entry.text(*source),
        )
        for entry in container.items("env")
    ]


def within(made: Deployment, field: str, node: Node, *path: str, most: int) -> Given[int] | None:
    """A number from 1 on. Another one is refused, or 0 taken for nothing: then it is not known what holds."""
    found = whole(node, *path)
    doubt(made, field, found, node, *path)
    if found is None or 1 <= found.value <= most:
        return found
    made.unclear.setdefault(field, Given(f"{found.value} is no such value", found.place))
    reason = f"{found.value} is no value that the platform takes here; 1 to {most} are"
    made.problems.append(Problem(found.place, reason))
    return None


def grace_within(made: Deployment, node: Node, *path: str) -> None:
    """Its grace period, where the platform refuses one above its most."""
    found = within(made, "grace_s", node, *path, most=int(made.platform.grace_most_s or 0))
    made.grace_s = Given(float(found.value), found.place) if found is not None else None


def from_outside(value: str | None) -> bool:
    return value is None or bool(VARIABLE.search(value))


def beside(file: str, *parts: str | None) -> str:
    """A path that stands in this file, relative to it, as files are named here."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(file), *(part for part in parts if part)))


ASSIGNED = re.compile(r"-{0,2}([A-Za-z][\w-]*)=(.+)", re.DOTALL)
FLAG = re.compile(r"--([A-Za-z][\w-]*)")


def told_in(words: Sequence[str]) -> list[tuple[str, str]]:
    """What a command says of its own: NAME=value, --name=value and --name value, as (NAME, value)."""
    parts = [part for word in words for part in split(word)]
    found = []
    for part, after in itertools.pairwise([*parts, "-"]):
        assigned, flag = ASSIGNED.fullmatch(part), FLAG.fullmatch(part)
        if assigned is not None:
            found.append((assigned[1], assigned[2]))
        elif flag is not None and not after.startswith("-"):
            found.append((flag[1], after))
    return [(name.replace("-", "_").upper(), value) for name, value in found]


def split(text: str) -> list[str]:
    """A line of a shell as words, as far as it can be taken apart."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


# -- Which of several containers or processes is the worker's

# The commands of both SDKs that are not for production, and all of them.
DEVELOPMENT = {"dev", "console", "connect"}
COMMANDS = {"start", *DEVELOPMENT}
SCRIPT = re.compile(r"\.(py|[cm]?[jt]s)$")
AGENT = re.compile(r"(^|[^a-z])agents?([^a-z]|$)")
WORKER = re.compile(r"(^|[^a-z])workers?([^a-z]|$)")


def has_livekit(variables: Sequence[Variable]) -> bool:
    """Whether these are variables of something that works with LiveKit."""
    return any(variable.name.startswith("LIVEKIT_") or "livekit" in (variable.source or "").lower() for variable in variables)


def runs_agent(words: Sequence[str]) -> bool:
    """Whether a command is one of an agent's: ``python agent.py``, ``python -m livekit.agents``, ``node main.js start``."""
    parts = [part for word in words for part in word.split()]
    if any("agent.py" in part for part in parts):
        return True
    return any(
        behind in COMMANDS and (SCRIPT.search(what) or (before == "-m" and AGENT.search(what.lower())))
        for before, what, behind in zip(["", *parts], parts, parts[1:], strict=False)
    )


# What runs a script by its name in package.json, and passes on what stands behind it.
SCRIPT_RUNNERS = {"npm", "pnpm", "yarn"}
# What a shell puts between two commands.
BETWEEN = re.compile(r"[;&|\n]+")


# What makes it depend on something else which of several commands a shell comes to, and what ends it there.
CONDITIONS = {"if", "elif", "case", "while", "until", "[", "[[", "test", "exec"}
# What may stand before it, and the option by which a shell is given its line.
OPENING = {"", "!", "do", "then", "else", "time"}
FOR_SHELL = re.compile(r"-[a-z]*c")
SHELL = re.compile(r"(^|/)(ba|da|a|z)?sh$")


def modes_of(words: Sequence[str]) -> set[str]:
    """Which of COMMANDS a command gives the agent: directly behind a script or module, or first of all (for an image's
    entrypoint), and of several commands of a shell the last that has one. None: it does not tell. Several: a condition
    decides."""
    commands: list[list[str]] = [[]]
    for word in words:
        for number, piece in enumerate(BETWEEN.split(word)):
            commands += [[]] if number else []
            commands[-1] += split(piece)
    modes = [mode for command in commands if (mode := _mode(command)) is not None]
    # The last one has nothing behind it that it could skip.
    if "||" in " ".join(words) or any(_decider(command) in CONDITIONS for command in commands[:-1]):
        return set(modes)
    return set(modes[-1:])


def _decider(command: list[str]) -> str | None:
    """The word that a shell goes by: the first, but for the shell itself and what stands before any command."""
    started = next(
        (
            number + 1
            for number, word in enumerate(command)
            if FOR_SHELL.fullmatch(word) and (number < 3 or any(map(SHELL.search, command[:number])))
        ),
        0,
    )
    if not started and "--" in command[:3]:
        started = command.index("--") + 1  # of what runs the shell's line as it is, such as tini
    return next((word.lstrip("({") for word in command[started:] if word.lstrip("({") not in OPENING), None)


def mode_of(words: Sequence[str]) -> str | None:
    """The one of COMMANDS that a command gives the agent; None: it does not tell, or a condition decides."""
    modes = modes_of(words)
    return next(iter(modes)) if len(modes) == 1 else None


def _mode(command: list[str]) -> str | None:
    if command[:1] and command[0] in COMMANDS and all(part.startswith("-") for part in command[1:2]):
        return command[0]
    found = None
    for number, part in enumerate(command):
        behind = number + 1
        if part in SCRIPT_RUNNERS:
            behind += 1 + (command[behind : behind + 1] in (["run"], ["run-script"]))
            behind += command[behind : behind + 1] == ["--"]
        elif part == "-m":
            behind += 1
        elif not SCRIPT.search(part):
            continue
        if behind < len(command) and command[behind] in COMMANDS:
            found = command[behind]
    return found


def worker_container(
    containers: Sequence[Node], variables: Callable[[Node], list[Variable]], words: Callable[[Node], list[str]]
) -> Node:
    """The one with LiveKit's variables, or that runs an agent, or the first."""
    for container in containers:
        if has_livekit(variables(container)):
            return container
    return next((container for container in containers if runs_agent(words(container))), containers[0])
