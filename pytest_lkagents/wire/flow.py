"""One direction of an agent connection: forwards bytes, follows the frames in them, and lets rules act on messages."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pytest_lkagents.wire import protocol, websocket
from pytest_lkagents.wire.model import Entry
from pytest_lkagents.wire.rules import DELAY, DROP, DUPLICATE, FATES, HOLD, RuleBook
from pytest_lkagents.wire.websocket import FRAME_BOUND, Frame, Splitter

# Bytes that a direction keeps back (held, delayed, frozen) before its source has to wait; one message may exceed it.
KEPT_BOUND = 1024 * 1024


@dataclass
class Message:
    """A message under way. ``begun``: bytes of it were already forwarded, so that the rest has to follow."""

    opcode: int
    parts: list[bytes] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    size: int = 0
    begun: bool = False
    oversized: bool = False


@dataclass(eq=False)
class Kept:
    """A message that a rule keeps back."""

    flow: Flow
    raw: bytes
    entry: Entry


@dataclass
class Host:
    """What a flow needs of its connection. ``swallow`` says whether a message belongs to a probe and must go no further;
    ``kept`` is told how many bytes the flow keeps back."""

    connection: int
    write: Callable[[bytes], None]
    add: Callable[[Entry, bool], None]
    passed: Callable[[Entry, float], None]
    swallow: Callable[[str, dict[str, Any]], bool]
    kept: Callable[[int], None]


class Flow:
    """Two ways through. Without a rule, what arrives is written at once, whatever it is, and looked at afterwards.
    With a rule (or something to be inserted), messages are gathered until they are complete, then decided upon.
    Control frames are no messages: they pass at once, between the fragments of one too. A message whose beginning was
    forwarded before a rule came passes untouched. Messages over the bound are streamed through and never decided upon.
    """

    def __init__(self, source: str, host: Host, rules: RuleBook[Kept], bound: int = FRAME_BOUND) -> None:
        self.source = source
        self.text = False  # how this side encodes its messages; the latest one counts
        self.closing: tuple[float, int | None, str] | None = None  # when its close frame came, and what it said
        self.probed = False  # a probe was asked: this side's messages may be answers to it
        self._host = host
        self._rules = rules
        self._bound = bound
        self._splitter = Splitter(bound)
        self._ahead = 0  # bytes of the splitter's incomplete frame that were already forwarded
        self._message: Message | None = None
        self._inserts: deque[tuple[bytes, Callable[[], None]]] = deque()
        self._queue: deque[tuple[float, bytes, Entry | None]] = deque()  # in order, each with its due time
        self._kept = 0
        self._frozen = False
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, data: bytes) -> None:
        if self._fast():
            self._send(data)
            for frame in self._splitter.feed(data):
                self._frame(frame, len(frame.raw))
            self._ahead = self._splitter.buffered
        else:
            for frame in self._splitter.feed(data):
                ahead, self._ahead = self._ahead, 0
                self._frame(frame, ahead)
                self._insert()

    def _fast(self) -> bool:
        if self._rules.any(self.source) or self._inserts or self.probed:
            return False
        # Only when nothing that has to go first is gathered here.
        return self._ahead == self._splitter.buffered and (self._message is None or self._message.begun)

    def _frame(self, frame: Frame, forwarded: int) -> None:
        rest = frame.raw[forwarded:]
        if frame.control and not frame.oversized:
            self._send(rest)
            if frame.opcode == websocket.CLOSE:
                self.closing = self.closing or (time.monotonic(), *websocket.close_reason(frame.payload))
            return
        message = self._message
        if message is None:
            message = self._message = Message(frame.opcode)
        message.begun = message.begun or forwarded > 0
        message.size += len(frame.raw) if frame.oversized else frame.length
        if not message.oversized and (frame.oversized or message.size > self._bound):
            message.oversized = True
            message.parts.clear()
            self._begin(message)
        if message.begun:
            self._begin(message)
            self._send(rest)
        else:
            message.raw.append(rest)
        if not message.oversized:
            message.parts.append(frame.payload)
        if frame.fin and frame.last:
            self._message = None
            self._complete(message)

    def _begin(self, message: Message) -> None:
        message.begun = True
        for raw in message.raw:
            self._send(raw)
        message.raw.clear()

    def _complete(self, message: Message) -> None:
        at = time.monotonic()
        kind, data = self._decode(message)
        entry = Entry(at, self._host.connection, self.source, kind, data, message.size)
        if message.begun:
            self._host.add(entry, True)
        else:
            self._decide(entry, b"".join(message.raw))

    def _decode(self, message: Message) -> tuple[str, dict[str, Any]]:
        if message.oversized:
            return protocol.OVERSIZED, {}
        if message.opcode not in (websocket.TEXT, websocket.BINARY):
            return protocol.MALFORMED, {"problem": f"a frame of opcode {message.opcode}", "text": False}
        self.text = message.opcode == websocket.TEXT
        return protocol.decode(self.source, b"".join(message.parts), text=self.text)

    def _decide(self, entry: Entry, raw: bytes) -> None:
        if self.probed and self._host.swallow(entry.kind, entry.data):
            entry.data["fate"] = "swallowed"
            self._host.add(entry, True)
            return
        rule = self._rules.first(self.source, entry.kind)
        action = rule.action if rule is not None else ""
        if rule is not None:
            entry.data["fate"] = FATES[action]
        # The worker is judged by when a message reached it, and by when it sent one.
        kept_from_worker = self.source == protocol.SERVER and action in (HOLD, DROP, DELAY)
        if rule is None or action == DUPLICATE:
            self._send(raw * (2 if action == DUPLICATE else 1))
        self._host.add(entry, not kept_from_worker)
        if rule is not None and action == HOLD:
            rule.kept.append(Kept(self, raw, entry))
            self._keep(len(raw))
        elif rule is not None and action == DELAY:
            self._enqueue(raw, time.monotonic() + rule.seconds, entry if kept_from_worker else None)

    def release(self, kept: Kept) -> bool:
        """Forward a message that was held; False if the connection is gone."""
        if self._ended:
            return False
        self._keep(-len(kept.raw))
        note = kept.entry if self.source == protocol.SERVER else None
        # Never into the middle of another message.
        self.insert(kept.raw, lambda: self._passed(note))
        return True

    def insert(self, data: bytes, sent: Callable[[], None] = lambda: None) -> None:
        """Write these bytes as soon as no message is half forwarded; ``sent`` is called then."""
        self._inserts.append((data, sent))
        self._insert()

    def _insert(self) -> None:
        while self._inserts and not self._ahead and (self._message is None or not self._message.begun):
            data, sent = self._inserts.popleft()
            self._send(data)
            sent()

    def _passed(self, entry: Entry | None) -> None:
        if entry is not None:
            self._host.passed(entry, time.monotonic())

    def _send(self, data: bytes) -> None:
        if not data or self._ended:
            return
        if self._queue or self._frozen:
            self._enqueue(data, 0.0, None)
        else:
            self._host.write(data)

    def _enqueue(self, data: bytes, due: float, entry: Entry | None) -> None:
        self._queue.append((due, data, entry))
        self._keep(len(data))
        if len(self._queue) == 1:
            self._flush()

    def _flush(self) -> None:
        self._timer = None
        while self._queue and not self._frozen and not self._ended:
            due, data, entry = self._queue[0]
            left = due - time.monotonic()
            if left > 0:
                self._timer = asyncio.get_running_loop().call_later(left, self._flush)
                return
            self._queue.popleft()
            self._host.write(data)
            self._keep(-len(data))
            self._passed(entry)

    def _keep(self, size: int) -> None:
        self._kept += size
        self._host.kept(self._kept)

    def freeze(self, frozen: bool) -> None:
        """While frozen nothing is written; what rules and probes would write waits in order."""
        self._frozen = frozen
        if not frozen and self._timer is None:
            self._flush()

    def end(self) -> None:
        """The connection is gone, and with it what was kept back: so it is with bytes in a line that is cut."""
        self._ended = True
        self._queue.clear()
        self._inserts.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
