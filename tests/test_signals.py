"""What this process makes of the signals that it is sent, and what workers that it starts inherit of that."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pytest_lkagents import signals

# As a program that leaves SIGINT as it found it.
WORKER = "print('up', flush=True); import time; time.sleep(30)"


@pytest.fixture
def ignoring() -> Iterator[None]:
    """As in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def heeding() -> Iterator[None]:
    """As in a terminal, also where this run itself was started in the background of a script."""
    before = [(number, signal.getsignal(number)) for number in signals.STOPS]
    for number in signals.STOPS:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.usefixtures("ignoring")
def test_a_worker_heeds_what_this_run_ignores() -> None:
    give_back = signals.not_ignored_by_workers()
    signal.raise_signal(signal.SIGINT)
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        worker.send_signal(signal.SIGINT)
        began = time.monotonic()
        try:
            worker.wait(20)
        finally:
            worker.kill()
    assert time.monotonic() - began < 20
    give_back()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.usefixtures("heeding")
def test_what_others_handle_stays_so() -> None:
    before = [signal.getsignal(number) for number in signals.STOPS]
    give_back = signals.not_ignored_by_workers()
    assert [signal.getsignal(number) for number in signals.STOPS] == before
    give_back()
    assert [signal.getsignal(number) for number in signals.STOPS] == before


@pytest.mark.usefixtures("heeding")
def test_ctrl_c_is_heeded_but_for_a_while_of_a_run_that_ends(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, state = signal.getsignal(signal.SIGINT), {"closing": False, "removing": False}
    ctrl_c = signals.CtrlC(lambda: state["closing"], lambda: state["removing"])
    give_back = ctrl_c.handle()

    def heeded() -> bool:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            return True
        return False

    found = [heeded(), heeded()]  # in a test, which may take them
    ctrl_c.pytest_keyboard_interrupt()
    found += [heeded(), heeded()]
    state["removing"] = True
    found.append(heeded())
    state |= {"removing": False, "closing": True}
    found.append(heeded())
    monkeypatch.setattr(signals, "PATIENCE_SECONDS", 0.0)
    found.append(heeded())
    assert found == [True, True, False, False, True, False, True]
    assert capfd.readouterr().err.count("ending already") == 1
    give_back()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("ignoring")
def test_ctrl_c_that_is_ignored_stays_so() -> None:
    signals.CtrlC(lambda: False, lambda: False).handle()()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
