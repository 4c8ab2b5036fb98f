"""A Dockerfile's instructions, each with where it stands."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from pytest_lkagents.manifests.model import Problem
from pytest_lkagents.manifests.tree import Place

INSTRUCTION = re.compile(r"^\s*([A-Za-z]+)\s+(.*)$", re.DOTALL)
KNOWN = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
]
# A word of its own, as BuildKit takes it (``<<<`` and ``1 << n`` are none); or what is quoted, where there is none.
HEREDOC = re.compile(r"""(?<!\S)\d*<<(-?)(?:(["'])([^"'\n]+)\2|([^\s<"']+))(?!\S)|\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
# The instructions that may have some, also where they wait for another build.
WITH_HEREDOCS = re.compile(r"(ONBUILD\s+)?(RUN|COPY|ADD)\s", re.IGNORECASE)
# What may stand before all else: https://docs.docker.com/reference/dockerfile/#parser-directives
DIRECTIVE = re.compile(r"#\s*(syntax|escape|check)\s*=\s*(.+?)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Instruction:
    name: str
    rest: str
    line: int
    # The lines that it is made of, with their numbers, and those of its here-documents.
    parts: tuple[tuple[str, int], ...] = ()
    here: tuple[tuple[str, int], ...] = ()

    @property
    def text(self) -> str:
        """With its here-documents."""
        return "\n".join([self.rest, *(text for text, _ in self.here)])

    def line_of(self, text: str) -> int:
        """The line in which this begins; its first, where none has it as it is."""
        begins = re.compile(rf"(?<!\w){re.escape(text)}")
        return next((line for part, line in self.parts if begins.search(part)), self.line)


def _is_passed_over(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _escape(lines: list[str]) -> str:
    """The sign that continues a line."""
    directives = itertools.takewhile(bool, map(DIRECTIVE.fullmatch, lines))
    return next((found[2] for found in directives if found and found[1].lower() == "escape" and found[2] == "`"), "\\")


def instructions(file: str, text: str, problems: list[Problem]) -> list[Instruction]:
    """Continued lines joined, comments left out, here-documents apart."""
    found = []
    lines = text.splitlines()
    sign = _escape(lines)
    number = 0
    while number < len(lines):
        first = number
        number += 1
        if _is_passed_over(lines[first]):
            continue
        parts = [(lines[first], number)]
        while parts[-1][0].rstrip().endswith(sign) and number < len(lines):
            parts[-1] = (parts[-1][0].rstrip()[:-1], parts[-1][1])
            while number < len(lines) and _is_passed_over(lines[number]):
                number += 1
            parts += [(line, number + 1) for line in lines[number : number + 1]]
            number += 1
        joined = " ".join(part.strip() for part, _ in parts)
        matched = INSTRUCTION.match(joined)
        name = matched[1].upper() if matched else ""
        if matched is None or name not in KNOWN:
            word = joined.split()[0][:30] if joined.split() else ""
            problems.append(Problem(Place(file, first + 1, ""), f"no Dockerfile instruction: {word!r}"))
            continue
        here: list[tuple[str, int]] = []
        if WITH_HEREDOCS.match(joined.lstrip()):
            for tabs, _, quoted, bare in HEREDOC.findall(matched[2]):
                end = quoted or bare
                ends = (at for at in range(number, len(lines)) if (lines[at].lstrip("\t") if tabs else lines[at]) == end)
                last = next(ends, None) if end else None
                if last is not None:
                    here += [(lines[at], at + 1) for at in range(number, last)]
                    number = last + 1
        found.append(Instruction(name, matched[2].strip(), first + 1, tuple(parts), tuple(here)))
    return found
