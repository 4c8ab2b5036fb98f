"""The verdict on the terminal: a line per check while they run, and at the end what to know and to do."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable

from pytest_lkagents.report import words
from pytest_lkagents.verdict import ERROR, FAIL, MUST, PASS, SKIP, WAIVED, CheckResult, Verdict

Line = tuple[str, str | None]

MARKS = {PASS: "pass", FAIL: "FAIL", SKIP: "skip", WAIVED: "waived", ERROR: "ERROR"}
COLOURS = {PASS: "green", FAIL: "red", SKIP: "yellow", WAIVED: "yellow", ERROR: "red"}
MARK_COLUMNS = 7
# What a failure shows of the wire, and of each other value; the verdict has more, and --lk-report all of it.
TRANSCRIPT_LINES = 12
VALUE_CHARACTERS = 400


def progress(check: CheckResult, width: int, right: str) -> Line:
    """One line of ``width`` columns: result and summary, as much as fits, and ``right`` at its end."""
    left = f"{MARKS[check.status]:{MARK_COLUMNS}}{check.id}: {words.flat(check.summary)}"
    room = max(width - len(right) - 2, 20)
    return f"{_cut(left, room):{room}} {right}".rstrip(), _colour(check)


def explain(check: CheckResult) -> list[str]:
    """What was promised and seen, why it matters and how to mend it, a few lines."""
    head = f"{check.id} ({check.severity}): " + ("could not be judged: " if check.status == ERROR else "")
    lines = [head + check.summary]
    details = check.evidence.get("details")
    if details:
        lines += ["", str(details)]
    for name, value in check.evidence.items():
        if name == "transcript" and isinstance(value, list):
            shown = value if len(value) <= TRANSCRIPT_LINES else [*value[:TRANSCRIPT_LINES], "..."]
            lines += ["  transcript:", *(f"    {line}" for line in shown)]
        elif name != "details" and not name.startswith(words.SERIES):
            shown_value = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines.append(_cut(f"  {name}: {shown_value}", VALUE_CHARACTERS))
    if check.status != ERROR:
        lines += [f"why it matters: {check.why}"] if check.why else []
        lines += [f"how to fix it: {check.remedy}"] if check.remedy else []
        lines += [f"see: {check.doc}"] if check.doc else []
    return [words.readable(line) for line in lines]


def lines(verdict: Verdict, width: int, *, whole: bool) -> list[Line]:
    """By the guide's sections. ``whole``: every check; otherwise, as they were shown before, those that did not pass."""
    rows: list[Line] = []
    for section, checks in words.by_section(verdict.checks).items():
        rows.append((f"{section}: {words.counts_of(checks)}", None))
        for check in checks:
            if whole or check.status != PASS:
                rows += _entry(verdict, check, width)
            card = check.evidence.get("card")
            rows += (
                [(f"{'':{MARK_COLUMNS}}{words.readable(str(text))}", None) for text in card] if isinstance(card, list) else []
            )
    return rows


def _entry(verdict: Verdict, check: CheckResult, width: int) -> list[Line]:
    head = f"{MARKS[check.status]:{MARK_COLUMNS}}{check.severity:7}{check.id}  {check.seconds:.1f} s  "
    summary = words.flat(check.summary)
    if check.status == PASS:
        return [(_cut(head + summary, width), _colour(check))]
    rows: list[Line] = []
    if len(head) + len(summary) <= width:
        rows.append((head + summary, _colour(check)))
    else:
        rows.append((head.rstrip(), _colour(check)))
        rows += [(line, None) for line in _indented(summary, width)]
    if check.status == FAIL and check.severity != MUST:
        # A MUST is explained among pytest's failures.
        for name, text in (("why it matters", check.why), ("how to fix it", check.remedy)):
            rows += [(line, None) for line in _indented(f"{name}: {text}", width) if text]
    if check.status in (FAIL, ERROR):
        # In one piece, however long, to be copied.
        rows.append((f"{'':{MARK_COLUMNS}}again: {words.again(verdict.command, check)}", None))
    return rows


def closing(verdict: Verdict) -> str:
    """One line: the verdict, the counts, and the wall time beside the floor."""
    time = f"{verdict.duration_s:.1f} s"
    if verdict.floor_s is not None:
        time += f" (floor {verdict.floor_s:.1f} s)"
    return f"verdict: {verdict.verdict} for {verdict.subject.name} ({words.counts(verdict)}) in {time}"


def show(verdict: Verdict, write_line: Callable[[str, str | None], None], width: int, *, whole: bool) -> None:
    for line, colour in lines(verdict, width, whole=whole):
        write_line(line, colour)
    colour = {PASS: "green", FAIL: "red", ERROR: "red"}[verdict.verdict]
    write_line(words.readable(closing(verdict)), colour)
    write_line(words.readable(words.decision(verdict)), colour)


def _colour(check: CheckResult) -> str:
    return "yellow" if check.status == FAIL and check.severity != MUST else COLOURS[check.status]


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: columns - 3] + "..."


def _indented(text: str, width: int) -> list[str]:
    return wrapped(text, " " * MARK_COLUMNS, width)


def wrapped(text: str, indent: str, width: int) -> list[str]:
    """In lines of at most ``width`` columns, or 40."""
    text = words.readable(text)
    return textwrap.wrap(text, max(width, 40), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
