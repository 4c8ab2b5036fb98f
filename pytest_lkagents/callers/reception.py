"""What reaches a caller of an agent: sound and packets, and when the caller itself could not look or listen."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from pytest_lkagents.callers import speech

SAMPLE_SECONDS = 0.25
# A look at the statistics that comes later says that the media library stands still, or that this machine is busy.
STALL_SECONDS = 0.5
# What came while the caller stood still has waited in its socket, and is counted by so long after it goes on.
CATCH_UP_SECONDS = 1.0
# Shorter pauses are part of speech and not kept.
PAUSE_SECONDS = 0.3
# A voice that talks on and on makes no pause as long as this.
STEADY_PAUSE = 1.0
# Speech pauses and a busy machine stay below this.
SILENCE_SECONDS = 2.5
# Opus sends a packet every 20 ms, and in silence (DTX) every 400 ms; a publisher that is there sends something.
NO_PACKETS_SECONDS = 1.5


@dataclass
class Stalls:
    """When the caller could not look or listen: its media library stood still, as it does for seconds at times while a call
    begins or ends, or this machine was busy. All times are monotonic seconds."""

    over: list[tuple[float, float]] = field(default_factory=list)
    # When the next look at each track is due.
    due: dict[str, float] = field(default_factory=dict)

    def looked(self, track: str, now: float) -> None:
        """The look that was due has taken place; late, it ends a stall, which other tracks may have noted in part."""
        begin = max([self.due.pop(track, now), *(until for _, until in self.over)])
        if now - begin > STALL_SECONDS:
            self.over.append((begin, now))

    def until(self, now: float) -> list[tuple[float, float]]:
        """From and to of each, that of this moment included."""
        begin = max([min(self.due.values(), default=now), *(until for _, until in self.over)])
        return [*self.over, (begin, now)] if now - begin > STALL_SECONDS else self.over

    def apart(self, since: float) -> list[tuple[float, float]]:
        """Those that are not over by then, those as one between which the caller had no time to catch up."""
        found: list[tuple[float, float]] = []
        for begin, until in self.until(time.monotonic()):
            if found and begin < found[-1][1] + CATCH_UP_SECONDS:
                found[-1] = (found[-1][0], until)
            elif until > since:
                found.append((begin, until))
        return found

    def lasted(self, begin: float, end: float) -> float:
        """Seconds from ``begin`` to ``end`` in which the caller did not stand still."""
        stalls = self.until(time.monotonic())
        return end - begin - sum(max(min(end, until) - max(begin, since), 0.0) for since, until in stalls)


@dataclass(frozen=True)
class Sample:
    """One look at the WebRTC statistics: monotonic seconds, sums since the track began; ``jitter`` in seconds, as RFC 3550
    smooths it."""

    at: float
    packets: int
    samples: int
    concealed: int
    jitter: float = 0.0


class Missing(NamedTuple):
    """For so many ``seconds`` at most nothing was sent, at some time after ``since`` (monotonic seconds)."""

    seconds: float
    since: float


@dataclass
class Received:
    """What arrived of an agent's sound, all its tracks together."""

    samples: list[Sample] = field(default_factory=list)
    last_packet: float | None = None
    stalls: Stalls = field(default_factory=Stalls)
    _tracks: dict[str, Sample] = field(default_factory=dict)

    def add(self, sample: Sample, track: str = "") -> None:
        """One look at one track; its sums count from the track's beginning."""
        before = self._tracks.get(track)
        if sample.packets > (before.packets if before is not None else 0):
            self.last_packet = sample.at
        self._tracks[track] = sample
        tracks = self._tracks.values()
        self.samples.append(
            replace(
                sample,
                packets=sum(last.packets for last in tracks),
                samples=sum(last.samples for last in tracks),
                concealed=sum(last.concealed for last in tracks),
            )
        )

    @property
    def gap(self) -> float:
        """Seconds since the last packet was seen, without what the caller could not see; infinite before the first."""
        return float("inf") if self.last_packet is None else self.stalls.lasted(self.last_packet, time.monotonic())

    @property
    def first_packet(self) -> float | None:
        """When the first one was seen (monotonic seconds); None before."""
        return next((sample.at for sample in self.samples if sample.packets), None)

    def paused(self, seconds: float) -> bool:
        """Whether for more than so many seconds, until now, no packet came after the first one."""
        first = self.first_packet
        return first is not None and self.longest_gap(first) > seconds

    def since(self, at: float) -> list[Sample]:
        return [sample for sample in self.samples if sample.at >= at]

    def longest_gap(self, since: float) -> float:
        """The longest time without a packet since then, the current one included, in seconds, as far as the caller looked."""
        came = [now.at for before, now in pairwise(self.samples) if now.packets > before.packets and now.at > since]
        return max(self.stalls.lasted(begin, end) for begin, end in pairwise([since, *came, time.monotonic()]))

    def missing(self, since: float) -> Missing:
        """Of the times since then in which the caller stood still, the one after which it found fewest of the packets that
        were to come at the rate before ``since``: of those that were due right before and after it, too, as a pause may have
        begun, or ended, in its sight. Of one from which it has not caught up there is nothing to tell yet."""
        looks = self._looks()
        rate = _rate([look for look in looks if look.at <= since])
        longest = Missing(0.0, since)
        for begin, until in self.stalls.apart(since):
            before = next((sample for sample in reversed(self.samples) if sample.at <= begin), None)
            after = [sample for sample in self.samples if sample.at >= until + CATCH_UP_SECONDS]
            if before is not None and after and rate > 0:
                # By then every track has been looked at.
                last = [sample for sample in after if sample.at < after[0].at + SAMPLE_SECONDS][-1]
                # One packet in the moment between two tracks' looks would be a high rate.
                apart = SAMPLE_SECONDS / 2
                back = [look for look in reversed(looks) if since <= look.at <= before.at - apart]
                first = _beyond_pause(before, back, rate)
                # What came late is counted by the next look.
                end = _beyond_pause(last, [look for look in looks if look.at >= last.at + apart], rate, more=1)
                earlier, later = _silent(first, before, rate), _silent(last, end, rate)
                if (last.packets - before.packets) / rate > STALL_SECONDS:
                    # It talked in between: what it paused in sight is two pauses of its speech.
                    later -= max(min(earlier, later), 0.0)
                longest = max(longest, Missing(earlier + _silent(before, last, rate) + later, first.at))
        return longest

    def _looks(self) -> list[Sample]:
        """One for all tracks, which are looked at one right after the other."""
        looks: list[Sample] = []
        for sample in self.samples:
            if not looks or sample.at - looks[-1].at >= SAMPLE_SECONDS:
                looks.append(sample)
        return looks

    def jitter(self, since: float = 0.0) -> float | None:
        """The mean since then in seconds; None when nothing was received."""
        found = [sample.jitter for sample in self.since(since) if sample.packets]
        return sum(found) / len(found) if found else None

    def concealed_share(self, since: float = 0.0) -> float | None:
        """Share of the sound since then that the media library had to invent, 0 to 1; None when nothing was received."""
        found = self.since(since)
        total = found[-1].samples - found[0].samples if len(found) > 1 else 0
        return (found[-1].concealed - found[0].concealed) / total if total > 0 else None


