"""A worker that is asked to stop while its server is away: whether it keeps its call."""

from __future__ import annotations

import time

from pytest_lkagents.busyness import Reading
from pytest_lkagents.checks import Evidence, NotJudgeable, Unproven
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .connections import JOB_GONE, Connections
from .kept import Kept
from .reconnecting import lose_server
from .scenario import DRAIN_SECONDS, LOOK_SECONDS


def stop_with_a_call(stage: Stage, worker: Worker, name: str, evidence: Evidence) -> Reading:
    """Take its server away from a worker with a call, send it this signal, and hang up. Returns its reading before the signal
    when the call's job has ended.

    Raises AssertionError if the call ended before; NotJudgeable, Unproven or TooBusy where that, or what came before, may
    have another cause."""
    caller = stage.calls.caller(worker)
    try:
        call = stage.calls.served(caller)
        stage.calls.wait_heard([call])
        before_loss = stage.calls.continuity(call)
        lose_server(worker, worker.cut_off)
        evidence["signal"], evidence["tries_before"] = name, worker.attempts()
        if not worker.is_running:
            raise NotJudgeable(
                f"it ends with code {worker.exit_code} by itself when its server is gone: see registration.reconnects"
            )
        if not before_loss.agents_are_there:
            raise NotJudgeable("its call did not outlive the loss of the server: see registration.keeps-calls")
        kept, connections = Kept(call, stage.calls.continuity(call)), Connections(worker, 1)
        before, sent = worker.reading(), time.monotonic()
        worker.signal(name)
        evidence["ended_with_its_call_after_s"] = ended = _ended_with_its_call(worker, kept, connections, sent)
        if kept.trouble is not None and kept.continuity.agents_are_there:
            stage.raise_if_too_busy(worker, before)
        while_away = f"{name}, which came while its server was away"
        assert ended is None, f"its call ended {ended} s after {while_away}: {kept.trouble or 'the worker ended'}"
    finally:
        caller.close()
    limit = stage.settings.exit_timeout
    try:
        with worker.ledger.waiting(worker.name):
            poll(lambda: not worker.wire.calls_at or not worker.is_running, what="end of the call's job", seconds=limit)
    except DeadlineMissed as missed:
        raise NotJudgeable(f"{missed}: see jobs.ends-with-call") from None
    return before


def _ended_with_its_call(worker: Worker, kept: Kept, connections: Connections, sent: float) -> float | None:
    """Seconds after the signal at which it ended with its call in progress, or the call was cut; None: neither happened while
    the call was kept. Raises Unproven where that may be the agent's habit."""
    with worker.ledger.waiting(worker.name):
        while True:
            running, passed = worker.is_running, round(time.monotonic() - sent, 1)
            kept.look(passed)
            gone = connections.look(1, passed)
            if kept.trouble is None and gone is not None:
                kept.trouble, kept.trouble_s = JOB_GONE, round(gone, 1)
            if kept.unproven is not None:
                raise Unproven(kept.unproven)
            if kept.trouble is not None:
                return kept.trouble_s
            if not running:
                return passed
            if passed >= DRAIN_SECONDS and not kept.suspected and connections.gone_since is None:
                return None
            time.sleep(LOOK_SECONDS)
