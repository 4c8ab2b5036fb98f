"""An image's HEALTHCHECK, as the engine states it; and health endpoints: where they are, and which answers do."""

from __future__ import annotations

import http.server
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_lkagents.checks import Evidence, NotJudgeable, TooBusy
from pytest_lkagents.clock import Ledger
from pytest_lkagents.probe.answers import Answer, ask, follow, shown, shown_from
from pytest_lkagents.probe.sidecar import Listener
from pytest_lkagents.settings import Settings
from pytest_lkagents.worker.health import Health, HealthFinder
from pytest_lkagents.worker.healthcheck import Healthcheck, healthcheck
from suites import test_health as health
from suites.test_registration import until_not_ready

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"Healthcheck": None}, None, id="null"),
        pytest.param({"Healthcheck": {"Test": ["NONE"]}}, None, id="switched off"),
        pytest.param({"Healthcheck": {"Test": []}}, None, id="inherited"),
        pytest.param({"Healthcheck": {"Test": ["CMD", "ask", "it"]}}, Healthcheck(("ask", "it"), 30, 3, 90), id="words"),
        pytest.param(
            {"Healthcheck": {"Test": ["CMD-SHELL", "ask it"]}}, Healthcheck(("/bin/sh", "-c", "ask it"), 30, 3, 90), id="shell"
        ),
        pytest.param(
            {"Shell": ["/bin/bash", "-lc"], "Healthcheck": {"Test": ["CMD-SHELL", "ask it"]}},
            Healthcheck(("/bin/bash", "-lc", "ask it"), 30, 3, 90),
            id="another shell",
        ),
        pytest.param(
            {
                "Healthcheck": {
                    "Test": ["CMD", "ask"],
                    "Interval": 10 * SECOND,
                    "Timeout": SECOND // 2,
                    "StartPeriod": 60 * SECOND,
                    "Retries": 2,
                }
            },
            Healthcheck(("ask",), 0.5, 2, 80),
            id="all given",
        ),
    ],
)
def test_healthcheck(config: dict[str, Any], expected: Healthcheck | None) -> None:
    assert healthcheck(config) == expected


def listening(*ports: int) -> list[Listener]:
    return [Listener("tcp", "0.0.0.0", port) for port in ports]


Statuses = Mapping[str, "int | tuple[int, int] | None"]


def finder_of(answers: Statuses, **declared: Any) -> HealthFinder:
    """``answers``: status by "port/path", of a redirect with that of where it leads; what is not there is 404. "port/*": any,
    with metrics if it is negative."""

    def get(path: str, port: int, seconds: float) -> Answer:
        status = answers.get(f"{port}{path}", answers.get(f"{port}/*", 404))
        if isinstance(status, tuple):
            return Answer("", status[1], "ok", first=status[0])
        return Answer("", -status, "# TYPE up gauge") if status is not None and status < 0 else Answer("", status, "ok")

    return HealthFinder(Settings(**declared), get)


def found(answers: Statuses, *ports: int, **declared: Any) -> tuple[int, str] | None:
    health = finder_of(answers, **declared).find(listening(*ports))
    return (health.port, health.path) if health is not None else None