def _rate(looks: Sequence[Sample]) -> float:
    """Packets a second of all tracks together; a median, as many come at once after a stall."""
    steps = [(now.packets - before.packets) / (now.at - before.at) for before, now in pairwise(looks)]
    return statistics.median(steps) if steps else 0.0


def _silent(begin: Sample, end: Sample, rate: float) -> float:
    """Seconds from one look to another one for which no packets came, of those that were to come at this rate."""
    return end.at - begin.at - (end.packets - begin.packets) / rate


def _beyond_pause(edge: Sample, further: Sequence[Sample], rate: float, more: int = 0) -> Sample:
    """The look from ``edge`` on, in the order of ``further``, from which packets come at half of that rate or more again, or
    the one so many looks after it; the last one if they never do."""
    looks = [edge, *further]
    for place, (here, there) in enumerate(pairwise(looks)):
        if abs((there.packets - here.packets) / (there.at - here.at)) >= rate / 2:
            return looks[place + more]
    return looks[-1]


@dataclass
class Heard:
    """Audio energy that reached the caller. Times are monotonic seconds.

    Silence after an agent vanished looks like audio (the SDK conceals it with frames), so only loud frames count.
    """

    first: float | None = None
    last: float | None = None
    frames: int = 0
    loudest: float = 0.0
    pauses: list[tuple[float, float]] = field(default_factory=list)
    stalls: Stalls = field(default_factory=Stalls)

    def add(self, loudness: float, now: float) -> None:
        self.frames += 1
        self.loudest = max(self.loudest, loudness)
        if loudness < speech.AUDIBLE:
            return
        if self.first is None:
            self.first = now
        if self.last is not None and now - self.last > PAUSE_SECONDS:
            self.pauses.append((self.last, now))
        self.last = now

    @property
    def silence(self) -> float:
        """Seconds since something was heard, without what the caller could not hear; infinite before the first sound."""
        return float("inf") if self.last is None else self.stalls.lasted(self.last, time.monotonic())

    @property
    def talking(self) -> float:
        """Seconds for which it has talked until now without a pause that counts; 0.0 while it pauses."""
        if self.first is None or self.silence >= STEADY_PAUSE:
            return 0.0
        counting = (end for begin, end in self.pauses if self.stalls.lasted(begin, end) >= STEADY_PAUSE)
        return time.monotonic() - max([self.first, *counting])

    def first_pause(self, seconds: float, since: float = 0.0) -> float | None:
        """When the first pause of at least so many seconds began that is not over before ``since`` (both monotonic); None:
        it made none, or was never heard."""
        if self.last is None:
            return None
        pauses = [*self.pauses, (self.last, time.monotonic())]
        return next((begin for begin, end in pauses if self.stalls.lasted(max(begin, since), end) >= seconds), None)

    def longest_since(self, since: float) -> float:
        """The longest silence since then, the current one included, in seconds, without what the caller could not hear."""
        last = since if self.last is None else max(self.last, since)
        pauses = [*((max(begin, since), end) for begin, end in self.pauses if end > since), (last, time.monotonic())]
        return max(self.stalls.lasted(begin, end) for begin, end in pauses)
