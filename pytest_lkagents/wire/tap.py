"""The tap: a proxy of one worker's connections to its LiveKit server that writes a transcript and can act."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pytest_lkagents.checks import StageError
from pytest_lkagents.loop import EventLoop
from pytest_lkagents.wire import protocol, websocket
from pytest_lkagents.wire.flow import Kept
from pytest_lkagents.wire.model import Answer
from pytest_lkagents.wire.proxy import Proxy
from pytest_lkagents.wire.rules import DELAY, DROP, DUPLICATE, HOLD, Held, Rule
from pytest_lkagents.wire.transcript import Transcript

T = TypeVar("T")


class Tap:
    """One per worker. Every public method may be called from any thread but the loop's own.

    ``upstream`` is the server's URL (``ws://`` or ``wss://``, host and port only); ``metadata`` is what the jobs of probes
    tell, as those of calls do. Close the tap before its loop.
    """

    def __init__(self, loop: EventLoop, host: str, upstream: str, name: str = "worker", metadata: str = "") -> None:
        self.transcript = Transcript()
        self.name = name
        self._proxy = Proxy(host, upstream, name, metadata, self.transcript)
        self._loop = loop
        self._closed = False

    @property
    def url(self) -> str:
        """``ws://host:port``, the worker's LIVEKIT_URL. Known once started."""
        host = self._proxy.host
        return f"ws://[{host}]:{self._proxy.port}" if ":" in host else f"ws://{host}:{self._proxy.port}"

    @property
    def registered_at(self) -> set[int]:
        """The open connections for registrations, by their ports on the worker's side."""
        return {link.worker.port for link in list(self._proxy.links.values()) if link.alive and link.flows}

    @property
    def calls_at(self) -> set[int]:
        """The open connections over which the worker's jobs signal with their calls, one for each, likewise. Who joins a room
        that the worker was never asked about, such as a display for its operators, is no job."""
        return self._signal_at({"", *(asked.room for asked in self.transcript.questions())})

    def calls_to(self, room: str) -> set[int]:
        """Those of them that are known to be of jobs in this room, by its name."""
        return self._signal_at({room})

    def _signal_at(self, rooms: set[str]) -> set[int]:
        links = [link for link in list(self._proxy.links.values()) if link.alive and not link.worker.ended]
        return {link.worker.port for link in links if link.signals and link.room in rooms}

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
        self._run(self._proxy.listen)

    def close(self) -> None:
        """Stop listening and reset all connections. Closing again does nothing."""
        if not self._closed:
            self._run(self._proxy.close)
            self._closed = True

    # Acts on connections

    def refuse(self) -> None:
        """Refuse new connections, as a server that is down; existing ones stay (see cut)."""
        self._run(self._proxy.refuse)

    def accept(self) -> None:
        """Accept connections again, on the same port. Raises StageError if another process took it meanwhile."""
        self._run(self._proxy.accept)

    def cut(self, *, agent_only: bool = False) -> None:
        """Reset every existing connection, to both sides; ``agent_only``: the worker's registrations, not the calls of
        its jobs."""
        self._run(self._proxy.cut, agent_only)

    def dismiss(self) -> None:
        """End the worker's registrations as a server or proxy does that goes: with a close frame (1001, going away), for
        whose answer it waits; the calls of its jobs stay."""
        self._run(self._proxy.dismiss)

    @contextmanager
    def unavailable(self) -> Iterator[None]:
        """While inside, whoever wants to register is answered with status 503, as by a load balancer whose servers are
        away; connections that exist stay, and jobs get through."""
        self._run(self._proxy.set_unavailable, True)
        try:
            yield
        finally:
            self._undo(self._proxy.set_unavailable, False)

    @contextmanager
    def half_open(self) -> Iterator[None]:
        """While inside, connections are accepted and nothing at all passes, not even the end of one, as if packets were
        lost. On exit everything that waited passes, in order; connections made meanwhile are forwarded then."""
        self._run(self._proxy.freeze, 1)
        try:
            yield
        finally:
            self._undo(self._proxy.freeze, -1)

    # Probes

    def ask(self, seconds: float = 3.0, *, room: str | None = None, free: bool = False) -> Answer:
        """Ask the registered worker whether it would take a job, which never exists; the server knows nothing of it.

        Waits at most ``seconds`` (50 at most). Of several registrations the latest is asked; ``free``: the latest of those that
        do not say that they are full, as long as there is one. Raises StageError if no worker is registered, or inside
        half_open().
        """
        return self._run(self._proxy.ask, 1, seconds, room, free)[0]

    def ask_at_once(self, n: int, seconds: float = 3.0) -> list[Answer]:
        """The same for ``n`` jobs in one write, as a burst of dispatches; ``seconds`` for all of them."""
        return self._run(self._proxy.ask, n, seconds, None, False)

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
        self._run(self._proxy.inject, frame, {"act": "inject", "bytes": len(data), "text": text})

    def inject_raw(self, data: bytes) -> None:
        """Send the worker these bytes between two messages, without a frame. Raises StageError without a connection."""
        self._run(self._proxy.inject, data, {"act": "inject_raw", "bytes": len(data)})

    # On the loop

    def _run(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> T:
        if self._closed:
            raise StageError(f"the tap of {self.name} is closed")
        return self._loop.run(function, *arguments)

    def _undo(self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: object) -> None:
        if not self._closed:
            self._run(function, *arguments)

    @contextmanager
    def _rule(self, action: str, source: str, kinds: tuple[str, ...], seconds: float = 0.0) -> Iterator[Held]:
        rule: Rule[Kept] = Rule(action, source, protocol.check_kinds(source, kinds), seconds)
        self._run(self._proxy.begin_rule, rule)
        held = Held(rule, lambda: self._undo(self._proxy.end_rule, rule))
        try:
            yield held
        finally:
            held.release()
