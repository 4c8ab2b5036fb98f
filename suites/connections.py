"""The connections over which jobs signal with their server, as a sign of life where a caller receives nothing."""

from __future__ import annotations

from pytest_lkagents.callers.continuity import FOR_GOOD_SECONDS
from pytest_lkagents.worker.base import Worker

JOB_GONE = "the job's connection to the server is gone"


class Connections:
    """Of the jobs of ``calls``, as they were before a disturbance. A job whose own one is gone for good is over, also where the
    server has not noticed yet: for some 20 s it takes the agent of a job that was killed for present. There is one for each
    participant of the worker's, and whose it is cannot be told: several calls with more or fewer connections (avatars have
    their own) are not judged by them."""

    def __init__(self, worker: Worker, calls: int) -> None:
        self._wire = worker.wire
        there = len(self._wire.calls_at)
        self._told = there == calls or (calls == 1 and there > 0)
        # Since when there have been too few, in seconds after the disturbance.
        self.gone_since: float | None = None

    def look(self, calls: int, passed: float) -> float | None:
        """``calls``: how many go on and show no other sign of life. Since when there have been fewer connections than these,
        once that is for good."""
        fewer = self._told and len(self._wire.calls_at) < calls
        if not fewer:
            self.gone_since = None
        elif self.gone_since is None:
            self.gone_since = passed
        since = self.gone_since
        return since if since is not None and passed - since >= FOR_GOOD_SECONDS else None
