"""An earlier verdict beside this one: what got worse, beyond noise."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

from pytest_lkagents.verdict import ERROR, FAIL, INFO, MUST, PASS, RANKS, SHOULD, VERSION, Verdict, in_order

# How much larger a figure is before it counts: by factor, and by amount. Start and drain times vary by half on a shared
# machine; memory and image sizes hardly vary; CPU is in between.
NOISE = {"s": (1.5, 2.0), "bytes": (1.15, 10e6), "cores": (1.3, 0.05)}
# At a figure's end, or before what it is of, such as "cores_per_session"; what is counted per second is no time.
UNIT = re.compile(r"(?:^|_)(?<!_per_)(s|bytes|cores)(?:_per_(?!s$)[a-z]+)?$")
# Figures that are not measured, or not of the worker: what was set, what is advised, how long we ourselves watched or waited
# and what our callers used.
GIVEN = (
    "limit",
    "timeout",
    "ceiling",
    "declared",
    "least",
    "allowed",
    "grace",
    "suggested",
    "held",
    "hold",
    "watched",
    "waited",
    "stay",
    "simulated",
    "burnt",
)


def read(path: Path) -> dict[str, Any]:
    """An earlier ``--lk-json``. Raises ValueError with the remedy."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("version") != VERSION or not _are_checks(found.get("checks")):
        raise ValueError(f"{str(path)!r} is no verdict of version {VERSION}; write one with --lk-json")
    return found


def _are_checks(found: object) -> bool:
    return isinstance(found, list) and all(
        isinstance(check, dict)
        and isinstance(check.get("id"), str)
        and isinstance(check.get("status"), str)
        and check["status"] in RANKS
        and isinstance(check.get("evidence"), (dict, NoneType))
        for check in found
    )


def worse(before: dict[str, Any], verdict: Verdict) -> list[str]:
    """A line for each check that got worse, or that is new and not well, and for each figure that is larger beyond noise."""
    known = {check["id"]: check for check in before["checks"]}
    found = []
    if before.get("verdict") == ERROR and not known:
        # Such as of a run that was killed: nothing can be worse than it.
        stage = before.get("stage")
        why = stage.get("error") if isinstance(stage, dict) else None
        found.append(f"the earlier verdict judged nothing{f': {why}' if why else ''}")
    subject = before.get("subject")
    kind = subject.get("kind") if isinstance(subject, dict) else None
    if kind is not None and kind != verdict.subject.kind:
        found.append(f"the earlier verdict is of another kind: {kind}, not {verdict.subject.kind}")
    for check in in_order(verdict.checks):
        old = known.get(check.id)
        if old is None:
            if known and check.status in (FAIL, ERROR):
                found.append(f"{check.id}: {check.status}, was not judged: {check.summary}")
            continue
        was = old["status"]
        if RANKS[check.status] > RANKS[was]:
            found.append(f"{check.id}: {check.status}, was {was}: {check.summary}")
        elif check.status == was == FAIL and check.severity == MUST and old.get("severity") in (SHOULD, INFO):
            found.append(f"{check.id}: the failure of a MUST, was of a {old['severity']}: {check.summary}")
        elif check.status == PASS:
            found += [f"{check.id}: {line}" for line in _grown(old.get("evidence") or {}, check.evidence)]
    gone = sorted(str(name) for name in set(known) - {check.id for check in verdict.checks})
    if gone:
        found.append(f"not judged this time: {', '.join(gone)}")
    return found


def _grown(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for name, value in now.items():
        unit = UNIT.search(name)
        if unit is None or any(word in name for word in GIVEN):
            continue
        new, old = _figure(value), _figure(before.get(name))
        if new is None or old is None:
            continue
        factor, amount = NOISE[unit[1]]
        if new > old * factor and new - old > amount:
            yield f"{name} {new:g}, was {old:g}"


def _figure(value: object) -> float | None:
    """None for what is no number, or, as users' own checks may have it, too large for one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
