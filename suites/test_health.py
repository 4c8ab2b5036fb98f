"""Section "Networking": the optional health endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from pytest_lkagents.checks import MUST, SHOULD, Evidence, NotJudgeable, check
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Health, Worker

from .drains import Drain
from .test_registration import GIVE_UP_SECONDS, until_not_ready

# Three failed probes in a row are what orchestrators restart a container for, by default.
FAILED_PROBES = 3
REMEDY = "answer GET / with 200 while the worker is registered, on 0.0.0.0 (port 8081 by default)"


def _health(stage: Stage, worker: Worker) -> Health:
    if stage.settings.health == "off":
        raise NotJudgeable("the health endpoint is switched off (lk_health = off)")
    found = worker.wait_health()
    if found is not None:
        return found
    port = stage.settings.health_port
    if stage.settings.health == "required" or port is not None:
        raise AssertionError(f"nothing listens on the health port{f' {port}' if port else ''}")
    raise NotJudgeable("no health endpoint, which is optional (lk_health = required to insist)")


@check(
    "health.answers",
    MUST,
    profile="smoke",
    section="Networking",
    why="Platforms restart, or never route to, a container whose health check fails.",
    remedy=REMEDY,
    roles=("shared",),
)
def test_answers(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """The health endpoint answers 200 once the worker has registered."""
    worker = lk_stage.worker("shared")
    health = _health(lk_stage, worker)
    lk_evidence["port"], lk_evidence["path"] = health.port, lk_stage.settings.health_path
    try:
        with worker.ledger.waiting(worker.name):
            poll(lambda: worker.health_status(health) == 200, what="200", seconds=5, every=0.5)
    except DeadlineMissed:
        lk_evidence["status"] = worker.health_status(health)
        raise AssertionError(
            f"GET {lk_stage.settings.health_path} on port {health.port} answers {lk_evidence['status'] or 'nothing'}"
        ) from None
    lk_evidence["status"] = 200
    lk_evidence.summary = f"200 on port {health.port}"


@check(
    "health.reachable",
    MUST,
    section="Networking",
    why="Probes come from the host or the node, not from inside the container.",
    remedy="bind the health endpoint to 0.0.0.0, not to localhost",
    roles=("shared",),
)
def test_reachable(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """The health endpoint can be reached from another host."""
    worker = lk_stage.worker("shared")
    health = _health(lk_stage, worker)
    path = lk_stage.settings.health_path
    inside, _ = worker.get_inside(path, health.port)
    outside = lk_stage.get_from_another_host(worker, health.port, path)
    lk_evidence["port"] = health.port
    lk_evidence["status_from_inside"], lk_evidence["status_from_another_host"] = inside, outside
    assert outside is not None, f"port {health.port} answers {inside or 'nothing'} inside, nothing from another host"
    who = "another host" if lk_stage.settings.image is not None else "who asks at this machine's own address"
    lk_evidence["asked_by"] = who
    lk_evidence.summary = f"{who} gets {outside} on port {health.port}"


@check(
    "health.unhealthy-when-lost",
    SHOULD,
    profile="full",
    section="Networking",
    why="A worker that lost its server for good and stays healthy is never replaced.",
    remedy="fail the health check, or exit, once the connection cannot be had back",
    roles=("lost",),
    seconds=GIVE_UP_SECONDS + 60,
)
def test_unhealthy_when_lost(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """The health endpoint does not stay 200 when the server is gone for good."""
    if not lk_stage.controllable:
        raise NotJudgeable("the LiveKit server given by URL cannot be stopped")
    worker = lk_stage.worker("lost")
    _health(lk_stage, worker)
    worker.stop_server()
    how = until_not_ready(worker, GIVE_UP_SECONDS, lk_evidence)
    assert how, f"still 200 (or exited as if all were well) {GIVE_UP_SECONDS} s after the server was lost"
    lk_evidence.summary = f"without a server it {how}"


@check(
    "health.answers-while-draining",
    SHOULD,
    section="Networking",
    why="A liveness probe that fails during the drain kills the calls that the drain protects.",
    remedy="keep the health endpoint open and at 200 until the last call has ended",
    roles=("draining",),
    order=1,
)
def test_answers_while_draining(lk_stage: Stage, lk_evidence: Evidence, drain: Callable[[], Drain]) -> None:
    """The health endpoint answers while the worker drains."""
    _health(lk_stage, lk_stage.worker("shared"))
    seen = drain()
    if seen.health_port is None:
        raise NotJudgeable("the draining worker had no health endpoint")
    if len(seen.health) < FAILED_PROBES:
        raise NotJudgeable(f"it did not drain: {seen.cut.trouble if seen.cut else 'the call was over at once'}")
    failed = longest = 0
    for status in seen.health:
        failed = failed + 1 if status != 200 else 0
        longest = max(longest, failed)
    lk_evidence["probes"], lk_evidence["failed_in_a_row"] = len(seen.health), longest
    lk_evidence["statuses"] = sorted({str(status) for status in seen.health})
    assert longest < FAILED_PROBES, f"{longest} probes in a row failed after {seen.signal} with a call in progress"
    lk_evidence.summary = f"{len(seen.health)} probes during the drain, {longest} failed in a row"


@check(
    "health.reports-jobs",
    SHOULD,
    section="Networking",
    why="Autoscalers and rollouts that read active_jobs act on what it says.",
    remedy="let /worker count the jobs in progress",
    roles=("shared",),
)
def test_reports_jobs(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """``/worker`` active_jobs equals the calls in progress."""
    worker = lk_stage.worker("shared")
    health = _health(lk_stage, worker)
    if not worker.worker_info(health):
        raise NotJudgeable("the worker does not offer /worker")

    def settles(expected: int, seconds: float) -> int | None:
        """The value once it is as expected, or the last one."""
        value: int | None = None

        def read() -> bool:
            nonlocal value
            # The Python SDK leaves fields out that are zero.
            value = worker.worker_info(health).get("active_jobs", 0)
            return value == expected

        with contextlib.suppress(DeadlineMissed):
            poll(read, what="active_jobs", seconds=seconds, every=0.3)
        return value

    # A job may take its shutdown time (10 s in Python) to end after the call of an earlier check.
    lk_evidence["before"] = settles(0, 15)
    caller = lk_stage.caller(worker)
    try:
        lk_stage.served_call(caller)
        lk_evidence["with_one_call"] = settles(1, 5)
        offered = "active_jobs" in worker.worker_info(health)
    finally:
        caller.close()
    lk_evidence["after"] = settles(0, 30)
    if not offered:
        raise NotJudgeable("/worker does not offer active_jobs")
    seen = [lk_evidence["before"], lk_evidence["with_one_call"], lk_evidence["after"]]
    assert seen == [0, 1, 0], f"active_jobs was {seen[0]}, {seen[1]}, {seen[2]} before, during and after one call"
    lk_evidence.summary = "active_jobs 0, 1, 0 before, during and after a call"
