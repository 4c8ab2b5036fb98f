"""A rollout: a new worker beside the old one, the old one asked to stop, under calls in progress and arriving ones."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field

from pytest_lkagents.busyness import Reading, too_busy
from pytest_lkagents.callers.caller import Call, Caller
from pytest_lkagents.calls import ANSWER_SECONDS, REFUSAL_PAUSE
from pytest_lkagents.checks import NotJudgeable, StageError, Unproven
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .drainage import Drainage
from .drained import Drain
from .observations import HANDOVER_SECONDS, stop_signal
from .placed import Placed, place, wait_free
from .scenario import Scenario

# Long enough for a second agent to come, and for the audio to start.
STAY_SECONDS = 2.0
# Calls arrive on two lines, so that there is one in every phase of the replacement.
LINES = 2
TRIES = 3
# A job's end (SDKs give it 10 s), which the next report tells.
ROOM_SECONDS = 15.0
# What arrived last is served and hung up within this time.
LAST_SECONDS = 40


@dataclass
class Arrival:
    """A call that arrived during the replacement, at ``at`` (monotonic seconds); ``at_s`` is how many seconds after the old
    worker's stop signal that was (negative: before it), once the signal was sent."""

    at: float
    served_by: str | None
    agents: int
    tries: int
    # Whose fault it is that nobody came; None: the call was served, or nobody was asked who was free.
    fault: str | None = None
    at_s: float = 0.0


@dataclass
class Replacement:
    """Seconds count from the old worker's signal."""

    drain: Drain
    arrivals: list[Arrival] = field(default_factory=list)
    both_s: float = 0.0
    busy: str | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def unserved(self) -> list[Arrival]:
        return [arrival for arrival in self.arrivals if arrival.served_by is None]


class Arrivals:
    """Calls that arrive one after the other until they are told to stop."""

    def __init__(self, stage: Stage, worker: Worker) -> None:
        self._stage, self._worker = stage, worker
        self._stop, self._given_up = threading.Event(), threading.Event()
        self._broken: list[Exception] = []
        self.seen: list[Arrival] = []
        self._lines: list[threading.Thread] = []

    def start(self, lines: int) -> None:
        self._lines = [
            threading.Thread(target=self._run, args=(number,), name="lk-arrivals", daemon=True) for number in range(lines)
        ]
        for line in self._lines:
            line.start()

    def stop(self) -> None:
        """Let those that arrived be served, then raise what broke them; StageError where the end of one is not known."""
        self._stop.set()
        for line in self._lines:
            line.join(LAST_SECONDS)
        if self._broken:
            raise self._broken[0]
        if any(line.is_alive() for line in self._lines):
            raise StageError(f"this machine is too busy to judge: what became of a call is not known after {LAST_SECONDS} s")

    def give_up(self) -> None:
        """Without waiting: nobody wants to know what becomes of them."""
        self._given_up.set()
        self._stop.set()

    def _run(self, number: int) -> None:
        caller = self._stage.calls.caller(self._worker)
        try:
            self._stop.wait(number * STAY_SECONDS)
            while not self._stop.is_set():
                self._stage.raise_if_closing()
                self._wait_for_room()
                if not self._stop.is_set():
                    self.seen.append(self._one(caller))
        except Exception as error:
            self._broken.append(error)
        finally:
            caller.close()

    def _wait_for_room(self) -> None:
        """Until one of the two says that it takes a call: one that has a single place needs a moment after each."""

        def free() -> bool:
            logs = [worker.wire.transcript for worker in self._stage.workers() if worker.server is self._worker.server]
            last = [log.latest_status() for log in logs if log.live()]
            return self._stop.is_set() or any(status is None or not status.full for status in last)

        with contextlib.suppress(DeadlineMissed):
            poll(free, what="room for a call", seconds=ROOM_SECONDS)

    def _one(self, caller: Caller) -> Arrival:
        began = time.monotonic()
        tries = 0
        while True:
            tries += 1
            placed = place(self._stage, caller)
            fault = self._fault(placed)
            if placed.call.agents or fault is not None or tries == TRIES:
                break
            # Refused over a threshold, or nobody was free: nothing is queued, the caller calls again.
            placed.call.leave()
            if self._given_up.wait(REFUSAL_PAUSE):
                break
        agents = len(placed.call.agents)
        if placed.call.agents:
            time.sleep(STAY_SECONDS)
            # One that hands the call to another one leaves it, a little before or after that one comes.
            with contextlib.suppress(DeadlineMissed):
                poll(lambda: len(placed.call.agents_present) == 1, what="a handover", seconds=HANDOVER_SECONDS, every=0.05)
            agents = max(len(placed.call.agents_present), 1)
            if not placed.call.agents_present and not self._stage.calls.leave_by_themselves:
                fault = f"its agent came, and left again after {placed.call.stayed or 0.0:.1f} s"
        arrival = Arrival(began, placed.served_by, agents, tries, fault)
        placed.call.leave()
        return arrival

    def _fault(self, placed: Placed) -> str | None:
        if placed.call.agents:
            return None
        logs = {worker.name: worker.wire.transcript for worker in self._stage.workers()}
        for name, asked in placed.questions.items():
            # Where its connection ends, the server asks another worker.
            if asked.available is None and not logs[name].ended_by(asked.connection, asked.asked + ANSWER_SECONDS):
                return f"the {name} worker was asked and did not answer"
            if asked.assigned is not None:
                return f"the {name} worker took it and no agent came"
        return None


