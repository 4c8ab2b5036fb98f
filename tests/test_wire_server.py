"""The tap in front of a real livekit-server, with a worker that is a few lines of this file."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from google.protobuf.json_format import ParseDict
from livekit import api
from livekit.protocol import agent

from pytest_lkagents.callers.request import CallRequest, token
from pytest_lkagents.loop import EventLoop
from pytest_lkagents.server.binary import find_binary
from pytest_lkagents.wire.tap import Tap
from tests.test_tokens import Elsewhere, claims
from tests.wire_server import RealServer, create_room, dispatch

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(find_binary() is None, reason="needs livekit-server: run scripts/setup"),
]
SECONDS = 10.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with RealServer(tmp_path_factory.mktemp("server")) as made:
        yield made


@pytest.fixture
def tap(server: RealServer) -> Iterator[Tap]:
    loop = EventLoop("tap")
    made = Tap(loop, "127.0.0.1", server.url)
    made.start()
    yield made
    made.close()
    loop.close()


class FakeWorker:
    """Registers, reports its status, takes every job. ``text``: speaks JSON."""

    def __init__(self, url: str, token: str, name: str, *, text: bool = False, deployment: str = "") -> None:
        self._arguments = (url, token, text)
        self._register = agent.RegisterWorkerRequest(agent_name=name, version="9.9", deployment=deployment)
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.thread.start()

    async def _serve(self) -> None:
        url, token, text = self._arguments
        from google.protobuf.json_format import MessageToJson, Parse

        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
            session.ws_connect(f"{url}/agent", compress=15) as socket,
        ):

            async def send(message: agent.WorkerMessage) -> None:
                if text:
                    await socket.send_str(MessageToJson(message))
                else:
                    await socket.send_bytes(message.SerializeToString())

            await send(agent.WorkerMessage(register=self._register))
            async for frame in socket:
                message = agent.ServerMessage()
                if frame.type is aiohttp.WSMsgType.TEXT:
                    Parse(frame.data, message)
                elif frame.type is aiohttp.WSMsgType.BINARY:
                    message.ParseFromString(frame.data)
                which = message.WhichOneof("message")
                if which == "register":
                    await send(agent.WorkerMessage(update_worker=agent.UpdateWorkerStatus(load=0.1)))
                elif which == "availability":
                    answer = agent.AvailabilityResponse(
                        job_id=message.availability.job.id, available=True, participant_identity="a"
                    )
                    await send(agent.WorkerMessage(availability=answer))


@pytest.mark.parametrize("text", [False, True])
def test_a_dispatch_is_seen_from_question_to_assignment(server: RealServer, tap: Tap, tmp_path: Path, text: bool) -> None:
    name = f"me-{text}"
    worker = FakeWorker(tap.url, server.worker_token(), name, text=text)
    seen = tap.transcript
    assert seen.wait(lambda found: found.live() and found.statuses(), SECONDS), seen.lines()
    (known,) = seen.live()
    assert (known.agent_name, known.sdk_version, known.server_version) == (name, "9.9", "1.13.5")

    said = tap.ask()
    assert said.available is True

    asyncio.run(dispatch(tap.url, server, name, f"room-{text}"))
    found = seen.wait(lambda now: [asked for asked in now.questions() if asked.assigned], SECONDS)
    assert found, seen.lines()
    (asked,) = found
    assert (asked.room, asked.agent_name, asked.probe, asked.available) == (f"room-{text}", name, False, True)
    requests = [entry.data for entry in seen.entries("request")]
    assert "POST" in [data["method"] for data in requests]
    assert [data["names_key"] for data in requests if data["agent"]] == [True]

    tap.cut()
    worker.thread.join(SECONDS)
    assert not worker.thread.is_alive()
    assert seen.live() == []
    seen.write(tmp_path / "wire.jsonl")
    written = (tmp_path / "wire.jsonl").read_text()
    assert "eyJ" not in written
    assert server.key not in written
    assert server.secret not in written
    (assigned,) = seen.entries("assignment")
    assert assigned.data["token"] == "[token]"


@pytest.mark.parametrize("name", ["me-deployed", ""])
def test_a_call_reaches_a_worker_of_a_deployment(server: RealServer, tap: Tap, name: str) -> None:
    FakeWorker(tap.url, server.worker_token(), name, deployment="blue")
    seen = tap.transcript
    assert seen.wait(lambda found: found.live() and found.statuses(), SECONDS), seen.lines()
    (known,) = seen.live()
    assert known.dispatched_to == (name, "blue")

    def ask(room: str, request: CallRequest) -> bool:
        config = claims(token(Elsewhere(), room, request)).get("roomConfig", {})
        asked = ParseDict({**config, "name": room}, api.CreateRoomRequest())
        asyncio.run(create_room(tap.url, server, asked))
        return bool(seen.wait(lambda now: [question for question in now.questions() if question.room == room], 3))

    assert not ask(f"plain-{name}", CallRequest(name))
    assert ask(f"blue-{name}", CallRequest(name, deployment="blue"))


def test_the_refusal_of_a_wrong_token_is_told(server: RealServer, tap: Tap) -> None:
    wrong = api.AccessToken(server.key, "another secret of more than 32 characters").with_grants(api.VideoGrants(agent=True))

    async def go() -> int:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.ws_connect(f"{tap.url}/agent", headers={"Authorization": f"Bearer {wrong.to_jwt()}"}):
                    return 101
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    assert asyncio.run(go()) == 401
    refused = tap.transcript.wait(lambda found: found.entries("refused"), SECONDS)
    assert refused
    assert refused[0].data == {"status": 401}
