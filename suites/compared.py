"""What is judged of one stop by what another one showed: of a worker that lost nothing, of one without calls, of a single
call."""

from __future__ import annotations

from collections.abc import Callable

from pytest_lkagents.checks import Evidence, NotJudgeable, StageError, WorkerFault
from pytest_lkagents.verdict import SEEN_BESIDE

from .drained import Drain
from .observations import Stop
from .reconnecting import CallsEnded, Reconnection


def judge_without_calls(stop: Callable[[], Stop], evidence: Evidence) -> None:
    """Raises AssertionError if a worker without calls takes a job after its signal, as if it waited for something; StageError
    if it had no time to heed that."""
    try:
        idle = stop()
    except (StageError, WorkerFault, NotJudgeable):
        return  # for rollout.idle-exit to say
    answer = idle.asked.available if idle.asked is not None else None
    evidence["without_calls_asked_after_s"], evidence["without_calls_accepts"] = idle.asked_s, answer
    takes = f"without calls it accepts a job {idle.asked_s} s after {idle.signal}"
    if answer and idle.busy is not None:
        raise StageError(f"this machine is too busy to judge: {takes}, {idle.busy}")
    assert not answer, takes


def judge_loss(harmed: CallsEnded, single: Reconnection | None, evidence: Evidence) -> None:
    """Raises AssertionError if calls ended with their worker's connection although a ``single`` one did not, of which alone
    registration.keeps-calls knows."""
    evidence["calls"], evidence["ended_with_the_connection"] = harmed.calls, harmed.ended
    if single is not None and single.kept_its_call:
        evidence[SEEN_BESIDE] = "registration.keeps-calls"
        raise AssertionError(
            f"{harmed.ended} of {harmed.calls} calls ended when their worker's connection was cut, before any signal; a single "
            "call goes on"
        )


def stays(drain: Callable[[], Drain]) -> bool:
    """Whether it does not end after its own stop signal and the end of its calls either."""
    try:
        return drain().outlasted
    except (NotJudgeable, StageError, WorkerFault):
        return False


def require_drains(several: Drain, single: Drain) -> None:
    """Raises NotJudgeable if the calls of a worker that lost nothing were cut, too."""
    if not single.drained or several.cut_while_held is not None:
        raise NotJudgeable("its calls were cut, as those of a worker that lost nothing: see rollout.sigterm-drains")
    if not several.drained:
        raise NotJudgeable("one of its calls was cut, as of a worker that lost nothing: see rollout.drains-every-call")
