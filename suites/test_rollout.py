"""Section "Rollout"."""

from __future__ import annotations

import signal
from collections.abc import Callable

from pytest_lkagents.checks import MUST, Evidence, check
from pytest_lkagents.stage import Stage

from .observations import Stop


@check(
    "rollout.idle-exit",
    MUST,
    section="Rollout",
    why="A worker without calls that does not end holds up every rollout for the whole grace period.",
    remedy="exit with code 0 (or 128 + signal) once the stop signal came and no job is left",
    roles=("stopped",),
)
def test_idle_exit(lk_stage: Stage, lk_evidence: Evidence, stop: Callable[[], Stop]) -> None:
    """Without calls, the stop signal ends the worker, with code 0 or 128 + signal."""
    seen = stop()
    limit = lk_stage.settings.exit_timeout
    number = int(seen.signal) if seen.signal.isdigit() else int(signal.Signals[seen.signal])
    lk_evidence["signal"] = seen.signal
    lk_evidence["exited_after_s"], lk_evidence["exit_code"] = seen.exited_s, seen.exit_code
    lk_evidence["limit_s"] = limit
    assert seen.exited_s is not None, f"still running {limit:g} s after {seen.signal} without a call"
    assert seen.exit_code in (0, 128 + number), f"exit code {seen.exit_code} after {seen.signal} without a call"
    lk_evidence.summary = f"exits {seen.exited_s} s after {seen.signal} with code {seen.exit_code}"
