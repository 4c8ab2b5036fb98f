"""A line per check while they run, with how many there are and about how long the rest takes.

It takes the place of pytest's dots where packaged suites run; ``-q`` and ``-v`` keep pytest's own ways.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_lkagents.report import terminal
from pytest_lkagents.report.typical import SECONDS
from pytest_lkagents.verdict import CheckResult

# Before so much of what is typical is done, its ratio to what it took here says nothing.
ENOUGH_SECONDS = 5.0
# A machine that is slower than this has other troubles.
SLOWEST = 4.0
FASTEST = 0.5


class Progress:
    """Registered as a plugin where it is to be shown."""

    def __init__(self, reporter: pytest.TerminalReporter, ids: Sequence[str]) -> None:
        """``ids``: the checks that will run."""
        self._reporter = reporter
        self._left = list(ids)
        self._count = len(ids)
        self._done = 0
        self._typical_done = 0.0
        self._began = time.monotonic()
        # What pytest writes around its dots, of which there are none now. Where it has no such switch, it does no harm.
        reporter._show_progress_info = False
        reporter.showfspath = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """No dot for a check: its line says more."""
        if report.when not in ("setup", "call") or not hasattr(report, "lkagents"):
            return None
        category = "xfailed" if hasattr(report, "wasxfail") else str(report.outcome)
        return category, "", "XFAIL" if category == "xfailed" else category.upper()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found: dict[str, Any] | None = getattr(report, "lkagents", None)
        if found is None:
            return
        result = CheckResult(**found)
        self._done += 1
        if result.id in self._left:
            self._left.remove(result.id)
            self._typical_done += typical(result.id)
        self._reporter.ensure_newline()
        line, colour = terminal.progress(result, self._reporter._tw.fullwidth, self._words())
        self._reporter.write_line(line, **({colour: True} if colour else {}))

    def _words(self) -> str:
        """Such as ``12/38, 41 s left``."""
        return f"{self._done}/{self._count}" + (f", {duration(self.seconds_left())} left" if self._left else "")

    def seconds_left(self) -> float:
        """What the rest typically takes, times how much slower it goes here so far."""
        rest = sum(typical(name) for name in self._left)
        if self._typical_done < ENOUGH_SECONDS:
            return rest
        ratio = (time.monotonic() - self._began) / self._typical_done
        return rest * min(max(ratio, FASTEST), SLOWEST)


def typical(name: str) -> float:
    return SECONDS.get(name, 1.0)


def duration(seconds: float) -> str:
    """In steps that do not claim more than is known: 5 s, 40 s, 3 min."""
    if seconds < 100:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{round(seconds / 60)} min"
