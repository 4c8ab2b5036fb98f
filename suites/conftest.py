"""Fixtures of the packaged suites: observations that several checks share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import pytest

from pytest_lkagents.stage import Stage

from . import load as loads
from . import observations

T = TypeVar("T")


def _once(observe: Callable[[Stage], T], stage: Stage) -> Callable[[], T]:
    """Observe at the first call; every later one gets the same result or the same exception."""
    outcome: list[T | Exception] = []

    @functools.wraps(observe)
    def observed() -> T:
        if not outcome:
            try:
                outcome.append(observe(stage))
            except Exception as error:
                outcome.append(error)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    return observed


@pytest.fixture(scope="session")
def first_call(lk_stage: Stage) -> Callable[[], observations.FirstCall]:
    return _once(observations.first_call, lk_stage)


@pytest.fixture(scope="session")
def drain(lk_stage: Stage) -> Callable[[], observations.Drain]:
    return _once(observations.drain, lk_stage)


@pytest.fixture(scope="session")
def load(lk_stage: Stage) -> Callable[[], loads.Loaded]:
    return _once(loads.observe, lk_stage)


@pytest.fixture(scope="session")
def stop(lk_stage: Stage) -> Callable[[], observations.Stop]:
    return _once(observations.stop, lk_stage)