@pytest.mark.parametrize(
    ("answers", "ports", "expected"),
    [
        ({"8081/": 200}, (8081, 9090), (8081, "/")),
        ({"8081/healthz": 200}, (8081,), (8081, "/healthz")),
        ({"8081/": 302, "8081/health": 200}, (8081,), (8081, "/health")),
        ({"8081/": 302}, (8081,), (8081, "/")),
        ({"8081/": (302, 200)}, (8081,), (8081, "/")),  # a page of its own
        ({"8081/": (302, 200), "8081/health": 200}, (8081,), (8081, "/health")),
        ({"8081/health": (307, 200)}, (8081,), (8081, "/health")),  # with a slash at its end
        ({"8081/*": (302, 200)}, (8081,), (8081, "/")),  # to one page whatever is asked for
        ({"3000/": (302, 200)}, (3000,), None),  # which may be a page for people
        ({"3000/*": (302, 200)}, (3000,), None),
        ({"8081/metrics": 200, "9000/": 200}, (8081, 9000), (9000, "/")),
        ({"8081/metrics": 200, "8081/": 200, "9000/": 200}, (8081, 9000), (8081, "/")),
        ({"9000/": 200}, (8081, 9000), (8081, "/")),  # which does not answer as it should
        ({}, (8081,), (8081, "/")),  # which is another check's business
        ({"8080/": 200, "9090/metrics": 200}, (9090, 8080), (8080, "/")),
        ({"8080/readyz": 200}, (9090, 8080), (8080, "/readyz")),
        ({"8080/": 503}, (8080,), (8080, "/")),
        ({"8080/worker": 200, "7070/": 200}, (7070, 8080), (8080, "/")),
        ({"8081/healthz": 503, "8081/metrics": 200}, (8081,), (8081, "/healthz")),  # not ready yet
        ({"8081/healthz": 503, "8081/readyz": 200}, (8081,), (8081, "/readyz")),
        ({"8081/*": -200, "8080/": 200}, (8080, 8081), (8080, "/")),  # metrics, whatever is asked for
        ({"8081/*": 200, "8080/health": 200}, (8080, 8081), (8081, "/")),  # health, likewise
        ({"3000/*": 200, "8082/": 200, "8082/worker": 200}, (3000, 8082), (8082, "/")),
        ({"3000/*": 200}, (3000,), (3000, "/")),
        ({"3000/*": 200, "8080/healthz": 200}, (3000, 8080), (8080, "/healthz")),
        ({"8080/*": 200, "9100/": 200, "9100/metrics": -200}, (8080, 9100), (8080, "/")),
        ({"3000/*": 200, "8090/": 200}, (3000, 8090), (8090, "/")),
        ({"8082/": 200, "8000/health": 503}, (8000, 8082), (8082, "/")),
        ({"9090/*": -200, "8080/healthz": 200}, (8080, 9090), (8080, "/healthz")),
        ({"9090/metrics": 200}, (9090,), None),
        ({}, (6060,), None),
    ],
)
def test_where_health_is_found(answers: Statuses, ports: tuple[int, ...], expected: tuple[int, str] | None) -> None:
    assert found(answers, *ports) == expected


@pytest.mark.parametrize("own", [8081, 42259])
@pytest.mark.parametrize(
    ("answers", "for_others"),
    [
        ({"8080/healthz": 200}, True),
        ({"8080/": 200, "8080/worker": 200}, True),
        ({"8080/healthz": 503}, False),
        ({"8080/": 200}, False),  # whatever that is
        ({"8080/*": 200}, False),
        ({"8080/*": -200}, False),
    ],
)
def test_what_is_for_the_container_alone_gives_way_to_a_health_endpoint_for_others(
    own: int, answers: dict[str, int], for_others: bool
) -> None:
    finder = finder_of({**answers, f"{own}/": 200, f"{own}/worker": 200})
    health = finder.find([*listening(8080), Listener("tcp", "127.0.0.1", own)])
    assert health is not None
    assert (health.port, health.loopback) == ((8080, False) if for_others else (own, True))


def test_first_impressions_of_health_do_not_last() -> None:
    said: dict[str, int | None] = {"8081/metrics": 200, "8081/healthz": 404, "8080/": 200}
    finder = finder_of(said)

    def where() -> tuple[int, str] | None:
        found = finder.find(listening(8080, 8081))
        return (found.port, found.path) if found is not None else None

    assert where() == (8080, "/")
    said["8081/healthz"] = 200
    assert where() == (8081, "/healthz")

    said = {"8081/metrics": None, "8081/": None, "8080/": 200}
    finder = finder_of(said)
    assert where() == (8081, "/")  # it may not have been there yet
    said |= {"8081/metrics": 200, "8081/": 404}
    assert where() == (8080, "/")

    said = {"8081/healthz": 503}
    finder = finder_of(said)
    assert where() == (8081, "/healthz")
    said["8081/readyz"] = 200
    assert where() == (8081, "/readyz")


def test_where_health_is_declared_to_be() -> None:
    assert found({"8081/": 200}, 8081, health_path="/up") == (8081, "/up")
    assert found({"9000/live": 200}, 8081, 9000, health_port=9000) == (9000, "/live")
    assert found({"8081/": 200}, 8081, health_port=9000) is None
    assert found({"8081/metrics": 200}, 8081, metrics_port=8081) is None


