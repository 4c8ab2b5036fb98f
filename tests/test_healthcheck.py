"""An image's HEALTHCHECK, as the engine states it; and health endpoints: where they are, and which answers do."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_lkagents.checks import Evidence, TooBusy
from pytest_lkagents.clock import Ledger
from pytest_lkagents.probe.sidecar import Listener
from pytest_lkagents.settings import Settings
from pytest_lkagents.worker.health import Health, HealthFinder
from pytest_lkagents.worker.healthcheck import Healthcheck, healthcheck
from suites import test_health as health

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


def finder_of(answers: Mapping[str, int | None], **declared: Any) -> HealthFinder:
    """``answers``: status by "port/path"; what is not there is 404. "port/*": any, with metrics if it is negative."""

    def get(path: str, port: int, seconds: float) -> tuple[int | None, str]:
        status = answers.get(f"{port}{path}", answers.get(f"{port}/*", 404))
        return (-status, "# TYPE up gauge") if status is not None and status < 0 else (status, "ok")

    return HealthFinder(Settings(**declared), get)


def found(answers: dict[str, int], *ports: int, **declared: Any) -> tuple[int, str] | None:
    health = finder_of(answers, **declared).find(listening(*ports))
    return (health.port, health.path) if health is not None else None


@pytest.mark.parametrize(
    ("answers", "ports", "expected"),
    [
        ({"8081/": 200}, (8081, 9090), (8081, "/")),
        ({"8081/healthz": 200}, (8081,), (8081, "/healthz")),
        ({"8081/": 302, "8081/health": 200}, (8081,), (8081, "/health")),
        ({"8081/": 302}, (8081,), (8081, "/")),
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
def test_where_health_is_found(answers: dict[str, int], ports: tuple[int, ...], expected: tuple[int, str] | None) -> None:
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
    )
    stage: Any = SimpleNamespace(
        settings=Settings(), worker=lambda _role: made, raise_if_closing=lambda: None, raise_if_too_busy=raise_if_too_busy
    )
    with pytest.raises(judged) if judged else nullcontext():
        health.test_answers(stage, Evidence(), lambda: None)
    assert next(asked) == probes
