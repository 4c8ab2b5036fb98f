"""The program that burns CPU where an image has neither interpreter nor shell."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import psutil
import pytest

from pytest_lkagents.clock import poll
from pytest_lkagents.worker.burner import endless

HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")


@pytest.mark.skipif(not HERE, reason="this processor is none that it is made for")
def test_it_burns_until_it_is_ended(tmp_path: Path) -> None:
    program = tmp_path / "endless"
    program.write_bytes(endless(HERE) or b"")
    program.chmod(0o755)
    with subprocess.Popen([program]) as running:
        try:
            poll(lambda: psutil.Process(running.pid).cpu_times().user > 0.1, what="CPU time", seconds=10)
            assert running.poll() is None
        finally:
            running.kill()


def test_every_architecture_that_is_known_has_one() -> None:
    assert all((endless(architecture) or b"").startswith(b"\x7fELF") for architecture in ("amd64", "arm64"))
    assert endless("s390x") is None
