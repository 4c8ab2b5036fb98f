"""Calls that a worker accepted: in the whole run so far, and a few more in the ways in which users come."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pytest_lkagents.callers.backend import delete_room
from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.calls import AGENT_SECONDS, ENOUGH_LOST, FREE_SECONDS, LATE_SECONDS, Accepted
from pytest_lkagents.checks import NotJudgeable, StageError, TooBusy
from pytest_lkagents.stage import Stage

from .observations import REST_SECONDS
from .placed import wait_free
from .pool import settle

LOST_SECONDS = AGENT_SECONDS + LATE_SECONDS
# Of one worker: one that loses every third call has lost two of them by then, one that loses every sixth a first one.
LEAST = 6
# Since a lost one, or the last of several; a worker that loses every tenth loses one of these with a chance of 57 %.
SINCE_LOST = 8
# With so many a machine has been given time enough.
MOST = 2 * SINCE_LOST + LEAST
# A full worker refuses some of them, rightly.
REFUSED = 3
# How often users come in a way in which a call was missed: that may have been chance.
AGAIN = 3
# A question belongs to a call that came a second later at most (Calls.questions).
APART_SECONDS = 1.5
AT_ONCE, BACK = "two callers came in the same instant", "a caller came back to the room of a call that was over"


@dataclass
class Seen:
    """``how``: in which way the callers of some of the calls came, by job."""

    calls: list[Accepted]
    how: dict[str, str] = field(default_factory=dict)


def come(stage: Stage) -> dict[str, str]:
    """Calls to the shared worker in ways that no check before had: in which one, by job. Raises NotJudgeable where none was
    ever served."""
    _raise_if_none_served(stage)
    how: dict[str, str] = {}
    with contextlib.closing(stage.calls.caller(stage.worker("shared"))) as caller:
        for way, calls in ((AT_ONCE, _at_once), (BACK, _back)):
            how.update({call.job: way for call in _come(stage, caller, calls)})
    return how


def observe(stage: Stage, how: dict[str, str]) -> Seen:
    """All calls that were accepted so far, of which some came in the ways of ``come``, after more were placed with the shared
    worker: as many as it takes to judge. Raises NotJudgeable where these are not accepted, or none was ever served."""
    _raise_if_none_served(stage)
    with contextlib.closing(stage.calls.caller(stage.worker("shared"))) as caller:
        _come_until_enough(stage, caller, stage.calls.accepted)
    return Seen(list(stage.calls.accepted), how)


def _raise_if_none_served(stage: Stage) -> None:
    if stage.calls.all_in_vain:
        raise NotJudgeable("none of the calls got an agent: see jobs.joins")


def _come(stage: Stage, caller: Caller, calls: Callable[[Stage, Caller], None]) -> list[Accepted]:
    """The calls that were accepted; once more, for some times, where one of them is missed or none is accepted: by a worker
    that was full for a moment."""
    came: list[Accepted] = []
    for _ in range(AGAIN):
        if sum(call.failed for call in stage.calls.accepted) >= ENOUGH_LOST:
            break
        before = len(stage.calls.accepted)
        _wait_free(stage)
        calls(stage, caller)
        # Meanwhile others call, too.
        new = [call for call in stage.calls.accepted[before:] if call.room in caller.rooms]
        came += new
        if new and not any(call.missed for call in new):
            break
    return came


def _at_once(stage: Stage, caller: Caller) -> None:
    # With all its processes ready, none of the two has to wait for one.
    with contextlib.suppress(StageError):
        settle(stage, stage.worker("shared"), set(), REST_SECONDS)
    with ThreadPoolExecutor(2) as callers:
        calls = list(callers.map(lambda _: caller.join(), range(2)))

        def settle_one(call: Call) -> None:
            # Of one that takes one after the other, nobody need wait for what it refused.
            def is_over() -> bool:
                return any(other.agents for other in calls) and stage.calls.refused(call, caller.server)

            stage.calls.wait_settled(call, caller.server, is_over=is_over)

        # Both at the same time: what this machine had no time for meanwhile is known of each from its beginning.
        list(callers.map(settle_one, calls))
    for call in calls:
        call.leave()


def _back(stage: Stage, caller: Caller) -> None:
    """Into a room of the same name, whose first one is closed: agents come to new rooms only."""
    first = caller.join()
    stage.calls.wait_settled(first, caller.server)
    settled = time.monotonic()
    first.leave()
    with contextlib.suppress(StageError):
        stage.calls.wait_idle(stage.worker("shared"), REST_SECONDS)
    with contextlib.suppress(StageError):
        delete_room(caller.server, first.room_name)  # unless it closed by itself
    _wait_free(stage)
    time.sleep(max(APART_SECONDS - (time.monotonic() - settled), 0.0))
    again = caller.join(first.room_name)
    stage.calls.wait_settled(again, caller.server)
    again.leave()


def _come_until_enough(stage: Stage, caller: Caller, accepted: list[Accepted]) -> None:
    refused, began = 0, len(accepted)
    while not enough(accepted):
        _wait_free(stage)
        before = len(accepted)
        call = caller.join()
        stage.calls.wait_settled(call, caller.server)
        call.leave()
        refused += len(accepted) == before
        if len(accepted) - began >= MOST:
            stage.raise_if_too_busy()
            raise TooBusy(f"this machine is too busy to judge: it had no time for some of {MOST} calls in a row")
        if refused == REFUSED:
            stage.raise_if_too_busy()
            raise NotJudgeable(f"only {len(accepted)} calls were accepted, and no more")


def _wait_free(stage: Stage) -> None:
    worker = stage.worker("shared")
    stage.wait_unpromised(worker)
    with contextlib.suppress(StageError):
        wait_free(worker, FREE_SECONDS)


def enough(accepted: Sequence[Accepted]) -> bool:
    missed = [number for number, call in enumerate(accepted, 1) if call.missed]
    if not missed:
        return max(Counter(call.worker for call in accepted).values(), default=0) >= LEAST
    if sum(call.failed for call in accepted) >= ENOUGH_LOST:
        return True
    lost = [number for number, call in enumerate(accepted, 1) if call.agent_s is None]
    # Of one that loses every third call a busy machine explains each, and eight others are served all the same.
    since = missed[0] if len(lost) < ENOUGH_LOST else lost[-1]
    return sum(not call.missed for call in accepted[since:]) >= SINCE_LOST


def lines(stage: Stage, lost: Sequence[Accepted]) -> list[str]:
    """What workers and their servers told each other about the jobs of lost calls."""
    return [
        line
        for worker in stage.workers()
        for call in lost
        if call.worker == worker.name
        for line in worker.wire.transcript.lines(call.joined - 1, kinds=("question", "answer", "assignment", "job"))
        if call.job in line
    ]