def replace(stage: Stage) -> Replacement:
    """Raises NotJudgeable when the two generations serve different agents, StageError when the machine is too busy."""
    old = stage.untouched("old")
    arrivals = Arrivals(stage, old)
    both = 0.0
    reading = Reading.now()

    def bring_the_new_one(calls: list[Call]) -> None:
        # Only now, so that the calls in progress are the old worker's.
        nonlocal both, reading
        before = [stage.calls.continuity(call) for call in calls]
        new = stage.untouched("new")
        last = [worker.wire.transcript.registrations()[-1] for worker in (old, new)]
        if last[0].dispatched_to != last[1].dispatched_to:
            raise NotJudgeable(
                f"the old worker registers as {last[0].named}, the new one as {last[1].named}: no call can go over"
            )
        both = time.monotonic()
        wait_free(new)
        reading = Reading.now()
        lines = min(LINES, len(calls))
        arrivals.start(lines)
        with contextlib.suppress(DeadlineMissed):
            poll(lambda: len(arrivals.seen) >= lines, what="arrivals", seconds=LAST_SECONDS)
        lost = [seen for seen in before if not seen.agents_are_there]
        for seen in lost:
            seen.note_leave()
            if seen.unproven_leave is not None:
                raise Unproven(seen.unproven_leave)
        assert not lost, (
            f"{len(lost)} of {len(calls)} calls in progress lost their agent as the new worker started, before any signal"
        )

    drainage = Drainage(stage, old, Scenario(stop_signal(stage), calls=2, placed=bring_the_new_one))
    try:
        drain = drainage.observe()
    except KeyboardInterrupt:
        arrivals.give_up()
        raise
    except BaseException:
        arrivals.stop()
        raise
    ended = time.monotonic()
    arrivals.stop()
    seen = Replacement(drain, both_s=round(ended - both, 1), busy=too_busy(reading, Reading.now()))
    seen.arrivals = sorted(arrivals.seen, key=lambda arrival: arrival.at)
    for arrival in seen.arrivals:
        arrival.at_s = round(arrival.at - drainage.sent, 1)
    if not seen.arrivals:
        raise StageError("no call arrived during the replacement")
    seen.lines = old.wire.transcript.lines(drainage.sent, kinds=("status", "question", "answer", "closed"), last=12)
    return seen
