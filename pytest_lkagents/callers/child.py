"""Processes of our own that make calls: they read a JSON request and write a JSON event a line, and end when their input
ends, as it does with this process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_lkagents import machine
from pytest_lkagents.callers.place import Place
from pytest_lkagents.secrets import without_tokens

END_SECONDS = 5
NICE = -10
# For what a process that has ended wrote last to be read.
WORDS_SECONDS = 1
LONGEST_WORDS = 200


class Child(subprocess.Popen[str]):
    """Such a process; of what it writes to standard error the last line is kept."""

    def __init__(self, command: list[str]) -> None:
        super().__init__(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # A group of its own: Ctrl-C is for pytest, which ends this.
            start_new_session=True,
            env=machine.own_environment(),
            # What the user's folder holds is not to be taken for a module.
            cwd="/",
        )
        self._last: deque[str] = deque(maxlen=1)
        self._reader = threading.Thread(target=self._read_errors, name="lk-child", daemon=True)
        self._reader.start()

    def _read_errors(self) -> None:
        assert self.stderr is not None
        with self.stderr as lines:
            self._last.extend(line.strip() for line in lines if line.strip())

    def events(self) -> Iterator[Any]:
        """What it writes, until it ends. Then its output is closed, as what is left open until it is forgotten is a warning of
        Python's, and an error to those who want it so."""
        assert self.stdout is not None
        with self.stdout as lines:
            for line in lines:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                yield event

    @property
    def ended(self) -> str:
        """How it did, in words: such as "ended with code 1: ModuleNotFoundError: ..."."""
        self._reader.join(WORDS_SECONDS)
        return ": ".join([f"ended with code {self.poll()}", *(without_tokens(line)[:LONGEST_WORDS] for line in self._last)])


def start(module: str, place: Place, *, before_others: bool = False) -> Child:
    """Run this module of ours there. ``before_others``: it gets the CPU when it needs it, where the system lets this user
    decide."""
    process = Child([*place.command, sys.executable, "-m", f"pytest_lkagents.callers.{module}"])
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
