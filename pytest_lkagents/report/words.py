"""What all forms of the report say alike: the decision, what to type to see one check again, the guide's sections."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable

from pytest_lkagents.verdict import ERROR, FAIL, MUST, PASS, SEEN_BESIDE, SHOULD, SKIP, WAIVED, CheckResult, Verdict, in_order

# Evidence of which the page draws curves: [seconds, value, ...] rows, with the values' names in the key.
SERIES = "series_s_"
ORDER = (FAIL, ERROR, PASS, WAIVED, SKIP)
OTHER = "Other"
# What a terminal obeys (ECMA-48): colours and the like, titles, and signs of one letter; and whatever else is no text.
SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]")
# Halves of signs, as names of files may have, cannot be written otherwise.
NO_TEXT = "backslashreplace"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def readable(text: str) -> str:
    """What a worker wrote, without what it would do to a terminal or a page."""
    return CONTROL.sub("?", SEQUENCE.sub("", text).replace("\r", " "))


def flat(text: str) -> str:
    """The same in one line."""
    return " ".join(readable(text).split())


def decision(verdict: Verdict) -> str:
    """One sentence: may it be rolled out?"""
    name = verdict.subject.name
    musts = [check.id for check in verdict.checks if check.status == FAIL and check.severity == MUST]
    soft = [check.id for check in verdict.checks if check.status == FAIL and check.severity != MUST]
    if verdict.verdict == FAIL:
        broken = musts or [check.id for check in verdict.checks if check.status == FAIL and check.severity == SHOULD]
        return f"{name} must not be rolled out: {_some(broken)} failed."
    if verdict.verdict == ERROR:
        doubtful = [check.id for check in verdict.checks if check.status == ERROR]
        why = f"{_some(doubtful)} could not be judged" if doubtful else verdict.broken or "nothing was judged"
        return f"{name} is neither cleared nor rejected: {why}" + ("" if why.endswith((".", "?", "!")) else ".")
    skipped = [check.id for check in verdict.checks if check.status == SKIP and check.severity == MUST]
    waived = [check.id for check in verdict.checks if check.status == WAIVED]
    accepted = f"; waived: {_some(waived)}" if waived else ""
    mended = f"; {_some(soft)} should be mended" if soft else ""
    unknown = f"; {_some(skipped)} could not be judged" if skipped else ""
    partly = f"; {left_out(verdict.left_out)}" if verdict.left_out else ""
    return f"{name} may be rolled out{accepted}{mended}{unknown}{partly}."


def unsaid(verdict: Verdict) -> list[str]:
    """Why less was judged than was asked for, as far as the decision does not say it."""
    known = [f"not complete: {verdict.broken}"] if verdict.broken and verdict.broken not in decision(verdict) else []
    partly = left_out(verdict.left_out) if verdict.left_out else ""
    return known + ([partly] if partly and partly not in decision(verdict) else [])


def left_out(checks: int) -> str:
    return f"{checks} checks were left out" if checks != 1 else "1 check was left out"


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


def counts(verdict: Verdict) -> str:
    """Such as "1 fail, 36 pass, 1 skip"."""
    named = counts_of(verdict.checks)
    soft = sum(1 for check in verdict.checks if check.status == FAIL and check.severity == SHOULD)
    note = f"; {soft} SHOULD not met" if soft and verdict.verdict == PASS else ""
    return f"{named or 'nothing judged'}{note}"


def counts_of(checks: Iterable[CheckResult]) -> str:
    """Such as "1 fail, 36 pass"."""
    found = Counter(check.status for check in checks)
    return ", ".join(f"{found[status]} {status}" for status in ORDER if found[status])


def again(command: str, check: CheckResult) -> str:
    """The command that runs only this check, with those beside or after which it saw what it judges; ``command``: what was
    typed, without what selects checks."""
    if check.node is not None:
        return f"{command} {shlex.quote(check.node)}"
    beside = check.evidence.get(SEEN_BESIDE)
    return f"{command} --lk-suite {check.id}" + (f",{beside}" if beside else "")


def by_section(checks: Iterable[CheckResult]) -> dict[str, list[CheckResult]]:
    """By the guide's section, as the address of its documentation names it; both in order."""
    found: dict[str, list[CheckResult]] = {}
    for check in in_order(checks):
        slug = (check.doc or "").partition("#")[2]
        found.setdefault(slug.replace("-", " ").capitalize() or OTHER, []).append(check)
    return dict(sorted(found.items(), key=lambda entry: (entry[0] == OTHER, entry[0])))
