"""A caller: a real WebRTC participant that speaks and listens."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_lkagents.callers import library, speech
from pytest_lkagents.callers.reception import SAMPLE_SECONDS, Heard, Received, Sample
from pytest_lkagents.callers.request import ANY_AGENT, CallRequest, token
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, Ledger, poll
from pytest_lkagents.loop import EventLoop
from pytest_lkagents.server.base import Server

if TYPE_CHECKING:
    from livekit import rtc

CONNECT_SECONDS = 15
LEAVE_SECONDS = 5
# For the piece of speech under way, 20 ms of it.
PIECE_SECONDS = 1
# Where agents write what they say, and chat.
TEXT_TOPICS = ("lk.transcription", "lk.chat")


@dataclass
class Call:
    """One caller in one room, from ``Caller.join`` to ``leave``."""

    room_name: str
    _loop: EventLoop
    _room: rtc.Room
    _ledger: Ledger
    joined: float
    agents: dict[str, float] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)
    heard: Heard = field(default_factory=Heard)
    received: Received = field(default_factory=Received)
    # Whether anything was written to the caller: chat, a transcript, data.
    written: bool = False
    disconnected: float | None = None
    # When the caller's own connection to the server broke, whether it came back or not.
    interruptions: list[float] = field(default_factory=list)
    # Whether the server was told that the caller hung up; else it believes for a while that the caller is there.
    hung_up: bool = False
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _speaking: asyncio.Task[None] | None = None
    _over: bool = False

    def __post_init__(self) -> None:
        self.heard.stalls = self.received.stalls

    @property
    def agents_present(self) -> list[str]:
        """Identities of the agents that are in the room now."""
        return sorted(set(self.agents) - set(self.left))

    @property
    def agent_after(self) -> float:
        """Seconds from the caller's join to the first agent's. Raises ValueError before one came."""
        return min(self.agents.values()) - self.joined

    @property
    def stayed(self) -> float | None:
        """Seconds for which it had an agent, if it has none any more."""
        if not self.agents or self.agents_present:
            return None
        return max(self.left.values()) - min(self.agents.values())

    def wait_for_agent(self, seconds: float) -> float | None:
        """Seconds from the caller's join to the agent's, or None if none comes within ``seconds``."""
        with self._ledger.waiting(self.room_name), contextlib.suppress(DeadlineMissed):
            poll(lambda: bool(self.agents), what="agent", seconds=seconds, every=0.05)
        return self.agent_after if self.agents else None

    def wait_until_agent_talks(self, seconds: float = 10) -> float | None:
        """Seconds from the caller's join to the first audible sound, or None if it stays silent for ``seconds``."""
        with self._ledger.waiting(self.room_name), contextlib.suppress(DeadlineMissed):
            poll(lambda: self.heard.first is not None, what="sound", seconds=seconds, every=0.05)
        return self.heard.first - self.joined if self.heard.first is not None else None

    @property
    def silence(self) -> float:
        """Seconds since the agent was last heard, without what the caller could not hear; infinite before the first sound."""
        return self.heard.silence

    @property
    def packet_gap(self) -> float:
        """Seconds since the last packet of an agent's voice was seen, without what the caller could not see; infinite before
        the first."""
        return self.received.gap

    @property
    def longest_silence(self) -> float:
        """The longest pause in what the agent says, the current one included, in seconds, without what the caller could not
        hear."""
        return self.heard.longest_since(self.heard.first) if self.heard.first is not None else float("inf")

    def leave(self) -> None:
        """Hang up; twice is no error."""
        if not self._over:
            self._over = True
            self._loop.run(self._leave)

    async def _leave(self) -> None:
        if self._speaking is not None:
            # The media library complains on stderr of a piece that nobody waits for any more.
            await asyncio.wait([self._speaking], timeout=PIECE_SECONDS)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if self._speaking is not None:
            # First its source is closed: where the media library takes a track away while sound still flows into it, it may
            # hang for ever (livekit 1.2.1; pull request 1289 of rust-sdks says how).
            await asyncio.wait([self._speaking], timeout=LEAVE_SECONDS)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._room.disconnect(), LEAVE_SECONDS)
            self.hung_up = True
        if tasks:
            # Closing an audio stream waits for a last event of the media library, which a lost room may never send.
            await asyncio.wait(tasks, timeout=LEAVE_SECONDS)

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class Caller:
    """Places calls to one server; ``request`` is what each of them asks for."""

    _numbers = itertools.count(1)

    def __init__(self, server: Server, loop: EventLoop, ledger: Ledger, request: CallRequest = ANY_AGENT) -> None:
        self.server = server
        self.request = request
        self._loop = loop
        self._ledger = ledger
        self._calls: list[Call] = []

    def join(self, room: str | None = None) -> Call:
        """Enter a new room (or ``room``) and speak. Raises StageError if the server does not let the caller in."""
        name = room or f"lk-call-{next(self._numbers)}-{uuid.uuid4().hex[:6]}"
        call = self._loop.run(self._join, name)
        self._calls.append(call)
        return call

    async def _join(self, name: str) -> Call:
        from livekit import rtc
        from livekit.rtc.participant import PublishTrackError

        from pytest_lkagents.callers.participants import hung_up, is_agent, of_agent

        library.use()
        room = rtc.Room()
        call = Call(name, self._loop, room, self._ledger, time.monotonic())

        def entered(participant: rtc.RemoteParticipant) -> None:
            if is_agent(participant):
                call.agents.setdefault(participant.identity, time.monotonic())
                call.left.pop(participant.identity, None)

        def left(participant: rtc.RemoteParticipant) -> None:
            if participant.identity in call.agents:
                call.left[participant.identity] = time.monotonic()

        def subscribed(track: rtc.Track, _publication: Any, participant: rtc.RemoteParticipant) -> None:
            entered(participant)
            if track.kind == rtc.TrackKind.KIND_AUDIO and of_agent(participant):
                _keep(call, listen(track))
                measuring[track.sid] = _keep(call, measure(track))

        async def listen(track: rtc.Track) -> None:
            stream = rtc.AudioStream(track, sample_rate=16000, num_channels=1, frame_size_ms=100)
            try:
                async for event in stream:
                    call.heard.add(speech.loudness(event.frame.data.cast("b").tobytes()), time.monotonic())
            finally:
                await stream.aclose()

        measuring: dict[str, asyncio.Task[None]] = {}

        async def measure(track: rtc.Track) -> None:
            stalls = call.received.stalls
            try:
                while True:
                    stalls.due[track.sid] = time.monotonic() + SAMPLE_SECONDS
                    await asyncio.sleep(SAMPLE_SECONDS)
                    stats: list[Any] = []
                    # In a room that is lost the answer may never come.
                    with contextlib.suppress(Exception):
                        stats = await asyncio.wait_for(track.get_stats(), LEAVE_SECONDS)
                    stalls.looked(track.sid, time.monotonic())
                    for found in stats:
                        if found.HasField("inbound_rtp"):
                            call.received.add(_sample(found.inbound_rtp), track.sid)
            finally:
                stalls.due.pop(track.sid, None)

        def unsubscribed(track: rtc.Track, *_: object) -> None:
            if track.sid in measuring:
                measuring.pop(track.sid).cancel()

        def wrote(*_: object) -> None:
            call.written = True

        def gone(reason: int) -> None:
            if hung_up(reason):
                # Who was in the room has left it, too.
                call.left.update(dict.fromkeys(call.agents_present, time.monotonic()))
            else:
                call.disconnected = time.monotonic()

        def interrupted(*_: object) -> None:
            call.interruptions.append(time.monotonic())

        room.on("reconnecting", interrupted)
        room.on("participant_connected", entered)
        room.on("participant_disconnected", left)
        room.on("track_subscribed", subscribed)
        room.on("track_unsubscribed", unsubscribed)
        room.on("disconnected", gone)
        room.on("data_received", wrote)
        for topic in TEXT_TOPICS:
            room.register_text_stream_handler(topic, wrote)
        try:
            await asyncio.wait_for(room.connect(self.server.url, token(self.server, name, self.request)), CONNECT_SECONDS)
        except (rtc.ConnectError, asyncio.TimeoutError) as error:
            raise StageError(f"a caller cannot join the LiveKit server: {error or 'no answer'}") from error
        for participant in room.remote_participants.values():
            entered(participant)
        rate, pieces = speech.frames(speech.speech_file())
        source = rtc.AudioSource(rate, 1)
        track = rtc.LocalAudioTrack.create_audio_track("speech", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        try:
            await asyncio.wait_for(room.local_participant.publish_track(track, options), CONNECT_SECONDS)
        except (PublishTrackError, asyncio.TimeoutError) as error:
            await call._leave()
            raise StageError(f"a caller cannot publish its voice: {error or 'no answer'}") from error

        async def speak() -> None:
            try:
                for piece in speech.loop(pieces):
                    if call._over:
                        break
                    await source.capture_frame(rtc.AudioFrame(piece, rate, 1, len(piece) // 2))
            finally:
                await source.aclose()

        call._speaking = _keep(call, speak())
        return call

    def close(self) -> None:
        """Hang up every call."""
        for call in self._calls:
            call.leave()
        self._calls.clear()


def _sample(rtp: Any) -> Sample:
    received, inbound = rtp.received, rtp.inbound
    return Sample(
        time.monotonic(),
        received.packets_received,
        inbound.total_samples_received,
        inbound.concealed_samples,
        received.jitter,
    )


def _keep(call: Call, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.ensure_future(work)
    call._tasks.add(task)
    task.add_done_callback(call._tasks.discard)
    return task
