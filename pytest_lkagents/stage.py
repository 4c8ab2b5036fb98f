"""The stage: opens and closes everything in order, and starts workers ahead of the checks that need them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from pytest_lkagents import describe, engine
from pytest_lkagents.background import Background
from pytest_lkagents.busyness import History, Reading, filled_by_others, filled_by_the_past, stood_still, too_busy
from pytest_lkagents.cache import cache_dir
from pytest_lkagents.callers.media import Media
from pytest_lkagents.callers.place import HERE, Place, may_enter, namespace_of
from pytest_lkagents.calls import Calls
from pytest_lkagents.checks import NotJudgeable, StageError, TooBusy, WorkerFault
from pytest_lkagents.clock import Ledger
from pytest_lkagents.memory import why_killed
from pytest_lkagents.probe.answers import Answer, follow
from pytest_lkagents.probe.sidecar import Sidecar, ensure_image
from pytest_lkagents.roles import ROLES
from pytest_lkagents.secrets import Redactor, secrets_of
from pytest_lkagents.server.choose import connect
from pytest_lkagents.session import Session, sweep
from pytest_lkagents.settings import Settings
from pytest_lkagents.starts import Starts
from pytest_lkagents.teardown import tear_down, told
from pytest_lkagents.turns import Turns
from pytest_lkagents.values import OWN_SERVERS
from pytest_lkagents.verdict import Lane, Subject
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.command import CommandWorker
from pytest_lkagents.worker.contents import ImageContents
from pytest_lkagents.worker.layers import ImageScan
from pytest_lkagents.workshop import Workshop

if TYPE_CHECKING:
    from docker import DockerClient

T = TypeVar("T")

# livekit-agents waits 7.5 s for an assignment, and reports every 2.5 s.
PROMISE_SECONDS = 12
# Deadlines of checks are no longer than this.
LONGEST_SECONDS = 60
# A smoke test of another session.
COMMAND_TURN_SECONDS = 120


class Stage:
    """Open it with ``open``, close it with ``close``; both are called by the fixtures."""

    def __init__(self, settings: Settings, redactor: Redactor) -> None:
        self.settings = settings
        self.redactor = redactor
        self.ledger = Ledger()
        self._workshop = Workshop(
            settings,
            redactor,
            self.ledger,
            session=lambda: self.session,
            ready=self.worker,
            raise_if_closing=self.raise_if_closing,
        )
        self.memory = self._workshop.memory
        self.history = History(self.memory.look)
        self.media = Media(self._callers_place)
        self._client: DockerClient | None = None
        self._session: Session | None = None
        self._contents: ImageContents | None = None
        self._neighbour: Sidecar | None = None
        # Roles and their workers with which an observation was begun.
        self._touched: set[tuple[str, Worker]] = set()
        self._sdk_seen: tuple[str | None, str | None] | None = None
        self._turn = FileLock(str(cache_dir() / "command.lock"))
        self._lock = threading.RLock()
        self.background = Background(self._readings)
        self._cast = self._who_plays()
        # What could not be kept for the report, in words.
        self.unwritten: list[str] = []
        self._closing = False
        self.calls = Calls(self)

    # -- opening and closing

    @engine.answering()
    def open(self) -> None:
        """Sweep what dead sessions left, then make this session's network. Raises StageError."""
        self._client = connect(self.settings)
        self.history.start()
        if self.settings.image is None:
            self._take_turn()
        sweep(self._client)
        if self._client is None:
            self._session = Session(None)
            return
        if self.settings.image is not None:
            planted = [part for name, value in self.settings.env.items() for part in secrets_of(name, value)]
            self._contents = ImageContents(engine.find_image(self._client, self.settings.image), planted)
        ensure_image(self._client, self.settings.probe_image)
        self._session = Session(self._client)
        self._session.open_network()
        if not self._session.bridge_is_here:
            raise StageError(engine.ELSEWHERE)

    def _callers_place(self) -> Place:
        """In the network of the workers' side containers and no other, where we may. A server that somebody else runs may
        listen on this machine only, as one that a command's worker uses does."""
        if self.settings.image is None or self.settings.server not in OWN_SERVERS or not may_enter():
            return HERE
        beside = Sidecar(self.session, self.settings.probe_image, "callers")
        return namespace_of(beside.pid, beside.address)

    def _take_turn(self) -> None:
        """Commands want the same ports in every session of this user. Raises StageError if the turn never comes."""
        try:
            self._turn.acquire(timeout=COMMAND_TURN_SECONDS)
        except Timeout:
            raise StageError("another pytest --lk-command runs on this machine, where both would use the same ports") from None

    @property
    def session(self) -> Session:
        assert self._session is not None, "open() first"
        return self._session

    def close(self) -> None:
        """Remove everything; safe to call twice and half opened. Never raises: what cannot be removed is told."""
        self._closing = True
        tear_down(self._last_steps())
        self._session = self._client = None

    def _last_steps(self) -> Iterator[Callable[[], object]]:
        """In order, each to be tried whatever became of those before."""
        yield self.history.stop
        yield self.media.close
        yield self.background.cancel
        yield from [worker.remove for worker in self._workshop.made if isinstance(worker, CommandWorker)]
        # Removing the containers also ends the waits of starters that are under way.
        yield self._remove_containers
        yield from [server.stop for server in self._workshop.servers]
        yield self._wait_for_starters
        if self._contents is not None:
            yield self._contents.close
        yield from [server.stop for server in self._workshop.servers]
        yield from [tap.close for tap in self._workshop.taps]
        yield self._keep_transcripts
        yield self._workshop.wire_loop.close
        if self._session is not None:
            yield self._session.close
        if self._client is not None:
            yield self._client.close
        yield self._turn.release

    def _remove_containers(self) -> None:
        if self._session is not None:
            self._session.remove()

    def _wait_for_starters(self) -> None:
        """One that was just about to create its container would wait for it in vain: remove that one too."""
        while not self.background.is_over(1):
            with told():
                self._remove_containers()

    def _keep_transcripts(self) -> None:
        if self.settings.report_dir is None:
            return
        try:
            describe.keep_transcripts(self._workshop.taps, self.settings.report_dir, self.redactor)
        except OSError as error:
            self.unwritten.append(f"cannot write {error.filename}: {error.strerror}")

    # -- workers

    def warm(self, roles: Iterable[str]) -> None:
        """Start the workers of these roles ahead, as far as workers run side by side, and what calls them."""
        wanted = set(roles)
        if wanted:
            self.background.start(self.media.start)
        self._cast.warm(wanted)

    def release(self, role: str, *, in_order: bool) -> None:
        """No check needs this role's worker any more. ``in_order``: all that used it passed, so that others may use it."""
        self._cast.release(role, in_order=in_order)

    def had_before(self, role: str) -> list[str]:
        """The roles that this role's worker had before, the last one first."""
        return self._cast.had_before(role)

    def when_ready(self, role: str, begin: Callable[[], object]) -> None:
        """Call ``begin`` now, or as soon as the role whose worker this one takes over is released."""
        self._cast.when_ready(role, begin)

    def observe_ahead(self, observe: Callable[[Stage], T]) -> Future[T]:
        """Start an observation that mostly waits; checks which burn CPU wait until it is over, or merely watches."""
        return self.background.observe(lambda: observe(self))

    def raise_if_closing(self) -> None:
        """For long waits: raises StageError once the run is being ended."""
        if self._closing:
            raise StageError("the stage is closing")

    def worker(self, role: str = "shared") -> Worker:
        """The worker of a role (see ROLES), ready. Raises WorkerFault, StageError or NotJudgeable."""
        return self._cast.worker(role)

    def second(self, role: str) -> Worker | None:
        """The worker of a role beside another one, ``untouched``, or None where two cannot run side by side."""
        try:
            return self.untouched(role)
        except NotJudgeable:
            return None

    def worker_as_is(self, role: str) -> Worker:
        """The worker of a role even if it did not get ready; raises WorkerFault only if there is none at all."""
        try:
            return self.worker(role)
        except WorkerFault:
            for worker in self.workers():
                if worker.name == role:
                    return worker
            raise

    def fresh_worker(self) -> Worker:
        """For users' tests a worker that no packaged check uses, registered: the last one while nothing was done to it, else a
        new one in its place."""
        worker = self.worker("own")
        if worker.is_running and worker.wire.transcript.live() and not (worker.disturbed or worker.wire.disturbed):
            self.wait_unpromised(worker)
            return worker
        worker.kill()
        return self.renewed("own")

    def renewed(self, role: str) -> Worker:
        """A worker of this role that still runs: a new one if the last one was ended."""
        worker = self.worker(role)
        return worker if worker.is_running else self._cast.renew(role)

    def untouched(self, role: str) -> Worker:
        """A worker of this role that nothing was done to under this role: the one that was started ahead, at first. What is
        observed again needs another one, as the last one may be the worse for it: it is ended, if it still runs."""
        worker = self.worker(role)
        if self._is_used_up(role, worker):
            worker.kill()
            worker = self.renewed(role)
        with self._lock:
            self._touched.add((role, worker))
        return worker

    def _is_used_up(self, role: str, worker: Worker) -> bool:
        """Whether it is not what an observation may begin with: touched, ended although it is to serve, or left alone by the
        worker beside which it is to be."""
        how = ROLES[role]
        alone = how.beside is not None and worker.server is not self.worker(how.beside).server
        with self._lock:
            return (role, worker) in self._touched or alone or (how.registered and not worker.is_running)

    @staticmethod
    def wait_unpromised(worker: Worker) -> None:
        """A worker keeps a slot for a probe that it accepted: until it says that it is free again, or certainly is."""
        transcript = worker.wire.transcript
        promised = [asked.answers[0][0] for asked in transcript.questions() if asked.probe and asked.available]
        left = promised[-1] + PROMISE_SECONDS - time.monotonic() if promised else 0.0
        if left > 0:
            transcript.wait(lambda seen: (last := seen.latest_status(promised[-1])) is not None and not last.full, left)

    def _who_plays(self) -> Turns | Starts:
        # On a server that is not ours, all workers would be offered the same calls.
        if self.settings.image is None or not self.controllable:
            return Turns(self._workshop.prepare, self._running, self._put_away, share_ports=self.settings.image is None)
        return Starts(self._workshop.prepare, self.background.start, self._workshop.give)

    def _running(self) -> list[Worker]:
        return [worker for worker in self.workers() if worker.is_running]

    def _put_away(self, worker: Worker) -> None:
        """End a worker that gives way to another one, and its server."""
        if worker is self._ready_ordinary():
            self._sdk()  # as long as it can be asked
        worker.kill()
        if all(other is worker or other.server is not worker.server for other in self._running()):
            worker.server.stop()

    def wait_registered(self, worker: Worker) -> str:
        """The agent name under which the worker registered. Raises WorkerFault, or StageError on a busy machine."""
        return self._workshop.wait_registered(worker)

    @property
    def takes_turns(self) -> bool:
        """Whether workers run one at a time, because they share this machine's ports, or somebody else's server."""
        return self._cast.takes_turns

    @property
    def controllable(self) -> bool:
        """Whether the LiveKit server is ours, to be stopped and started."""
        return self.settings.server in OWN_SERVERS

    def workers(self, role: str | None = None) -> list[Worker]:
        """Every worker that was started so far, or those of one role."""
        return self._workshop.workers(role)

    def alike(self, worker: Worker) -> list[Worker]:
        """Every worker so far of this one's image, itself included; of the image that is replaced (--lk-from) it alone."""
        return self._workshop.alike(worker)

    # -- other hosts

    def neighbour(self) -> Sidecar:
        """A container beside the workers: another host on their network."""
        with self._lock:
            if self._neighbour is None:
                self._neighbour = Sidecar(self.session, self.settings.probe_image, "neighbour")
            return self._neighbour

    def answer_to_another_host(self, worker: Worker, port: int, path: str) -> Answer:
        """What another host is answered, redirects followed. Raises NotJudgeable."""
        if isinstance(worker, CommandWorker):
            return worker.answer_to_others(path, port)
        return follow(self.neighbour().ask, f"http://{worker.address}:{port}{path}", 5)

    # -- the image itself

    def needs_image(self, why: str) -> None:
        """Raises NotJudgeable where there is none."""
        if self.settings.image is None:
            raise NotJudgeable(f"{why}: give --lk-image")

    @property
    def contents(self) -> ImageContents:
        """The image. Raises NotJudgeable where there is none."""
        self.needs_image("there is no image to judge")
        assert self._contents is not None, "open() first"
        return self._contents

    def scan_after_starts(self) -> None:
        """Have the image's layers read when the last of the workers asked for so far begins its start: reading takes CPU
        from those."""
        if self.settings.image is not None:
            self.background.start(self.contents.read)

    def _readings(self) -> list[Future[ImageScan]]:
        return self._contents.under_way() if self._contents is not None else []

    def image_scan(self) -> ImageScan:
        """What the image's layers hold. Raises NotJudgeable where there is no image, StageError if they cannot be read."""
        with self.ledger.waiting("image"):
            return self.contents.scan()

    def image_bytes(self) -> int:
        """Those of the files in the image's layers. Raises as ``image_scan`` does."""
        with self.ledger.waiting("image"):
            return self.contents.unpacked_bytes()

    # -- what the verdict says about all this

    def raise_if_too_busy(self, worker: Worker | None = None, since: Reading | None = None) -> None:
        """Raises TooBusy when a missed deadline says more about this machine than about the worker; ``since`` is the
        worker's ``reading()`` when the wait began; without it, whether the run stood still is asked of the last minute."""
        after = worker.reading() if worker is not None and since is not None else None
        reason = too_busy(since, after)
        if reason is None and after is None:
            now = time.monotonic()
            reason = stood_still(self.history.stood_still(now - LONGEST_SECONDS, now))
        if reason is not None:
            raise TooBusy(f"this machine is too busy to judge: {reason}")

    def out_of_memory(self, roles: Iterable[str]) -> str | None:
        """That workers of these roles lost processes as this machine has no memory left, in words; None: they did not."""
        self.memory.look()
        return why_killed(worker for role in roles for worker in self.workers(role))

    def raise_if_filled_by_others(self, worker: Worker, since: Reading) -> None:
        """Raises TooBusy when a worker that takes no call may be right, as its load may be what others use of this machine;
        ``since`` is its ``reading()`` when that began."""
        statuses = worker.wire.transcript.statuses()
        load = max((status.load for status in statuses if status.at > since.at or status is statuses[-1]), default=0.0)
        reason = self.filled_by_others(worker, load, since)
        if reason is not None:
            raise TooBusy(f"this machine is too busy to judge: {reason}")

    def filled_by_others(self, worker: Worker, load: float, since: Reading) -> str | None:
        """Why a worker that reports this load may be full for what others use of this machine, in words; None: it may not, or
        what workers of its image reported at another time shows that their load is not the machine's."""
        now, last = worker.reading(), worker.wire.transcript.latest_status()
        reason, belied = filled_by_others(load, since, now), [self.history.belies]
        if reason is None and last is not None:
            reason = filled_by_the_past(last.load, since, now)
            belied.append(self.history.belies_average)
        if reason is None:
            return None
        reported = [status for other in self.alike(worker) for status in other.wire.transcript.statuses()]
        return None if any(by(seen.load, seen.at) for seen in reported for by in belied) else reason

    def subject(self) -> Subject:
        sdk = self._sdk()
        if self.settings.image is None:
            return Subject("command", self.settings.command_text, None, None, *sdk)
        return describe.image(str(self.settings.image), self.contents.attrs, self.contents.stated_bytes(), *sdk)

    def _sdk(self) -> tuple[str | None, str | None]:
        """As far as an ordinary worker tells: its ``/worker`` page, and the interpreter that holds its registration."""
        if self._sdk_seen is None:
            worker = self._ready_ordinary()
            if worker is None:
                return None, None
            self._sdk_seen = describe.sdk(worker)
        return self._sdk_seen

    def _ready_ordinary(self) -> Worker | None:
        """The shared worker, or that of users' tests, if it got ready."""
        return self._cast.of("shared") or self._cast.of("own")

    def lanes(self) -> list[Lane]:
        """The workers' lives, for the report."""
        return describe.lanes(self._workshop.taps)

    def facts(self) -> dict[str, Any]:
        """The verdict's ``stage``."""
        return describe.stage(self.settings, self._workshop.servers[0] if self._workshop.servers else None, self._client)
