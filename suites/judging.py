"""What a drain must show: nothing new taken, no call disturbed, an end with a code that says so."""

from __future__ import annotations

import re
import signal
import time

from pytest_lkagents.busyness import Reading
from pytest_lkagents.callers.continuity import may_have_missed
from pytest_lkagents.callers.reception import SILENCE_SECONDS, STALL_SECONDS
from pytest_lkagents.calls import ANSWER_SECONDS
from pytest_lkagents.checks import Evidence, NotJudgeable, StageError
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .drained import Drain
from .kept import Kept
from .offers import STOPS_SECONDS

# With these the first process crashed itself: a fault in it, or an abort.
OWN_CRASH = {128 + fault for fault in (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)}


def exit_codes(name: str) -> set[int]:
    """Codes of a worker that ended because of this signal: 0, or 128 + its number (Node), or that of the one which an init or a
    script sends instead."""
    return {0, *(128 + _number(known) for known in (name, "SIGINT", "SIGTERM"))}


def _number(name: str) -> int:
    """Such as SIGTERM, 15, or SIGRTMIN+3."""
    if name.isdigit():
        return int(name)
    base, offset = re.findall(r"^(\w+)(.*)$", name)[0]
    return int(signal.Signals[base]) + int(offset or 0)


def raise_if_uncertain(seen: Drain, cut: Kept, evidence: Evidence) -> None:
    """Note what is known of a cut. Raises TooBusy or Unproven if it may be no fault."""
    evidence["transcript"], evidence["exit_code"] = seen.lines[-8:], seen.exit_code
    if not seen.cut_for_certain:
        seen.raise_if_busy(str(cut.trouble))
        seen.raise_if_unproven()


def stops_in_time(seen: Drain) -> bool:
    """Whether it took nothing new from 5 s after the signal on: it said so, refused whenever it was asked, or ended. One that
    was asked late, as a probe took its time, must have answered when one that is asked in time must have: who heeds nothing
    for some seconds refuses what comes shortly before that is over."""
    if any(at is not None and at <= STOPS_SECONDS for at in (seen.stopped_s, seen.ended_early_s)):
        return True
    if seen.asked is None or seen.asked.available is not False:
        return False
    if (seen.asked_s or 0) + (seen.asked.after_s or 0) > STOPS_SECONDS + ANSWER_SECONDS:
        return False
    return seen.asked_last is None or not seen.asked_last.available


def judge_kept_calls(seen: Drain, evidence: Evidence, *, gaps: bool = True) -> None:
    """No call was disturbed while all were held. Raises AssertionError, or StageError on a busy machine. ``gaps``: a
    gap after which the call went on counts too, which is for observations that are repeated in doubt."""
    evidence["signal"], evidence["held_s"], evidence["calls"] = seen.signal, seen.held_s, len(seen.kept)
    if seen.usual is not None:
        evidence["agents_stay_s"] = round(seen.usual.least, 1)
    evidence["received"] = [kept.evidence or kept.continuity.evidence() for kept in seen.kept]
    evidence["series_s_calls_pause"] = seen.series
    cut = seen.cut_while_held
    if cut is not None:
        raise_if_uncertain(seen, cut, evidence)
        ended = f"; the worker exited with code {seen.exit_code}" if seen.exit_code is not None else ""
        raise AssertionError(f"{cut.trouble_s} s after {seen.signal} {cut.trouble}{ended}")
    if seen.ended_while_held is not None:
        evidence["transcript"] = seen.lines[-6:]
        raise AssertionError(f"the worker ended {seen.ended_while_held} s after {seen.signal}, with its calls in progress")
    seen.raise_if_not_cleared()
    if any(kept.continuity.lost_from_sight for kept in seen.kept):
        seen.raise_if_busy("what came of its agent's sound before the signal was not seen in time")
    gap = seen.longest_gap
    evidence["longest_gap_s"] = round(gap, 2)
    if gaps and gap > SILENCE_SECONDS:
        seen.raise_if_unproven()
        stalled = max(kept.continuity.stalled for kept in seen.kept)
        seen.raise_if_busy(f"a gap of {gap:.1f} s")
        if stalled > STALL_SECONDS:
            raise StageError(f"this machine is too busy to judge: a gap of {gap:.1f} s, the caller stalled")
        after = seen.signal + (" and the end of another call" if seen.gap_follows_an_end else "")
        raise AssertionError(f"after {after} the call had a gap of {gap:.1f} s")
    if gaps and seen.missed > SILENCE_SECONDS:
        evidence["missed_s"] = round(seen.missed, 1)
        raise StageError(f"this machine is too busy to judge: {may_have_missed(seen.missed)}")


def judge_later_calls(seen: Drain, evidence: Evidence) -> None:
    """No call was cut when others had ended, as far as that is certain. Raises AssertionError."""
    cut = seen.cut
    if cut is None:
        if seen.ended_early_s is not None:
            evidence["transcript"] = seen.lines[-8:]
            raise AssertionError(f"the worker ended {seen.ended_early_s} s after {seen.signal}, with calls in progress")
        return
    ended = sum(kept.hung_up_s is not None for kept in seen.kept)
    # Then it may be the end of one call that ends another, whether the worker drains or not.
    there = seen.ended_early_s is None and seen.exit_code is None
    still = " (the worker itself was still there: perhaps calls depend on each other)" if there else ""
    how = " (the job's process was killed)" if seen.crashed else ""
    raise AssertionError(f"after {ended} of {len(seen.kept)} calls had ended{how}, another one was cut: {cut.trouble}{still}")


def judge_exit(seen: Drain, limit: float, evidence: Evidence) -> None:
    """It ended after its last call, with a code that says so, or that may tell of a job that crashed."""
    evidence["exited_after_last_call_s"], evidence["exit_code"], evidence["limit_s"] = seen.exited_s, seen.exit_code, limit
    if not seen.drained:
        cut = seen.cut
        raise NotJudgeable(f"its calls were cut: {cut.trouble if cut else 'it ended before them'}")
    if seen.exit_code is None:
        evidence["transcript"] = seen.lines[-12:]
        seen.raise_if_busy()
        raise AssertionError(f"still running {limit:g} s after {seen.signal} and the end of its last call{seen.lost_signal}")
    allowed = exit_codes(seen.signal)
    of_job = (seen.crashed or seen.crashed_before) and seen.exit_code not in OWN_CRASH
    assert of_job or seen.exit_code in allowed, (
        f"exit code {seen.exit_code} after {seen.signal} and a drain (allowed: {', '.join(map(str, sorted(allowed)))})"
    )


def end_by(stage: Stage, worker: Worker, name: str, evidence: Evidence, otherwise: str) -> None:
    """This signal ends it within ``lk_exit_timeout``, with whatever code. Raises AssertionError (``otherwise``), TooBusy."""
    before = worker.reading()
    worker.signal(name)
    ends_in_time(stage, worker, before, evidence, otherwise)


def ends_in_time(stage: Stage, worker: Worker, before: Reading, evidence: Evidence, otherwise: str) -> None:
    """It ends within ``lk_exit_timeout`` from now on; ``before`` is its reading when it was asked to. Raises as above."""
    limit, since = stage.settings.exit_timeout, time.monotonic()
    code = worker.wait_exit(limit)
    evidence["exit_code"], evidence["limit_s"] = code, limit
    worker.kill()
    if code is None:
        stage.raise_if_too_busy(worker, before)
        raise AssertionError(otherwise)
    evidence["exited_after_s"] = round(time.monotonic() - since, 1)
