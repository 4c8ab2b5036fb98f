"""The callers' media library: native threads that call into the interpreter until they are told to stop."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path
from typing import Any

# It closes what rooms are left, each with a message to a server that may be gone.
DISPOSE_SECONDS = 10
# A thread that waits for the interpreter's lock wakes every 5 ms (sys.getswitchinterval), an idle one does not.
READ_SECONDS = 0.03
QUIET_READS = 3
QUIET_SECONDS = 5
# The names of the threads that call, up to 15 characters: tokio-rt-worker (tokio-runtime-w in older ones), livekit-audio.
CALLING = ("tokio", "livekit")


_disposed: Any = None


def dispose() -> None:
    """Stop the library's calls into the interpreter, if it was used, and wait for the last.

    Left to the library's own exit handler, one of its threads may be on its way in when the interpreter ends, and the
    process aborts: exit code 134 in place of the run's own.
    """
    global _disposed
    client = getattr(_client_type(), "_instance", None)
    # Not a public function: a release of the library without it is left to its exit handler.
    stop = getattr(client, "_dispose", None)
    if stop is None or client is _disposed:
        return
    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    thread.join(DISPOSE_SECONDS)
    _wait_until_quiet()
    _disposed = client


def use() -> None:
    """To be called before the library is used: after ``dispose`` it has to begin anew.

    Not at once in ``dispose``: objects that die later would make a new client, and have its threads call again.
    """
    client_type = _client_type()
    if _disposed is not None and client_type is not None and client_type._instance is _disposed:
        client_type._instance = None


def _client_type() -> Any:
    return getattr(sys.modules.get("livekit.rtc._ffi_client"), "FfiClient", None)


def _wait_until_quiet() -> None:
    """Until the library's threads sleep without waking: no new call can begin, but one may be waiting to enter."""
    deadline = time.monotonic() + QUIET_SECONDS
    before, quiet = _activity(), 0
    while quiet < QUIET_READS and time.monotonic() < deadline:
        time.sleep(READ_SECONDS)  # in which the interpreter is free for them
        now = _activity()
        quiet = quiet + 1 if now == before and None not in now.values() else 0
        before = now


def _activity() -> dict[str, int | None]:
    """How often each of its threads was put to sleep or set aside; None for one that runs. Empty where there is no /proc."""
    found: dict[str, int | None] = {}
    for task in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            if status["Name"].startswith(CALLING):
                switches = int(status["voluntary_ctxt_switches"]) + int(status["nonvoluntary_ctxt_switches"])
                found[task.name] = None if status["State"].startswith("R") else switches
    return found
