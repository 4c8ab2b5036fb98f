"""The time limit of the check under way: pytest-timeout keeps it as the alarm of this process (its method "signal")."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def _in_a_check() -> bool:
    """No check runs elsewhere than in the main thread."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def paused() -> Iterator[None]:
    """A context for a wait that has a deadline of its own and is nobody's fault: the limit does not run meanwhile. Beside the
    checks it does nothing."""
    if not _in_a_check():
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


def is_over() -> bool:
    """Whether the check under way has used up its limit: the alarm has rung, and is still listened for."""
    listened = signal.getsignal(signal.SIGALRM) not in (signal.SIG_DFL, signal.SIG_IGN, None)
    return _in_a_check() and listened and not signal.getitimer(signal.ITIMER_REAL)[0]
