"""WebSocket framing (RFC 6455) for a tap: cuts a byte stream into frames and keeps their original bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
CONTROL = 0x8

# Bytes of payload. The server itself refuses agent messages over 2 MiB (SignalMessageSizeLimit), so what is larger than
# twice that is no message that anyone could judge; it is streamed through instead of being buffered.
FRAME_BOUND = 4 * 1024 * 1024


@dataclass(frozen=True)
class Frame:
    """One frame, or one piece of an oversized frame.

    ``raw`` are the original bytes; ``payload`` is unmasked. Of a frame whose payload is larger than the bound the
    pieces come as they arrive, each with ``oversized`` true and no payload, the final one with ``last`` true.
    ``length`` is the payload's length in bytes as the header states it (the whole frame's, also in a piece).
    """

    raw: bytes
    opcode: int
    fin: bool
    payload: bytes
    length: int
    oversized: bool = False
    last: bool = True

    @property
    def control(self) -> bool:
        return self.opcode >= CONTROL


def mask(data: bytes, key: bytes) -> bytes:
    """XOR with the four bytes of ``key``; masking and unmasking are the same."""
    if not data or key == b"\0\0\0\0":
        return bytes(data)
    keys = (key * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")).to_bytes(len(data), "big")


def build(payload: bytes, opcode: int = BINARY, *, fin: bool = True, masked: bool = False) -> bytes:
    """One frame. Clients mask (with a random key), servers do not."""
    first = (0x80 if fin else 0) | opcode
    bit = 0x80 if masked else 0
    length = len(payload)
    if length < 126:
        header = bytes((first, bit | length))
    elif length < 1 << 16:
        header = bytes((first, bit | 126)) + length.to_bytes(2, "big")
    else:
        header = bytes((first, bit | 127)) + length.to_bytes(8, "big")
    if not masked:
        return header + payload
    key = os.urandom(4)
    return header + key + mask(payload, key)


def close_reason(payload: bytes) -> tuple[int | None, str]:
    """Code and reason of a close frame; None if it has no code (what an API reports as 1005)."""
    if len(payload) < 2:
        return None, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode("utf-8", "replace")


class Splitter:
    """Fed with a stream in any pieces, returns its frames. Any bytes are some frames: it never raises.

    Holds at most one incomplete frame (``buffered`` bytes, never more than the bound and a header).
    """

    def __init__(self, bound: int = FRAME_BOUND) -> None:
        self._bound = bound
        self._buffer = bytearray()
        self._need = 2  # bytes that the buffer must have before another look at it is worth while
        self._left = 0  # bytes still to come of an oversized frame
        self._streaming = Frame(b"", 0, True, b"", 0)

    @property
    def buffered(self) -> int:
        """Bytes of the incomplete frame that are kept here; 0 between two frames and inside an oversized one."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        view, at = memoryview(data), 0
        while at < len(data):
            if self._left:
                piece = bytes(view[at : at + self._left])
                at += len(piece)
                self._left -= len(piece)
                frames.append(self._piece(piece))
                continue
            # Only as much as the frame needs: what follows it belongs to the next one.
            take = view[at : at + self._need - len(self._buffer)]
            self._buffer += take
            at += len(take)
            if len(self._buffer) >= self._need:
                self._look(frames)
        return frames

    def _look(self, frames: list[Frame]) -> None:
        buffer = self._buffer
        masked = bool(buffer[1] & 0x80)
        short = buffer[1] & 0x7F
        extended = {126: 2, 127: 8}.get(short, 0)
        header = 2 + extended + (4 if masked else 0)
        if len(buffer) < header:
            self._need = header
            return
        length = int.from_bytes(buffer[2 : 2 + extended], "big") if extended else short
        opcode, fin = buffer[0] & 0x0F, bool(buffer[0] & 0x80)
        if length > self._bound:
            self._left = length
            self._streaming = Frame(b"", opcode, fin, b"", length, oversized=True, last=False)
            frames.append(self._piece(bytes(buffer)))
        elif len(buffer) < header + length:
            self._need = header + length
            return
        else:
            payload = bytes(buffer[header:])
            if masked:
                payload = mask(payload, bytes(buffer[header - 4 : header]))
            frames.append(Frame(bytes(buffer), opcode, fin, payload, length))
        self._buffer = bytearray()
        self._need = 2

    def _piece(self, raw: bytes) -> Frame:
        whole = self._streaming
        return Frame(raw, whole.opcode, whole.fin, b"", whole.length, oversized=True, last=self._left == 0)
