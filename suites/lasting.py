"""Whether a worker stays registered while nobody disturbs it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_lkagents.checks import NotJudgeable
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Entry, Registration
from pytest_lkagents.wire.protocol import TAP, WORKER
from pytest_lkagents.worker.base import Worker

# What a worker does by the clock (SDKs report every 2.5 s and ping every 10 to 30 s) has come round by then.
LEAST_SECONDS = 30.0
# Once may be chance; what happens by the clock happens again after as long as the first time, if that was not too long ago.
LONGEST_SECONDS = 60.0
ENOUGH = 2
# SDKs take a server for lost that did not answer a ping for 15 s; a machine that was too busy for that was so before.
PING_SECONDS = 20.0


@dataclass(frozen=True)
class Away:
    """A time for which a worker was registered nowhere, until it came back by itself (monotonic seconds); ``by`` is the side
    that ended the last connection."""

    since: float
    until: float
    by: str


def absences(registrations: Sequence[Registration], closed: Sequence[Entry]) -> list[Away]:
    """The times between registrations for which none was open, oldest first; ``closed`` are the ends of connections. One
    that overlaps with the next, as in a renewal without a gap, leaves none."""
    by = {ended.connection: str(ended.data.get("by")) for ended in closed}
    found: dict[float, Away] = {}
    for known in registrations:
        end = known.closed
        if end is None or any(
            other.registered <= end and (other.closed is None or other.closed > end)
            for other in registrations
            if other is not known
        ):
            continue
        back = min((other.registered for other in registrations if other.registered > end), default=None)
        # Of several that end together, the last one is the beginning.
        if back is not None and (back not in found or found[back].since < end):
            found[back] = Away(end, back, by.get(known.connection, TAP))
    return sorted(found.values(), key=lambda away: away.since)


def observe(stage: Stage, worker: Worker) -> tuple[list[Away], list[Away], float]:
    """When the worker was away by its own doing, which of these times cannot be due to a busy machine, and for how long it
    was watched (seconds). Raises NotJudgeable if something was done to its connection, WorkerFault if it is gone for good."""
    log = worker.wire.transcript
    began = log.registrations()[0].registered

    def all_of_them() -> list[Away]:
        stage.raise_if_closing()
        found = absences(log.registrations(), log.entries("closed"))
        return [away for away in found if away.by == WORKER or (away.by != TAP and stage.controllable)]

    def certain() -> list[Away]:
        return [away for away in all_of_them() if not stage.history.had_no_time(away.since - PING_SECONDS, away.since)]

    def wait_until(end: float) -> None:
        log.wait(lambda _: len(certain()) >= ENOUGH or not worker.is_running, end - time.monotonic())

    with worker.ledger.waiting(worker.name):
        wait_until(began + LEAST_SECONDS)
        if (before := all_of_them()) and len(certain()) < ENOUGH:
            lasted = [
                away.since - since for since, away in zip([began, *(away.until for away in before)], before, strict=False)
            ]
            wait_until(time.monotonic() + ENOUGH * min(max(lasted), LONGEST_SECONDS))
        worker.registration()
    if any(act.data.get("source") != WORKER for act in log.entries("act")):
        raise NotJudgeable("something was done to the connection of its registration")
    return all_of_them(), certain(), time.monotonic() - began
