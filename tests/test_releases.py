"""Published releases of both SDKs, judged like any other image: the flawed one is caught, the mended one passes.

Takes minutes per release: ``--whole`` (tox -e detection) runs it.
"""

from __future__ import annotations

import subprocess

import pytest

from .conftest import ROOT

# check, flawed release, mended release, options
PAIRS = [
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
    # The only idle process dies: the next job is not lost, since it is started again.
    ("jobs.dead-idle-process", "1.4.1", "1.4.2", []),
    # Its server is gone for good: after about 130 s of tries the flawed one rests, healthy.
    ("health.unhealthy-when-lost", "1.3.10", "1.3.11", []),
    ("jobs.joins", "0.8.12", "0.9.0", ["--lk-env", "RELEASE_IDLE=0"]),
    # The releases from 0.7.4 on do connect again, and end when the first try is refused, as it is here, until 1.0.31.
    ("registration.reconnects", "node:0.7.1", "node:1.0.31", []),
    ("registration.waits-for-server", "node:1.0.24", "node:1.0.31", []),
    ("health.reachable", "node:0.7.1", "node:0.7.4", []),
    # With its ten tries the flawed one ends in time, which is as good.
    ("health.unhealthy-when-lost", "node:1.0.39", "node:1.0.40", ["--lk-env", "RELEASE_RETRIES=1000"]),
    # Never full, since both accept then: only what they say while draining is judged.
    ("availability.refuses-while-full", "node:1.2.2", "node:1.2.3", ["--lk-env", "RELEASE_LOAD=jobs1000"]),
    ("environment.agent-name", "node:1.3.0", "node:1.4.0", []),
]
# release, MUSTs of the core profile that it does not meet: before 1.4.2 a full or draining worker accepts when
# asked, and 1.2 without a URL tries a default one.
JUDGED: list[tuple[str, set[str]]] = [
    ("1.8.9", set()),
    ("1.3.12", {"availability.refuses-while-full"}),
    ("1.2.18", {"availability.refuses-while-full", "registration.refuses-incomplete-configuration"}),
    # `start` leaves the threshold of an agent that names none at infinity.
    ("node:1.9.0", {"availability.rejects-over-threshold", "registration.refuses-incomplete-configuration"}),
]


@pytest.fixture
def release(pytestconfig: pytest.Config):
    if not pytestconfig.getoption("whole"):
        pytest.skip("takes minutes: --whole runs it")

    def build(version: str) -> str:
        subprocess.run([ROOT / "fixtures/releases/build", version], check=True, timeout=600)
        return f"pytest-lkagents/release:{version.replace(':', '-')}"

    return build


@pytest.mark.alone
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("check", "flawed", "mended", "options"), PAIRS)
def test_the_flawed_release_is_caught_and_the_mended_one_passes(
    check: str, flawed: str, mended: str, options: list[str], lk, release, keep
) -> None:
    caught = lk("--lk-image", release(flawed), "--lk-suite", check, *options)
    keep("release, flawed", f"{flawed} {check}", caught, expected=[check])
    assert check in caught.checks("fail"), caught.output
    passed = lk("--lk-image", release(mended), "--lk-suite", check, *options)
    keep("release, mended", f"{mended} {check}", passed, expected=[])
    assert check in passed.checks("pass"), passed.output


@pytest.mark.alone
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("version", "flaws"), JUDGED)
def test_releases_are_judged_without_special_cases(version: str, flaws: set[str], lk, release, keep) -> None:
    run = lk("--lk-image", release(version), seconds=600)
    keep("release", version, run, expected=sorted(flaws))
    assert run.checks("fail", "MUST") == flaws, run.output
    assert not run.checks("error"), run.output
