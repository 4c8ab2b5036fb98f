"""Calls that nothing disturbs yet: awaiting that each went on for so long that a silence or leave would mean something."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pytest_lkagents.callers.habit import LEAST_STAY, STAY_CONTROL, STAY_SECONDS, STAY_SPREAD, AgentsLeave, Habit, Stay
from pytest_lkagents.callers.reception import NO_PACKETS_SECONDS, SILENCE_SECONDS
from pytest_lkagents.clock import DeadlineMissed, poll

if TYPE_CHECKING:
    from pytest_lkagents.callers.caller import Call

# For a voice that paused at first, as this machine was busy.
PATIENCE_SECONDS = 2.0
WAIT_SECONDS = 0.1
# An agent that talks at all says something within this time.
TALK_SECONDS = 5.0
FRESH_SECONDS = 3.0


def wait_heard(calls: Sequence[Call], habit: Habit, *, steady: bool = True) -> None:
    """Until every agent has been heard, and with ``steady`` for so long that its silence would mean something; no longer than
    it takes those that talk at all. Its leave means something in any case. Raises AgentsLeave if one leaves meanwhile."""
    with contextlib.suppress(DeadlineMissed):
        poll(lambda: all(call.heard.first is not None for call in calls), what="voices", seconds=TALK_SECONDS)
    # What is heard came in packets; how many is read now and then.
    heard = [call for call in calls if call.heard.first is not None]
    with contextlib.suppress(DeadlineMissed):
        poll(lambda: all(call.received.last_packet is not None for call in heard), what="packets", seconds=FRESH_SECONDS)
    if steady:
        _wait_steady(calls, habit)
    _wait_stayed(calls, habit)
    # On a busy machine the last look at the packets may be old, and what is not seen now cannot be missed later.
    fresh = [call for call in calls if call.received.last_packet is not None]
    with contextlib.suppress(DeadlineMissed):
        poll(lambda: all(call.packet_gap < NO_PACKETS_SECONDS for call in fresh), what="fresh packets", seconds=FRESH_SECONDS)
    habit.note_pauses(calls)
    if (gone := _first_leave(calls)) is not None:
        habit.note_own_leaves(calls)
        raise AgentsLeave(f"its agents leave their calls by themselves, this one after {gone:.1f} s")


def usual_stay(calls: Sequence[Call], more: Callable[[], Call], habit: Habit) -> Stay:
    """How long agents stay that leave by themselves: of these calls, and of further ones until there are enough. Raises
    AgentsLeave if that differs too much, or is too short, for a leave to mean anything."""
    placed = list(calls)
    while True:
        longest = max([LEAST_STAY, *habit.stays.values()])
        _wait_left(placed, STAY_CONTROL * longest + STAY_SECONDS, habit)
        habit.note_own_leaves(placed)
        if any(call.stayed is None for call in placed):
            raise AgentsLeave("some of its agents leave their calls by themselves and some do not")
        if len(habit.stays) >= habit.enough_stays:
            break
        placed = [more()]
    stay = Stay.of(habit.stays.values())
    if stay.margin > STAY_SPREAD * stay.least or stay.least < LEAST_STAY:
        least, most = stay.least, max(habit.stays.values())
        raise AgentsLeave(f"its agents leave their calls by themselves, after {least:.1f} to {most:.1f} s")
    return stay


def _wait_steady(calls: Sequence[Call], habit: Habit) -> None:
    """Until all voices and packets have come for long enough without a pause, or have paused: that is a habit, as nothing
    disturbs them yet."""
    heard = [call.heard for call in calls if call.heard.first is not None]
    sending = [call.received for call in calls if call.received.first_packet is not None]

    def packets() -> float:
        if habit.quiet_after is None:
            return 0.0
        began = [received.first_packet or 0.0 for received in sending if not received.paused(NO_PACKETS_SECONDS)]
        return max(began, default=0.0) + habit.send_seconds

    def told() -> bool:
        voices = all(voice.talking >= habit.talk_seconds or voice.first_pause(SILENCE_SECONDS) is not None for voice in heard)
        return voices and time.monotonic() >= packets()

    def last() -> float:
        return max([packets(), *((voice.first or 0.0) + habit.talk_seconds for voice in heard)])

    _wait(told, last, habit)
    for voice in heard:
        paused = voice.first_pause(SILENCE_SECONDS)
        if paused is not None and voice.first is not None:
            habit.note_silence(paused - voice.first)


def _wait_stayed(calls: Sequence[Call], habit: Habit) -> None:
    # Another one may come at this moment.
    came = max((at for call in calls for at in list(call.agents.values())), default=0.0)

    def last() -> float:
        return came + habit.stay_seconds

    _wait(lambda: time.monotonic() >= last() or _first_leave(calls) is not None, last, habit)


def _wait(done: Callable[[], bool], last: Callable[[], float], habit: Habit) -> None:
    """Until it is ``done``, or some seconds after it was to be (monotonic seconds), which other calls may put off meanwhile:
    their agents show how long this one has to go on."""
    while not done() and time.monotonic() < last() + PATIENCE_SECONDS:
        habit.raise_if_closing()
        time.sleep(WAIT_SECONDS)


def _wait_left(calls: Sequence[Call], seconds: float, habit: Habit) -> None:
    def left() -> bool:
        habit.raise_if_closing()
        return all(call.stayed is not None for call in calls)

    with contextlib.suppress(DeadlineMissed):
        poll(left, what="leaves", seconds=seconds)


def _first_leave(calls: Sequence[Call]) -> float | None:
    """Seconds after which the agent of one of these calls left it, with nobody in its place; None: all are served."""
    return min((stayed for call in calls if (stayed := call.stayed) is not None), default=None)
