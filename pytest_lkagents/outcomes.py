"""From what happened in a check's test function to its result, and to what pytest shows of it."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_lkagents.checks import (
    TRIED_AGAIN,
    Check,
    Evidence,
    NotJudgeable,
    StageError,
    Waiver,
    WorkerFailed,
    WorkerFault,
    packaged_folder,
)
from pytest_lkagents.report import terminal, words
from pytest_lkagents.secrets import Redactor
from pytest_lkagents.verdict import ERROR, FAIL, MUST, PASS, SHOULD, SKIP, WAIVED, CheckResult

# How pytest-timeout ends a test, up to 2.3 and since 2.4; a check's own words may begin likewise.
TIMED_OUT = re.compile(r"Timeout (>\S+s|\(>\S+s\) from pytest-timeout\.)")
# A longer line is cut: after secrets were taken out, of which a part would be shown else.
LINE_LENGTH = 400
# So much of each half may go, to cut between words.
LONGEST_WORD = 40
# The check that answers for a worker which never gets as far as the others need it, and the one for a worker that serves
# no call.
GATE = "registration.registers"
JOINS = "jobs.joins"


def judge(
    check: Check,
    error: BaseException | None,
    evidence: Evidence,
    seconds: float,
    *,
    when: str = "call",
    accepted: bool = False,
) -> CheckResult:
    """The result of one check from the exception that ended it (None: it ended well). ``when``: in its test function
    (``call``), or in the ``setup`` or ``teardown`` of its fixtures. ``accepted``: its failure would be waived, so that it
    cannot report for others what the worker failed at."""
    status, summary = _status(check, error, evidence, when=when, accepted=accepted)
    failed = error if isinstance(error, WorkerFailed) and status == FAIL else None
    return CheckResult(
        check.id,
        evidence.severity or check.severity,
        status,
        summary,
        seconds,
        dict(evidence),
        (failed or check).remedy or None,
        check.doc,
        (failed or check).why or None,
        unready=isinstance(error, WorkerFault) and status == SKIP,
        fault=status == FAIL and check.id in (GATE, JOINS) and _is_fault(error),
    )


def _is_fault(error: BaseException | None) -> bool:
    """Whether it is a fault of the worker, or was raised for one."""
    while error is not None and not isinstance(error, WorkerFault):
        error = error.__cause__ or error.__context__
    return error is not None


def _status(check: Check, error: BaseException | None, evidence: Evidence, *, when: str, accepted: bool) -> tuple[str, str]:
    if error is None:
        if not evidence.keys() - {TRIED_AGAIN}:
            return ERROR, "the check recorded no evidence"
        return PASS, evidence.summary or check.title
    message = str(error).strip() or type(error).__name__
    first, _, rest = message.partition("\n")
    # pytest's rewriting appends the expression; the message says it better.
    rest = rest.partition("\nassert ")[0] if not rest.startswith("assert ") else ""
    if rest:
        evidence.setdefault("details", rest)
    binding = (evidence.severity or check.severity) == MUST
    if isinstance(error, WorkerFailed) and binding and not accepted and error.blame.check in (None, check.id):
        error.blame.check = check.id
        return FAIL, first
    if isinstance(error, WorkerFault):
        return (FAIL, first) if check.id == GATE else (SKIP, f"the worker was not ready for this check: {first}")
    if isinstance(error, (NotJudgeable, pytest.skip.Exception)):
        return SKIP, first
    if isinstance(error, StageError):
        return ERROR, first
    if isinstance(error, pytest.fail.Exception) and TIMED_OUT.fullmatch(message):
        return ERROR, f"not judged within the check's own limit: {first}"
    if isinstance(error, AssertionError) and _is_ours(error):
        return ERROR, f"{type(error).__name__} in this plugin or a library: {first}"
    if isinstance(error, (AssertionError, pytest.fail.Exception)):
        said = first.removeprefix("AssertionError: ")
        # Fixtures may be anybody's, such as one of a conftest that is there for every test.
        return (FAIL, said) if when == "call" else (ERROR, f"a fixture failed in {when}: {said}")
    return ERROR, f"{type(error).__name__}: {first}"


def _is_ours(error: AssertionError) -> bool:
    """Whether it is no packaged check that says so, but something deeper down. Users' checks may have their words about a
    worker in libraries."""
    files = [Path(frame.f_code.co_filename).resolve() for frame, _ in traceback.walk_tb(error.__traceback__)]
    of_suites = [packaged_folder() in file.parents for file in files]
    return any(of_suites) and not of_suites[-1]


def doubted(result: CheckResult, why: str | None) -> CheckResult:
    """The same result, but no failure where this machine may be the reason, in words."""
    if result.status != FAIL or why is None:
        return result
    return replace(result, status=ERROR, summary=f"{why}; seen: {result.summary}")


def waiver_of(check_id: str, waivers: Sequence[Waiver], today: dt.date) -> Waiver | None:
    return next((waiver for waiver in waivers if waiver.covers(check_id, today)), None)


def waived(result: CheckResult, waivers: Sequence[Waiver], today: dt.date) -> CheckResult:
    """The same result, waived if it failed and there is a waiver that covers it. Of one that did so earlier its end is said."""
    if result.status != FAIL:
        return result
    if (waiver := waiver_of(result.id, waivers, today)) is not None:
        until = f", until {waiver.until}" if waiver.until else ""
        return replace(result, status=WAIVED, summary=f"waived ({waiver.reason}{until}): {result.summary}")
    ended = [waiver.until for waiver in waivers if waiver.check == result.id and waiver.until is not None]
    return replace(result, summary=f"{result.summary}; its waiver expired on {max(ended)}") if ended else result


def redacted(result: CheckResult, redactor: Redactor) -> CheckResult:
    # Through JSON: evidence that cannot be written to the verdict fails here, where the check can still be named.
    try:
        evidence = json.loads(json.dumps(redactor.fields(_finite(result.evidence)), default=str))
        return replace(result, summary=_shortened(redactor.text(result.summary)), evidence=_shortened(evidence))
    except (TypeError, ValueError, RecursionError) as error:
        reason = f"the check's evidence is no JSON data: {type(error).__name__}: {error}"
        return replace(result, status=ERROR, summary=redactor.text(reason), evidence={})


def _shortened(data: Any) -> Any:
    """The same in lines of bearable length; a traceback in one line says most at its end."""
    if isinstance(data, dict):
        return {name: _shortened(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_shortened(value) for value in data]
    if not isinstance(data, str) or len(data) <= LINE_LENGTH:
        return data
    return "\n".join(line if len(line) <= LINE_LENGTH else _without_middle(line) for line in data.split("\n"))


def _without_middle(line: str) -> str:
    half = LINE_LENGTH // 2
    head, tail = line[:half], line[-half:]
    end = head.rfind(" ") if " " in head[-LONGEST_WORD:] else half
    begin = tail.find(" ", 0, LONGEST_WORD) + 1
    return f"{head[:end]} ... {tail[begin:]}"


def _finite(data: Any) -> Any:
    """The same without numbers that JSON does not have, which are told in words."""
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return str(data) if isinstance(data, float) and not math.isfinite(data) else data


def present(
    report: pytest.TestReport, result: CheckResult, *, strict: bool, where: tuple[str, int | None, str], command: str
) -> None:
    """Make pytest's report say the same: what is not binding is shown as an expected failure, what could not be
    judged for lack of something as a skip. ``command``: what was typed, without what selects checks."""
    if result.status == PASS:
        return
    if result.status == SKIP:
        report.outcome = "skipped"
        report.longrepr = (where[0], (where[1] or 0) + 1, f"Skipped: {words.readable(result.summary)}")
        return
    binding = (MUST, SHOULD) if strict else (MUST,)
    if result.status == WAIVED or result.severity not in binding:
        report.outcome = "skipped"
        report.wasxfail = f"{result.severity} {words.readable(result.summary)}"
    else:
        report.outcome = "failed"
    report.longrepr = "\n".join([*terminal.explain(result), f"again: {words.again(command, result)}"])
