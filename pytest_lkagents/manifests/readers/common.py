"""What several formats share."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence

from pytest_lkagents.manifests.commands import COMMANDS, modes_of, runs_agent, split
from pytest_lkagents.manifests.model import Deployment, Given, Problem, Variable
from pytest_lkagents.manifests.tree import Node, Place

# Whoever has such a file beside another one does not deploy it; nor such a profile of Compose.
FOR_DEVELOPMENT = re.compile(r"(^|[._-])(dev|development|local)([._-]|$)", re.IGNORECASE)
# A folder of such files is called just so: a part of a folder's name may be an agent's (local-guide).
DEVELOPMENT_FOLDERS = {"dev", "development", "local"}
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
# Of so many ports a range is one that somebody listens on; more of them are for media.
MOST_PORTS = 100


def is_editors(file: str) -> bool:
    return EDITORS in file.split("/")


def is_for_development(file: str) -> bool:
    """Whether its own name or that of a folder says so, below what was named to be judged."""
    *folders, name = file.split("/")
    return bool(FOR_DEVELOPMENT.search(name)) or is_editors(file) or any(one.lower() in DEVELOPMENT_FOLDERS for one in folders)


def given(node: Node, *path: str | int) -> Given[str] | None:
    text = node.text(*path)
    return Given(text, node.at(*path)) if text is not None else None


def whole(node: Node, *path: str | int) -> Given[int] | None:
    number = node.number(*path)
    return Given(int(number), node.at(*path)) if number is not None else None


def ports_of(nodes: Sequence[Node], *path: str) -> list[int]:
    """The numbers at a path of each, as ports are written."""
    return [int(number) for node in nodes if (number := node.number(*path))]


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


def line_of(node: Node | None) -> list[str]:
    """A command's words: a list, or a line, which the platform takes apart as a shell does."""
    if node is None:
        return []
    text = node.text()
    return split(text) if text is not None else node.words() or []


def words_of(container: Node) -> list[str]:
    """Command and arguments, as pods and what follows them write these."""
    return (container.words("command") or []) + (container.words("args") or [])


def command_of(container: Node) -> Given[list[str]] | None:
    """At its arguments where the agent's command stands there, or where they are all that there is."""
    own, words = container.words("command") or [], words_of(container)
    in_arguments = modes_of(own) != modes_of(words) or (_names_command(words) and not _names_command(own))
    return Given(words, container.at("args" if in_arguments or not own else "command")) if words else None


def _names_command(words: Sequence[str]) -> bool:
    return any(part in COMMANDS for word in words for part in split(word))


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


def from_above(file: str, path: str) -> list[str]:
    """Where a path that stands in this file leads from the folders above its own, the nearest first: one of them is the
    repository's top."""
    folder, found = posixpath.dirname(file), []
    while folder not in ("", "/"):
        folder = posixpath.dirname(folder)
        found.append(posixpath.normpath(posixpath.join(folder, path)))
    return found


def has_livekit(variables: Sequence[Variable]) -> bool:
    """Whether these are variables of something that works with LiveKit."""
    return any(variable.name.startswith("LIVEKIT_") or "livekit" in (variable.source or "").lower() for variable in variables)


def worker_container(
    containers: Sequence[Node], variables: Callable[[Node], list[Variable]], words: Callable[[Node], list[str]]
) -> Node:
    """Of several the worker's: the one with LiveKit's variables, or that runs an agent, or the first."""
    for container in containers:
        if has_livekit(variables(container)):
            return container
    return next((container for container in containers if runs_agent(words(container))), containers[0])
