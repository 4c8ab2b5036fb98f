"""The verdict as Markdown, for the summary of a CI step (GITHUB_STEP_SUMMARY) and for a pull request's comment."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

from pytest_lkagents.report import words
from pytest_lkagents.verdict import ERROR, FAIL, WAIVED, CheckResult, Verdict

NAME = "summary.md"
# GitHub refuses a summary above 1 MiB; a line of evidence that is longer is not read there.
LONGEST = 300
TRANSCRIPT_LINES = 6
# What makes a heading, a quotation or a list of a line that begins with it.
BLOCK = re.compile(r"^(?:\d+(?=[.)](?: |$))|(?=>|[-#+=]+(?: |$)))")


def render(verdict: Verdict, worse: Sequence[str] | None = None) -> str:
    """``worse``: what got worse since an earlier verdict; None: there was none to compare with."""
    lines = [f"## LiveKit agent: {verdict.verdict}", "", _escaped(words.decision(verdict)), ""]
    for line in words.unsaid(verdict):
        lines += [_escaped(line), ""]
    lines += [f"{words.counts(verdict)}; profile {verdict.profile}, {verdict.duration_s:.0f} s", ""]
    for check in verdict.checks:
        if check.status in (FAIL, ERROR, WAIVED):
            lines += _failed(verdict, check)
    if worse is not None:
        lines += ["### Compared with the earlier verdict", ""]
        lines += [*(f"- {_escaped(line)}" for line in worse), ""] if worse else ["Nothing got worse.", ""]
    for section, checks in words.by_section(verdict.checks).items():
        lines += [
            f"<details><summary>{html.escape(section)}: {len(checks)}</summary>",
            "",
            "| | | check | |",
            "|---|---|---|---|",
        ]
        lines += [f"| {check.status} | {check.severity} | `{check.id}` | {_cell(check.summary)} |" for check in checks]
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def _failed(verdict: Verdict, check: CheckResult) -> list[str]:
    lines = [f"### `{check.id}` ({check.severity}): {check.status}", "", _cell(check.summary), ""]
    for name, value in check.evidence.items():
        if name == "transcript" and isinstance(value, list):
            shown = [words.flat(str(line)) for line in value[:TRANSCRIPT_LINES]]
            fence = _fence("\n".join(shown), 3)
            lines += [fence, *shown, fence]
        elif isinstance(value, (str, int, float, bool)):
            lines.append(f"- {_cell(name)}: {_cell(str(value))}")
        elif value is not None and not name.startswith(words.SERIES):
            lines.append(f"- {_cell(name)}: {_code(_cut(json.dumps(value, ensure_ascii=False)))}")
    if check.why and check.status != ERROR:
        lines += ["", f"Why it matters: {_escaped(check.why)}"]
    if check.remedy and check.status != ERROR:
        lines += ["", f"How to fix it: {_escaped(check.remedy)}"]
    if check.doc:
        lines += ["", f"[The guide]({check.doc})"]
    return [*lines, "", f"Again: {_code(words.again(verdict.command, check))}", ""]


def _cell(text: str) -> str:
    """One line of a table, as much of it as is read there."""
    return _escaped(_cut(words.flat(text)))


def _escaped(text: str) -> str:
    """One line with nothing in it that ends a table's cell, or begins a tag, a link, a picture, a formula or a list."""
    flat = words.flat(text).replace("&", "&amp;")
    for sign in ("\\", "|", "`", "*", "_", "[", "!", "~", "$"):
        flat = flat.replace(sign, f"\\{sign}")
    return BLOCK.sub(r"\g<0>\\", flat).replace("<", "&lt;")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _fence(text: str, least: int) -> str:
    """Backticks that do not end within the text."""
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])


def _code(text: str) -> str:
    text = words.readable(text).replace("\n", " ")
    fence = _fence(text, 1)
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def write(verdict: Verdict, path: Path, worse: Sequence[str] | None, *, append: bool = False) -> None:
    """Raises OSError."""
    with path.open("a" if append else "w", encoding="utf-8", errors=words.NO_TEXT) as file:
        file.write(render(verdict, worse))
