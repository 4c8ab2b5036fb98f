"""A worker's command: its words, what it says of its own, and which of the SDK's commands it gives the agent."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence

# The commands of both SDKs that are not for production, and all of them.
DEVELOPMENT = {"dev", "console", "connect"}
COMMANDS = {"start", *DEVELOPMENT}
SCRIPT = re.compile(r"\.(py|[cm]?[jt]s)$")
# As a module, process or service of one is called.
AGENT = re.compile(r"(^|[^a-z])agents?([^a-z]|$)")
WORKER = re.compile(r"(^|[^a-z])workers?([^a-z]|$)")
ASSIGNED = re.compile(r"-{0,2}([A-Za-z][\w-]*)=(.+)", re.DOTALL)
FLAG = re.compile(r"--([A-Za-z][\w-]*)")
# What runs a script by its name in package.json, and passes on what stands behind it.
SCRIPT_RUNNERS = {"npm", "pnpm", "yarn"}
# What a shell puts between two commands.
BETWEEN = re.compile(r"[;&|\n]+")
# What says or does nothing but that, and starts nothing.
NOTHING = {"echo", "printf", "sleep", "tail", "cat", "ls", "true", "false", "date"}
# What a shell passes over, and, before it, what is quoted: there a # begins no comment.
COMMENT = re.compile(r"""(\\.|'[^']*'|"(?:\\.|[^"\\])*")|(?<![^\s;&|()])#[^\n]*""", re.DOTALL)
# What makes it depend on something else which of several commands a shell comes to, and what ends it there.
CONDITIONS = {"if", "elif", "case", "while", "until", "[", "[[", "test", "exec"}
# What may stand before it, and the option by which a shell is given its line.
OPENING = {"", "!", "do", "then", "else", "time"}
FOR_SHELL = re.compile(r"-[a-z]*c")
SHELL = re.compile(r"(^|/)(ba|da|a|z)?sh$")


def split(text: str) -> list[str]:
    """A line of a shell as words, as far as it can be taken apart."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def without_comments(text: str) -> str:
    """A shell's text without its comments."""
    return COMMENT.sub(lambda found: found[1] or "", text)


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


def runs_agent(words: Sequence[str]) -> bool:
    """Whether a command is one of an agent's: ``python agent.py``, ``python -m livekit.agents``, ``node main.js start``."""
    parts = [part for word in words for part in word.split()]
    if any("agent.py" in part for part in parts):
        return True
    return any(
        behind in COMMANDS and (SCRIPT.search(what) or (before == "-m" and AGENT.search(what.lower())))
        for before, what, behind in zip(["", *parts], parts, parts[1:], strict=False)
    )


def starts_nothing(words: Sequence[str]) -> bool:
    """Whether it is certain to start no program: ``tail -f /dev/null``, as containers are kept up for who works in them."""
    text = " ".join(words)
    return not BETWEEN.search(text) and "$(" not in text and "`" not in text and _decider([*split(text)]) in NOTHING


def modes_of(words: Sequence[str]) -> set[str]:
    """Which of COMMANDS a command gives the agent: directly behind a script or module, or first of all (for an image's
    entrypoint), and of several commands of a shell the last that has one. Empty: it does not tell. Several: a condition
    decides."""
    # Of a line that was taken apart already, a comment is all that follows.
    told = [without_comments(word) for word in itertools.takewhile("#".__ne__, words)]
    commands: list[list[str]] = [[]]
    for word in told:
        for number, piece in enumerate(BETWEEN.split(word)):
            commands += [[]] if number else []
            commands[-1] += split(piece)
    # A block of a script ends with its line, and with nothing behind that.
    commands = [command for command in commands if command]
    modes = [mode for command in commands if (mode := _mode(command)) is not None]
    # The last one has nothing behind it that it could skip.
    if "||" in " ".join(told) or any(_decider(command) in CONDITIONS for command in commands[:-1]):
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
