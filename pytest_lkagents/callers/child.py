"""Processes of our own that make calls: they read a JSON request and write a JSON event a line, and end when their input
ends, as it does with this process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pytest_lkagents import machine
from pytest_lkagents.callers.place import Place

END_SECONDS = 5
NICE = -10


def start(module: str, place: Place, *, before_others: bool = False) -> subprocess.Popen[str]:
    """Run this module of ours there. ``before_others``: it gets the CPU when it needs it, where the system lets this user
    decide."""
    process = subprocess.Popen(
        [*place.command, sys.executable, "-m", f"pytest_lkagents.callers.{module}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # A group of its own: Ctrl-C is for pytest, which ends this.
        start_new_session=True,
        env=machine.own_environment(),
        # What the user's folder holds is not to be taken for a module.
        cwd="/",
    )
    if before_others:
        # Linux shares it out by session (sched(7), "The autogroup feature"); only root may ask for more than a share.
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/autogroup").write_text(str(NICE))
    return process


def ask(process: subprocess.Popen[str], **request: Any) -> None:
    """Raises OSError or ValueError if it has ended."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
