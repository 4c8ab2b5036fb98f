"""The tap: a proxy of one worker's connections to its LiveKit server that writes a transcript and can act."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pytest_lkagents.checks import StageError
from pytest_lkagents.loop import EventLoop
from pytest_lkagents.machine import fixed_port
from pytest_lkagents.wire import probe, protocol, websocket
from pytest_lkagents.wire.flow import Kept
from pytest_lkagents.wire.link import Link
from pytest_lkagents.wire.model import Answer, Entry
from pytest_lkagents.wire.rules import DELAY, DROP, DUPLICATE, HOLD, Held, Rule, RuleBook
from pytest_lkagents.wire.side import Side, Upstream
from pytest_lkagents.wire.transcript import Transcript

T = TypeVar("T")

# Ports are few and chosen by chance; that three of them are taken in the same moment is none.
LISTEN_TRIES = 3
# Connections that may wait to be accepted; a test that opens more at once is a test of something else.
BACKLOG = 1024
# The loop gives every call 60 s; a probe must end before that.
LONGEST_PROBE = 50.0
CLOSE_SECONDS = 2.0


class Tap:
    """One per worker. Every public method may be called from any thread but the loop's own.

    ``upstream`` is the server's URL (``ws://`` or ``wss://``, host and port only); ``metadata`` is what the jobs of probes
    tell, as those of calls do. Close the tap before its loop.
    """

    def __init__(self, loop: EventLoop, host: str, upstream: str, name: str = "worker", metadata: str = "") -> None:
        self.transcript = Transcript()
        self.name = name
        self.metadata = metadata
        self.rules: RuleBook[Kept] = RuleBook()
        self.frozen = 0  # how many half_open() contexts are open
        self.without_server = False  # inside unavailable()
        self.upstream = _upstream(upstream)
        self._loop = loop
        self._host = host
        self._port = 0
        self._server: asyncio.base_events.Server | None = None
        self._links: dict[int, Link] = {}  # by number, oldest first
        self._count = 0
        self._probes: dict[str, None] = {}
        self._closed = False

    @property
    def url(self) -> str:
        """``ws://host:port``, the worker's LIVEKIT_URL. Known once started."""
        return f"ws://[{self._host}]:{self._port}" if ":" in self._host else f"ws://{self._host}:{self._port}"

    @property
    def registered_at(self) -> set[int]:
        """The open connections for registrations, by their ports on the worker's side."""
        return {link.worker.port for link in list(self._links.values()) if link.alive and link.flows}

    @property
    def calls_at(self) -> set[int]:
        """The open connections over which the worker's jobs signal with their calls, one for each, likewise."""
        links = list(self._links.values())
        return {link.worker.port for link in links if link.alive and link.signals and not link.worker.ended}

    @property
    def disturbed(self) -> bool:
        """Whether the worker met anything that an ordinary server does not do: connections that were refused or reset, a
        message of the server's that did not arrive as it was, or an end of its registration that was not its own doing."""
        transcript = self.transcript
        if any(act.data.get("source") != protocol.WORKER for act in transcript.entries("act")):
            return True
        registered = {known.connection for known in transcript.registrations()}
        return any(
            ended.connection in registered and ended.data.get("by") != protocol.WORKER for ended in transcript.entries("closed")
        )

    def start(self) -> None:
        """Listen on a free port, which stays the same for the tap's life. Raises StageError."""
        self._run(self._listen)

    def close(self) -> None:
        """Stop listening and reset all connections. Closing again does nothing."""
        if not self._closed:
            self._run(self._shut)
            self._closed = True

    # Acts on connections

    def refuse(self) -> None:
        """Refuse new connections, as a server that is down; existing ones stay (see cut)."""
        self._run(self._refuse)

    def accept(self) -> None:
        """Accept connections again, on the same port. Raises StageError if another process took it meanwhile."""
        self._run(self._accept)

    def cut(self, *, agent_only: bool = False) -> None:
        """Reset every existing connection, to both sides; ``agent_only``: the worker's registrations, not the calls of
        its jobs."""
        self._run(self._cut, agent_only)

    def dismiss(self) -> None:
        """End the worker's registrations as a server or proxy does that goes: with a close frame (1001, going away), for
        whose answer it waits; the calls of its jobs stay."""
        self._run(self._dismiss)

    @contextmanager
    def unavailable(self) -> Iterator[None]:
        """While inside, whoever wants to register is answered with status 503, as by a load balancer whose servers are
        away; connections that exist stay, and jobs get through."""
        self._run(self._set_unavailable, True)
        try:
            yield
        finally:
            self._undo(self._set_unavailable, False)

    @contextmanager
    def half_open(self) -> Iterator[None]:
        """While inside, connections are accepted and nothing at all passes, not even the end of one, as if packets were
        lost. On exit everything that waited passes, in order; connections made meanwhile are forwarded then."""
        self._run(self._freeze, 1)
        try:
            yield
        finally:
            self._undo(self._freeze, -1)

    # Probes

    def ask(self, seconds: float = 3.0, *, room: str | None = None) -> Answer:
        """Ask the registered worker whether it would take a job, which never exists; the server knows nothing of it.

        Waits at most ``seconds`` (50 at most). Raises StageError if no worker is registered, or
        inside half_open().
        """
        return self._run(self._ask, 1, seconds, room)[0]

    def ask_at_once(self, n: int, seconds: float = 3.0) -> list[Answer]:
        """The same for ``n`` jobs in one write, as a burst of dispatches; ``seconds`` for all of them."""
        return self._run(self._ask, n, seconds, None)

    # Acts on messages

    @contextmanager
    def hold(self, source: str, *kinds: str) -> Iterator[Held]:
        """Keep back messages of these kinds (none: all) until released or left; others overtake them.

        Over 1 MiB of them, the source has to wait. Messages whose connection ends meanwhile are lost.
        """
        with self._rule(HOLD, source, kinds) as held:
            yield held

    @contextmanager
    def drop(self, source: str, *kinds: str) -> Iterator[Held]:
        """Messages of these kinds (none: all) never arrive."""
        with self._rule(DROP, source, kinds) as held:
            yield held

    @contextmanager
    def delay(self, seconds: float, source: str, *kinds: str) -> Iterator[Held]:
        """Messages of these kinds (none: all) arrive ``seconds`` later, and so does what this side sends after them.
        One that is under way when the context is left still arrives at its time."""
        with self._rule(DELAY, source, kinds, seconds) as held:
            yield held

    @contextmanager
    def duplicate(self, source: str, *kinds: str) -> Iterator[Held]:
        """Messages of these kinds (none: all) arrive twice."""
        with self._rule(DUPLICATE, source, kinds) as held:
            yield held

    def inject(self, data: bytes, *, text: bool = False) -> None:
        """Send the worker one message with this payload, whatever it is. Raises StageError without a connection."""
        frame = websocket.build(data, websocket.TEXT if text else websocket.BINARY)
        self._run(self._inject, frame, {"act": "inject", "bytes": len(data), "text": text})

    def inject_raw(self, data: bytes) -> None:
        """Send the worker these bytes between two messages, without a frame. Raises StageError without a connection."""
        self._run(self._inject, data, {"act": "inject_raw", "bytes": len(data)})

    # On the loop

    def _run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> T:
        if self._closed:
            raise StageError(f"the tap of {self.name} is closed")
        return self._loop.run(function, *arguments)

    def _undo(self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: object) -> None:
        if not self._closed:
            self._run(function, *arguments)

    def _act(self, act: str, connection: int = 0, **data: Any) -> None:
        entry = Entry(time.monotonic(), connection, protocol.TAP, "act", {"act": act, **data}, 0)
        self.transcript.add(entry)

    async def _listen(self) -> None:
        if self._server is not None:
            return
        # Another program may take a port between choosing and listening; until the worker knows it, choose again.
        left = 1 if self._port else LISTEN_TRIES
        while self._server is None:
            left -= 1
            try:
                await self._listen_on(self._port or fixed_port(self._host))
            except OSError as error:
                if left and error.errno == errno.EADDRINUSE:
                    continue
                where = f"{self._host}:{self._port}" if self._port else self._host
                raise StageError(f"the tap of {self.name} cannot listen on {where}: {error.strerror or error}") from error

    async def _listen_on(self, port: int) -> None:
        found = await asyncio.get_running_loop().getaddrinfo(self._host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            self._server = await asyncio.get_running_loop().create_server(self._new, sock=listener, backlog=BACKLOG)
        except BaseException:
            listener.close()
            raise
        self._port = port

    def _new(self) -> Side:
        self._count += 1
        return Link(self, self._count).worker

    def linked(self, link: Link) -> None:
        self._links[link.number] = link

    def unlinked(self, link: Link) -> None:
        self._links.pop(link.number, None)

    def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _refuse(self) -> None:
        self._stop_listening()
        self._act("refuse")

    async def _accept(self) -> None:
        await self._listen()
        self._act("accept")

    async def _cut(self, agent_only: bool) -> None:
        links = [link for link in self._links.values() if link.flows or not agent_only]
        self._act("cut", connections=sum(link.alive for link in links))
        for link in links:
            link.abort()

    async def _dismiss(self) -> None:
        links = [link for link in self._links.values() if link.alive and link.upgraded]
        self._act("dismiss", connections=len(links))
        for link in links:
            link.dismiss()

    async def _set_unavailable(self, without_server: bool) -> None:
        self.without_server = without_server
        self._act("unavailable" if without_server else "available")

    async def _shut(self) -> None:
        self._stop_listening()
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._links and time.monotonic() < deadline:
            for link in list(self._links.values()):
                link.abort()
            await asyncio.sleep(0.001)

    async def _freeze(self, change: int) -> None:
        before, self.frozen = self.frozen, self.frozen + change
        self._act("freeze" if change > 0 else "thaw")
        if bool(before) != bool(self.frozen):
            for link in list(self._links.values()):
                link.freeze(bool(self.frozen))

    def _agent_link(self, registered: bool) -> Link:
        if self.frozen:
            raise StageError(f"the tap of {self.name} is frozen: nothing can be sent to the worker")
        for known in reversed(self.transcript.live()):
            link = self._links.get(known.connection)
            if link is not None and link.alive and link.upgraded:
                return link
        if registered:
            raise StageError(f"{self.name} is not registered: there is nobody to ask")
        for link in reversed(list(self._links.values())):
            if link.alive and link.upgraded:
                return link
        raise StageError(f"{self.name} has no agent connection")

    async def _ask(self, n: int, seconds: float, room: str | None) -> list[Answer]:
        link = self._agent_link(registered=True)
        if n <= 0:
            return []
        return await probe.ask(link, self.transcript, self._remember, n, min(seconds, LONGEST_PROBE), room, self.metadata)

    def _remember(self, job_id: str) -> None:
        self._probes[job_id] = None

    def swallow(self, link: Link, kind: str, data: dict[str, Any]) -> bool:
        """What a worker says about a probe's job is for us alone, however late it comes."""
        return kind in ("answer", "job") and data.get("job_id") in self._probes

    def answered(self, link: Link, entry: Entry) -> None:
        """An entry of the worker was written; if it is the answer to a probe, somebody waits for it."""
        waiting = link.probes.get(entry.data.get("job_id", "")) if entry.kind == "answer" else None
        if waiting is not None and not waiting.done():
            waiting.set_result(entry)

    async def _inject(self, data: bytes, act: dict[str, Any]) -> None:
        link = self._agent_link(registered=False)
        link.flows[protocol.SERVER].insert(data, functools.partial(self._act, connection=link.number, **act))

    @contextmanager
    def _rule(self, action: str, source: str, kinds: tuple[str, ...], seconds: float = 0.0) -> Iterator[Held]:
        rule: Rule[Kept] = Rule(action, source, protocol.check_kinds(source, kinds), seconds)
        self._run(self._begin_rule, rule)
        held = Held(rule, lambda: self._undo(self._end_rule, rule))
        try:
            yield held
        finally:
            held.release()

    async def _begin_rule(self, rule: Rule[Kept]) -> None:
        self.rules.add(rule)
        more: dict[str, Any] = {"seconds": rule.seconds} if rule.action == DELAY else {}
        self._act(rule.action, source=rule.source, kinds=sorted(rule.kinds), **more)

    async def _end_rule(self, rule: Rule[Kept]) -> None:
        if not self.rules.remove(rule):
            return
        lost = sum(not kept.flow.release(kept) for kept in rule.kept)
        rule.kept.clear()
        more: dict[str, Any] = {"lost": lost} if lost else {}
        self._act("release", of=rule.action, source=rule.source, kinds=sorted(rule.kinds), messages=rule.count, **more)


def _upstream(url: str) -> Upstream:
    """Raises StageError for anything but a URL of host and port."""
    parts = urlsplit(url)
    secure = {"ws": False, "http": False, "wss": True, "https": True}.get(parts.scheme)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if secure is None or not host or parts.path not in ("", "/") or parts.query or parts.username:
        raise StageError(f"the tap's server must be ws://host:port or wss://host, not {parts.scheme}://{host}{parts.path}")
    return Upstream(host, port or (443 if secure else 80), ssl.create_default_context() if secure else None)
