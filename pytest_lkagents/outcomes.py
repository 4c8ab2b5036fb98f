"""From what happened in a check's test function to its result, and to what pytest shows of it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest

from pytest_lkagents.checks import Check, Evidence, NotJudgeable, StageError, Waiver, WorkerFault
from pytest_lkagents.secrets import Redactor
from pytest_lkagents.verdict import ERROR, FAIL, MUST, PASS, SKIP, WAIVED, CheckResult

# The check that answers for a worker which never gets as far as the others need it.
GATE = "registration.registers"
# What a failure shows of the wire; the verdict has more, and --lk-report all of it.
TRANSCRIPT_LINES = 12


def judge(check: Check, error: BaseException | None, evidence: Evidence, seconds: float) -> CheckResult:
    """The result of one check from the exception that ended it (None: it ended well)."""
    status, summary = _status(check, error, evidence)
    return CheckResult(
        check.id,
        check.severity,
        status,
        summary,
        seconds,
        dict(evidence),
        check.remedy or None,
        check.doc,
    )


def _status(check: Check, error: BaseException | None, evidence: Evidence) -> tuple[str, str]:
    if error is None:
        if not evidence:
            return ERROR, "the check recorded no evidence"
        return PASS, evidence.summary or check.title
    message = str(error).strip() or type(error).__name__
    first, _, rest = message.partition("\n")
    # pytest's rewriting appends the expression; the message says it better.
    rest = rest.partition("\nassert ")[0] if not rest.startswith("assert ") else ""
    if rest:
        evidence.setdefault("details", rest)
    if isinstance(error, WorkerFault):
        return (FAIL, first) if check.id == GATE else (SKIP, f"the worker was not ready for this check: {first}")
    if isinstance(error, (NotJudgeable, pytest.skip.Exception)):
        return SKIP, first
    if isinstance(error, StageError):
        return ERROR, first
    if isinstance(error, pytest.fail.Exception) and first.startswith("Timeout"):
        return ERROR, f"not judged within the check's own limit of {check.seconds:g} s"
    if isinstance(error, (AssertionError, pytest.fail.Exception)):
        return FAIL, first.removeprefix("AssertionError: ")
    return ERROR, f"{type(error).__name__}: {first}"


def waived(result: CheckResult, waivers: Sequence[Waiver], today: dt.date) -> CheckResult:
    """The same result, waived if it failed and a waiver covers it."""
    if result.status != FAIL:
        return result
    for waiver in waivers:
        if waiver.covers(result.id, today):
            return CheckResult(**{**asdict(result), "status": WAIVED, "summary": f"waived ({waiver.reason}): {result.summary}"})
    return result


def redacted(result: CheckResult, redactor: Redactor) -> CheckResult:
    # Through JSON: evidence that cannot be written to the verdict fails here, where the check can still be named.
    return CheckResult(**json.loads(json.dumps(redactor.data(asdict(result)), default=str)))


def present(report: pytest.TestReport, result: CheckResult, *, strict: bool, where: tuple[str, int | None, str]) -> None:
    """Make pytest's report say the same: what is not binding is shown as an expected failure, what could not be
    judged for lack of something as a skip."""
    if result.status == PASS:
        return
    if result.status == SKIP:
        report.outcome = "skipped"
        report.longrepr = (where[0], (where[1] or 0) + 1, f"Skipped: {result.summary}")
        return
    if result.status == WAIVED or (result.severity != MUST and not strict):
        report.outcome = "skipped"
        report.wasxfail = f"{result.severity} {result.summary}"
    else:
        report.outcome = "failed"
    report.longrepr = explain(result)


def explain(result: CheckResult) -> str:
    """A few lines instead of a traceback: what was promised and seen, and how to mend it."""
    head = f"{result.id} ({result.severity}): " + ("could not be judged: " if result.status == ERROR else "")
    lines = [head + result.summary]
    details: Any = result.evidence.get("details")
    if details:
        lines += ["", str(details)]
    for name, value in result.evidence.items():
        if name == "transcript" and isinstance(value, list):
            shown = value if len(value) <= TRANSCRIPT_LINES else [*value[:TRANSCRIPT_LINES], "..."]
            lines += ["  transcript:", *(f"    {line}" for line in shown)]
        elif name != "details":
            lines.append(f"  {name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"[:1000])
    if result.status != ERROR:
        lines += [f"remedy: {result.remedy}"] if result.remedy else []
        lines += [f"see: {result.doc}"] if result.doc else []
    return "\n".join(lines)
