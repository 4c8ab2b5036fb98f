"""The callers' own process: real WebRTC participants that speak and listen. Started by media.py.

Reads one JSON request a line: ``{"join": number, "url", "token"}``, ``{"leave": number}``, by the numbers of calls; ends
when its input ends. Writes one JSON event a line, each with ``call``, ``event`` and ``at``, the machine's monotonic clock:
``joining``, ``joined``, ``failed`` (``why``); ``entered`` of agents, ``met`` of others, ``left`` of anybody (``identity``);
``heard`` (``loudness``) for every 100 ms of sound; ``looked`` (``track``, ``stats``: see reception.Sample), of which the
next is due SAMPLE_SECONDS later, and ``unwatched`` when there is none; ``wrote``, ``interrupted`` (its own connection, or
the network that has it), ``hung-up``, ``lost``; and at the end of a call ``over`` (``told``: whether the server knows).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

from livekit import rtc

from pytest_lkagents.callers import speech
from pytest_lkagents.callers.network import OwnNetwork
from pytest_lkagents.callers.participants import hung_up, is_agent, of_agent
from pytest_lkagents.callers.reception import SAMPLE_SECONDS

CONNECT_SECONDS = 15
LEAVE_SECONDS = 5
# For the piece of speech under way, 20 ms of it.
PIECE_SECONDS = 1
# For the library to let go, once nobody is there any more who asks.
END_SECONDS = 3
# Where agents write what they say, and chat.
TEXT_TOPICS = ("lk.transcription", "lk.chat")


class Line:
    """One call, from ``join`` to ``leave``."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._room = rtc.Room()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._speaking: asyncio.Task[None] | None = None
        self._over = False
        self._network = OwnNetwork()

    def _say(self, event: str, **what: Any) -> None:
        say(call=self._number, event=event, at=time.monotonic(), **what)

    async def join(self, url: str, token: str) -> None:
        room = self._room
        room.on("participant_connected", self._entered)
        room.on("participant_disconnected", self._left)
        room.on("track_subscribed", self._subscribed)
        room.on("track_unsubscribed", self._unsubscribed)
        room.on("disconnected", lambda reason: self._say("hung-up" if hung_up(reason) else "lost"))
        room.on("reconnecting", lambda *_: self._say("interrupted"))
        room.on("data_received", lambda *_: self._say("wrote"))
        for topic in TEXT_TOPICS:
            room.register_text_stream_handler(topic, lambda *_: self._say("wrote"))
        self._say("joining")
        doing = "join the LiveKit server"
        try:
            await asyncio.wait_for(room.connect(url, token), CONNECT_SECONDS)
            for participant in room.remote_participants.values():
                self._entered(participant)
            doing = "publish its voice"
            rate, pieces = speech.frames(speech.speech_file())
            source = rtc.AudioSource(rate, 1)
            track = rtc.LocalAudioTrack.create_audio_track("speech", source)
            options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
            await asyncio.wait_for(room.local_participant.publish_track(track, options), CONNECT_SECONDS)
        except Exception as error:
            self._say("failed", why=f"{doing}: {_reason(error)}")
            await self.leave()
            return
        self._speaking = self._keep(self._speak(source, rate, pieces))
        self._say("joined")

    async def leave(self) -> None:
        self._over = True
        if self._speaking is not None:
            # A piece that nobody waits for any more is an error to the media library.
            await asyncio.wait([self._speaking], timeout=PIECE_SECONDS)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if self._speaking is not None:
            # First its source is closed: where the media library takes a track away while sound still flows into it, it may
            # hang for ever (livekit 1.2.1; pull request 1289 of rust-sdks says how).
            await asyncio.wait([self._speaking], timeout=LEAVE_SECONDS)
        told = False
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._room.disconnect(), LEAVE_SECONDS)
            told = True
        if tasks:
            # Closing an audio stream waits for a last event of the media library, which a lost room may never send.
            await asyncio.wait(tasks, timeout=LEAVE_SECONDS)
        self._say("over", told=told)

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- who is there

    def _entered(self, participant: rtc.RemoteParticipant) -> None:
        self._say("entered" if is_agent(participant) else "met", identity=participant.identity)

    def _left(self, participant: rtc.RemoteParticipant) -> None:
        self._say("left", identity=participant.identity)

    def _subscribed(self, track: rtc.Track, _publication: Any, participant: rtc.RemoteParticipant) -> None:
        self._entered(participant)
        if track.kind == rtc.TrackKind.KIND_AUDIO and of_agent(participant):
            self._keep(self._listen(track))
            self._watching[track.sid] = self._keep(self._watch(track))

    def _unsubscribed(self, track: rtc.Track, *_: object) -> None:
        if track.sid in self._watching:
            self._watching.pop(track.sid).cancel()

    # -- sound

    async def _speak(self, source: rtc.AudioSource, rate: int, pieces: list[bytes]) -> None:
        try:
            for piece in speech.loop(pieces):
                if self._over:
                    break
                await source.capture_frame(rtc.AudioFrame(piece, rate, 1, len(piece) // 2))
        finally:
            await source.aclose()

    async def _listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=16000, num_channels=1, frame_size_ms=100)
        try:
            async for event in stream:
                self._say("heard", loudness=round(speech.loudness(event.frame.data.cast("b").tobytes()), 1))
        finally:
            await stream.aclose()

    async def _watch(self, track: rtc.Track) -> None:
        stats: list[Any] = []
        try:
            while True:
                if self._network.has_gone(stats):
                    self._say("interrupted")
                looks = [_look(found.inbound_rtp) for found in stats if found.HasField("inbound_rtp")]
                self._say("looked", track=track.sid, stats=looks)
                await asyncio.sleep(SAMPLE_SECONDS)
                stats = []
                # In a room that is lost the answer may never come.
                with contextlib.suppress(Exception):
                    stats = await asyncio.wait_for(track.get_stats(), LEAVE_SECONDS)
        finally:
            self._say("unwatched", track=track.sid)


def _look(rtp: Any) -> list[float]:
    """As reception.Sample has it, after the time."""
    received, inbound = rtp.received, rtp.inbound
    return [received.packets_received, inbound.total_samples_received, inbound.concealed_samples, received.jitter]


def _reason(error: Exception) -> str:
    return "no answer" if isinstance(error, asyncio.TimeoutError) else str(error) or type(error).__name__


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


async def serve(requests: asyncio.Queue[dict[str, Any] | None]) -> None:
    lines: dict[int, Line] = {}
    tasks: set[asyncio.Task[None]] = set()
    while (request := await requests.get()) is not None:
        if "join" in request:
            line = lines[request["join"]] = Line(request["join"])
            work = line.join(request["url"], request["token"])
        else:
            work = lines.pop(request["leave"]).leave()
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def main() -> None:
    loop = asyncio.new_event_loop()
    requests: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def read() -> None:
        for text in sys.stdin:
            loop.call_soon_threadsafe(requests.put_nowait, json.loads(text))
        # Whoever asked is gone; what the library still does, and how it ends, is of interest to nobody. The rooms go with the
        # process: the server notices closed connections at once.
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    loop.run_until_complete(serve(requests))


if __name__ == "__main__":
    main()
