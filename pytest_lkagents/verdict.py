"""The verdict of a run: what was judged, on which stage, with which result. Version 1 of the JSON contract."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

VERSION = 1

MUST = "MUST"
SHOULD = "SHOULD"
INFO = "INFO"
SEVERITIES = (MUST, SHOULD, INFO)

PASS = "pass"  # noqa: S105 - a status, not a password
FAIL = "fail"
SKIP = "skip"
WAIVED = "waived"
ERROR = "error"

# In a check's evidence: the id of another one, without which what it judges is not looked at, or the ids (with commas) of those
# that had its worker before, which may have a part in its failure.
SEEN_BESIDE = "seen_beside"
# From best to worst. What was skipped is not known to be worse than what passes, but it is no longer shown.
RANKS = {PASS: 0, WAIVED: 1, SKIP: 2, ERROR: 3, FAIL: 4}
NOT_IN_JSON = ("why", "unready", "fault", "node")


@dataclass(frozen=True)
class CheckResult:
    """One check's result. ``seconds`` is its wall time, ``evidence`` is JSON data with units in the key names."""

    id: str
    severity: str
    status: str
    summary: str
    seconds: float
    evidence: dict[str, Any] = field(default_factory=dict)
    remedy: str | None = None
    doc: str | None = None
    # For people; not part of the JSON contract.
    why: str | None = None
    # Skipped for a fault of the worker that another check is to report; not part of the JSON contract either.
    unready: bool = False
    # Failed for such a fault, which it reports for all others; nor is this.
    fault: bool = False
    # The test that it is of, as pytest names it, where it is the user's own; nor this.
    node: str | None = None


@dataclass(frozen=True)
class Subject:
    kind: str
    name: str
    digest: str | None = None
    size_bytes: int | None = None
    sdk: str | None = None
    sdk_version: str | None = None


@dataclass(frozen=True)
class Lane:
    """One worker's life, for people to look at; seconds after the run began. Spans are (from, to), ``marks`` what was done to
    its connection, ``loads`` are (time, 0 to 1)."""

    name: str
    registered: list[tuple[float, float]]
    full: list[tuple[float, float]]
    calls: list[tuple[float, float]]
    loads: list[tuple[float, float]]
    marks: list[tuple[float, str]]

    @property
    def end(self) -> float:
        spans = [*self.registered, *self.full, *self.calls]
        return max([0.0, *(span[1] for span in spans), *(load[0] for load in self.loads), *(mark[0] for mark in self.marks)])


@dataclass(frozen=True)
class Verdict:
    profile: str
    subject: Subject
    stage: dict[str, Any]
    duration_s: float
    floor_s: float | None
    checks: tuple[CheckResult, ...]
    strict: bool = False
    broken: str | None = None
    # How many checks pytest's own options took away (-k, -m, --deselect, --lf).
    left_out: int = 0
    # Not part of the JSON contract, as what follows: how to type it again, without what selects checks.
    command: str = "pytest"
    lanes: tuple[Lane, ...] = ()

    @property
    def verdict(self) -> str:
        """``fail`` if a MUST failed (with ``strict`` a SHOULD too), ``error`` if a MUST could not be judged or
        nothing was judged at all or the run broke off (``broken``), ``pass`` otherwise.
        A failure outranks an error: it is certain."""
        binding = (MUST, SHOULD) if self.strict else (MUST,)
        if any(check.status == FAIL and check.severity in binding for check in self.checks):
            return FAIL
        if self.broken is not None:
            return ERROR
        if any(check.status == ERROR and check.severity in binding for check in self.checks):
            return ERROR
        if not any(check.status in (PASS, FAIL, WAIVED) for check in self.checks):
            return ERROR
        return PASS

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "verdict": self.verdict,
            "profile": self.profile,
            "subject": asdict(self.subject),
            "stage": {
                **self.stage,
                **({"error": self.broken} if self.broken is not None else {}),
                **({"left_out": self.left_out} if self.left_out else {}),
            },
            "duration_s": round(self.duration_s, 3),
            "floor_s": None if self.floor_s is None else round(self.floor_s, 3),
            "checks": [_to_json(check) for check in in_order(self.checks)],
        }


def _to_json(check: CheckResult) -> dict[str, Any]:
    return {
        name: round(value, 3) if name == "seconds" else value
        for name, value in asdict(check).items()
        if name not in NOT_IN_JSON
    }


def told(checks: Iterable[CheckResult]) -> tuple[CheckResult, ...]:
    """The same results, but that a skip for the worker's own fault is an error where no MUST reported one: what nobody
    explains could not be judged, and the worker may be at fault. A failure that is accepted explains what it reports, and
    nothing else."""
    results = tuple(checks)
    if any(check.severity == MUST and (check.status == FAIL or (check.status == WAIVED and check.fault)) for check in results):
        return results
    return tuple(replace(check, status=ERROR) if check.unready else check for check in results)


def in_order(checks: Iterable[CheckResult]) -> list[CheckResult]:
    """Sorted by id: the order of the tests differs under xdist, the verdict must not."""
    return sorted(checks, key=lambda check: check.id)
