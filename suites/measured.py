"""What the checks of this run found out about the worker, for those that hold deployment files against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.settings import Settings
from pytest_lkagents.verdict import PASS, CheckResult


def needs(results: Mapping[str, CheckResult], settings: Settings) -> Needs:
    """What is declared, and where nothing is, what was measured. ``results`` are those of the checks that came before."""

    def found(check: str, name: str) -> Any:
        result = results.get(check)
        return result.evidence.get(name) if result is not None and result.status == PASS else None

    def first(*places: tuple[str, str]) -> Any:
        return next((value for place in places if (value := found(*place)) is not None), None)

    threshold = settings.load_threshold
    if threshold is None:
        # Between these two it stopped to be available; the lower one is on the safe side.
        threshold = found("availability.threshold", "highest_load_available")
    metric = first(("availability.load-follows-work", "moved_by"), ("availability.rejects-over-threshold", "moved_by"))
    return Needs(
        start_s=found("registration.registers", "registered_after_s"),
        drain_s=settings.drain_hold,
        load_threshold=threshold,
        load_metric=metric,
        health_port=settings.health_port or first(("health.reachable", "port"), ("health.answers", "port")),
        health_path=settings.health_path if settings.health_path != "/" else found("health.answers", "path"),
        health_leads_to=found("health.answers", "redirected_to"),
        sessions=found("capacity.sizing", "sessions_per_worker"),
        cores_per_session=first(("capacity.sizing", "cores_per_session"), ("resources.within-ceilings", "cores_per_session")),
        memory_per_session_bytes=first(
            ("capacity.sizing", "memory_per_session_bytes"), ("resources.within-ceilings", "memory_per_session_bytes")
        ),
    )
