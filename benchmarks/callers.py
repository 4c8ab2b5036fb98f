"""What a simulated user costs: python benchmarks/callers.py

Three kinds of users, one after the other in one run and in changing order, each in a room of its own where somebody else
hums: the naive one (10 ms frames made with numpy for each user, every frame that arrives is handled in Python), the
quality listener of the checks (callers/caller.py), and the crowd of the load test (callers/crowd.py). Each kind runs in a
process of its own, whose CPU seconds are read at both ends of a steady stretch.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from livekit import rtc  # noqa: E402

from pytest_lkagents.callers.caller import Caller  # noqa: E402
from pytest_lkagents.callers.crowd import Crowd  # noqa: E402
from pytest_lkagents.callers.media import Media  # noqa: E402
from pytest_lkagents.callers.request import ANY_AGENT, token  # noqa: E402
from pytest_lkagents.clock import Ledger  # noqa: E402
from tests.wire_server import RealServer  # noqa: E402

SETTLE_SECONDS = 3.0
RATE = 48000


class Address:
    """As much of a server as a user needs."""

    def __init__(self, url: str, key: str, secret: str) -> None:
        self.url, self.api_key, self.api_secret = url, key, secret


async def naive(server: Any, rooms: list[str]) -> None:
    async def one(name: str) -> None:
        room = rtc.Room()

        def subscribed(track: rtc.Track, *_: object) -> None:
            tasks.append(asyncio.ensure_future(listen(track)))

        async def listen(track: rtc.Track) -> None:
            async for event in rtc.AudioStream(track):
                numpy.sqrt(numpy.mean(numpy.frombuffer(event.frame.data, numpy.int16).astype(float) ** 2))

        room.on("track_subscribed", subscribed)
        await room.connect(server.url, token(server, name, ANY_AGENT))
        source = rtc.AudioSource(RATE, 1)
        track = rtc.LocalAudioTrack.create_audio_track("speech", source)
        await room.local_participant.publish_track(track)
        size, at = RATE // 100, 0
        while True:
            times = (at + numpy.arange(size)) / RATE
            wave = (8000 * numpy.sin(2 * numpy.pi * 300 * times) * numpy.sin(2 * numpy.pi * 2 * times)).astype(numpy.int16)
            await source.capture_frame(rtc.AudioFrame(wave.tobytes(), RATE, 1, size))
            at += size

    tasks: list[Any] = [asyncio.ensure_future(one(name)) for name in rooms]
    await asyncio.gather(*tasks)


def be_naive(server: Any, rooms: list[str]) -> None:
    """Run these users until standard input ends, or one of them fails."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
    asyncio.run(naive(server, rooms))


def cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@contextlib.contextmanager
def users(kind: str, server: Any, rooms: list[str]) -> Any:
    """The pid of the process in which these users are."""
    if kind == "crowd":
        crowd = Crowd(server)
        try:
            crowd.wait_ready()
            for name in rooms:
                crowd.join(name)
            yield crowd.pid
        finally:
            crowd.close()
        return
    if kind == "caller":
        media = Media()
        try:
            caller = Caller(server, media, Ledger())
            for name in rooms:
                caller.join(name)
            yield media.pid
        finally:
            media.close()
        return
    arguments = [sys.executable, __file__, "--be-naive", server.url, server.api_key, server.api_secret, *rooms]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE) as process:
        try:
            yield process.pid
            if process.poll() is not None:
                raise SystemExit(f"the naive users ended with code {process.returncode}")
        finally:
            process.kill()


def measure(kind: str, server: Any, count: int, seconds: float, run: int) -> float:
    """Cores per user, in percent."""
    rooms = [f"{kind}-{run}-{number}" for number in range(count)]
    hummers = Crowd(server)
    try:
        hummers.wait_ready()
        with users(kind, server, rooms) as pid:
            for name in rooms:
                hummers.join(name)
            time.sleep(SETTLE_SECONDS)
            began, used = time.monotonic(), cpu(pid)
            time.sleep(seconds)
            return 100 * (cpu(pid) - used) / (time.monotonic() - began) / count
    finally:
        hummers.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--be-naive", nargs="+", default=None)
    given = parser.parse_args()
    if given.be_naive:
        url, key, secret, *rooms = given.be_naive
        be_naive(Address(url, key, secret), rooms)
        return
    kinds = ["naive", "caller", "crowd"]
    seen: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder, RealServer(Path(folder)) as real:
        server = Address(real.url, real.key, real.secret)
        for run in range(given.runs):
            for kind in kinds[run % 3 :] + kinds[: run % 3]:
                seen[kind].append(measure(kind, server, given.users, given.seconds, run))
    print(f"{given.users} users, {given.runs} runs of {given.seconds:g} s each; CPU (user and system) per user:")
    for kind, shares in seen.items():
        middle = statistics.median(shares)
        spread = f"{min(shares):.1f} to {max(shares):.1f} %"
        print(f"  {kind:7} {middle:5.1f} % of a core = {middle * 0.6:.2f} CPU s per minute ({spread})")


if __name__ == "__main__":
    main()
