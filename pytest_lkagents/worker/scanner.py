"""Reading an image's layers in a process of its own: it takes seconds of CPU, which callers and tap must not miss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict

from pytest_lkagents import machine
from pytest_lkagents.checks import StageError
from pytest_lkagents.engine import connect
from pytest_lkagents.worker.layers import ImageScan, scan

NICENESS = 10


class Scanner:
    """``scan`` may be called once, from any thread; ``close`` ends it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def scan(self, image_id: str, planted: Sequence[str]) -> ImageScan:
        """Raises StageError if the layers cannot be read."""
        with self._lock:
            if self._closed:
                raise StageError("the stage is closing")
            # A group of its own: Ctrl-C is for pytest, which ends this.
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env=machine.own_environment(),
                cwd="/",
            )
        # Through the pipe: arguments can be read by everybody on this machine.
        found, problem = process.communicate(json.dumps({"image": image_id, "planted": list(planted)}))
        if process.returncode:
            reason = (problem.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise StageError(f"the image's layers cannot be read: {reason[:200]}")
        return ImageScan(**json.loads(found))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._process is not None and self._process.poll() is None:
                self._process.kill()


def main() -> None:
    os.nice(NICENESS)
    asked = json.load(sys.stdin)
    print(json.dumps(asdict(read(asked["image"], asked["planted"]))))


def read(image_id: str, planted: Sequence[str]) -> ImageScan:
    # Engines write a whole image to their disk before the first byte comes, for minutes if it is large.
    client = connect(timeout=None)
    try:
        return scan(client.images.get(image_id), planted)
    finally:
        client.close()


if __name__ == "__main__":
    main()
