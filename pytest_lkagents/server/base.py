"""What every LiveKit server offers to the stage."""

from __future__ import annotations

import http.client
import json
import urllib.request
from abc import ABC, abstractmethod
from typing import Any

from pytest_lkagents.secrets import new_api_key, new_api_secret
from pytest_lkagents.server.log import ServerLog

# A proxy that this machine has is not for the way to a server on it.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Server(ABC):
    """A LiveKit server. ``url`` is for callers on this machine, ``worker_url`` for workers in containers;
    both are ``ws://host:port``. ``controllable`` servers can be stopped and started."""

    controllable = True

    def __init__(self) -> None:
        self.api_key = new_api_key()
        self.api_secret = new_api_secret()
        self.log = ServerLog()
        self.version: str | None = None

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    @abstractmethod
    def worker_url(self) -> str: ...

    @property
    def api_url(self) -> str:
        """Of its HTTP API, for this machine: ``http://host:port``."""
        return self.url.replace("ws", "http", 1)

    @abstractmethod
    def start(self) -> None:
        """Start, and return when it answers. Raises StageError. Starting again keeps keys and ports."""

    @abstractmethod
    def stop(self) -> None:
        """Stop for real; the address refuses connections from then on."""

    def opened_by(self, token: str) -> str | None:
        """What a token lets its bearer do here, in words; None: nothing, as it is not signed with the secret, or expired."""
        import jwt
        from livekit import api

        try:
            grants = api.TokenVerifier(self.api_key, self.api_secret).verify(token).video
        except jwt.InvalidTokenError:
            return None
        return "of a worker" if grants is not None and grants.agent and not grants.room_join else "for a call"

    def is_up(self) -> bool:
        """Whether ``GET /`` says 200; what answers may be no HTTP server at all."""
        try:
            with DIRECT.open(self.api_url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):
            return False


def configuration(server: Server, *, port: int, udp_port: int, node_ip: str, bind: list[str], interface: str | None) -> str:
    """The server's configuration as JSON (which is YAML).

    Hermetic: no public STUN server is asked, nothing listens beyond ``bind`` and ``interface``. ``target_load`` is 1,
    because below it the server would hide a worker's own refusal (it does not even ask).
    """
    rtc: dict[str, Any] = {
        "tcp_port": 0,
        "udp_port": udp_port,
        "use_external_ip": False,
        "node_ip": node_ip,
        # Nobody answers there, and nobody needs to: without an entry, clients would ask public servers.
        "stun_servers": [f"{node_ip}:9"],
    }
    if interface is not None:
        rtc["interfaces"] = {"includes": [interface]}
    if node_ip.startswith("127."):
        rtc["enable_loopback_candidate"] = True
    return json.dumps(
        {
            "port": port,
            "bind_addresses": bind,
            "rtc": rtc,
            "keys": {server.api_key: server.api_secret},
            "room": {"empty_timeout": 20, "departure_timeout": 2},
            "agents": {"target_load": 1},
            "logging": {"json": True, "level": "debug"},
        }
    )
