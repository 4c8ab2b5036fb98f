"""Observations that several checks share: made once, at the first that asks or ahead of all; what is looked at twice; and a
worker that is held against the shared one.

What an agent's habit may have been (Unproven, or ``unproven`` of what was seen) is looked at again at once, as its habits are
known by then: ``proven``. What this machine may have been too busy for is looked at again when nothing else of ours is under
way (``Background.in_peace``): an observation ahead by itself, for all its checks (``Ahead``); what a check observes, or is the
first to ask for (``once``), by plugin.py, which runs a check that raised TryAgain a second time. Each of the two is done
once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

import pytest

from pytest_lkagents.checks import NotJudgeable, StageError, TryAgain, Unproven, WorkerFault
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .drained import Drain

T = TypeVar("T")


def proven(observe: Callable[[Stage], T], stage: Stage, note: Callable[[str], object] = lambda _why: None) -> T:
    """What was observed, or what is seen by another look at once. ``note`` is told why there is one."""
    try:
        seen = observe(stage)
        why: str | None = getattr(seen, "unproven", None)
        if why is None:
            return seen
    except Unproven as error:
        why = str(error)
    stage.raise_if_closing()
    note(why)
    return observe(stage)


def contrast(stage: Stage, role: str, what: str) -> Worker:
    """The worker of a role that must get ready like the shared one: raises AssertionError if only this one does not,
    WorkerFault if the shared one does not either."""
    try:
        return stage.worker(role)
    except WorkerFault as fault:
        stage.worker("shared")
        raise AssertionError(f"{what}: {fault}") from None


def once(observe: Callable[[Stage], T], stage: Stage, tries: int = 2) -> Callable[[], T]:
    """Observe at the first call; every later one gets the same result or the same exception. What may have another
    cause than the worker the next one may try once more."""
    outcome: list[T | BaseException] = []

    @functools.wraps(observe)
    def observed() -> T:
        nonlocal tries
        if not outcome:
            try:
                outcome.append(observe(stage))
            except TryAgain as error:
                tries -= 1
                if tries > 0:
                    raise
                outcome.append(error)
            except (Exception, pytest.fail.Exception) as error:
                # A check's time limit is one, too: the next check would only meet its own.
                outcome.append(error)
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    return observed


class Ahead(Generic[T]):
    """The same as ``once`` for an observation that mostly waits: ``begin`` starts it beside the checks. What this machine was
    too busy for is observed once more when nothing else of ours is under way; ``again_because`` then says why."""

    again_because: str | None = None

    def __init__(self, stage: Stage, observe: Callable[[Stage], T]) -> None:
        self._stage, self._observe = stage, observe
        self._future: Future[T] | None = None
        self._final = once(self._in_doubt_again, stage, tries=1)

    def begin(self) -> Future[T]:
        if self._future is None:
            self._future = self._stage.observe_ahead(lambda stage: proven(self._observe, stage, self._note))
        return self._future

    def _note(self, why: str) -> None:
        self.again_because = why

    def __call__(self) -> T:
        return self._final()

    def _in_doubt_again(self, stage: Stage) -> T:
        seen: T | None = None
        try:
            seen = self.begin().result()
            doubt = getattr(seen, "doubt", None)
            if doubt is None:
                return seen
        except StageError as error:
            stage.raise_if_closing()
            doubt = str(error)
        # Another worker would cease to serve in the midst of it.
        if (why := stage.calls.ceased) is not None:
            raise NotJudgeable(f"{why}; seen before: {doubt}")
        self.again_because = doubt
        with stage.background.in_peace():
            # The looks before may have ended before they showed what may be a habit.
            again = proven(self._observe, stage, self._note)
        if isinstance(seen, Drain) and isinstance(again, Drain):
            again.look_again_at(seen)
        return again
