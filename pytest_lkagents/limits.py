"""The time limit of the check under way: pytest-timeout keeps it as the alarm of this process (its method "signal")."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """A context for a wait that has a deadline of its own and is nobody's fault: the limit does not run meanwhile. Elsewhere
    than in the main thread, where no check runs, it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        if left:
            signal.setitimer(signal.ITIMER_REAL, left)


def begin_anew(seconds: float) -> None:
    """The limit, if there is one, is so many seconds from now."""
    if signal.getitimer(signal.ITIMER_REAL)[0]:
        signal.setitimer(signal.ITIMER_REAL, seconds)
