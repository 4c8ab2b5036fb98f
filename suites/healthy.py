"""Whether a worker is healthy to those who would end it otherwise: at first, and after it got over something."""

from __future__ import annotations

import contextlib
import re
import time

from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.probe.answers import Answer
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.health import Health

# An orchestrator ends a container after three failed probes, mostly 10 s apart; what is mended sooner does no harm.
HEALTHY_SECONDS = 10.0
# One that fails once says little.
UNHEALTHY_SECONDS = 5.0
# Nobody is ended for such a probe.
READINESS = re.compile(r"read(y|iness)", re.IGNORECASE)


class Failing:
    """Tells from one look after another whether a health endpoint fails for so long that it is no chance."""

    def __init__(self) -> None:
        self._since: float | None = None

    def look(self, status: int | None) -> bool:
        """``status``: what it answers now; None: nothing."""
        if status == 200:
            self._since = None
            return False
        now = time.monotonic()
        self._since = self._since or now
        return now - self._since > UNHEALTHY_SECONDS


def answers(worker: Worker) -> Health | None:
    """Its health endpoint, if it has one that answers 200 now."""
    found = worker.health()
    return found if found is not None and worker.health_status(found) == 200 else None


def answer_within(stage: Stage, worker: Worker, health: Health, seconds: float) -> Answer:
    """200 as soon as the endpoint answers so, else what it answered last. Raises TooBusy where nothing answers, which may be
    this machine's doing."""
    before = worker.reading()
    said: list[Answer] = []

    def healthy() -> bool:
        said.append(worker.health_answer(health))
        return said[-1].status == 200

    with contextlib.suppress(DeadlineMissed), worker.ledger.waiting(worker.name):
        poll(healthy, what="200", seconds=seconds, every=0.5)
    if said[-1].status is None:
        stage.raise_if_too_busy(worker, before)
    return said[-1]


def unhealthy_when_full(stage: Stage, worker: Worker, health: Health | None) -> int | None:
    """What the endpoint that answered 200 before answers for as long as a platform needs to end a worker for it, while this one
    says that it is full. None: it answers 200 or nothing, is no longer full, or is asked by readiness probes only."""
    if health is None or READINESS.search(health.path):
        return None
    answered: list[int | None] = []

    def is_over() -> bool:
        stage.raise_if_closing()
        answered.append(worker.health_status(health))
        last = worker.wire.transcript.latest_status()
        return answered[-1] in (200, None) or last is None or not last.full

    with contextlib.suppress(DeadlineMissed), worker.ledger.waiting(worker.name):
        poll(is_over, what="200", seconds=HEALTHY_SECONDS, every=0.5)
        return None
    return answered[-1]


def stays_unhealthy(stage: Stage, worker: Worker, health: Health | None) -> str | None:
    """What is wrong with the endpoint that answered 200 before; None: nothing, or there was none, or the worker is full, of
    which probes are health.answers-under-load's business. Raises TooBusy."""
    if health is None:
        return None
    status = answer_within(stage, worker, health, HEALTHY_SECONDS).status
    last = worker.wire.transcript.latest_status()
    if status == 200 or (last is not None and last.full):
        return None
    return f"its health endpoint answers {status or 'nothing'} from then on, for which a probe ends it with all its calls"
