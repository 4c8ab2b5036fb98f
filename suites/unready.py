"""A worker that does not get to its server, or not any more: whether it looks ready all the same."""

from __future__ import annotations

import time

from pytest_lkagents.checks import Evidence, NotJudgeable
from pytest_lkagents.worker.base import Worker

from .healthy import Failing

# The Python SDK tries 16 times in about 130 s before it gives up, Node 10 times in about 80 s.
GIVE_UP_SECONDS = 180


def until_not_ready(worker: Worker, since: float, seconds: float, evidence: Evidence) -> str | None:
    """How the worker shows that it is not ready (exit with an error, or health not 200 for 5 s), or None. It is watched
    for ``seconds`` from now on; what is said of times counts from ``since`` (monotonic seconds).

    Raises AssertionError when it exits with 0, NotJudgeable when there is no health endpoint and it does not exit.
    """
    began = time.monotonic()
    seen_health, failing = False, Failing()
    with worker.ledger.waiting(worker.name):
        while time.monotonic() - began < seconds:
            passed = round(time.monotonic() - since, 1)
            code = worker.exit_code
            if code is not None:
                evidence["exited_within_s"], evidence["exit_code"] = passed, code
                assert code, f"exits with code 0 within {passed} s, as if all were well"
                return f"exits with code {code} within {passed} s"
            found = worker.health()
            answer = worker.health_answer(found) if found else None
            # One that leads to another host tells nothing of this worker.
            tells = answer is None or not answer.leads_elsewhere
            seen_health = seen_health or (answer is not None and tells)
            status = answer.status if answer else None
            if seen_health and tells and failing.look(status):
                evidence["unhealthy_after_s"], evidence["health_status"] = passed, status
                return f"answers {status or 'nothing'} after {passed} s"
            time.sleep(1)
    evidence["watched_s"] = seconds
    if not seen_health:
        raise NotJudgeable("no health endpoint, and the worker neither registers nor exits")
    return None
