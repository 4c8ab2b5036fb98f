"""What goes on in the background, and its end."""

from __future__ import annotations

import threading

import pytest

from pytest_lkagents.background import OBSERVERS, STARTERS, Background
from pytest_lkagents.checks import StageError

DEADLINE_S = 30


def test_it_is_over_when_what_had_begun_is() -> None:
    background, release = Background(list), threading.Event()
    began = [background.start(release.wait, DEADLINE_S) for _ in range(STARTERS)]
    began += [background.observe(lambda: release.wait(DEADLINE_S)) for _ in range(OBSERVERS)]
    waiting = [background.start(release.wait, DEADLINE_S), background.observe(lambda: release.wait(DEADLINE_S))]
    background.cancel()
    assert not background.is_over(0.01)
    release.set()
    assert background.is_over(DEADLINE_S)
    assert all(future.result() for future in began)
    assert all(future.cancelled() for future in waiting)
    with pytest.raises(StageError, match="closing"):
        background.start(release.wait)
    with pytest.raises(StageError, match="closing"):
        background.observe(release.wait)


def test_who_is_alone_waits_for_observations_that_do_more_than_watch() -> None:
    background, release, watching = Background(list), threading.Event(), threading.Event()

    def observe() -> None:
        background.merely_watches()
        watching.set()
        release.wait(DEADLINE_S)

    background.observe(observe)
    assert watching.wait(DEADLINE_S)
    with background.alone_on_the_machine(beside_watches=True):
        assert not release.is_set()
    threading.Timer(0.1, release.set).start()
    with background.alone_on_the_machine():
        assert release.is_set()
