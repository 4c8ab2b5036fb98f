"""What a worker counts that counts its calls: whether a call that is over, or was harmed, stays in the load that it reports."""

from __future__ import annotations

from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .harmed import Harm
from .reports import counted_at_rest, still_counts


class Tally:
    """Begun at rest, before the calls."""

    def __init__(self, stage: Stage, worker: Worker) -> None:
        self._stage, self._worker = stage, worker
        # What it reports without calls, if it counts them, and with them; and which processes served some.
        self._rest = counted_at_rest(worker)
        self._top = 0.0
        self._jobs: set[int] = set()

    def note_calls(self, jobs: set[int]) -> None:
        """The calls are there, served by these processes."""
        self._jobs |= jobs
        self._top = max((status.load for status in self._worker.wire.transcript.statuses()), default=0.0)

    def note_jobs(self) -> None:
        """A further call is served: by which processes, if that will matter."""
        if self._rest is not None:
            self._jobs |= set(self._worker.jobs_of(self._worker.snapshot()))

    def judge(self, harm: Harm) -> None:
        """Without a call nothing may be counted any more: a place that is never given back is lost to every later call."""
        worker = self._worker
        if harm.verdict is not None or self._rest is None or not worker.is_running:
            return
        # The top is what it was with one call, or with two.
        steps = [(self._top - self._rest) / calls for calls in (1, 2)]
        load = still_counts(worker, self._rest, steps, self._stage.settings.exit_timeout)
        last = worker.wire.transcript.latest_status()
        harm.evidence["load_at_rest_before"], harm.evidence["load_at_rest_after"] = self._rest, last.load if last else None
        # A job that does not end is another check's business.
        if load is not None and not self._jobs & set(worker.snapshot().living()):
            harm.worker_trouble = f"its load stays at {load:g} from then on without a call, where it was {self._rest:g} before"
