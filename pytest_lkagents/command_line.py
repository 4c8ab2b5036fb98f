"""The user's command: its words, the program that they name, and the secrets among them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pytest_lkagents.secrets import looks_secret, url_passwords

SHELL_WORDS = {"&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1"}


class CommandError(ValueError):
    """A command that cannot be started; the message is one line and says what to do, without any value of it."""


def parse(text: str) -> tuple[str, ...]:
    """The words, as a POSIX shell would split them; nothing else of a shell is understood. Raises CommandError."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise CommandError(f"the command cannot be read: {str(error).lower()}") from None
    if not words:
        raise CommandError("the command is empty; give it as you would type it, such as 'python agent.py start'")
    if re.match(r"^[A-Za-z_][A-Za-z0-9_]*=", words[0]):
        raise CommandError("the command begins with a variable; give variables with --lk-env or --lk-env-file")
    used = SHELL_WORDS.intersection(words)
    if used:
        raise CommandError(f"the command is run without a shell, which {sorted(used)[0]!r} needs; put it into a script")
    return words


def find_program(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """The path of the program that the command names. Raises CommandError."""
    program = words[0]
    if "/" in program:
        path = folder / program
        if not path.is_file():
            raise CommandError(f"no program {program!r} in {str(folder)!r}")
        if not os.access(path, os.X_OK):
            raise CommandError(f"{program!r} is not executable; name its interpreter before it, or chmod +x it")
        return str(path)
    found = shutil.which(program, path=environment.get("PATH"))
    if found is None:
        raise CommandError(f"no program {program!r} on PATH; is the agent's environment activated?")
    return found


def secrets_in(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of the options whose name says that they hold a secret, ``--api-key VALUE`` or ``--api-key=VALUE``, and of
    the passwords in URLs."""
    for number, word in enumerate(words):
        yield from (("password", password) for password in url_passwords(word))
        name, equals, value = word.partition("=")
        bare = name.lstrip("-").replace("-", "_")
        if not looks_secret(bare):
            continue
        if equals:
            yield bare, value
        elif name.startswith("-") and number + 1 < len(words):
            yield bare, words[number + 1]