@pytest.mark.parametrize(
    ("statuses", "busy", "judged", "probes"),
    [
        ([200], False, None, 101),
        ([200, 503, 200], False, None, 13),  # a limit for who asks so fast
        ([200, 200, 503], False, AssertionError, 12),  # one of three processes
        ([200, None], False, AssertionError, 8),  # each takes its time
        ([200, None], True, TooBusy, 8),
        ([200, 429, 503, 503], False, None, 2),
        ([200, 503, 200, *[429] * 10], False, None, 13),  # a limit again
    ],
)
def test_an_endpoint_that_fails_now_and_then(
    statuses: list[int | None], busy: bool, judged: type[Exception] | None, probes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked without a pause it answers these again and again; the limit is for that alone."""
    monkeypatch.setattr(health, "SLOW_EVERY", 0.0)
    asked = itertools.count()
    # Whether it leads to another host is asked before.
    leads = iter([Answer("http://127.0.0.1:8081/", 200)])
    limited = statuses == [200, 503, 200]

    def answer(_found: Health) -> int | None:
        number = next(asked)
        return 200 if limited and number > len(statuses) else statuses[number % len(statuses)]

    def raise_if_too_busy(*_: object) -> None:
        if busy:
            raise TooBusy("this machine is too busy to judge")

    made: Any = SimpleNamespace(
        name="w",
        ledger=Ledger(),
        reading=lambda: None,
        wait_health=lambda: Health(8081, loopback=False),
        health_status=answer,
        health_answer=lambda found: next(leads, None) or Answer("http://127.0.0.1:8081/", answer(found)),
    )
    stage: Any = SimpleNamespace(
        settings=Settings(), worker=lambda _role: made, raise_if_closing=lambda: None, raise_if_too_busy=raise_if_too_busy
    )
    with pytest.raises(judged) if judged else nullcontext():
        health.test_answers(stage, Evidence(), lambda: None)
    assert next(asked) == probes


# Of a server: the status for each path, and where that leads ("{port}": its own).
LEADS = {
    "/": (302, "/status"),
    "/status": (200, ""),
    "/absolute": (301, "http://127.0.0.1:{port}/status"),
    "/relative": (307, "status"),
    "/twice": (308, "/"),
    "/gone": (303, "/nothing"),
    "/broken": (302, "/500"),
    "/500": (500, ""),
    "/loop": (302, "/loop"),
    "/abroad": (302, "http://worker.example:{port}/status?token=secret"),
    "/by-name": (302, "//localhost:{port}/status"),
    "/tls": (301, "https://127.0.0.1:1/"),
    "/no-place": (302, ""),
    "/mail": (302, "mailto:someone"),
    "/not-modified": (304, "/status"),
}


@pytest.fixture
def leading() -> Iterator[tuple[int, list[str]]]:
    """Its port, and the paths that were asked for."""
    asked: list[str] = []

    class Leading(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, leads_to = LEADS.get(self.path, (404, ""))
            self.send_response(status)
            if leads_to:
                self.send_header("Location", leads_to.format(port=made.server_port))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Leading) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made.server_port, asked
        made.shutdown()


@pytest.mark.parametrize(
    ("path", "status", "said", "requests"),
    [
        ("/status", 200, "200", 1),
        ("/", 200, "200 at /status, to which a 302 leads", 2),
        ("/absolute", 200, "200 at /status, to which a 301 leads", 2),
        ("/relative", 200, "200 at /status, to which a 307 leads", 2),
        ("/twice", 200, "200 at /status, to which a 308 leads", 3),
        ("/gone", 404, "404 at /nothing, to which a 303 leads", 2),
        ("/broken", 500, "500 at /500, to which a 302 leads", 2),
        ("/loop", 302, "302 again and again", 10),
        ("/abroad", 302, "302 (to http://worker.example:{port}/status)", 1),
        ("/by-name", 302, "302 (to http://localhost:{port}/status)", 1),
        ("/tls", None, "nothing at /, to which a 301 leads", 1),
        ("/no-place", 302, "302", 1),
        ("/mail", 302, "302", 1),
        ("/not-modified", 304, "304", 1),
    ],
)
def test_redirects_are_followed_as_the_kubelet_does(
    path: str, status: int | None, said: str, requests: int, leading: tuple[int, list[str]]
) -> None:
    port, asked = leading
    answer = follow(ask, f"http://127.0.0.1:{port}{path}", 10)
    assert (answer.status, str(answer), len(asked)) == (status, said.format(port=port), requests)
    assert answer.leads_elsewhere == (path in ("/abroad", "/by-name"))


def test_time_is_for_all_redirects_together() -> None:
    def slow(url: str, seconds: float) -> Answer:
        limits.append(seconds)
        return Answer(url, 302, location=url)

    limits: list[float] = []
    assert follow(slow, "http://127.0.0.1/", 0.0).status is None
    assert limits == [0.0]
    follow(slow, "http://127.0.0.1/", 5.0)
    assert limits[1:] == sorted(limits[1:], reverse=True)


def test_no_password_of_an_url_is_shown() -> None:
    assert shown("https://user:secret@worker.example:8081/a?token=secret") == "https://worker.example:8081/a"
    assert shown_from(8081, "http://127.0.0.1:8081/a?token=secret") == "/a"
    assert shown_from(8081, "https://127.0.0.1:8081") == "https://127.0.0.1:8081"


def stage_and_worker(port: int, path: str, **declared: Any) -> tuple[Any, Any]:
    """A worker whose health endpoint is there, on this machine."""
    found = Health(port, loopback=False, path=path)

    def answer(_found: Health, seconds: float = 5) -> Answer:
        return follow(ask, f"http://127.0.0.1:{port}{path}", seconds)

    worker: Any = SimpleNamespace(
        name="w",
        ledger=Ledger(),
        reading=lambda: None,
        exit_code=None,
        health=lambda: found,
        wait_health=lambda: found,
        health_answer=answer,
        health_status=lambda found, seconds=5: answer(found, seconds).status,
        answer_inside=lambda path, port: answer(found),
    )
    stage: Any = SimpleNamespace(
        settings=Settings(**declared),
        controllable=True,
        worker=lambda _role: worker,
        untouched=lambda _role: worker,
        raise_if_closing=lambda: None,
        raise_if_too_busy=lambda *_: None,
    )
    return stage, worker


def test_an_endpoint_that_leads_on_is_well_and_the_evidence_says_so(leading: tuple[int, list[str]]) -> None:
    stage, _ = stage_and_worker(leading[0], "/")
    evidence = Evidence()
    health.test_answers(stage, evidence, lambda: None)
    assert (evidence["redirect"], evidence["redirected_to"]) == (302, "/status")
    assert "Fly.io" in evidence["redirect_not_followed_by"]
    assert "redirect" in evidence.summary

    evidence = Evidence()
    health.test_answers(stage_and_worker(leading[0], "/status")[0], evidence, lambda: None)
    assert not [name for name in evidence if "redirect" in name]


@pytest.mark.parametrize("path", ["/gone", "/broken", "/loop", "/tls", "/no-place"])
def test_an_endpoint_that_leads_to_nothing_good_fails(
    path: str, leading: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "answer_within", lambda _stage, worker, found, _seconds: worker.health_answer(found))
    stage, _ = stage_and_worker(leading[0], path)
    with pytest.raises(AssertionError, match=f"GET {path} on port {leading[0]} answers (404|500|302|nothing)"):
        health.test_answers(stage, Evidence(), lambda: None)


@pytest.mark.parametrize(
    "judge",
    [
        lambda stage: health.test_answers(stage, Evidence(), lambda: None),
        lambda stage: health.test_unhealthy_when_lost(stage, Evidence()),
        lambda stage: health.test_answers_while_draining(stage, Evidence(), lambda: None),  # type: ignore[arg-type, return-value]
        lambda stage: health.test_answers_under_load(stage, Evidence()),
        lambda stage: until_not_ready(stage.worker("shared"), 0.0, 0.1, Evidence()),
    ],
)
def test_an_endpoint_that_leads_to_another_host_is_not_judged(
    judge: Callable[[Any], object], leading: tuple[int, list[str]]
) -> None:
    stage, _ = stage_and_worker(leading[0], "/abroad")
    with pytest.raises(NotJudgeable):
        judge(stage)


def test_one_that_leads_to_another_host_fails_where_it_is_required(leading: tuple[int, list[str]]) -> None:
    stage, _ = stage_and_worker(leading[0], "/abroad", health="required")
    with pytest.raises(AssertionError, match=r"leads to another host, http://worker\.example:\d+/status, which tells nothing"):
        health.test_answers(stage, Evidence(), lambda: None)


@pytest.mark.parametrize(
    ("inside", "outside", "reached"),
    [
        ("/", "/", True),
        ("/", "/broken", False),
        ("/status", "/abroad", True),  # which was answered
        ("/gone", "/gone", True),
    ],
)
def test_what_leads_on_is_reached_by_what_it_is_inside(
    inside: str, outside: str, reached: bool, leading: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REACH_SECONDS", 0)
    stage, _ = stage_and_worker(leading[0], inside)
    stage.answer_to_another_host = lambda _worker, port, _path: follow(ask, f"http://127.0.0.1:{port}{outside}", 5)
    evidence = Evidence()
    with nullcontext() if reached else pytest.raises(AssertionError):
        health.test_reachable(stage, evidence)
