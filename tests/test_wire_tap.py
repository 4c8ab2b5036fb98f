"""The tap between two plain sockets: what passes, what is written down, what each act does."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from livekit.protocol import agent

from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import poll
from pytest_lkagents.loop import EventLoop
from pytest_lkagents.wire import http
from pytest_lkagents.wire import proxy as proxy_module
from pytest_lkagents.wire import websocket as ws
from pytest_lkagents.wire.side import Upstream
from pytest_lkagents.wire.tap import Tap
from tests.wire_peers import EXTENSIONS, SECONDS, SWITCHING, UPGRADE, Listener, Peer, question

pytestmark = pytest.mark.timeout(30)


class Stage:
    """A tap and the listener behind it."""

    def __init__(self, loop: EventLoop) -> None:
        self.listener = Listener()
        self.tap = Tap(loop, "127.0.0.1", f"ws://127.0.0.1:{self.listener.port}")
        self.tap.start()
        self.port = int(self.tap.url.rpartition(":")[2])

    def connect(self) -> Peer:
        return Peer(socket.create_connection(("127.0.0.1", self.port), SECONDS), client=True)

    def pair(self) -> tuple[Peer, Peer]:
        return self.connect(), self.listener.accept()

    def agents(self, *, text: bool = False, register: bool = True) -> tuple[Peer, Peer]:
        """An upgraded (and registered) agent connection: worker's end, server's end."""
        worker, server = self.pair()
        worker.text = server.text = text
        worker.raw(UPGRADE + b"\r\n")
        server.head()
        server.raw(SWITCHING)
        worker.head()
        if register:
            worker.send(register=agent.RegisterWorkerRequest(agent_name="me", version="1.2.3", namespace="n"))
            server.message()
            server.send(register=agent.RegisterWorkerResponse(worker_id="AW_1", server_info={"version": "1.13.5"}))
            worker.message()
            assert self.tap.transcript.wait(lambda seen: seen.live(), SECONDS)
        return worker, server

    def seen(self, *kinds: str, n: int = 1) -> list[Any]:
        """Wait for entries of these kinds."""
        found = self.tap.transcript.wait(lambda seen: len(seen.entries(*kinds)) >= n and seen.entries(*kinds), SECONDS)
        assert found, self.tap.transcript.lines()
        return found


@pytest.fixture(scope="module")
def loop() -> Iterator[EventLoop]:
    made = EventLoop("tap")
    yield made
    made.close()


@pytest.fixture
def stage(loop: EventLoop) -> Iterator[Stage]:
    made = Stage(loop)
    yield made
    made.tap.close()
    made.listener.socket.close()


# Transparency


def test_http_passes_byte_for_byte(stage: Stage) -> None:
    worker, server = stage.pair()
    body = os.urandom(100_000)
    request = b"POST /twirp/x?access_token=t0psecret HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Extensions: x\r\n"
    request += b"Content-Length: 100000\r\n\r\n"
    sender = threading.Thread(target=worker.raw, args=(request + body,))
    sender.start()
    assert server.take(len(request) + 100_000) == request + body
    sender.join()
    server.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert worker.take(40).endswith(b"ok")
    (entry,) = stage.seen("request")
    assert entry.data == {"method": "POST", "path": "/twirp/x", "agent": False}


def test_rtc_passes_byte_for_byte_with_its_extensions(stage: Stage) -> None:
    worker, server = stage.pair()
    head = UPGRADE.replace(b"/agent", b"/rtc/v1") + EXTENSIONS + b"\r\n"
    worker.raw(head)
    assert server.take(len(head)) == head
    server.raw(SWITCHING)
    assert worker.head() == SWITCHING
    generator = random.Random(1)
    for _ in range(50):
        data = generator.randbytes(generator.randrange(1, 5000))
        worker.raw(data)
        assert server.take(len(data)) == data
        server.raw(data[::-1])
        assert worker.take(len(data)) == data[::-1]
    worker.raw(b"GET /agent HTTP/1.1\r\nUpgrade: websocket\r\n" + EXTENSIONS + b"\r\n")
    assert EXTENSIONS in server.head()


def test_connections_for_calls_are_told_from_others(stage: Stage) -> None:
    registration, _ = stage.agents()
    request, requested = stage.pair()
    request.raw(b"GET /twirp/x HTTP/1.1\r\nHost: a\r\n\r\n")
    requested.head()
    call, signalled = stage.pair()
    call.raw(UPGRADE.replace(b"/agent", b"/rtc/v1") + b"\r\n")
    signalled.head()
    assert stage.tap.registered_at == {registration.socket.getsockname()[1]}
    assert stage.tap.calls_at == {call.socket.getsockname()[1]}
    call.socket.shutdown(socket.SHUT_WR)
    assert poll(lambda: not stage.tap.calls_at, what="end", seconds=SECONDS)


def test_who_joins_a_room_of_which_the_worker_was_never_asked_is_no_job(stage: Stage) -> None:
    _, asker = stage.agents()
    asker.send(availability=question("AJ_1", "r"))
    stage.seen("question")
    guests = {room: stage.pair() for room in ("r", "display")}
    for room, (guest, signalled) in guests.items():
        token = jwt.encode({"video": {"room": room}}, "s" * 32).encode()
        guest.raw(UPGRADE.replace(b"/agent", b"/rtc").replace(b"Bearer t0psecret", b"Bearer " + token) + b"\r\n")
        signalled.head()
    assert stage.tap.calls_at == {guests["r"][0].socket.getsockname()[1]}
    assert stage.tap.calls_to("r") == stage.tap.calls_at
    assert not stage.tap.calls_to("another")


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00", b"\0" * 100, b"SSH-2.0-x\r\n", b"GET \r\n\r\n", b"get / http/1.1\r\n\r\n"]
)
def test_what_is_not_http_is_forwarded(stage: Stage, garbage: bytes) -> None:
    worker, server = stage.pair()
    worker.raw(garbage)
    assert server.take(len(garbage)) == garbage
    server.raw(garbage)
    assert worker.take(len(garbage)) == garbage


def test_half_a_request_and_its_end_are_forwarded(stage: Stage) -> None:
    worker, server = stage.pair()
    worker.raw(b"GET /agent HTTP/1.1\r\nHo")
    worker.socket.shutdown(socket.SHUT_WR)
    assert server.take(23) == b"GET /agent HTTP/1.1\r\nHo"
    assert server.ended() == "eof"
    server.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert worker.head().startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("pieces", [1, 7, 10_000])
def test_only_the_extensions_are_removed_from_an_agents_upgrade(stage: Stage, pieces: int) -> None:
    worker, server = stage.pair()
    head = UPGRADE + EXTENSIONS + b"X-More: 1\r\n\r\n"
    for at in range(0, len(head), pieces):
        worker.raw(head[at : at + pieces])
    assert server.head() == UPGRADE + b"X-More: 1\r\n\r\n"
    server.raw(SWITCHING + ws.build(b"hello"))
    assert worker.head() == SWITCHING
    assert worker.next().payload == b"hello"


def test_frames_pass_in_their_original_bytes(stage: Stage) -> None:
    worker, server = stage.agents(register=False)
    generator = random.Random(2)
    kinds = [ws.TEXT, ws.BINARY, ws.PING, ws.PONG, 5]
    stream = b"".join(
        ws.build(generator.randbytes(generator.choice([0, 3, 125, 126, 70_000])), generator.choice(kinds), masked=True)
        for _ in range(60)
    )
    sender = threading.Thread(target=worker.raw, args=(stream,))
    sender.start()
    assert server.take(len(stream)) == stream
    sender.join()
    for byte in stream[:300]:
        server.raw(bytes([byte]))
    assert worker.take(300) == stream[:300]


def test_pings_are_not_answered_by_the_tap(stage: Stage) -> None:
    worker, server = stage.agents()
    server.raw(ws.build(b"?", ws.PING))
    assert worker.next().opcode == ws.PING
    assert server.quiet()
    worker.raw(ws.build(b"?", ws.PONG, masked=True))
    assert server.next().opcode == ws.PONG


def test_an_upgrade_on_a_reused_connection_is_followed(stage: Stage) -> None:
    worker, server = stage.pair()
    worker.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    server.head()
    server.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    worker.take(40)
    for status in (b"401 Unauthorized", b""):
        worker.raw(UPGRADE + EXTENSIONS + b"\r\n")
        assert EXTENSIONS not in server.head()
        if status:
            server.raw(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            assert status in worker.head()
    server.raw(SWITCHING)
    worker.head()
    worker.send(ping=agent.WorkerPing(timestamp=1))
    server.message()
    assert stage.seen("refused")[0].data == {"status": 401}
    assert stage.seen("ping")


def test_the_host_is_rewritten_for_tls(loop: EventLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key", "-out", tmp_path / "cert"]
    try:
        subprocess.run([*made, *names], check=True, capture_output=True, timeout=20)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    listener = Listener()
    tap = Tap(loop, "127.0.0.1", f"wss://localhost:{listener.port}")
    tap.start()
    try:
        worker = Peer(socket.create_connection(("127.0.0.1", int(tap.url.rpartition(":")[2])), SECONDS), client=True)
        server = Peer(context.wrap_socket(listener.socket.accept()[0], server_side=True), client=False)
        for path in (b"/one", b"/agent"):  # the second request of a connection is rewritten too
            worker.raw(UPGRADE.replace(b"/agent", path).replace(b"Upgrade: websocket\r\n", b"") + b"\r\n")
            assert b"\r\nHost: localhost:%d\r\n" % listener.port in server.head()
        worker.raw(UPGRADE + b"\r\n")
        server.head()
        server.raw(SWITCHING)
        worker.head()
        data = os.urandom(200_000)
        sender = threading.Thread(target=worker.send, kwargs={"ping": agent.WorkerPing(timestamp=1)})
        sender.start()
        assert server.message().ping.timestamp == 1
        server.raw(ws.build(data))
        assert worker.next().payload == data
        with tap.half_open():
            server.raw(ws.build(b"later"))
            assert worker.quiet()
        assert worker.next().payload == b"later"
        worker.close()
        assert server.ended() == "eof"
    finally:
        tap.close()


def test_the_host_is_rewritten_for_a_server_with_a_name(loop: EventLoop) -> None:
    listener = Listener()
    for name, called in (("localhost", b"localhost:%d" % listener.port), ("127.0.0.1", None)):
        tap = Tap(loop, "127.0.0.1", f"ws://{name}:{listener.port}")
        tap.start()
        try:
            worker = Peer(socket.create_connection(("127.0.0.1", int(tap.url.rpartition(":")[2])), SECONDS), client=True)
            server = Peer(listener.socket.accept()[0], client=False)
            for request in (b"POST /twirp HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", UPGRADE + b"\r\n"):
                worker.raw(request)
                expected = http.header(request, b"host") if called is None else called
                assert http.header(server.head(), b"host") == expected
        finally:
            tap.close()


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ws://livekit.test", "livekit.test"),
        ("ws://livekit.test:443", "livekit.test:443"),
        ("wss://livekit.test", "livekit.test"),
        ("wss://livekit.test:7880", "livekit.test:7880"),
        ("wss://203.0.113.1", "203.0.113.1"),
        ("ws://203.0.113.1:7880", None),
        ("ws://[::1]:7880", None),
    ],
)
def test_what_a_server_is_called(url: str, host: str | None) -> None:
    assert Upstream.of(url).host_header == host


def test_urls_that_cannot_be_tapped_are_refused(loop: EventLoop) -> None:
    for url in ("livekit:7880", "ftp://a", "ws://user:t0psecret@a", "ws://a/prefix", "ws://a:x"):
        with pytest.raises(StageError, match=r"ws://host:port") as raised:
            Tap(loop, "127.0.0.1", url)
        assert "t0psecret" not in str(raised.value)
    with pytest.raises(StageError, match="cannot listen on 203"):
        Tap(loop, "203.0.113.1", "ws://127.0.0.1:1").start()


# Connections that end


@pytest.mark.parametrize("upgraded", [False, True])
@pytest.mark.parametrize("how", ["eof", "reset"])
@pytest.mark.parametrize("by", ["worker", "server"])
def test_the_end_of_one_side_is_the_end_of_the_other(stage: Stage, upgraded: bool, how: str, by: str) -> None:
    worker, server = stage.agents() if upgraded else stage.pair()
    ends = {"worker": worker, "server": server}
    gone = ends.pop(by)
    (other,) = ends.values()
    if not upgraded:
        worker.raw(b"x")
        server.take(1)
    started = time.monotonic()
    if how == "eof":
        gone.close()
    else:
        gone.reset()
    assert other.ended() == how
    assert time.monotonic() - started < 0.5
    other.close()
    entry = stage.seen("closed")[0]
    assert (entry.data["by"], entry.data["how"]) == (by, how)
    assert stage.tap.transcript.live() == []


def test_a_killed_process_is_gone_for_the_server(stage: Stage) -> None:
    connect = f"s = socket.create_connection(('127.0.0.1', {stage.port})); s.sendall({UPGRADE + b'x'!r})"
    code = f"import socket, time; {connect}; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        server = stage.listener.accept()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)
    started = time.monotonic()
    assert server.ended() in ("eof", "reset")
    assert time.monotonic() - started < 1


def test_the_close_frame_is_told(stage: Stage) -> None:
    worker, server = stage.agents()
    worker.raw(ws.build((1000).to_bytes(2, "big") + b"bye", ws.CLOSE, masked=True))
    frame = server.next()
    assert frame.opcode == ws.CLOSE
    server.raw(ws.build(frame.payload, ws.CLOSE))
    server.close()
    assert worker.next().opcode == ws.CLOSE
    assert worker.ended() == "eof"
    (entry,) = stage.seen("closed")
    assert entry.data == {"by": "worker", "how": "close", "code": 1000, "reason": "bye", "agent": True}
    assert entry.line().endswith("worker> closed by worker: close 1000 bye")
    (known,) = stage.tap.transcript.registrations()
    assert known.closed == entry.at


def test_data_before_the_end_arrives(stage: Stage) -> None:
    worker, server = stage.agents()
    payload = os.urandom(3_000_000)

    def say() -> None:
        server.raw(ws.build(payload))
        server.close()

    sender = threading.Thread(target=say)
    sender.start()
    assert worker.next().payload == payload
    assert worker.ended() == "eof"
    sender.join()


def test_a_server_that_is_down_resets_at_once(stage: Stage) -> None:
    stage.listener.socket.close()
    started = time.monotonic()
    try:
        how = stage.connect().ended()
    except ConnectionResetError:  # so soon that connecting itself sees it
        how = "reset"
    assert how == "reset"
    assert time.monotonic() - started < 1
    assert "refused" in stage.seen("refused")[0].data["reason"].lower()


def test_many_connections_leave_nothing(stage: Stage) -> None:
    before = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    for index in range(1000):
        worker, server = stage.agents(register=False) if index % 2 else stage.pair()
        gone, other = (worker, server) if index % 3 else (server, worker)
        (gone.reset if index % 5 else gone.close)()
        other.ended()
        other.close()
    stage.seen("closed", n=1000)
    deadline = time.monotonic() + SECONDS
    while (stage.tap._proxy.links or len(os.listdir("/proc/self/fd")) > before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stage.tap._proxy.links == {}
    assert len(os.listdir("/proc/self/fd")) <= before
    assert threading.active_count() == threads
    assert stage.tap.transcript._registers == {}


def test_closing_ends_everything_and_may_be_repeated(stage: Stage) -> None:
    worker, server = stage.agents()
    with stage.tap.hold("worker", "ping"):
        stage.tap.close()
    stage.tap.close()
    assert (worker.ended(), server.ended()) == ("reset", "reset")
    with pytest.raises(ConnectionRefusedError):
        stage.connect()
    with pytest.raises(StageError, match="closed"):
        stage.tap.cut()


# Much data


@pytest.mark.parametrize("upgraded", [False, True])
def test_a_slow_reader_slows_the_writer(stage: Stage, upgraded: bool) -> None:
    worker, server = stage.agents() if upgraded else stage.pair()
    for end in (worker, server):
        end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    if not upgraded:
        worker.raw(b"x")
        server.take(1)
    tracemalloc.start()
    try:
        written = worker.flood(ws.build(bytes(60_000), masked=True))
        # What the kernel keeps for four sockets, and not much in the tap.
        assert written < 40_000_000
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()
    taken = 0
    while taken < written:
        taken += len(server.socket.recv(1 << 20))
    assert taken == written


def test_a_huge_frame_is_streamed(stage: Stage) -> None:
    worker, server = stage.agents()
    size = 48 * 1024 * 1024
    key = b"\1\2\3\4"
    piece = bytes(1 << 20)

    def say() -> None:
        worker.raw(b"\x82\xff" + size.to_bytes(8, "big") + key)
        for _ in range(size // len(piece)):
            worker.raw(piece)
        worker.send(ping=agent.WorkerPing(timestamp=7))

    tracemalloc.start()
    try:
        sender = threading.Thread(target=say)
        with stage.tap.drop("worker", "status"):  # also when messages are gathered
            sender.start()
            buffer, left = bytearray(1 << 20), size + 14
            while left:
                got = server.socket.recv_into(buffer, min(left, len(buffer)))
                assert got
                left -= got
            assert server.message().ping.timestamp == 7
            sender.join()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    (entry,) = stage.seen("oversized")
    assert entry.size == size + 14


# The transcript


@pytest.mark.parametrize("text", [False, True])
def test_a_workers_life_is_written_down(stage: Stage, text: bool, tmp_path: Path) -> None:
    worker, server = stage.agents(text=text)
    seen = stage.tap.transcript
    worker.send(update_worker=agent.UpdateWorkerStatus(status=agent.WorkerStatus.WS_AVAILABLE, load=0.12, job_count=1))
    worker.send(update_worker=agent.UpdateWorkerStatus(load=0.9))
    worker.send(update_worker=agent.UpdateWorkerStatus(status=agent.WorkerStatus.WS_FULL))
    for _ in range(3):
        server.message()
    server.send(availability=question("AJ_1", "room 1"))
    worker.message()
    worker.send(availability=agent.AvailabilityResponse(job_id="AJ_1", available=True))
    worker.send(availability=agent.AvailabilityResponse(job_id="AJ_1", available=False))
    for _ in range(2):
        server.message()
    server.send(assignment=agent.JobAssignment(job=agent.Job(id="AJ_1", room={"name": "room 1"}), token="t0psecret"))
    assert worker.message().assignment.token == "t0psecret"
    worker.send(update_job=agent.UpdateJobStatus(job_id="AJ_1", status=agent.JobStatus.JS_RUNNING))
    server.message()
    server.send(termination=agent.JobTermination(job_id="AJ_1"))
    worker.message()
    stage.seen("termination")

    (known,) = seen.live()
    assert (known.worker_id, known.agent_name, known.sdk_version, known.namespace) == ("AW_1", "me", "1.2.3", "n")
    assert (known.server_version, known.closed) == ("1.13.5", None)
    first, second, third = seen.statuses()
    assert (first.load, first.full, first.job_count, first.has_status) == (0.12, False, 1, True)
    assert (second.load, second.full, second.has_status) == (0.9, False, False)
    assert (third.load, third.full, third.has_status) == (0.0, True, True)
    assert seen.statuses(since=third.at) == [third]
    (asked,) = seen.questions()
    assert (asked.job_id, asked.room, asked.agent_name, asked.probe) == ("AJ_1", "room 1", "me", False)
    assert [answer[1] for answer in asked.answers] == [True, False]
    assert asked.available is True
    assert asked.answered_after is not None
    assert 0 <= asked.answered_after < 1
    assert asked.assigned is not None
    assert asked.assigned >= (asked.answered or 0)
    kinds = [entry.kind for entry in seen.entries()]
    assert kinds == [
        *("opened", "request", "register", "registered", "status", "status", "status"),
        *("question", "answer", "answer", "assignment", "job", "termination"),
    ]
    lines = seen.lines()
    assert lines[4].endswith("worker> status available load 0.12 jobs 1")
    assert "worker> answer AJ_1 available after " in lines[8]
    assert seen.lines(last=1, kinds=("answer",))[0].count("not available") == 1
    seen.write(tmp_path / "wire.jsonl")
    written = (tmp_path / "wire.jsonl").read_text()
    assert len(written.splitlines()) == len(kinds)
    assert "t0psecret" not in written + "\n".join(lines)


def test_what_is_unknown_or_malformed_is_forwarded_untouched(stage: Stage) -> None:
    worker, server = stage.agents()
    ping = worker.encode(ping=agent.WorkerPing(timestamp=1))
    for payload in (ping + b"\x82\x7d\x02hi", b"\x82\x7d\x02hi", b"\xff\xff\xff"):
        frame = worker.frame(payload)
        worker.raw(frame)
        assert server.next().raw == frame
    worker.raw(ws.build(b"{not json t0psecret", ws.TEXT, masked=True))
    assert server.next().payload == b"{not json t0psecret"
    entries = stage.seen("ping", "unknown", "malformed", n=4)
    assert [entry.kind for entry in entries] == ["ping", "unknown", "malformed", "malformed"]
    assert entries[0].data["unknown_fields"] is True
    assert "t0psecret" not in "\n".join(stage.tap.transcript.lines())


# Acts on connections


def test_a_port_that_was_taken_meanwhile_is_not_insisted_on(loop: EventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        chosen = [taken, taken, proxy_module.fixed_port("127.0.0.1")]
        monkeypatch.setattr(proxy_module, "fixed_port", lambda _host: chosen.pop(0))
        tap = Tap(loop, "127.0.0.1", "ws://127.0.0.1:1")
        tap.start()
        try:
            assert not chosen
            with socket.create_connection(("127.0.0.1", int(tap.url.rpartition(":")[2]))):
                pass
        finally:
            tap.close()
        chosen += [taken] * 3
        with pytest.raises(StageError, match=r"cannot listen on 127\.0\.0\.1: Address already in use"):
            Tap(loop, "127.0.0.1", "ws://127.0.0.1:1").start()


def test_refuse_and_accept_keep_the_port(stage: Stage) -> None:
    worker, server = stage.agents()
    for _ in range(3):
        stage.tap.refuse()
        with pytest.raises(ConnectionRefusedError):
            stage.connect()
        worker.send(ping=agent.WorkerPing(timestamp=1))  # existing connections stay
        server.message()
        stage.tap.accept()
        stage.pair()
    assert [entry.data["act"] for entry in stage.seen("act", n=6)] == ["refuse", "accept"] * 3


def test_cut_resets_both_sides(stage: Stage) -> None:
    pairs = [stage.agents(), stage.pair()]
    pairs[1][0].raw(b"x")
    assert pairs[1][1].take(1) == b"x"
    stage.tap.cut()
    assert {end.ended() for pair in pairs for end in pair} == {"reset"}
    assert stage.tap.transcript.live() == []
    assert stage.seen("closed", n=2)[0].data["by"] == "tap"
    stage.agents()


def test_a_dismissed_worker_can_answer(stage: Stage) -> None:
    (worker, server), (caller, _) = stage.agents(), stage.pair()
    stage.tap.dismiss()
    said = worker.next()
    assert (said.opcode, ws.close_reason(said.payload)) == (ws.CLOSE, (1001, ""))
    assert server.ended() == "reset"
    assert stage.tap.transcript.live() == []
    assert stage.seen("closed")[0].data == {"by": "tap", "how": "close", "code": 1001, "agent": True}
    worker.raw(ws.build(said.payload, ws.CLOSE, masked=True))
    worker.send(ping=agent.WorkerPing(timestamp=1))  # too late, and to nobody
    worker.socket.shutdown(socket.SHUT_WR)
    assert worker.ended() == "eof"
    assert not stage.tap.transcript.entries("ping")
    assert caller.quiet()  # its connection stays
    stage.agents()


def test_who_registers_without_a_server_is_told_so(stage: Stage) -> None:
    old, server = stage.agents()
    with stage.tap.unavailable():
        worker = stage.connect()
        worker.raw(UPGRADE + b"\r\n")
        assert worker.head().startswith(b"HTTP/1.1 503 ")
        assert worker.ended() == "eof"
        old.send(ping=agent.WorkerPing(timestamp=1))
        assert server.message().ping.timestamp == 1
    assert stage.seen("refused")[0].data == {"status": 503}


def test_a_worker_that_ends_by_itself_was_not_disturbed(stage: Stage) -> None:
    worker, server = stage.agents()
    with stage.tap.hold("worker", "status"):
        server.send(availability=question("AJ_1"))
        worker.message()
    worker.close()
    stage.seen("closed")
    assert not stage.tap.disturbed


@pytest.mark.parametrize("how", ["cut", "dismiss", "unavailable", "hold", "half_open", "server"])
def test_what_disturbs_a_worker(stage: Stage, how: str) -> None:
    _, server = stage.agents()
    if how == "cut":
        stage.tap.cut()
    elif how == "dismiss":
        stage.tap.dismiss()
    elif how == "unavailable":
        with stage.tap.unavailable():
            pass
    elif how == "hold":
        with stage.tap.hold("server", "question"):
            pass
    elif how == "half_open":
        with stage.tap.half_open():
            pass
    else:
        server.close()
        stage.seen("closed")
    assert stage.tap.disturbed


def test_half_open_freezes_and_releases(stage: Stage) -> None:
    worker, server = stage.agents()
    with stage.tap.half_open():
        worker.send(ping=agent.WorkerPing(timestamp=1))
        server.send(pong=agent.WorkerPong(timestamp=2))
        late = stage.connect()
        late.raw(UPGRADE + b"\r\n")
        assert worker.quiet()
        assert server.quiet()
        assert late.quiet()
        stage.seen("opened", n=2)
        with pytest.raises(StageError, match="frozen"):
            stage.tap.ask(0.1)
        stage.listener.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            stage.listener.accept()
        stage.listener.socket.settimeout(SECONDS)
    assert server.message().ping.timestamp == 1
    assert worker.message().pong.timestamp == 2
    assert stage.listener.accept().head() == UPGRADE + b"\r\n"


def test_the_end_of_a_connection_is_not_told_while_frozen(stage: Stage) -> None:
    worker, server = stage.agents()
    with stage.tap.half_open():
        worker.close()
        assert server.quiet()
        gone = stage.connect()
        gone.close()
    assert server.ended() == "eof"
    assert stage.listener.accept().ended() == "eof"


def test_cutting_frozen_connections(stage: Stage) -> None:
    worker, server = stage.agents()
    with stage.tap.half_open():
        new = stage.connect()
        stage.seen("opened", n=2)
        stage.tap.cut()
        assert {worker.ended(), server.ended(), new.ended()} == {"reset"}


# Probes


def answer(worker: Peer, available: bool = True, times: int = 1) -> str:
    job_id = str(worker.message().availability.job.id)
    for _ in range(times):
        worker.send(availability=agent.AvailabilityResponse(job_id=job_id, available=available))
    return job_id


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("available", [True, False])
def test_a_probe_is_between_the_tap_and_the_worker(stage: Stage, text: bool, available: bool) -> None:
    worker, server = stage.agents(text=text)
    asked: list[agent.Job] = []

    def serve() -> None:
        frame = worker.next()
        assert frame.opcode == (ws.TEXT if text else ws.BINARY)
        worker._frames.insert(0, frame)
        asked.append(worker.message().availability.job)
        worker.send(availability=agent.AvailabilityResponse(job_id=asked[0].id, available=available))
        worker.send(update_job=agent.UpdateJobStatus(job_id=asked[0].id, status=agent.JobStatus.JS_FAILED))
        worker.send(ping=agent.WorkerPing(timestamp=9))

    thread = threading.Thread(target=serve)
    thread.start()
    said = stage.tap.ask(room="probe room")
    thread.join()
    assert (said.job_id, said.available) == (asked[0].id, available)
    assert said.after_s is not None
    assert 0 < said.after_s < 1
    assert (asked[0].agent_name, asked[0].namespace, asked[0].room.name, asked[0].type) == ("me", "n", "probe room", 0)
    assert server.message().ping.timestamp == 9
    (known,) = stage.tap.transcript.questions()
    assert (known.probe, known.available, known.room) == (True, available, "probe room")
    entries = stage.seen("question", "answer", "job", n=3)
    assert [(entry.source, entry.data.get("fate")) for entry in entries] == [
        ("tap", None),
        ("worker", "swallowed"),
        ("worker", "swallowed"),
    ]


def test_a_late_answer_to_a_probe_is_swallowed_too(stage: Stage) -> None:
    worker, server = stage.agents()
    said = stage.tap.ask(0.1)
    assert (said.available, said.after_s) == (None, None)
    assert answer(worker, times=2) == said.job_id
    worker.send(ping=agent.WorkerPing(timestamp=9))
    assert server.message().ping.timestamp == 9
    (known,) = stage.tap.transcript.questions()
    assert len(known.answers) == 2


def test_of_two_registrations_the_free_one_is_asked_as_by_a_server(stage: Stage) -> None:
    free, _ = stage.agents()
    full, server = stage.agents()
    full.send(update_worker=agent.UpdateWorkerStatus(status=agent.WorkerStatus.WS_FULL, load=1.0))
    server.message()
    asking = threading.Thread(target=lambda: stage.tap.ask(0.5, free=True))
    asking.start()
    assert free.message().availability.job.agent_name == "me"
    asking.join()
    asking = threading.Thread(target=lambda: stage.tap.ask(0.5))
    asking.start()
    assert full.message().availability.job.agent_name == "me"
    asking.join()


def test_a_probe_ends_with_the_connection(stage: Stage) -> None:
    worker, _ = stage.agents()
    timer = threading.Timer(0.1, worker.close)
    timer.start()
    started = time.monotonic()
    assert stage.tap.ask(10).available is None
    assert time.monotonic() - started < 2
    with pytest.raises(StageError, match="not registered"):
        stage.tap.ask()


def test_many_probes_come_in_one_write(stage: Stage) -> None:
    worker, server = stage.agents()
    said: list[Any] = []
    thread = threading.Thread(target=lambda: said.extend(stage.tap.ask_at_once(20, 2)))
    thread.start()
    data = worker.socket.recv(1 << 20)
    worker._frames += worker._splitter.feed(data)
    assert len(worker._frames) == 20
    ids = [answer(worker, available=index < 5) for index in range(19)]
    thread.join()
    assert [one.job_id for one in said[:19]] == ids
    assert [one.available for one in said] == [True] * 5 + [False] * 14 + [None]
    assert server.quiet()


def test_nobody_is_asked_without_a_registration(stage: Stage) -> None:
    with pytest.raises(StageError, match="nobody to ask"):
        stage.tap.ask()
    with pytest.raises(StageError, match="no agent connection"):
        stage.tap.inject(b"x")
    worker, _server = stage.agents(register=False)
    with pytest.raises(StageError, match="nobody to ask"):
        stage.tap.ask()
    stage.tap.inject(b"x")
    assert worker.next().payload == b"x"


# Acts on messages


def pings(worker: Peer, *numbers: int) -> None:
    for number in numbers:
        worker.send(ping=agent.WorkerPing(timestamp=number))


def test_held_messages_are_overtaken_and_released_in_order(stage: Stage) -> None:
    worker, server = stage.agents()
    with stage.tap.hold("worker", "answer", "status") as held:
        for name in ("AJ_1", "AJ_2"):
            worker.send(availability=agent.AvailabilityResponse(job_id=name, available=True))
        pings(worker, 1)
        assert server.message().ping.timestamp == 1
        assert server.quiet()
        assert held.count == 2
        held.release()
        assert [server.message().availability.job_id for _ in range(2)] == ["AJ_1", "AJ_2"]
        worker.send(availability=agent.AvailabilityResponse(job_id="AJ_3", available=True))  # the rule has ended
        assert server.message().availability.job_id == "AJ_3"
    assert [entry.data.get("fate") for entry in stage.seen("answer", n=3)] == ["held", "held", None]
    acts = [entry.data["act"] for entry in stage.seen("act", n=2)]
    assert acts == ["hold", "release"]


def test_a_held_message_reaches_the_worker_when_it_is_released(stage: Stage) -> None:
    worker, server = stage.agents()
    with stage.tap.hold("server", "question") as held:
        server.send(availability=question("AJ_1"))
        stage.seen("question")
        assert held.count == 1
        assert stage.tap.transcript.questions() == []
        released = time.monotonic()
    worker.message()
    (asked,) = stage.tap.transcript.wait(lambda seen: seen.questions(), SECONDS) or []
    assert asked.asked >= released


def test_held_messages_go_with_their_connection(stage: Stage) -> None:
    worker, server = stage.agents()
    with stage.tap.hold("worker") as held:
        pings(worker, 1, 2)
        stage.seen("ping", n=2)
        worker.close()
        assert server.ended() == "eof"
        assert held.count == 2
    assert stage.seen("act", n=2)[-1].data["lost"] == 2


def test_too_many_held_messages_stop_their_source(stage: Stage) -> None:
    worker, server = stage.agents()
    worker.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    frame = worker.frame(b"\x82\x7d\xd0\x86\x03" + bytes(50_000))
    with stage.tap.hold("worker", "unknown") as held:
        written = worker.flood(frame)
        assert 0 < held.count < 60
    taken = 0
    while taken < written:
        taken += len(server.socket.recv(1 << 20))
    assert taken == written


def test_dropped_messages_never_arrive(stage: Stage) -> None:
    worker, server = stage.agents()
    with stage.tap.drop("server", "pong") as held:
        server.send(pong=agent.WorkerPong(timestamp=1))
        server.send(termination=agent.JobTermination(job_id="AJ_1"))
        assert worker.message().termination.job_id == "AJ_1"
        assert held.count == 1
    server.send(pong=agent.WorkerPong(timestamp=2))
    assert worker.message().pong.timestamp == 2


def test_a_dropped_registration_is_none(stage: Stage) -> None:
    worker, server = stage.agents(register=False)
    with stage.tap.drop("server", "registered"):
        worker.send(register=agent.RegisterWorkerRequest(agent_name="me"))
        server.message()
        server.send(register=agent.RegisterWorkerResponse(worker_id="AW_1"))
        stage.seen("registered")
    assert stage.tap.transcript.registrations() == []


def test_delayed_messages_keep_their_order(stage: Stage) -> None:
    worker, server = stage.agents()
    started = time.monotonic()
    with stage.tap.delay(0.3, "worker", "status"):
        worker.send(update_worker=agent.UpdateWorkerStatus(load=0.5))
        pings(worker, 1)
        stage.seen("ping")
    pings(worker, 2)
    assert server.quiet(0.1)
    assert server.message().update_worker.load == 0.5
    assert 0.28 < time.monotonic() - started < 1.5
    assert [server.message().ping.timestamp for _ in range(2)] == [1, 2]


def test_duplicated_messages_arrive_twice(stage: Stage) -> None:
    worker, server = stage.agents()
    with stage.tap.duplicate("server", "question") as held:
        server.send(availability=question("AJ_1"))
        assert [worker.message().availability.job.id for _ in range(2)] == ["AJ_1", "AJ_1"]
        assert held.count == 1
    assert len(stage.tap.transcript.questions()) == 1


def test_a_message_under_way_is_not_touched_by_a_rule_that_comes_later(stage: Stage) -> None:
    worker, server = stage.agents()
    frame = worker.frame(worker.encode(ping=agent.WorkerPing(timestamp=123456789)))
    worker.raw(frame[:8])
    assert server.take(8) == frame[:8]
    with stage.tap.drop("worker", "ping") as held:
        worker.raw(frame[8:])
        pings(worker, 2)
        assert server.take(len(frame) - 8) == frame[8:]
        assert server.quiet()
        assert held.count == 1


def test_fragments_are_one_message_for_a_rule(stage: Stage) -> None:
    worker, server = stage.agents()
    payload = worker.encode(ping=agent.WorkerPing(timestamp=123456789))
    fragments = ws.build(payload[:2], 2, fin=False, masked=True) + ws.build(payload[2:], 0, masked=True)
    worker.raw(fragments)
    assert server.take(len(fragments)) == fragments
    with stage.tap.drop("worker", "ping") as held:
        worker.raw(fragments)
        worker.send(update_worker=agent.UpdateWorkerStatus(load=0.5))
        assert server.message().update_worker.load == 0.5
        assert held.count == 1
    assert [entry.data.get("fate") for entry in stage.seen("ping", n=2)] == [None, "dropped"]


def test_injected_messages_go_between_the_servers(stage: Stage) -> None:
    worker, server = stage.agents()
    frame = server.frame(server.encode(pong=agent.WorkerPong(timestamp=1)))
    server.raw(frame[:3])
    assert worker.take(3) == frame[:3]
    stage.tap.inject(b"\xff\xff")
    stage.tap.inject(b"{nonsense", text=True)
    stage.tap.inject_raw(b"\x00\x01\x02")
    assert worker.quiet()
    server.raw(frame[3:])
    injected = ws.build(b"\xff\xff") + ws.build(b"{nonsense", ws.TEXT) + b"\x00\x01\x02"
    assert worker.take(len(frame) - 3 + len(injected)) == frame[3:] + injected
    assert [entry.data["act"] for entry in stage.seen("act", n=3)] == ["inject", "inject", "inject_raw"]


def test_acts_from_many_threads(stage: Stage) -> None:
    worker, server = stage.agents()
    stop = threading.Event()
    problems: list[BaseException] = []

    def act(number: int) -> None:
        try:
            while not stop.is_set():
                with stage.tap.hold("worker", "answer"), stage.tap.duplicate("server", "go_away"):
                    stage.tap.transcript.lines(last=3)
                    stage.tap.transcript.wait(lambda seen: None, 0.001)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=act, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(300):
            pings(worker, number)
            assert server.message().ping.timestamp == number
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert problems == []
