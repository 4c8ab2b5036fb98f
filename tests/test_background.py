"""What goes on in the background, and its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from pytest_lkagents import background as module
from pytest_lkagents import limits
from pytest_lkagents.background import OBSERVERS, STARTERS, Background
from pytest_lkagents.checks import StageError

DEADLINE_S = 30


@pytest.fixture(autouse=True)
def _own_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other sessions of this machine have the lock for minutes."""
    monkeypatch.setattr(module, "cache_dir", lambda: tmp_path)


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


def test_who_is_alone_does_not_begin_beside_what_is_not_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", 0.1)
    reading: Future[Any] = Future()
    with pytest.raises(StageError, match="not over after"), Background(lambda: [reading]).alone_on_the_machine():
        pytest.fail("it began")
    reading.set_result(None)
    with Background(lambda: [reading]).alone_on_the_machine():
        pass


def test_a_turn_is_waited_for_and_no_longer_than_anybody_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Background(list), Background(list)
    monkeypatch.setattr(module, "TURN_SECONDS", 0.1)
    with first.alone_on_the_machine(), pytest.raises(StageError, match="another session"), second.alone_on_the_machine():
        pytest.fail("it began")


@pytest.fixture
def alarm() -> Iterator[None]:
    """The alarm of this test itself is put off."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, left)


@pytest.mark.usefixtures("alarm")
def test_a_limit_stands_still_where_it_is_paused() -> None:
    with limits.paused():
        pass
    limits.begin_anew(50)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0, "there is none"
    signal.setitimer(signal.ITIMER_REAL, 60)
    with limits.paused():
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        with limits.paused():
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert 50 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
    limits.begin_anew(500)
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 60


@pytest.mark.usefixtures("alarm")
def test_a_limit_is_over_when_its_alarm_has_rung() -> None:
    rung = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: rung.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 60)
        assert not limits.is_over()
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert rung.wait(DEADLINE_S)
        assert limits.is_over()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        assert not limits.is_over(), "there is none"
    finally:
        signal.signal(signal.SIGALRM, before)
