"""What runs on the background loop is bounded, whatever it does there."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Iterator

import pytest

from pytest_lkagents import loop
from pytest_lkagents.checks import StageError


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[loop.EventLoop]:
    monkeypatch.setattr(loop, "RUN_SECONDS", 0.2)
    running = loop.EventLoop("the library")
    yield running
    running.close()


async def add(one: int, other: int) -> int:
    await asyncio.sleep(0)
    return one + other


def test_results_and_errors_come_back(made: loop.EventLoop) -> None:
    async def fail() -> None:
        raise KeyError("gone")

    assert made.run(add, 1, 2) == 3
    with pytest.raises(KeyError, match="gone"):
        made.run(fail)


def test_what_takes_too_long_is_given_up_and_others_go_on(made: loop.EventLoop) -> None:
    with pytest.raises(StageError, match=r"the library did not answer within 0\.2 s"):
        made.run(asyncio.sleep, 60)
    assert made.run(add, 1, 2) == 3


def test_a_closed_loop_says_so(made: loop.EventLoop) -> None:
    assert made.run(add, 1, 2) == 3
    made.close()
    with pytest.raises(StageError, match="the library is closed"):
        made.run(add, 1, 2)


def test_what_waits_when_it_is_closed_is_told(made: loop.EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RUN_SECONDS", 60)
    seen: list[Exception] = []
    waits = threading.Event()

    async def wait() -> None:
        waits.set()
        await asyncio.sleep(60)

    def run() -> None:
        try:
            made.run(wait)
        except StageError as error:
            seen.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert waits.wait(5)
    made.close()
    thread.join(5)
    assert [str(error) for error in seen] == ["the library is closed"]


@pytest.mark.timeout(20)
def test_a_loop_that_cannot_begin_is_no_wait_for_ever(made: loop.EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> asyncio.AbstractEventLoop:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as short:
        short.setattr(asyncio.events, "new_event_loop", none_left)
        with pytest.raises(StageError, match="the library cannot be started on this machine: Too many open files"):
            made.run(add, 1, 2)
    assert made.run(add, 1, 2) == 3
