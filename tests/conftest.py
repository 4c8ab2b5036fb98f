"""Running the plugin as a user does: a pytest process of its own, judged by its exit code and JSON verdict."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = "pytest-lkagents/example-agent:latest"
PYTHON_IMAGE = "pytest-lkagents/python-agents:1.8.9"
# No suite of these tests takes longer, even on a busy machine.
RUN_SECONDS = 300
# How often a run may be repeated that declined to judge because the machine was too busy.
BUSY_RUNS = 3
CALM_SECONDS = 120


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

    @property
    def machine_was_too_busy(self) -> bool:
        """Whether a check says so of itself: an honest answer, and no result of a test."""
        checks = self.verdict["checks"] if self.verdict else []
        return any(check["status"] == "error" and "too busy to judge" in check["summary"] for check in checks)


def build(tag: str, dockerfile: Path, context: Path) -> str:
    """Build an image with the classic builder, which needs no registry."""
    with machine(alone=False):
        made = subprocess.run(
            ["docker", "build", "-q", "-t", tag, "-f", dockerfile, "--build-arg", f"PYTHON_IMAGE={PYTHON_IMAGE}", context],
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert made.returncode == 0, made.stderr
    return tag


def heed_signals() -> None:
    """A shell that started the tests in the background, or nohup, has them, and what they start, ignore some."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def start_pytest(*arguments: str, cwd: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    """A pytest of its own in a process group of its own, which Ctrl-C reaches as from a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heed_signals,
        env={**os.environ, "COLUMNS": "200", **env},
    )


@pytest.fixture(scope="session")
def example() -> str:
    """The example agent's image."""
    return build(EXAMPLE, ROOT / "examples/agent/Dockerfile", ROOT / "examples/agent")


def locks() -> Path:
    """Where the test processes of this run leave the locks they share."""
    run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    return Path(tempfile.gettempdir()) / f"lkagents-tests-{run}"


@contextlib.contextmanager
def machine(*, alone: bool, of: str = "cores") -> Iterator[None]:
    """Share what the machine has ``of`` this with the other test process, or have it alone."""
    locks().mkdir(exist_ok=True)
    with (locks() / of).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


@pytest.fixture
def health_port() -> Iterator[None]:
    """The port of health checks, which a worker that is no container opens on this machine, for one test at a time."""
    with machine(alone=True, of="health port"):
        yield


@pytest.fixture
def lk(tmp_path: Path, request: pytest.FixtureRequest):
    """Run pytest with these arguments in an empty directory, if marked ``alone`` while no other such run is under way."""
    alone = request.node.get_closest_marker("alone") is not None or request.config.getoption("whole")

    def run(
        *arguments: str, env: dict[str, str] | None = None, seconds: float = RUN_SECONDS, busy_runs: int = BUSY_RUNS
    ) -> Run:
        # What makes the machine too busy is mostly the other test process: a repeated run has the machine alone.
        for again in range(busy_runs):
            if again:
                wait_for_calm()
            with machine(alone=alone or again > 0):
                judged = once(*arguments, env=env, seconds=seconds)
            if not judged.machine_was_too_busy:
                break
        return judged

    def wait_for_calm() -> None:
        """Until as many processes as cores want to run, or CALM_SECONDS have passed."""
        deadline = time.monotonic() + CALM_SECONDS
        while os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1) and time.monotonic() < deadline:
            time.sleep(1)

    def once(*arguments: str, env: dict[str, str] | None, seconds: float) -> Run:
        report = tmp_path / "verdict.json"
        report.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--lk-json={report}", *arguments],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # pytest's fault handler writes where every thread is
            output, _ = process.communicate(timeout=30)
            pytest.fail(f"still running after {seconds} s:\n{output[-12000:]}")
        verdict = json.loads(report.read_text()) if report.exists() else None
        return Run(process.returncode, output, verdict)

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="every check on every fixture worker, not only its section")
    parser.addoption("--keep", metavar="DIR", help="keep what is seen of each worker there, for scripts/kill-matrix")


@pytest.fixture
def keep(pytestconfig: pytest.Config):
    """Keep what a run saw of an image as a row of the kill matrix, where ``--keep`` says."""

    def row(kind: str, name: str, run: Run, *, expected: list[str]) -> None:
        folder = pytestconfig.getoption("keep")
        if not folder or run.verdict is None:
            return
        seen = {check["id"]: check["status"] for check in run.verdict["checks"]}
        made = {"kind": kind, "name": name, "expected": expected, "seen": seen, "day": str(date.today())}
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{kind}-{name}.json".replace("/", "-")).write_text(json.dumps(made))

    return row


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the machine alone comes last: before it, neither test process waits for the other."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(locks(), ignore_errors=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A run takes half an hour: what failed is shown at once, and again at its end."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} failed:\n{report.longreprtext}", file=sys.__stdout__, flush=True)
