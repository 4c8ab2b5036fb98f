"""The verdict as a table on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from pytest_lkagents.verdict import ERROR, FAIL, MUST, PASS, SHOULD, SKIP, WAIVED, Verdict, in_order

MARKS = {PASS: "pass", FAIL: "FAIL", SKIP: "skip", WAIVED: "waived", ERROR: "ERROR"}
COLOURS = {PASS: "green", FAIL: "red", SKIP: "yellow", WAIVED: "yellow", ERROR: "red"}


def lines(verdict: Verdict, width: int) -> list[tuple[str, str | None]]:
    """The table as (line, colour) pairs; ``width`` is the terminal's, in columns."""
    checks = in_order(verdict.checks)
    column = max((len(check.id) for check in checks), default=0)
    rows: list[tuple[str, str | None]] = []
    for check in checks:
        colour = "yellow" if check.status == FAIL and check.severity != MUST else COLOURS[check.status]
        head = f"{MARKS[check.status]:6} {check.severity:6} {check.id:{column}} {check.seconds:6.1f} s  "
        summary = check.summary.replace("\n", " ")
        room = max(width - len(head), 40)
        rows.append((head + (summary if len(summary) <= room else summary[: room - 1] + "…"), colour))
        if check.status in (FAIL, ERROR):
            if len(summary) > room:
                rows.append((f"       {summary}", None))
            if check.remedy and check.status == FAIL:
                rows.append((f"       remedy: {check.remedy}", None))
    return rows


def closing(verdict: Verdict) -> str:
    """One line: the verdict, the counts, and the wall time beside the floor."""
    counts = Counter(check.status for check in verdict.checks)
    named = ", ".join(f"{counts[status]} {status}" for status in (FAIL, ERROR, PASS, WAIVED, SKIP) if counts[status])
    time = f"{verdict.duration_s:.1f} s"
    if verdict.floor_s is not None:
        time += f" (floor {verdict.floor_s:.1f} s)"
    soft = sum(1 for check in verdict.checks if check.status == FAIL and check.severity == SHOULD)
    note = f"; {soft} SHOULD not met" if soft and verdict.verdict == PASS else ""
    return f"verdict: {verdict.verdict} for {verdict.subject.name} ({named or 'nothing judged'}{note}) in {time}"


def show(verdict: Verdict, write_line: Callable[[str, str | None], None], width: int) -> None:
    for line, colour in lines(verdict, width):
        write_line(line, colour)
    write_line(closing(verdict), {PASS: "green", FAIL: "red", ERROR: "red"}[verdict.verdict])
