"""Checks: the decorator, what each one says about itself, and what an exception raised inside one means."""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pytest_lkagents.verdict import INFO, MUST, SEVERITIES, SHOULD

__all__ = [
    "INFO",
    "MUST",
    "PROFILES",
    "SHOULD",
    "TRIED_AGAIN",
    "Blame",
    "Check",
    "Evidence",
    "NotJudgeable",
    "StageError",
    "TooBusy",
    "TryAgain",
    "Unproven",
    "WorkerFailed",
    "WorkerFault",
    "check",
]

PROFILES = ("smoke", "core", "full", "soak")
ID = re.compile(r"^[a-z]+\.[a-z0-9-]+$")
GUIDE = "https://docs.livekit.io/agents/ops/deployment/"

# What evidence says of a check that was tried once more; it is evidence of nothing.
TRIED_AGAIN = "tried_again_because"

Function = TypeVar("Function", bound=Callable[..., object])


class StageError(Exception):
    """The stage broke, or the machine is too busy: the check could not be judged. Never the worker's failure."""


class TryAgain(StageError):
    """What was seen may have another cause than the worker. The check is tried once more when nothing else of ours is under
    way."""


class TooBusy(TryAgain):
    """A deadline was missed that says more about this machine than about the worker."""


class Unproven(TryAgain):
    """An agent fell silent, which may be its habit: in the next call it is known for how long it has to talk on before."""


class NotJudgeable(Exception):
    """Something that the check needs is absent by choice (no health server, say): the check is skipped."""


class WorkerFault(Exception):
    """The worker is not in the state that a check starts from, by its own fault (it crashed, it never registered).

    ``registration.registers`` fails on it; every other check is skipped with this reason, so that one defect is
    reported once.
    """


@dataclass
class Blame:
    """Which check reports a worker's failure; None: none did so far. It does so each time that it is run (--reruns)."""

    check: str | None = None


class WorkerFailed(WorkerFault):
    """The same without an excuse: nothing was done to the worker that may end it, or make it lose calls. The first MUST that
    meets it fails; after that it is a fault like others. ``blame`` is the worker's."""

    remedy = "see the worker's last lines: it has to run, and to serve the calls that it accepts, until it is told to stop"
    why = "A worker that ends by itself takes its calls along, and so does one that accepts calls that it does not serve."

    def __init__(self, message: str, blame: Blame) -> None:
        super().__init__(message)
        self.blame = blame


class Evidence(dict[str, Any]):
    """What a check measured: JSON data, units in the key names (``_s``, ``_bytes``, ``_cores``).

    ``summary`` is the line of the verdict table when the check passes; ``severity`` is the check's own, unless what it
    is judged against is not binding here.
    """

    summary: str | None = None
    severity: str | None = None


@dataclass(frozen=True)
class Check:
    """``profile`` is the smallest profile that includes the check; ``roles`` are the workers that it needs
    (see roles.py), which are started ahead of time; ``seconds`` is its own time limit; checks with a higher
    ``order`` run later; ``setting`` names one that asks for the check whatever the profile; ``measured`` says, in
    Markdown, how it comes to its result."""

    id: str
    severity: str
    profile: str
    title: str
    section: str
    why: str
    remedy: str
    roles: tuple[str, ...]
    seconds: float
    order: int
    setting: str
    measured: str = ""

    @property
    def suite(self) -> str:
        return self.id.partition(".")[0]

    @property
    def doc(self) -> str:
        return GUIDE + (f"#{self.section.lower().replace(' ', '-')}" if self.section else "")

    def included_in(self, profile: str) -> bool:
        return PROFILES.index(self.profile) <= PROFILES.index(profile)


def check(
    id: str,
    severity: str,
    *,
    profile: str = "core",
    section: str = "",
    why: str = "",
    remedy: str = "",
    roles: tuple[str, ...] = (),
    seconds: float = 180,
    order: int = 0,
    setting: str = "",
) -> Callable[[Function], Function]:
    """Make a test function the check ``id``; its docstring's first line is the promise in words, the rest how it is measured.

    ``section`` names the section of the guide "Deploying to production". Raises ValueError for an id that is not
    ``section.name``, an unknown severity or an unknown profile.
    """
    if not ID.match(id):
        raise ValueError(f"check id {id!r} is not of the form section.name")
    if severity not in SEVERITIES:
        raise ValueError(f"{id}: unknown severity {severity!r}")
    if profile not in PROFILES:
        raise ValueError(f"{id}: unknown profile {profile!r}")

    def decorate(function: Function) -> Function:
        title, _, measured = inspect.cleandoc(function.__doc__ or id).partition("\n")
        made = Check(id, severity, profile, title, section, why, remedy, roles, seconds, order, setting, measured.strip())
        # The other method ends the whole process, and with it the verdict.
        marked: Function = pytest.mark.timeout(seconds, method="signal")(function)
        marked.__lk_check__ = made  # type: ignore[attr-defined]
        # Collected whatever names the user's python_functions wants.
        marked.__test__ = True  # type: ignore[attr-defined]
        return marked

    return decorate


def check_of(item: pytest.Item) -> Check | None:
    """The check that a collected test is, or None for an ordinary test."""
    found: Check | None = getattr(getattr(item, "function", None), "__lk_check__", None)
    return found


@functools.cache
def packaged_folder() -> Path:
    """Of the packaged checks, in the wheel or in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "suites" if (here / "suites").is_dir() else here.parent / "suites"


@dataclass(frozen=True)
class Waiver:
    """A failure that the user accepts, for a reason, up to a date (inclusive). ``typed``: on the command line, for this run."""

    check: str
    reason: str
    until: dt.date | None = None
    typed: bool = False

    def covers(self, check_id: str, today: dt.date) -> bool:
        return check_id == self.check and (self.until is None or today <= self.until)


def parse_waiver(text: str, *, needs_date: bool) -> Waiver:
    """``CHECK=REASON [until YYYY-MM-DD]``. Raises ValueError with the remedy."""
    name, equals, rest = (part.strip() for part in text.partition("="))
    if not equals or not rest or not ID.match(name):
        raise ValueError(f"waiver {text!r} is not CHECK=REASON, such as storage.image-size='models are baked in'")
    dated = re.match(r"^(?:(.*\S)\s+)?until\s+(\S+)$", rest)
    if dated is None:
        if needs_date:
            raise ValueError(f"waiver {text!r} in the ini file needs an expiry date: append 'until YYYY-MM-DD'")
        return Waiver(name, rest)
    if dated[1] is None:
        raise ValueError(f"waiver {text!r} has no reason; write CHECK=REASON until YYYY-MM-DD")
    try:
        return Waiver(name, dated[1], dt.date.fromisoformat(dated[2]))
    except ValueError:
        raise ValueError(f"waiver {text!r}: {dated[2]!r} is not a date of the form YYYY-MM-DD") from None
