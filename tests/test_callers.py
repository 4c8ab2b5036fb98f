"""Callers against a real LiveKit server, without a worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.wire_server import RealServer

# What a run of the plugin does with its callers, from the first to the end of the process.
SESSION = """
import sys
from pytest_lkagents.callers import library
from pytest_lkagents.callers.caller import Caller
from pytest_lkagents.clock import Ledger
from pytest_lkagents.loop import EventLoop
from pytest_lkagents.server.external import ExternalServer

url, key, secret = sys.argv[1:]
server = ExternalServer(url, "", {"LIVEKIT_API_KEY": key, "LIVEKIT_API_SECRET": secret})
for _ in range(2):
    loop = EventLoop("callers")
    caller = Caller(server, loop, Ledger())
    caller.join()
    caller.close()
    loop.close()
    library.dispose()
"""
# Without dispose() one such process in five ended with 134 on a busy machine of two cores.
SESSIONS = 6
SESSIONS_AT_ONCE = 3


def test_the_media_library_does_not_change_the_exit_code(tmp_path: Path) -> None:
    with RealServer(tmp_path) as server:
        codes = []
        for _ in range(SESSIONS // SESSIONS_AT_ONCE):
            started = [
                subprocess.Popen([sys.executable, "-c", SESSION, server.url, server.key, server.secret])
                for _ in range(SESSIONS_AT_ONCE)
            ]
            codes += [process.wait(60) for process in started]
    assert codes == [0] * SESSIONS
