"""One connection through the tap: a worker's socket, the server's, and what passes between them."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from typing import Any, Protocol

from pytest_lkagents.wire import http, protocol, websocket
from pytest_lkagents.wire.flow import KEPT_BOUND, Flow, Host, Kept
from pytest_lkagents.wire.model import Entry
from pytest_lkagents.wire.protocol import SERVER, TAP, WORKER
from pytest_lkagents.wire.rules import RuleBook
from pytest_lkagents.wire.side import Side, Upstream
from pytest_lkagents.wire.transcript import Transcript

CONNECT_SECONDS = 10
# A side that does not take the last bytes of a connection that the other one ended is aborted after this time.
LINGER_SECONDS = 30
# For a dismissed worker to answer the close frame; servers wait no longer.
CLOSE_SECONDS = 2
UNAVAILABLE = 503
# The answer's body says no more: what a worker makes of it is not for people.
NO_SERVER = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
# RFC 6455, section 7.4.1: a server that goes down.
GOING_AWAY = 1001


class Owner(Protocol):
    """The tap, as its connections see it."""

    transcript: Transcript
    rules: RuleBook[Kept]
    frozen: int
    without_server: bool
    upstream: Upstream

    def linked(self, link: Link) -> None: ...
    def unlinked(self, link: Link) -> None: ...
    def swallow(self, kind: str, data: dict[str, Any]) -> bool: ...
    def answered(self, link: Link, entry: Entry) -> None: ...


class Link:
    """Reads nothing from the worker before the server has accepted, and nothing at all while the tap is frozen."""

    def __init__(self, owner: Owner, number: int) -> None:
        self.number = number
        self.flows: dict[str, Flow] = {}  # both directions, once this is an agent connection
        self.upgraded = False  # the server agreed to it
        self.signals = False  # a WebSocket, but no agent connection: a participant's
        self.room = ""  # which room its token opens, by name; "" as long as that is not known
        self.probes: dict[str, asyncio.Future[Entry | None]] = {}
        self.worker, self.server = Side(self, WORKER), Side(self, SERVER)
        self.worker.peer, self.server.peer = self.server, self.worker
        self.worker.pauses.add("connecting")
        self._owner = owner
        self._phase = "head"
        self._answer = bytearray()  # the server's response to the upgrade, as long as it is incomplete
        self._head = bytearray()
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        return not self._closed

    def record(self, source: str, kind: str, data: dict[str, Any]) -> None:
        self._owner.transcript.add(Entry(time.monotonic(), self.number, source, kind, data, 0))

    def made(self, side: Side) -> None:
        if side is self.worker:
            self._owner.linked(self)
            self.record(WORKER, "opened", {})
            if self._owner.frozen:
                self.freeze(True)
            else:
                self._connect()

    def _connect(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._reach())

    async def _reach(self) -> None:
        upstream = self._owner.upstream
        try:
            await asyncio.wait_for(
                asyncio.get_running_loop().create_connection(
                    lambda: self.server, upstream.host, upstream.port, ssl=upstream.context
                ),
                CONNECT_SECONDS,
            )
        except (OSError, asyncio.TimeoutError) as error:
            self.record(SERVER, "refused", {"reason": _reason(error)})
            self.abort(SERVER, "refused")
            return
        if self._closed:
            self.server.abort()
        else:
            self.worker.resume("connecting")

    def received(self, side: Side, data: bytes) -> None:
        if self._closed:
            # Dismissed: the answer to its close frame is all that a worker may still say, and then it is the server's part to
            # end the connection (RFC 6455, section 7.1.1).
            if side is self.worker and data[0] & 0x0F == websocket.CLOSE:
                self._end_worker()
            return
        flow = self.flows.get(side.name)
        if flow is not None and (side is self.worker or self.upgraded):
            flow.feed(data)
        elif side is self.server:
            if self.flows:
                self._response(data)
            else:
                self.worker.write(data)
        elif self._phase == "raw":
            self.server.write(data)
        else:
            self._request(data)

    def _request(self, data: bytes) -> None:
        # Later requests of a connection that is kept alive are looked at where one starts: clients reuse them for the
        # upgrade. One that does not come in one piece is only forwarded: these bytes may as well be part of a body.
        first = self._phase == "head"
        host = self._owner.upstream.host_header
        if not first and host is None and not data.startswith(b"GET "):
            self.server.write(data)
            return
        self._head += data
        begun = bytes(self._head)
        request = http.parse(begun)
        if request is None and first:
            return
        self._head.clear()
        if not isinstance(request, http.Request):
            if first:
                self.record(WORKER, "request", {"problem": "not HTTP"})
                self._phase = "raw"
            self.server.write(begun)
            return
        # Whom it names is a key, which is not kept.
        known = {"names_key": bool(http.issuer(begun[: request.end]))} if request.agent else {}
        self.record(WORKER, "request", {"method": request.method, "path": request.path, "agent": request.agent, **known})
        head, rest = begun[: request.end], begun[request.end :]
        if host is not None:
            head = http.with_host(head, host.encode())
        self._phase = "raw" if request.upgrade else "between"
        self.signals = request.upgrade and not request.agent
        self.room = http.room(begun[: request.end]) if self.signals else ""
        if not request.agent:
            self.server.write(head + rest)
            return
        if self._owner.without_server:
            self.record(TAP, "refused", {"status": UNAVAILABLE})
            self.worker.write(NO_SERVER)
            self._finish(TAP, "eof")
            return
        self.flows = {WORKER: self._flow(self.worker), SERVER: self._flow(self.server)}
        self.server.write(http.without(head, b"sec-websocket-extensions"))
        if rest:
            self.flows[WORKER].feed(rest)

    def _flow(self, side: Side) -> Flow:
        transcript = self._owner.transcript
        host = Host(
            connection=self.number,
            write=side.peer.write,
            add=self._add,
            passed=transcript.passed,
            swallow=self._owner.swallow,
            kept=lambda size: side.pause("kept") if size > KEPT_BOUND else side.resume("kept"),
        )
        return Flow(side.name, host, self._owner.rules)

    def _add(self, entry: Entry, passed: bool) -> None:
        self._owner.transcript.add(entry, passed=passed)
        if self.probes and entry.source == WORKER:
            self._owner.answered(self, entry)

    def _response(self, data: bytes) -> None:
        # Forwarded as it comes; the copy only tells where frames begin.
        self._answer += data
        end = http.end_of_head(bytes(self._answer))
        if not end and len(self._answer) <= http.HEAD_BOUND:
            self.worker.write(data)
            return
        status = http.status(bytes(self._answer))
        if end and status == 101:
            rest = bytes(self._answer[end:])
            self.upgraded = True
            self.worker.write(data[: len(data) - len(rest)])
            self._answer.clear()
            if rest:
                self.flows[SERVER].feed(rest)
            return
        self.record(SERVER, "refused", {"status": status})
        for flow in self.flows.values():
            flow.end()
        self.flows = {}
        self._phase = "between"
        self._answer.clear()
        self.worker.write(data)

    def freeze(self, frozen: bool) -> None:
        for side in (self.worker, self.server):
            if frozen:
                side.pause("frozen")
        for flow in self.flows.values():
            flow.freeze(frozen)
        if not frozen:
            if self.alive:
                self._connect()
            self.server.resume("frozen")
            self.worker.resume("frozen")

    def eof(self, side: Side) -> bool:
        """Returns whether the transport stays open for writing."""
        if side is self.worker and self._head:
            self.server.write(bytes(self._head))
            self._head.clear()
        # A WebSocket needs both directions: there, the side that ended is a process that is gone.
        if self.flows or side.peer.ended:
            self._finish(side.peer.name if side.peer.ended else side.name, "eof")
            return False
        side.peer.end()
        return side.transport is not None and side.transport.can_write_eof()

    def lost(self, side: Side, error: Exception | None) -> None:
        if not self._closed:
            if error is None:
                self._finish(side.name, "eof")
            else:
                self.abort(side.name, "reset")
        if self.worker.transport is None and self.server.transport is None:
            if self._timer is not None:
                self._timer.cancel()
            self._owner.unlinked(self)

    def abort(self, by: str = TAP, how: str = "reset") -> None:
        """Reset both sides at once."""
        self._close(by, how)
        if self._connecting is not None and not self._connecting.done() and by != SERVER:
            self._connecting.cancel()
        self.worker.abort()
        self.server.abort()

    def dismiss(self) -> None:
        """End an agent connection with a close frame. The worker's side stays open for its answer, but not for long."""
        self._close(TAP, "close", code=GOING_AWAY)
        self.server.abort()
        self.worker.write(websocket.build(GOING_AWAY.to_bytes(2, "big"), websocket.CLOSE))
        self._linger()
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._end_worker)

    def _end_worker(self) -> None:
        """Its side may still say what it was about to say, to nobody."""
        transport = self.worker.transport
        if transport is None:
            return
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def _finish(self, by: str, how: str) -> None:
        """Close both sides as soon as each has what was already on its way to it."""
        self._close(by, how)
        for side in (self.worker, self.server):
            if side.transport is not None:
                side.transport.close()
        self._linger()

    def _linger(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self.worker.abort()
        self.server.abort()

    def _close(self, by: str, how: str, **more: object) -> None:
        if self._closed:
            return
        self._closed = True
        data: dict[str, Any] = {"by": by, "how": how, **more}
        # The first close frame tells more than how the socket ended: who wanted it, and why.
        said = [(*flow.closing, flow.source) for flow in self.flows.values() if flow.closing is not None]
        if said and by != TAP:
            _, code, reason, by = min(said, key=lambda frame: frame[0])
            data.update(by=by, how="close", code=code, reason=protocol.clip(reason))
        if self.flows:
            data["agent"] = True
        for flow in self.flows.values():
            flow.end()
        for waiting in self.probes.values():
            if not waiting.done():
                waiting.set_result(None)
        self.record(by, "closed", data)


def _reason(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(error, ssl.SSLError):
        return os.strerror(number)
    return str(error) or f"no answer within {CONNECT_SECONDS} s"
