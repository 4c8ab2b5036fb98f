"""What the checks of an image make of what was seen."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_lkagents.checks import Evidence, NotJudgeable
from pytest_lkagents.worker.health import Health
from suites import test_image as checks
from suites.drained import Drain
from suites.observations import Stop


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("python agent.py dev", ["dev"]),
        ("python3.12 -u /app/src/agent.py console", ["console"]),
        ("python -m agent dev --no-reload", ["dev"]),
        ("python -u /app/.venv/bin/voice-agent dev", ["dev"]),
        ("/agent dev", ["dev"]),
        ("node dist/agent.js connect --room x", ["connect"]),
        ("sh -c exec python agent.py dev", ["dev"]),
        ("python agent.py start --env dev", []),
        ("node --conditions dev dist/agent.js start", []),
        ("python agent.py --profile dev start", []),
        ("python agent.py start dev", []),
        ("dev", []),
    ],
)
def test_the_command_of_a_worker_in_development(line: str, words: list[str]) -> None:
    assert checks.development([line]) == words


PRODUCTION, DEVELOPMENT = "python agent.py start", "python agent.py dev"


@pytest.mark.parametrize(
    ("command", "port", "cut", "judged"),
    [
        (PRODUCTION, 8081, False, None),
        (PRODUCTION, 45123, False, None),  # port=0, as where several share a host
        (DEVELOPMENT, 8081, False, None),
        (PRODUCTION, 8081, True, NotJudgeable),
        (PRODUCTION, 45123, True, AssertionError),
        (DEVELOPMENT, 8081, True, AssertionError),
        (DEVELOPMENT, 45123, False, AssertionError),
    ],
)
def test_two_signs_of_development_are_a_failure(command: str, port: int, cut: bool, judged: type[Exception] | None) -> None:
    shared = SimpleNamespace(wait_health=lambda: Health(8081, loopback=False), worker_info=lambda _: {"active_jobs": 0})
    seen: Any = Drain("SIGTERM", port, [command])
    if cut:
        seen.kept.append(SimpleNamespace(trouble="the agent left the call", trouble_s=0.1, unproven=None, hung_up_s=None))
    stage: Any = SimpleNamespace(worker=lambda _: shared)
    with pytest.raises(judged) if judged else nullcontext():
        checks.test_production_mode(stage, Evidence(), lambda: seen)


def test_a_signal_that_nobody_can_be_asked_about_is_not_judged() -> None:
    stage: Any = SimpleNamespace(needs_image=lambda _: None)
    with pytest.raises(NotJudgeable, match=r"rollout\.idle-exit"):
        checks.test_forwards_signals(stage, Evidence(), lambda: Stop("SIGTERM"))
    with pytest.raises(AssertionError, match="obeys it when asked directly"):
        checks.test_forwards_signals(stage, Evidence(), lambda: Stop("SIGTERM", direct_signal_worked=True))
    checks.test_forwards_signals(stage, Evidence(), lambda: Stop("SIGTERM", deregistered_s=0.1))


@pytest.mark.parametrize(("retries", "interval_s", "judged"), [(3, 1, True), (300, 1, False), (200, 1, False), (3, 100, False)])
def test_a_healthcheck_is_waited_for_no_longer_than_said(
    retries: int, interval_s: int, judged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(1000.0, 1.0)
    asked: list[float] = []

    def run(*_: object) -> tuple[int, str]:
        asked.append(next(clock))
        return 1, ""

    monkeypatch.setattr(checks, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: next(clock)))
    worker = SimpleNamespace(started=1000.0, reading=lambda: None, run=run)
    told = {"Test": ["CMD", "ask"], "Retries": retries, "Interval": interval_s * 10**9}
    contents = SimpleNamespace(attrs={"Config": {"Healthcheck": told}})
    stage: Any = SimpleNamespace(contents=contents, worker=lambda _: worker)
    with pytest.raises(AssertionError if judged else NotJudgeable):
        checks.test_healthcheck(stage, Evidence())
    assert asked[-1] - asked[0] < checks.LONGEST_PATIENCE + 5
