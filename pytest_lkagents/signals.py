"""Being told to end. CI systems and ``timeout`` send SIGTERM, a closed terminal SIGHUP: a run then ends as by Ctrl-C, which
removes what it started; by themselves these signals end Python at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


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
