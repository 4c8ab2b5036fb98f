"""The crowd of the load test against a real LiveKit server, with agents that are participants of the test's own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest
from livekit import api

from pytest_lkagents.callers import crowd as crowd_module
from pytest_lkagents.callers.crowd import Crowd
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import holds, poll
from pytest_lkagents.server.base import Server
from tests.wire_server import RealServer

NOTICE_SECONDS = 15
# An agent as the SDKs' sessions are: it says nothing until somebody has subscribed to its track. It publishes as often as it
# is told to, and says how many packets it could send each time; then it stays until its input ends.
SPEAKER = """
import asyncio, sys
from livekit import rtc

async def sent(track):
    return sum(found.outbound_rtp.sent.packets_sent for found in await track.get_stats() if found.HasField("outbound_rtp"))

async def speak(source):
    while True:
        await source.capture_frame(rtc.AudioFrame(bytes(range(240)) * 4, 48000, 1, 480))

async def main():
    url, token, times = sys.argv[1:]
    room = rtc.Room()
    await room.connect(url, token)
    for _ in range(int(times)):
        source = rtc.AudioSource(48000, 1)
        track = rtc.LocalAudioTrack.create_audio_track("voice", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        publication = await room.local_participant.publish_track(track, options)
        print("published", flush=True)
        await publication.wait_for_subscription()
        speaking = asyncio.ensure_future(speak(source))
        await asyncio.sleep(1)
        before = await sent(track)
        await asyncio.sleep(2)
        print("spoke", await sent(track) - before, flush=True)
        speaking.cancel()
        await room.local_participant.unpublish_track(publication.sid)
    print("stays", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await room.disconnect()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with RealServer(tmp_path_factory.mktemp("server")) as running:
        yield cast(Server, SimpleNamespace(url=running.url, api_key=running.key, api_secret=running.secret))


@pytest.fixture
def crowd(server: Server) -> Iterator[Crowd]:
    made = Crowd(server)
    made.wait_ready()
    yield made
    made.close()


@contextmanager
def agent(server: Server, room: str, times: int = 0, name: str = "agent") -> Iterator[subprocess.Popen[str]]:
    grants = api.VideoGrants(room_join=True, room=room, agent=True)
    token = api.AccessToken(server.api_key, server.api_secret).with_identity(name).with_kind("agent").with_grants(grants)
    command = [sys.executable, "-c", SPEAKER, server.url, token.to_jwt(), str(times)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


@pytest.mark.timeout(60)
def test_agents_that_wait_for_a_listener_speak(server: Server, crowd: Crowd) -> None:
    crowd.join("later")
    with agent(server, "later", 2) as speaking:
        for _ in range(2):
            assert said(speaking) == ["published"]
            spoke, packets = said(speaking)
            assert spoke == "spoke"
            # 50 a second, also when nobody is subscribed any more
            assert int(packets) > 60


@pytest.mark.timeout(60)
def test_one_whose_track_was_there_first(server: Server, crowd: Crowd) -> None:
    with agent(server, "earlier", 1) as speaking:
        assert said(speaking) == ["published"]
        crowd.join("earlier")
        assert said(speaking)[0] == "spoke"


@pytest.mark.timeout(60)
def test_a_call_that_is_handed_over_has_its_agent(server: Server, crowd: Crowd) -> None:
    user = crowd.join("handed-over")
    with agent(server, "handed-over", name="receptionist") as first, agent(server, "handed-over", name="specialist") as second:
        assert (said(first), said(second)) == (["stays"], ["stays"])
        poll(lambda: user.served, what="agent", seconds=NOTICE_SECONDS)
        first.communicate(timeout=NOTICE_SECONDS)
        assert holds(lambda: user.served, seconds=2)
        second.communicate(timeout=NOTICE_SECONDS)
        poll(lambda: not user.served, what="leave", seconds=NOTICE_SECONDS)
        assert user.agent_left is not None


@pytest.mark.timeout(60)
def test_a_user_who_may_not_speak_is_no_load(server: Server, crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    grants = api.VideoGrants(room_join=True, room="mute", can_publish=False)
    mute = api.AccessToken(server.api_key, server.api_secret).with_identity("mute").with_grants(grants).to_jwt()
    began = time.monotonic()
    crowd.join("speaking")
    assert crowd.starved(began) is None
    monkeypatch.setattr(crowd_module, "token", lambda *_: mute)
    with contextlib.suppress(StageError):
        crowd.join("mute")
    poll(lambda: "a simulated user cannot speak: " in (crowd.starved(began) or ""), what="why", seconds=NOTICE_SECONDS)
    crowd.leave([user for user in crowd.users if user.room == "mute"])
    assert crowd.starved(began) is None


@pytest.mark.timeout(60)
def test_who_cannot_join_is_no_user(server: Server, crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd_module, "token", lambda *_: "no.to.ken")
    with pytest.raises(StageError, match="a simulated user cannot join the LiveKit server"):
        crowd.join()
    assert crowd.users == []


@pytest.mark.timeout(60)
def test_a_user_of_a_crowd_that_is_closed_is_an_error_of_the_stage(server: Server) -> None:
    closed = Crowd(server)
    closed.close()
    with pytest.raises(StageError, match="the simulated users' process ended with code"):
        closed.join()
