"""From when on a server offers nothing more to a worker that was asked to stop, and whether it offers to others what this one
refuses: by what was said on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_lkagents.wire.model import Question
from pytest_lkagents.wire.transcript import Transcript

# The guide's figure: a worker that was asked to stop takes no new job after this time.
STOPS_SECONDS = 5
# A registration that is renewed overlaps with the one that takes its place for so long at most.
RENEWAL_SECONDS = 1


def offered_nothing_since(transcript: Transcript, sent: float) -> float | None:
    """Since when a server offers a worker nothing over any of its registrations, and did not since (monotonic seconds); None:
    it does. ``sent`` is when the signal was. One that is full for a moment, because it is busy, is free again soon, and so
    is one that forgets that it drains."""
    statuses, registrations, stopped = transcript.statuses(sent), transcript.registrations(), []
    for known in registrations:
        if known.closed is not None and known.closed < sent:
            continue
        own = [status for status in statuses if status.connection == known.connection]
        free = max((status.at for status in own if not status.full), default=sent)
        if free < known.registered:
            # Where its connection was lost meanwhile, or is renewed, it need not say once more what it said.
            until = known.registered + RENEWAL_SECONDS
            lost = {one.connection for one in registrations if one.closed is not None and sent <= one.closed <= until}
            before = [status for status in statuses if status.connection in lost and status.at < known.registered]
            if before and before[-1].full:
                continue
        since = [status.at for status in own if status.full and status.at > free]
        if known.closed is not None:
            since.append(known.closed)
        if not since:
            return None
        stopped.append(min(since))
    return max(stopped, default=None)


def refused_for_all(asked: Sequence[Question], undisturbed: Iterable[Question], sent: float) -> bool:
    """Whether a worker that was ``asked`` wants no other worker to be asked since its signal was ``sent`` (monotonic
    seconds). One that does so ``undisturbed``, too, is balancing.redispatch-on-refusal's business; so is one that is full with
    a call of the same instant, which is to be left out."""
    refused = [question.asked for question in asked if question.terminated]
    before = any(question.terminated for question in undisturbed)
    return bool(refused) and min(refused) >= sent and not before
