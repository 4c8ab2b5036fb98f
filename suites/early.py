"""A worker that is started before its server: whether it waits, and how often it tries meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from pytest_lkagents import limits
from pytest_lkagents.calls import ENOUGH_LOST
from pytest_lkagents.checks import StageError, TooBusy, TryAgain, WorkerFault
from pytest_lkagents.clock import DeadlineMissed, holds, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .questions import taken_in_vain
from .reconnecting import RECONNECT_SECONDS, needs_own_server

# The longest first pause of an SDK is 2 s.
SECOND_SECONDS = 15
# Whoever has tried for a minute may give up.
PATIENCE_SECONDS = 60
# An SDK tries twice in the first two seconds, a library that asks under several addresses some times more.
MANY = 10
# Of the rate of tries, where there are many.
RATE_SECONDS = 5.0
MOST_PER_SECOND = 10.0


@dataclass
class Early:
    """``tries`` were refused until the server came; ``per_second`` of them later ones, where there were many at first.
    ``problem``: what was wrong with the worker, in words; ``registered_s``: seconds after the server came; ``joined_s``: how
    long a call then waited for its agent; None: where no worker serves calls, or that could not be told (``not_told``);
    ``unserved``: what was wrong with calls, in words."""

    tries: int
    waited_s: float
    per_second: float | None = None
    problem: str | None = None
    registered_s: float | None = None
    joined_s: float | None = None
    unserved: str | None = None
    not_told: str | None = None

    def raise_if_untried(self, seconds: float) -> None:
        """Raises StageError if nothing is shown, as it did not try at all in so many seconds."""
        if not self.tries:
            raise StageError(f"no try to connect within {seconds:g} s while the server was down")


def observe(stage: Stage, first_call: Callable[[], object], *, last: bool) -> Early:
    """``first_call`` raises where no worker serves calls; ``last``: what this machine is too busy for is not observed again.
    Raises StageError on a busy machine, WorkerFault where the worker does not register with a server either."""
    needs_own_server(stage)
    shared = stage.worker("shared")  # a worker that does not register with a server either is another check's business
    registrations = len(shared.wire.transcript.live())
    if stage.takes_turns:
        # The two cannot run side by side; later this is known.
        _serves(first_call)
    worker = stage.untouched("early")
    # Without a refused try nothing is shown: a slow start-up has the time that it has to register. A second one shows that it
    # keeps trying.
    if _tries(stage, worker, 1, stage.settings.start_timeout):
        _tries(stage, worker, 2, SECOND_SECONDS)
    tries, per_second = worker.attempts(), None
    if tries > MANY:
        per_second = _rate(worker, tries)
        tries = worker.attempts()
    seen = Early(tries, time.monotonic() - worker.started, per_second)
    if not worker.is_running:
        if seen.waited_s > PATIENCE_SECONDS:
            # Another one is begun with, and at once.
            raise TooBusy(
                f"this machine is too busy to judge: the worker had waited for {seen.waited_s:.0f} s when its turn came"
            )
        seen.problem = worker.last_words(f"exited with code {worker.exit_code} while the server was down")
        return seen
    worker.start_server()
    came = time.monotonic()
    try:
        worker.wait_registered(RECONNECT_SECONDS)
    except WorkerFault as fault:
        seen.problem = f"after the server came: {fault}"
        return seen
    seen.registered_s = round(time.monotonic() - came, 2)
    try:
        if _serves(first_call):
            worker.wire.transcript.wait(lambda log: len(log.live()) >= registrations, SECOND_SECONDS)
            _serve(stage, worker, seen)
    except TryAgain as error:
        if not last:
            raise
        seen.not_told = str(error)
    except StageError as error:
        seen.not_told = str(error)
    return seen


def _serves(first_call: Callable[[], object]) -> bool:
    """Whether another worker serves calls. Raises TryAgain."""
    try:
        first_call()
    except TryAgain:
        raise
    except (Exception, pytest.fail.Exception):
        if limits.is_over():
            raise
        return False
    return True


def _serve(stage: Stage, worker: Worker, seen: Early) -> None:
    """What it learned of the server while this was down it may believe for ever, and refuse all calls, or lose them."""
    log, began, reading = worker.wire.transcript, time.monotonic(), worker.reading()
    caller = stage.calls.caller(worker)
    try:
        try:
            call = stage.calls.served(caller)
        except WorkerFault:
            if any(log.answers(began)):
                raise
            # It may have something to do at its start, and say that it is full meanwhile.
            left = stage.settings.start_timeout - (time.monotonic() - worker.registration().registered)
            log.wait(lambda said: (last := said.latest_status()) is not None and not last.full, max(left, 0.1))
            call = stage.calls.served(caller)
        seen.joined_s = round(call.agent_after, 2)
        lost = len(taken_in_vain(worker, caller, call, began))
        if lost >= ENOUGH_LOST:
            stage.raise_if_too_busy(worker, reading)
            seen.unserved = f"{lost} of the first calls that it took when the server came got no agent"
    except WorkerFault as nobody:
        seen.unserved = worker.last_words(f"it registered when the server came, but {nobody}")
    finally:
        caller.close()


def _rate(worker: Worker, before: int) -> float:
    """Tries a second, from now on."""
    began = time.monotonic()
    with worker.ledger.waiting(worker.name):
        holds(lambda: worker.is_running, seconds=RATE_SECONDS, every=0.5)
    return round((worker.attempts() - before) / (time.monotonic() - began), 1)


def _tries(stage: Stage, worker: Worker, count: int, seconds: float) -> bool:
    """Whether it has tried to connect that often, or ended, within ``seconds``."""

    def tried() -> bool:
        worker.probe()
        return worker.attempts() >= count or not worker.is_running

    try:
        with worker.ledger.waiting(worker.name):
            poll(tried, what="tries", seconds=seconds, every=0.3)
    except DeadlineMissed:
        stage.raise_if_too_busy()
        return False
    return True
