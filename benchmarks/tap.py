"""What the tap costs: python benchmarks/tap.py

Direct and tapped connections take turns within one run, so that a busy machine burdens both alike. As in a real run, the
worker's end and the server's are processes of their own, and the tap's process does nothing else meanwhile.
Targets: 99 % of the messages less than 1 ms later, dispatches within 2 %. Ends with code 1 if one is missed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from livekit import api  # noqa: E402
from livekit.protocol import agent, models  # noqa: E402

from pytest_lkagents.loop import EventLoop  # noqa: E402
from pytest_lkagents.server.binary import find_binary  # noqa: E402
from pytest_lkagents.wire import websocket as ws  # noqa: E402
from pytest_lkagents.wire.tap import Tap  # noqa: E402
from tests.wire_peers import SWITCHING, UPGRADE, Peer  # noqa: E402
from tests.wire_server import RealServer  # noqa: E402

MESSAGES = 3000
WARM_UP = 300
MIB = 1 << 20
STREAM_MIB = 32
STREAMS = 7
# Of a masked frame that is longer than 64 KiB.
HEADER = 14
DISPATCHES = 25
SECONDS = 20.0
# The server refreshes its list of agent names for 5 s after the first dispatch; until then its times vary.
SETTLE_SECONDS = 6


def answer_frames(listener: socket.socket) -> None:
    """The server's end. After the upgrade: each message is answered by a question, until one of 1 byte announces a stream
    of STREAM_MIB whose end is answered. A connection without an upgrade sends only such streams."""

    def serve(connected: socket.socket) -> None:
        peer = Peer(connected, client=False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        room = models.Room(sid="RM_1", name="a room", enabled_codecs=[models.Codec(mime=f"video/{n}") for n in range(10)])
        job = agent.Job(id="AJ_1", dispatch_id="AD_1", room=room, agent_name="me")
        question = peer.frame(peer.encode(availability=agent.AvailabilityRequest(job=job)))
        try:
            if b"/agent" in peer.head():
                peer.raw(SWITCHING)
                while peer.next().length != 1:
                    peer.raw(question)
            buffer = bytearray(MIB)
            while True:
                left = STREAM_MIB * MIB
                while left:
                    got = connected.recv_into(buffer, min(left, MIB))
                    if not got:
                        return
                    left -= got
                peer.raw(b"+")
        except (AssertionError, OSError):
            return

    while True:
        connected, _ = listener.accept()
        threading.Thread(target=serve, args=(connected,), daemon=True).start()


def connect(port: int, head: bytes) -> Peer:
    connected = socket.create_connection(("127.0.0.1", port), SECONDS)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer = Peer(connected, client=True)
    peer.raw(head)
    return peer


def measure_traffic(ports: dict[str, int], results: Connection) -> None:
    """The worker's end. Sends {"message": {way: [seconds]}, "raw"/"agent": {way: [seconds per MiB]}}."""
    found: dict[str, dict[str, list[float]]] = {name: {way: [] for way in ports} for name in ("message", "raw", "agent")}
    agents = {way: connect(port, UPGRADE + b"\r\n") for way, port in ports.items()}
    for peer in agents.values():
        peer.head()
    for number in range(WARM_UP + MESSAGES):
        for way, peer in agents.items():
            message = peer.frame(peer.encode(availability=agent.AvailabilityResponse(job_id="AJ_1", available=True)))
            started = time.perf_counter()
            peer.raw(message)
            peer.next()
            if number >= WARM_UP:
                found["message"][way].append(time.perf_counter() - started)
            # Room for what the tap does after forwarding: messages of a real worker do not follow at once.
            time.sleep(0.0005)
    plain = {way: connect(port, b"GET /rtc HTTP/1.1\r\nUpgrade: websocket\r\n\r\n") for way, port in ports.items()}
    for peer in agents.values():
        peer.raw(ws.build(b"x", masked=True))
    size = 256 * 1024
    frame = ws.build(bytes(size - HEADER), masked=True)
    for _ in range(STREAMS):
        for name, peers, piece in (("raw", plain, bytes(size)), ("agent", agents, frame)):
            for way, peer in peers.items():
                started = time.perf_counter()
                for _ in range(STREAM_MIB * MIB // size):
                    peer.raw(piece)
                peer.take(1)
                found[name][way].append((time.perf_counter() - started) / STREAM_MIB)
    results.send(found)


def measure_dispatches(ports: dict[str, int], key: str, secret: str, results: Connection) -> None:
    """Workers of two names, one behind the tap; sends {way: [seconds from CreateDispatch to the question]}."""
    token = api.AccessToken(key, secret).with_grants(api.VideoGrants(agent=True)).to_jwt()
    upgrade = UPGRADE.replace(b"t0psecret", token.encode()) + b"\r\n"
    workers = {way: connect(port, upgrade) for way, port in ports.items()}
    for way, worker in workers.items():
        assert b" 101 " in worker.head()
        worker.send(register=agent.RegisterWorkerRequest(agent_name=way))
        assert worker.message().WhichOneof("message") == "register"
    found: dict[str, list[float]] = {way: [] for way in ports}

    def dispatch(way: str, room: str) -> float:
        grants = api.VideoGrants(room_admin=True, room=room)
        admin = api.AccessToken(key, secret).with_grants(grants).to_jwt()
        headers = {"Authorization": f"Bearer {admin}", "Content-Type": "application/json"}
        client = http.client.HTTPConnection("127.0.0.1", ports["direct"], timeout=SECONDS)
        client.connect()
        arrived: list[float] = []

        def wait() -> None:
            while True:
                message = workers[way].message()
                if message.WhichOneof("message") == "availability":
                    arrived.append(time.perf_counter())
                    job_id = message.availability.job.id
                    workers[way].send(availability=agent.AvailabilityResponse(job_id=job_id, available=False))
                    return

        waiting = threading.Thread(target=wait)
        waiting.start()
        body = json.dumps({"agent_name": way, "room": room})
        started = time.perf_counter()
        client.request("POST", "/twirp/livekit.AgentDispatchService/CreateDispatch", body, headers)
        client.getresponse().read()
        waiting.join(SECONDS)
        client.close()
        return arrived[0] - started

    for way in ports:
        dispatch(way, f"warm-up-{way}")
    time.sleep(SETTLE_SECONDS)
    for number in range(DISPATCHES):
        for way in list(ports) if number % 2 else list(ports)[::-1]:
            found[way].append(dispatch(way, f"room-{number}-{way}"))
    results.send(found)


def tapped(upstream: int, target: Any, *arguments: Any) -> Any:
    """Run ``target({"direct": port, "tapped": port}, *arguments, results)`` in a process, behind a tap of this one."""
    loop = EventLoop("tap")
    tap = Tap(loop, "127.0.0.1", f"ws://127.0.0.1:{upstream}")
    tap.start()
    results, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
    ports = {"direct": upstream, "tapped": int(tap.url.rpartition(":")[2])}
    process = multiprocessing.get_context("spawn").Process(target=target, args=(ports, *arguments, there), daemon=True)
    process.start()
    there.close()
    try:
        return results.recv()
    finally:
        process.join(SECONDS)
        process.kill()
        tap.close()
        loop.close()


def row(what: str, direct: float, through: float, unit: str, *, percent: bool = False) -> float:
    added = through - direct
    tail = f"{added / direct:+10.1%}" if percent else ""
    print(f"{what:34}{direct:10.3f}{through:10.3f}{added:+10.3f} {unit:7}{tail}")
    return added


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    server = multiprocessing.get_context("spawn").Process(target=answer_frames, args=(listener,), daemon=True)
    server.start()
    try:
        traffic = tapped(port, measure_traffic)
    finally:
        server.kill()
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    # What else runs here shows in the tails, of the direct connections too.
    print(f"load {load:.1f} on {cores} cores{', BUSY' if load > cores else ''}")
    print(f"{'':34}{'direct':>10}{'tapped':>10}{'added':>10}")
    messages = {way: sorted(times) for way, times in traffic["message"].items()}
    at = {name: int(MESSAGES * part) for name, part in (("p50", 0.5), ("p99", 0.99))}
    p99 = 0.0
    for name, index in at.items():
        p99 = row(f"message and answer, {name}", *(messages[way][index] * 1000 for way in ("direct", "tapped")), "ms")
    for name, what in (("raw", "bytes of /rtc or HTTP"), ("agent", "frames of 256 KiB on /agent")):
        medians = [statistics.median(traffic[name][way]) * 1000 for way in ("direct", "tapped")]
        row(what, *medians, "ms/MiB")
    missed = p99 >= 1
    dispatches: dict[str, list[float]] = {}
    if find_binary() is not None:
        with tempfile.TemporaryDirectory() as folder, RealServer(Path(folder)) as livekit:
            dispatches = tapped(livekit.port, measure_dispatches, livekit.key, livekit.secret)
        direct, through = (statistics.median(dispatches[way]) * 1000 for way in ("direct", "tapped"))
        added = row("CreateDispatch to question, median", direct, through, "ms", percent=True)
        missed = missed or added > 0.02 * direct
    else:
        print("no dispatches: livekit-server is not there, run scripts/setup")
    if options.json:
        options.json.write_text(json.dumps({**traffic, "dispatch": dispatches}))
    print("a target is MISSED" if missed else "targets are met")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
