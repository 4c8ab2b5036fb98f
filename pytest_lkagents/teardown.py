"""The teardown of what a run started, step by step: what fails keeps none of the others from being tried."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from pytest_lkagents.checks import StageError


@contextmanager
def told() -> Iterator[None]:
    """What does not work is told, and does not keep from closing the rest."""
    try:
        yield
    except StageError as error:
        print(f"pytest-lkagents: {error}", file=sys.stderr)
    except Exception as error:
        print(f"pytest-lkagents: at the end: {type(error).__name__}: {error}", file=sys.stderr)


def tear_down(steps: Iterable[Callable[[], object]]) -> None:
    """Each in order, whatever became of those before. Never raises: what does not work is told. Ctrl-C is heeded at the second
    time: what is not removed costs more than the wait for it."""
    try:
        _unless_interrupted_twice(steps)
    except KeyboardInterrupt:
        print("pytest-lkagents: the next run removes what is left", file=sys.stderr)


def _unless_interrupted_twice(steps: Iterable[Callable[[], object]]) -> None:
    interrupted = False
    for step in steps:
        try:
            with told():
                step()
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            print("pytest-lkagents: still removing what this run started; Ctrl-C once more leaves it", file=sys.stderr)
            # From its beginning: half of it may be done.
            with told():
                step()
