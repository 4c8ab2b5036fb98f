"""Both ends of a tapped connection on plain sockets, so that tests see every byte. Every wait has a deadline."""

from __future__ import annotations

import socket
import struct
from typing import Any

from google.protobuf.json_format import MessageToJson, Parse
from livekit.protocol import agent

from pytest_lkagents.wire import websocket as ws

SECONDS = 5.0
UPGRADE = (
    b"GET /agent?protocol=1&access_token=t0psecret HTTP/1.1\r\nHost: tap\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Authorization: Bearer t0psecret\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
EXTENSIONS = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"


class Peer:
    """One end. ``client``: masks its frames and speaks WorkerMessage, else ServerMessage; ``text``: in JSON."""

    def __init__(self, connected: socket.socket, *, client: bool, text: bool = False) -> None:
        self.socket = connected
        self.socket.settimeout(SECONDS)
        self.client = client
        self.text = text
        self._splitter = ws.Splitter()
        self._frames: list[ws.Frame] = []

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def take(self, size: int) -> bytes:
        """Exactly this many bytes."""
        data = b""
        while len(data) < size:
            got = self.socket.recv(size - len(data))
            assert got, f"closed after {data!r}"
            data += got
        return data

    def head(self) -> bytes:
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += self.take(1)
        return data

    def encode(self, **message: Any) -> bytes:
        made: Any = agent.WorkerMessage(**message) if self.client else agent.ServerMessage(**message)
        return MessageToJson(made, indent=None).encode() if self.text else made.SerializeToString()

    def frame(self, payload: bytes) -> bytes:
        return ws.build(payload, ws.TEXT if self.text else ws.BINARY, masked=self.client)

    def send(self, **message: Any) -> None:
        self.raw(self.frame(self.encode(**message)))

    def next(self) -> ws.Frame:
        while not self._frames:
            got = self.socket.recv(65536)
            assert got, "closed"
            self._frames += self._splitter.feed(got)
        return self._frames.pop(0)

    def message(self) -> Any:
        """The next message that the other end sent."""
        frame = self.next()
        made: Any = agent.ServerMessage() if self.client else agent.WorkerMessage()
        return Parse(frame.payload, made) if frame.opcode == ws.TEXT else made.FromString(frame.payload)

    def quiet(self, seconds: float = 0.15) -> bool:
        """Whether nothing comes for that long."""
        self.socket.settimeout(seconds)
        try:
            return not self._frames and not self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(SECONDS)

    def flood(self, piece: bytes, most: int = 200_000_000) -> int:
        """Write these bytes again and again until nobody takes them; how many were taken."""
        written = 0
        self.socket.settimeout(0.4)
        try:
            while written < most:
                written += self.socket.send(piece[written % len(piece) :])
        except TimeoutError:
            return written
        finally:
            self.socket.settimeout(SECONDS)
        raise AssertionError(f"{written} bytes were taken")

    def ended(self) -> str:
        """Read until the end; "eof" or "reset"."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return "reset"
        return "eof"

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


class Listener:
    """Where a server would be."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.socket.settimeout(SECONDS)
        self.port = int(self.socket.getsockname()[1])

    def accept(self, *, text: bool = False) -> Peer:
        return Peer(self.socket.accept()[0], client=False, text=text)


def question(job_id: str, room: str = "r") -> agent.AvailabilityRequest:
    return agent.AvailabilityRequest(job=agent.Job(id=job_id, room={"name": room}, agent_name="me"))
