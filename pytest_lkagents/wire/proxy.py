"""The tap on its event loop: it listens, links the worker's connections to the server, and acts on them."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import time
from typing import Any

from pytest_lkagents.checks import StageError
from pytest_lkagents.machine import fixed_port
from pytest_lkagents.wire import probe, protocol
from pytest_lkagents.wire.flow import Kept
from pytest_lkagents.wire.link import Link
from pytest_lkagents.wire.model import Answer, Entry
from pytest_lkagents.wire.rules import DELAY, Rule, RuleBook
from pytest_lkagents.wire.side import Side, Upstream
from pytest_lkagents.wire.transcript import Transcript

# Ports are few and chosen by chance; that three of them are taken in the same moment is none.
LISTEN_TRIES = 3
# Connections that may wait to be accepted; a test that opens more at once is a test of something else.
BACKLOG = 1024
# The loop gives every call 60 s; a probe must end before that.
LONGEST_PROBE = 50.0
CLOSE_SECONDS = 2.0


class Proxy:
    """See Tap, which says what each act means. Every method runs on the loop; ``port`` (0 until it listens) and ``links``, of
    which a copy has to be taken, are read from other threads too. Raises StageError for an ``upstream`` that is none."""

    def __init__(self, host: str, upstream: str, name: str, metadata: str, transcript: Transcript) -> None:
        self.host = host
        self.port = 0
        self.upstream = Upstream.of(upstream)
        self.transcript = transcript
        self.rules: RuleBook[Kept] = RuleBook()
        self.frozen = 0  # how many half_open() contexts are open
        self.without_server = False  # inside unavailable()
        self.links: dict[int, Link] = {}  # by number, oldest first
        self._name = name
        self._metadata = metadata
        self._server: asyncio.base_events.Server | None = None
        self._count = 0
        self._probes: dict[str, None] = {}

    async def listen(self) -> None:
        if self._server is not None:
            return
        # Another program may take a port between choosing and listening; until the worker knows it, choose again.
        left = 1 if self.port else LISTEN_TRIES
        while self._server is None:
            left -= 1
            try:
                await self._listen_on(self.port or fixed_port(self.host))
            except OSError as error:
                if left and error.errno == errno.EADDRINUSE:
                    continue
                where = f"{self.host}:{self.port}" if self.port else self.host
                raise StageError(f"the tap of {self._name} cannot listen on {where}: {error.strerror or error}") from error

    async def _listen_on(self, port: int) -> None:
        found = await asyncio.get_running_loop().getaddrinfo(self.host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            self._server = await asyncio.get_running_loop().create_server(self._new, sock=listener, backlog=BACKLOG)
        except BaseException:
            listener.close()
            raise
        self.port = port

    def _new(self) -> Side:
        self._count += 1
        return Link(self, self._count).worker

    async def close(self) -> None:
        self._stop_listening()
        deadline = time.monotonic() + CLOSE_SECONDS
        while self.links and time.monotonic() < deadline:
            for link in list(self.links.values()):
                link.abort()
            await asyncio.sleep(0.001)

    def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    # Acts, each told in the transcript

    def _act(self, act: str, connection: int = 0, **data: Any) -> None:
        entry = Entry(time.monotonic(), connection, protocol.TAP, "act", {"act": act, **data}, 0)
        self.transcript.add(entry)

    async def refuse(self) -> None:
        self._stop_listening()
        self._act("refuse")

    async def accept(self) -> None:
        await self.listen()
        self._act("accept")

    async def cut(self, agent_only: bool) -> None:
        links = [link for link in self.links.values() if link.flows or not agent_only]
        self._act("cut", connections=sum(link.alive for link in links))
        for link in links:
            link.abort()

    async def dismiss(self) -> None:
        links = [link for link in self.links.values() if link.alive and link.upgraded]
        self._act("dismiss", connections=len(links))
        for link in links:
            link.dismiss()

    async def set_unavailable(self, without_server: bool) -> None:
        self.without_server = without_server
        self._act("unavailable" if without_server else "available")

    async def freeze(self, change: int) -> None:
        """``change`` is 1 for a half_open() that begins, -1 for one that ends."""
        before, self.frozen = self.frozen, self.frozen + change
        self._act("freeze" if change > 0 else "thaw")
        if bool(before) != bool(self.frozen):
            for link in list(self.links.values()):
                link.freeze(bool(self.frozen))

    def _agent_link(self, registered: bool, free: bool = False) -> Link:
        """The latest connection; ``registered``: one over which the worker is registered; ``free``: of several such ones rather
        one over which it did not say that it is full, which is whom a server would ask."""
        if self.frozen:
            raise StageError(f"the tap of {self._name} is frozen: nothing can be sent to the worker")
        live = list(reversed(self.transcript.live()))
        if free:
            live.sort(key=lambda known: self.transcript.says_full(known.connection))
        for known in live:
            link = self.links.get(known.connection)
            if link is not None and link.alive and link.upgraded:
                return link
        if registered:
            raise StageError(f"{self._name} is not registered: there is nobody to ask")
        for link in reversed(list(self.links.values())):
            if link.alive and link.upgraded:
                return link
        raise StageError(f"{self._name} has no agent connection")

    async def ask(self, n: int, seconds: float, room: str | None, free: bool) -> list[Answer]:
        link = self._agent_link(registered=True, free=free)
        if n <= 0:
            return []
        return await probe.ask(link, self.transcript, self._remember, n, min(seconds, LONGEST_PROBE), room, self._metadata)

    def _remember(self, job_id: str) -> None:
        self._probes[job_id] = None

    async def inject(self, data: bytes, act: dict[str, Any]) -> None:
        link = self._agent_link(registered=False)
        link.flows[protocol.SERVER].insert(data, functools.partial(self._act, connection=link.number, **act))

    async def begin_rule(self, rule: Rule[Kept]) -> None:
        self.rules.add(rule)
        more: dict[str, Any] = {"seconds": rule.seconds} if rule.action == DELAY else {}
        self._act(rule.action, source=rule.source, kinds=sorted(rule.kinds), **more)

    async def end_rule(self, rule: Rule[Kept]) -> None:
        if not self.rules.remove(rule):
            return
        lost = sum(not kept.flow.release(kept) for kept in rule.kept)
        rule.kept.clear()
        more: dict[str, Any] = {"lost": lost} if lost else {}
        self._act("release", of=rule.action, source=rule.source, kinds=sorted(rule.kinds), messages=rule.count, **more)

    # For its connections (link.Owner)

    def linked(self, link: Link) -> None:
        self.links[link.number] = link

    def unlinked(self, link: Link) -> None:
        self.links.pop(link.number, None)

    def swallow(self, kind: str, data: dict[str, Any]) -> bool:
        """What a worker says about a probe's job is for us alone, however late it comes."""
        return kind in ("answer", "job") and data.get("job_id") in self._probes

    def answered(self, link: Link, entry: Entry) -> None:
        """An entry of the worker was written; if it is the answer to a probe, somebody waits for it."""
        waiting = link.probes.get(entry.data.get("job_id", "")) if entry.kind == "answer" else None
        if waiting is not None and not waiting.done():
            waiting.set_result(entry)
