"""Being told to end. CI systems and ``timeout`` send SIGTERM, a closed terminal SIGHUP: a run then ends as by Ctrl-C, which
removes what it started; by themselves these signals end Python at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
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
