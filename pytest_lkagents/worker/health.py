"""Where a worker answers health probes: found by asking what listens, where nothing is declared."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pytest_lkagents.probe.answers import REDIRECTS, Answer
from pytest_lkagents.probe.sidecar import Listener
from pytest_lkagents.settings import Settings

DEFAULT_PORT = 8081
DEFAULT_PATH = "/"
# Healthy, and not ready.
ANSWERS = (200, 503)
# Nothing is there, or it is elsewhere. Platforms differ in whether they follow, and take that for healthy; and what / leads on
# to is a page for people as often as a health endpoint.
ELSEWHERE = (404, *REDIRECTS)
# Where such servers answer: the names that Kubernetes' own components and its users' frameworks have.
USUAL_PATHS = ("/healthz", "/health", "/livez", "/readyz", "/ready", "/live")
# Where nothing is: the server of Python's client for Prometheus answers with metrics whatever it is asked for.
NOWHERE = "/pytest-lkagents-asks-for-nothing"
METRICS = "# TYPE "
ASK_SECONDS = 2.0

# Path, port and seconds to the answer, redirects followed.
Get = Callable[[str, int, float], Answer]


@dataclass(frozen=True)
class Health:
    """The health endpoint as found; ``loopback`` when nothing outside the worker's namespace can reach it."""

    port: int
    loopback: bool
    path: str = DEFAULT_PATH


class HealthFinder:
    """``get`` asks from where the worker itself runs."""

    def __init__(self, settings: Settings, get: Get) -> None:
        self._settings = settings
        self._get = get
        # The same for one look at all ports, in which nothing is asked twice: each time may cost a process in the container.
        self._look = functools.cache(self._get)
        # By port, once it is found; and of which ports that will not change.
        self._paths: dict[int, str] = {}
        self._certain: set[int] = set()
        # Whether the SDKs' own port is certainly the one. That it is not may change while a worker starts.
        self._usual = False

    def find(self, listeners: Iterable[Listener]) -> Health | None:
        """None if there is none: the declared port, else 8081 (where others can reach it, or no health endpoint but it), else
        the port that speaks HTTP as a health endpoint does (first of those that others can reach)."""
        self._look = functools.cache(self._get)
        by_port: dict[int, bool] = {}
        for found in listeners:
            if found.protocol == "tcp":
                by_port[found.port] = by_port.get(found.port, True) and found.loopback
        wanted = self._settings.health_port
        if wanted is not None:
            return self._at(wanted, by_port) if wanted in by_port else None
        candidates = [port for port in by_port if port != self._settings.metrics_port]
        # The SDKs' own port needs no answer to be the one, but where metrics are served there and no health.
        usual = DEFAULT_PORT in candidates and self._is_usual()
        if usual and not by_port[DEFAULT_PORT]:
            return self._at(DEFAULT_PORT, by_port)
        # What others can reach at a health endpoint's path, or with a /worker page, is meant for them; one for the container
        # alone may lie behind it. Then a /worker page is the surest sign, then a 200, then a refusal, rather at such a path.
        # Whatever else answers may be a server of metrics or a profiler, and what answers to anything may be there for a
        # platform that wants an open port.
        ranked = []
        for port in candidates:
            status, worker_page = self._answer(port)
            if not self._is_health(status, worker_page):
                continue
            anything, all_metrics = self._nowhere(port)
            named, is_worker = self.path_of(port) != DEFAULT_PATH, worker_page == 200 and not anything
            exporter = not (named or is_worker or anything) and METRICS in self._look("/metrics", port, ASK_SECONDS).body
            for_others = not by_port[port] and (is_worker or (named and status == 200 and not anything))
            signs = (exporter, not is_worker, status != 200, anything, not named, port != DEFAULT_PORT)
            if not all_metrics:
                ranked.append((not for_others, *signs, by_port[port], port))
        best = min(ranked, default=None)
        if usual and (best is None or best[0]):
            return self._at(DEFAULT_PORT, by_port)
        return self._at(best[-1], by_port) if best is not None else None

    def _is_usual(self) -> bool:
        if self._usual:
            return True
        metrics = self._status("/metrics", DEFAULT_PORT)
        if metrics is None:
            # No answer, yet.
            return True
        self._usual = metrics != 200 or (self._is_health(*self._answer(DEFAULT_PORT)) and not self._nowhere(DEFAULT_PORT)[1])
        return self._usual

    def _nowhere(self, port: int) -> tuple[bool, bool]:
        """Whether it answers to anything, and with metrics."""
        status = self._status(NOWHERE, port)
        return status in ANSWERS, status == 200 and METRICS in self._look(NOWHERE, port, ASK_SECONDS).body

    def _status(self, path: str, port: int) -> int | None:
        """That of a redirect where one is followed: what leads on is no sign of a health endpoint."""
        answer = self._look(path, port, ASK_SECONDS)
        return answer.status if answer.first is None else answer.first

    def _status_at(self, path: str, port: int) -> int | None:
        """Of a path that may be written another way, with a slash at its end say; not of one that leads where all do."""
        status = self._status(path, port)
        if status not in REDIRECTS or self._look(NOWHERE, port, ASK_SECONDS).status in ANSWERS:
            return status
        return self._look(path, port, ASK_SECONDS).status

    @staticmethod
    def _is_health(status: int | None, worker_page: int | None) -> bool:
        return status in ANSWERS or worker_page == 200

    def path_of(self, port: int) -> str:
        """As far as it is known."""
        return self._paths.get(port, self._settings.health_path)

    def _is_known(self, port: int) -> bool:
        return self._settings.health_path != DEFAULT_PATH or port in self._certain

    def _at(self, port: int, by_port: dict[int, bool]) -> Health:
        if not self._is_known(port):
            self._ask(port)
        return Health(port, by_port[port], self.path_of(port))

    def _answer(self, port: int) -> tuple[int | None, int | None]:
        status = self._ask(port)
        return status, self._status("/worker", port) if status else None

    def _ask(self, port: int) -> int | None:
        """What it answers; what has nothing at /, or leads on from there, is asked for the usual paths."""
        if self._is_known(port):
            return self._status_at(self.path_of(port), port)
        status = self._status(DEFAULT_PATH, port)
        if status in ELSEWHERE:
            for path in USUAL_PATHS:
                found = self._status_at(path, port)
                # Not ready is an answer too, as long as no other path has a better one.
                if found == 200 or (found in ANSWERS and status in ELSEWHERE):
                    self._paths[port], status = path, found
                if found == 200:
                    self._certain.add(port)
                    break
        elif status is not None:
            self._paths[port] = DEFAULT_PATH
            self._certain.add(port)
        return status
