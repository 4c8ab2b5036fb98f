"""Being told to end. CI systems and ``timeout`` send SIGTERM, a closed terminal SIGHUP: a run then ends as by Ctrl-C, which
removes what it started; by themselves these signals end Python at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
# Of a run that is ending. Who presses Ctrl-C after that does not want to wait for it any more.
PATIENCE_SECONDS = 10.0
STDERR = 2
# What workers are told to stop by.
STOPS = (signal.SIGINT, signal.SIGTERM)


def interrupt_by(is_closing: Callable[[], bool]) -> Callable[[], None]:
    """Let them raise KeyboardInterrupt, once, and not where the run is cleaning up already. Returns what sets everything back.
    A signal that is ignored (nohup), or that somebody else handles, stays so."""
    told = False

    def interrupt(_number: int, _frame: object) -> None:
        nonlocal told
        if not told and not is_closing():
            told = True
            raise KeyboardInterrupt

    taken = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]

    def give_back() -> None:
        for number in taken:
            if signal.getsignal(number) is interrupt:
                signal.signal(number, signal.SIG_DFL)

    # Outside of the main thread nobody can.
    with suppress(ValueError):
        for number in taken:
            signal.signal(number, interrupt)
    return give_back


class CtrlC:
    """A plugin of its own, which keeps Ctrl-C from disturbing a run that ends already, for PATIENCE_SECONDS after the first one
    that comes then: it would be a traceback of pytest's, and with it an exit code that says nothing of an interruption.
    What somebody else handles, or has ignored, stays so.

    ``is_closing``: the run has come to its end; ``is_removing``: it heeds Ctrl-C in a way of its own.
    """

    def __init__(self, is_closing: Callable[[], bool], is_removing: Callable[[], bool]) -> None:
        self._is_closing = is_closing
        self._is_removing = is_removing
        self._interrupted = False
        self._told: float | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        self._interrupted = True

    def handle(self) -> Callable[[], None]:
        """Returns what sets everything back."""
        taken = signal.getsignal(signal.SIGINT) is signal.default_int_handler

        def give_back() -> None:
            if taken and signal.getsignal(signal.SIGINT) == self._handler:
                signal.signal(signal.SIGINT, signal.default_int_handler)

        if taken:
            with suppress(ValueError):
                signal.signal(signal.SIGINT, self._handler)
        return give_back

    def _handler(self, _number: int, _frame: object) -> None:
        # pytest names the place that was interrupted, which is not here.
        __tracebackhide__ = True
        ending = (self._interrupted or self._is_closing()) and not self._is_removing()
        if not ending or (self._told is not None and time.monotonic() - self._told > PATIENCE_SECONDS):
            raise KeyboardInterrupt
        if self._told is None:
            self._told = time.monotonic()
            # Not by print: the signal may have come in the midst of one.
            with suppress(OSError):
                os.write(STDERR, b"\npytest-lkagents: this run is ending already, and removes what it started\n")


def not_ignored_by_workers() -> Callable[[], None]:
    """Whoever starts this run in the background of a script has it ignore SIGINT, and with it a process that it starts, unless
    that one asks for the signal: no platform does so to a worker. What is ignored is received and dropped here instead, which
    nobody inherits. Returns what sets everything back."""

    def drop(_number: int, _frame: object) -> None: ...

    ignored = [number for number in STOPS if signal.getsignal(number) is signal.SIG_IGN]

    def give_back() -> None:
        for number in ignored:
            if signal.getsignal(number) is drop:
                signal.signal(number, signal.SIG_IGN)

    with suppress(ValueError):
        for number in ignored:
            signal.signal(number, drop)
    return give_back
