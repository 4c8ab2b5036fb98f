"""Whether a worker that got over something is still healthy to those who would end it otherwise."""

from __future__ import annotations

from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Health, Worker

# An orchestrator ends a container after three failed probes, mostly 10 s apart; what is mended sooner does no harm.
HEALTHY_SECONDS = 10.0


def answers(worker: Worker) -> Health | None:
    """Its health endpoint, if it has one that answers 200 now."""
    found = worker.health()
    return found if found is not None and worker.health_status(found) == 200 else None


def stays_unhealthy(stage: Stage, worker: Worker, health: Health | None) -> str | None:
    """What is wrong with the endpoint that answered 200 before; None: nothing, or there was none, or the worker is full, of
    which probes are health.answers-under-load's business. Raises TooBusy."""
    if health is None:
        return None
    before, status = worker.reading(), None

    def healthy() -> bool:
        nonlocal status
        status = worker.health_status(health)
        return status == 200

    try:
        with worker.ledger.waiting(worker.name):
            poll(healthy, what="200", seconds=HEALTHY_SECONDS, every=0.5)
    except DeadlineMissed:
        if status is None:
            stage.raise_if_too_busy(worker, before)
        last = worker.wire.transcript.latest_status()
        if last is not None and last.full:
            return None
        return f"its health endpoint answers {status or 'nothing'} from then on, for which a probe ends it with all its calls"
    return None
