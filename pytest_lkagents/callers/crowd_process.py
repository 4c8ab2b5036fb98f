"""The crowd's own process: many users, each in a room of its own, that speak and do not listen. Started by crowd.py.

Reads one JSON request a line: ``{"join": [{"room", "url", "token"}]}``, ``{"leave": [room]}``; ends when its input ends.
Writes one JSON event a line: ``{"room", "event": "joined" | "agent" | "agent-left" | "lost" | "failed", "at", "why"}``
(``agent``: one came where there was none; ``agent-left``: the last one left) and every second ``{"cpu", "behind", "at"}``;
``at`` is the machine's monotonic clock.

What makes a user cheap: one source of speech, captured once in pieces of 100 ms, feeds the tracks of all of them; what
agents say is subscribed to for a moment only (see Ear), so that nearly nothing of it is received or decoded; no second copy
of each packet (RED).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

from livekit import rtc

from pytest_lkagents.callers import speech
from pytest_lkagents.callers.participants import hung_up, is_agent, of_agent

BEAT_SECONDS = 1.0
CONNECT_SECONDS = 20
# What is captured ahead of time; a machine that stalls for longer is seen.
QUEUE_MS = 400


def say(**event: Any) -> None:
    print(json.dumps({**event, "at": event.get("at", time.monotonic())}), flush=True)


class Ear:
    """Lets the agents of a room speak. Those of the SDKs' sessions wait, for ever, until somebody subscribes to their track
    (``wait_for_subscription`` in Python's room_io/_output.py and in Node's _output.ts); whether anybody still does so
    afterwards is nothing to them, nor to their encoder: servers pause publishers of video only (dynacast)."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        room.on("track_published", self._published)
        room.on("track_subscribed", self._subscribed)

    def look(self) -> None:
        """At tracks that were there before the user."""
        for participant in self._room.remote_participants.values():
            for publication in participant.track_publications.values():
                self._published(publication, participant)

    def _published(self, publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        if of_agent(participant) and publication.kind == rtc.TrackKind.KIND_AUDIO:
            publication.set_subscribed(True)

    def _subscribed(self, _: rtc.Track, publication: rtc.RemoteTrackPublication, __: rtc.RemoteParticipant) -> None:
        publication.set_subscribed(False)


class Crowd:
    def __init__(self) -> None:
        rate, self._pieces = speech.frames(speech.speech_file())
        self._rate = rate
        self._source = rtc.AudioSource(rate, 1, queue_size_ms=QUEUE_MS)
        self._rooms: dict[str, rtc.Room] = {}
        self._spoken = 0.0

    async def speak(self) -> None:
        for piece in speech.loop(self._pieces):
            await self._source.capture_frame(rtc.AudioFrame(piece, self._rate, 1, len(piece) // 2))
            self._spoken += len(piece) / 2 / self._rate

    async def beat(self) -> None:
        """Say every second how much CPU this took, and by how much the speech is late."""
        began, spoken = time.monotonic(), self._spoken
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            now = time.monotonic()
            # Since the last beat, so that one stall is one late beat.
            behind = (now - began) - (self._spoken - spoken)
            began, spoken = now, self._spoken
            say(cpu=time.process_time(), behind=round(behind, 3), at=now)

    async def join(self, room_name: str, url: str, token: str) -> None:
        room = rtc.Room()
        ear = Ear(room)
        # One may hand the call over to another, and leave it.
        agents: set[str] = set()

        def came(participant: rtc.RemoteParticipant) -> None:
            if is_agent(participant):
                if not agents:
                    say(room=room_name, event="agent")
                agents.add(participant.identity)

        def went(participant: rtc.RemoteParticipant) -> None:
            if participant.identity in agents:
                agents.remove(participant.identity)
                if not agents:
                    say(room=room_name, event="agent-left")

        def lost(reason: int) -> None:
            if room_name in self._rooms:
                say(room=room_name, event="agent-left" if hung_up(reason) else "lost")

        room.on("participant_connected", came)
        room.on("participant_disconnected", went)
        room.on("disconnected", lost)
        asked = time.monotonic()
        try:
            options = rtc.RoomOptions(auto_subscribe=False)
            await asyncio.wait_for(room.connect(url, token, options), CONNECT_SECONDS)
            self._rooms[room_name] = room
            say(room=room_name, event="joined", at=asked)
            for participant in room.remote_participants.values():
                came(participant)
            ear.look()
            track = rtc.LocalAudioTrack.create_audio_track("speech", self._source)
            voice = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, red=False)
            await asyncio.wait_for(room.local_participant.publish_track(track, voice), CONNECT_SECONDS)
        except Exception as error:
            say(room=room_name, event="failed", why=str(error) or type(error).__name__)

    async def leave(self, room_name: str) -> None:
        room = self._rooms.pop(room_name, None)
        if room is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(room.disconnect(), CONNECT_SECONDS)
            say(room=room_name, event="left")


async def main() -> None:
    crowd = Crowd()
    loop = asyncio.get_running_loop()
    requests = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    tasks = {asyncio.ensure_future(crowd.speak()), asyncio.ensure_future(crowd.beat())}
    while line := await requests.readline():
        request = json.loads(line)
        for user in request.get("join", ()):
            tasks.add(asyncio.ensure_future(crowd.join(user["room"], user["url"], user["token"])))
        for room_name in request.get("leave", ()):
            tasks.add(asyncio.ensure_future(crowd.leave(room_name)))


if __name__ == "__main__":
    # The users' rooms go with the process: the server notices closed connections at once.
    asyncio.run(main())
