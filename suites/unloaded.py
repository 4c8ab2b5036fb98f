"""What a worker does when its load is over: whether it takes jobs again, and forgets those that it had."""

from __future__ import annotations

import time

from pytest_lkagents.wire.model import Status
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker

from .loaded import Loaded
from .placed import ask_until_accepted
from .reports import still_counts

# An accepted job that is not assigned may still come, as the SDKs see it, for 7.5 s; the next report tells.
PROMISED_SECONDS = 10
# So long any worker may wait for it.
FORGET_SECONDS = 50
# Longer than the minute for which some count what was.
STAYS_SECONDS = 75
# So many reports of exactly the same load.
UNMOVED = 3


def look_whether_it_stays(worker: Worker, seen: Loaded, ended: float) -> None:
    """Whether its reports stay what they were with the calls, that are over. A load that is measured moves by itself, a count
    falls with the jobs."""
    log = worker.wire.transcript

    def moves() -> bool:
        loads = [status.load for status in log.statuses(ended)]
        return len(set(loads)) > 1 or any(load <= seen.idle for load in loads) or not log.live()

    with worker.ledger.waiting(worker.name):
        moved = log.wait(lambda _: moves(), max(seen.patience, STAYS_SECONDS))
    loads = [status.load for status in log.statuses(ended)]
    if not moved and len(loads) >= UNMOVED and not seen.job_pids & set(worker.snapshot().living()):
        seen.stayed_at, seen.stayed_s = loads[-1], round(time.monotonic() - ended, 1)


def recover(worker: Worker, seen: Loaded, ended: float) -> None:
    """See when it takes jobs again."""

    def available(transcript: Transcript) -> Status | None:
        status = transcript.latest_status(ended)
        return status if status is not None and not status.full else None

    status = worker.wire.transcript.wait(available, seen.patience)
    if status is None:
        return
    seen.asked_after = ask_until_accepted(worker)[-1]
    if seen.asked_after.available:
        seen.recovered_after = time.monotonic() - ended


def look_whether_it_forgot(worker: Worker, seen: Loaded) -> None:
    """Whether a worker that counts its calls gives back the place of a call that is over, and of the job that it has accepted
    and that does not come: the last one after all calls, unless these did not fill it."""
    if seen.moved_by != "calls" or not seen.steps or not worker.wire.transcript.live():
        return
    if seen.recovered_after is not None:
        since = time.monotonic() + PROMISED_SECONDS
    elif not seen.over and seen.stayed_at is None and seen.counts_calls:
        since = max(seen.ended, seen.promised + PROMISED_SECONDS)
    else:
        return
    # The first one may have begun with what a burner left.
    counted = still_counts(worker, seen.idle, seen.first_steps(2), PROMISED_SECONDS + FORGET_SECONDS, since)
    # A job that does not end is another check's business.
    if counted is not None and not seen.job_pids & set(worker.snapshot().living()):
        seen.still_counted = counted
