"""What happens while a worker is asked to stop, and for how long it is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.values import LONGEST_HOLD
from pytest_lkagents.worker.base import Worker

# What a call shows while its worker drains is mostly decided in the first seconds: a worker that does not drain cuts it at
# once or after a short grace of its own; Node waits 5 s for its job processes.
DRAIN_SECONDS = 8.0
# A drain that is limited to some seconds cuts later than that: livekit-agents 1.8.9 lets a job go on for 15 s more.
LIMIT_SECONDS = 20.0
# After the signal, so that the drain has begun: an impatient operator's second Ctrl-C, a server that goes away.
DISTURB_SECONDS = 2.0
# How long the server is away. SDKs try again after 0, 2, 4 and 6 s: the last of these comes when it is back, and before
# the end.
REPAIR_SECONDS = 7.0
# With the server, without it, and as long with it again as other drains are watched.
WITHOUT_SERVER_SECONDS = DISTURB_SECONDS + REPAIR_SECONDS + DRAIN_SECONDS
# For the job of a call that is over to say goodbye.
GOODBYE_SECONDS = 8.0
# A drain that is over too early, or that there is none of, cuts the calls up to 15 s later (the same patience).
AFTER_ENDS_SECONDS = 17.0
LOOK_SECONDS = 0.25
# For a check that waits for a drain: its longest hold and what is around it.
CHECK_SECONDS = LONGEST_HOLD + 300


class Ends(Enum):
    """When the calls of a drain end: together, or all but one earlier; of two the oldest, or the newest, whose job's process is
    killed (hung up, where it has none of its own)."""

    TOGETHER = "together"
    OLDEST_FIRST = "oldest first"
    NEWEST_CRASHES = "newest crashes"


@dataclass(frozen=True)
class Scenario:
    """``signal`` is its name, as of the image's own stop signal."""

    signal: str
    # Placed before the signal, as many as the worker takes, and kept for so many seconds, or for less, as ``ends`` has it.
    calls: int = 1
    hold: float = DRAIN_SECONDS
    ends: Ends = Ends.TOGETHER
    # A call comes and goes before these.
    after_a_call: bool = False
    # How old they are when the signal comes, in seconds at least.
    aged: float = 0.0
    # Called with the calls when these are there.
    placed: Callable[[list[Call]], object] | None = None
    # Stops the worker in another way than by the signal.
    send: Callable[[Worker], None] | None = None
    # Another call comes in the same instant.
    together: bool = False
    # Called once, DISTURB_SECONDS after the signal, and REPAIR_SECONDS later.
    disturb: Callable[[Worker], None] | None = None
    repair: Callable[[Worker], None] | None = None
    # All that is asked is whether a call outlives the signal: presence and packets are judged, not silence, and nobody waits
    # for the worker's end.
    brief: bool = False
    # Its health endpoint is asked meanwhile, which keeps from looking at the calls where nothing answers, as behind a closed
    # firewall.
    probed: bool = False

    def stop(self, worker: Worker) -> None:
        if self.send is not None:
            self.send(worker)
        else:
            worker.signal(self.signal)
