"""Running the plugin as a user does: a pytest process of its own, judged by its exit code and JSON verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = "pytest-lkagents/example-agent:latest"
PYTHON_IMAGE = "pytest-lkagents/python-agents:1.8.9"
# No suite of these tests takes longer, even on a busy machine.
RUN_SECONDS = 500


@dataclass
class Run:
    code: int
    output: str
    verdict: dict[str, Any] | None

    def checks(self, status: str, severity: str | None = None) -> set[str]:
        assert self.verdict is not None, self.output
        return {
            check["id"]
            for check in self.verdict["checks"]
            if check["status"] == status and severity in (None, check["severity"])
        }


def build(tag: str, dockerfile: Path, context: Path) -> str:
    """Build an image with the classic builder, which needs no registry."""
    made = subprocess.run(
        ["docker", "build", "-q", "-t", tag, "-f", dockerfile, "--build-arg", f"PYTHON_IMAGE={PYTHON_IMAGE}", context],
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    return tag


@pytest.fixture(scope="session")
def example() -> str:
    """The example agent's image."""
    return build(EXAMPLE, ROOT / "examples/agent/Dockerfile", ROOT / "examples/agent")


@pytest.fixture
def lk(tmp_path: Path):
    """Run pytest with these arguments in an empty directory."""

    def run(*arguments: str, env: dict[str, str] | None = None, seconds: float = RUN_SECONDS) -> Run:
        report = tmp_path / "verdict.json"
        report.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--lk-json={report}", *arguments],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        verdict = json.loads(report.read_text()) if report.exists() else None
        return Run(done.returncode, done.stdout + done.stderr, verdict)

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="every check on every fixture worker, not only its section")
