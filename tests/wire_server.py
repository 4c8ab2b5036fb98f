"""A livekit-server process of this test run alone, on 127.0.0.1 or another address of this machine."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from livekit import api

from pytest_lkagents.server.binary import find_binary

START_SECONDS = 20


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM, host: str = "127.0.0.1") -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class RealServer:
    """A context: starts and answers, is killed at the end. Its log is ``folder/server.log``."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.key = f"API{secrets.token_hex(6)}"
        self.secret = secrets.token_urlsafe(32)
        self.host = host
        self.port = free_port(host=host)
        self.url = f"ws://{host}:{self.port}"
        self._folder = folder

    def __enter__(self) -> RealServer:
        config = {
            "port": self.port,
            "bind_addresses": [self.host],
            "rtc": {
                "tcp_port": 0,
                "udp_port": free_port(socket.SOCK_DGRAM, self.host),
                "use_external_ip": False,
                "node_ip": self.host,
                "enable_loopback_candidate": True,
                "stun_servers": [f"{self.host}:9"],
            },
            "keys": {self.key: self.secret},
            "room": {"empty_timeout": 5, "departure_timeout": 1},
            "agents": {"target_load": 1},
            "logging": {"json": True, "level": "info"},
        }
        path = self._folder / "server.yaml"
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        binary = find_binary()
        assert binary is not None, "run scripts/setup first"
        with (self._folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "--config", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(self.url.replace("ws", "http", 1), timeout=1):
                    return self
            except (OSError, urllib.error.URLError):
                time.sleep(0.05)
        self.__exit__()
        raise AssertionError((self._folder / "server.log").read_text()[-1000:])

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def worker_token(self) -> str:
        return api.AccessToken(self.key, self.secret).with_grants(api.VideoGrants(agent=True)).to_jwt()


async def create_room(url: str, server: RealServer, request: api.CreateRoomRequest) -> None:
    async with api.LiveKitAPI(url.replace("ws", "http", 1), server.key, server.secret) as client:
        await client.room.create_room(request)


async def dispatch(url: str, server: RealServer, name: str, room: str) -> None:
    async with api.LiveKitAPI(url.replace("ws", "http", 1), server.key, server.secret) as client:
        await client.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(agent_name=name, room=room))
