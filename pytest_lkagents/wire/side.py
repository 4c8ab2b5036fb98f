"""The two sockets of a connection through the tap, and where the server is."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import struct
from typing import Protocol, cast
from urllib.parse import urlsplit

from pytest_lkagents.checks import StageError

# SO_LINGER on, 0 seconds: closing the socket resets the connection.
RESET = struct.pack("ii", 1, 0)


class Connection(Protocol):
    """What a side tells."""

    def made(self, side: Side) -> None: ...
    def received(self, side: Side, data: bytes) -> None: ...
    def eof(self, side: Side) -> bool: ...
    def lost(self, side: Side, error: Exception | None) -> None: ...


class Upstream:
    """Where the server is. ``context`` is set for TLS. ``host_header`` is what it expects to be called, None where that
    tells nobody anything: an address without TLS. A name may be what a proxy before it goes by."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.host, self.port, self.context = host, port, context
        name = f"[{host}]" if ":" in host else host
        usual = 80 if context is None else 443
        named = context is not None or not _is_address(host)
        self.host_header = (name if port == usual else f"{name}:{port}") if named else None

    @classmethod
    def of(cls, url: str) -> Upstream:
        """Raises StageError for anything but a URL of host and port."""
        parts = urlsplit(url)
        secure = {"ws": False, "http": False, "wss": True, "https": True}.get(parts.scheme)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if secure is None or not host or parts.path not in ("", "/") or parts.query or parts.username:
            raise StageError(f"the tap's server must be ws://host:port or wss://host, not {parts.scheme}://{host}{parts.path}")
        return cls(host, port or (443 if secure else 80), ssl.create_default_context() if secure else None)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
        return True
    except ValueError:
        return False


class Side(asyncio.Protocol):
    """One socket. ``pauses`` are the reasons why nothing is read from it; ``rest`` is what arrived nevertheless."""

    def __init__(self, link: Connection, name: str) -> None:
        self.link = link
        self.name = name
        self.transport: asyncio.Transport | None = None
        self.pauses: set[str] = set()
        self.rest = bytearray()
        self.peer: Side
        self.port = 0  # at its end
        self.ended = False  # it sent its FIN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.port = int(peer[1]) if peer else 0
        self.link.made(self)
        # Not yet: asyncio before 3.11 starts reading after this call, whatever was asked for in it.
        asyncio.get_running_loop().call_soon(self._start_paused)

    def _start_paused(self) -> None:
        if self.pauses and self.transport is not None:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self.pauses:
            # A TLS transport may hand out what it had already decrypted.
            self.rest += data
        else:
            self.link.received(self, data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.rest and "frozen" not in self.pauses:
            rest, self.rest = bytes(self.rest), bytearray()
            self.link.received(self, rest)
        return self.link.eof(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.link.lost(self, error)

    def pause_writing(self) -> None:
        self.peer.pause("slow")

    def resume_writing(self) -> None:
        self.peer.resume("slow")

    def pause(self, reason: str) -> None:
        self.pauses.add(reason)
        if self.transport is not None:
            self.transport.pause_reading()

    def resume(self, reason: str) -> None:
        self.pauses.discard(reason)
        if self.pauses or self.transport is None:
            return
        if self.rest:
            rest, self.rest = bytes(self.rest), bytearray()
            self.link.received(self, rest)
        if not self.pauses and self.transport is not None:
            self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def end(self) -> None:
        """Pass on a FIN: after it this side may still speak."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def abort(self) -> None:
        """Reset the connection, whatever it still had to say."""
        if self.transport is None:
            return
        opened = self.transport.get_extra_info("socket")
        if opened is not None:
            try:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            except OSError:
                pass  # closed already
        self.transport.abort()
