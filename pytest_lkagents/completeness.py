"""Whether a run judged all that it was to judge, and why it did not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_lkagents import selection
from pytest_lkagents.beginning import adds_checks, names_worker, uses_xdist
from pytest_lkagents.checks import check_of
from pytest_lkagents.fixtures import SETTINGS
from pytest_lkagents.gathered import GATHERED

NOBODY_ASKS = "no test that ran asks for the worker (lk_worker, lk_caller, ...): name one that does, or add --lk-suite"


def note_left_out(session: pytest.Session) -> None:
    """How many checks this run lacks by pytest's own options: others were not in its profile or suites anyway."""
    settings, gathered = session.config.stash[SETTINGS], session.config.stash[GATHERED]
    every = [(item, check) for item in (*session.items, *gathered.deselected) if (check := check_of(item)) is not None]
    small = {check.suite for _, check in every if check.included_in(settings.profile)}
    gathered.left_out = sum(
        selection.chosen(check, settings, small, own=not selection.is_packaged(item))
        for item, check in every
        if item in gathered.deselected
    )


def lacking(session: pytest.Session, status: int) -> Iterator[str]:
    """Why a run that ended with this status is not complete, the first reason first."""
    config, gathered = session.config, session.config.stash[GATHERED]
    if gathered.uncollected:
        yield f"{', '.join(gathered.uncollected)} could not be collected"
    if status in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR):
        yield f"the run was {'interrupted' if status == 2 else 'ended by an internal error'}"
    # Such as -x, or a time limit of the session.
    stopped = session.shouldfail or session.shouldstop
    if stopped and (uses_xdist(config) or _unjudged(session)):
        yield f"the run was stopped: {stopped}"
    if not uses_xdist(config) and (unjudged := _unjudged(session)):
        # Such as by pytest.exit in somebody's test.
        yield f"{len(unjudged)} checks were not run, the first {unjudged[0]}" if unjudged[1:] else f"{unjudged[0]} was not run"
    if status == pytest.ExitCode.USAGE_ERROR and (adds_checks(config) or names_worker(config)):
        yield "the run ended before its tests: pytest cannot use what was typed"
    used = gathered.results or gathered.facts.get("asked")
    if not used and names_worker(config) and status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        yield NOBODY_ASKS


def _unjudged(session: pytest.Session) -> list[str]:
    """The checks without a result."""
    chosen = [check.id for item in session.items if (check := check_of(item)) is not None]
    return [name for name in chosen if name not in session.config.stash[GATHERED].results]
