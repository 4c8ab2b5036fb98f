"""Published releases of livekit-agents, judged like any other image: the flawed one is caught, the mended one passes.

Takes minutes per release: ``--whole`` (tox -e detection) runs it.
"""

from __future__ import annotations

import subprocess

import pytest

from .conftest import ROOT

# check, flawed release, mended release, options
PAIRS = [
    # A job that is given to a dead idle process is lost.
    ("jobs.dead-idle-process", "1.4.1", "1.4.2", []),
    ("availability.burst", "1.4.4", "1.4.5", ["--lk-env", "RELEASE_LOAD=jobs1"]),
    ("availability.refuses-while-full", "1.4.1", "1.4.2", []),
    ("environment.agent-name", "1.5.6", "1.5.7", []),
    # The drain ends with the first call.
    ("rollout.drains-every-call", "1.3.8", "1.3.9", []),
    # A signal that comes while the request function blocks, which it does with a call in progress.
    ("rollout.sigterm-stops-new-jobs", "1.7.1", "1.8.0", ["--lk-env", "RELEASE_REQUEST=blocks1"]),
    # Job processes that never get ready: the flawed one waits for them for ever before it registers.
    ("registration.registers", "1.4.1", "1.4.2", ["--lk-env", "RELEASE_PREWARM=30"]),
    # Drains for 60 s; the check holds the call for longer.
    ("rollout.grace-period", "1.0.19", "1.0.20", ["--lk-drain-hold", "85s"]),
]
# release, MUSTs of the core profile that it does not meet: before 1.4.2 a full or draining worker accepts when
# asked, and 1.2 without a URL tries a default one.
JUDGED: list[tuple[str, set[str]]] = [
    ("1.8.9", set()),
    ("1.3.12", {"availability.refuses-while-full"}),
    ("1.2.18", {"availability.refuses-while-full", "registration.refuses-incomplete-configuration"}),
]


@pytest.fixture
def release(pytestconfig: pytest.Config):
    if not pytestconfig.getoption("whole"):
        pytest.skip("takes minutes: --whole runs it")

    def build(version: str) -> str:
        subprocess.run([ROOT / "fixtures/releases/build", version], check=True, timeout=600)
        return f"pytest-lkagents/release:{version}"

    return build


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("check", "flawed", "mended", "options"), PAIRS)
def test_the_flawed_release_is_caught_and_the_mended_one_passes(
    check: str, flawed: str, mended: str, options: list[str], lk, release
) -> None:
    caught = lk("--lk-image", release(flawed), "--lk-suite", check, *options, alone=True)
    assert check in caught.checks("fail"), caught.output
    passed = lk("--lk-image", release(mended), "--lk-suite", check, *options, alone=True)
    assert check in passed.checks("pass"), passed.output


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("version", "flaws"), JUDGED)
def test_releases_are_judged_without_special_cases(version: str, flaws: set[str], lk, release) -> None:
    run = lk("--lk-image", release(version), alone=True)
    assert run.checks("fail", "MUST") == flaws, run.output
    assert not run.checks("error"), run.output
