"""Every broken worker is caught by its check and by no unrelated MUST; every good one is left alone.

By default a broken worker for each MUST of the core profile meets that check alone, and each good one the suites that differ
most between workers; ``--whole`` (tox -e detection) runs every suite on all of them, which shows that no unrelated MUST fails.
"""

from __future__ import annotations

import http.server
import ipaddress
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_lkagents.selection import packaged_checks

from .conftest import ROOT, build
from .wire_server import RealServer

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

WORKERS = ROOT / "fixtures/workers"
ALL = "registration,environment,health,image,jobs,rollout,storage,availability,balancing,resources"
# What a worker catches that breaks by itself: the first MUST that meets it.
ANY = "any"
# Their checks load a worker.
LOADING = ("availability", "balancing.redispatch-on-refusal", "balancing.spread")
# A drain of four minutes in core, and one alone; or a worker that serves none of its calls, each of which is awaited.
LONGEST_RUN = 900
# Whom the server offers a call is chance, and so whether the check can judge: it says so and is given another run.
CHANCES = 3


def workers(kind: str) -> list[str]:
    return sorted(path.parent.name for path in (WORKERS / kind).glob("*/worker.toml"))


def describe(kind: str, name: str) -> dict:
    return tomllib.loads((WORKERS / kind / name / "worker.toml").read_text())


def loads(name: str) -> bool:
    """Whether a broken worker is caught under load, for which the machine must be free."""
    return describe("broken", name)["catches"].startswith(LOADING)


def binding() -> set[str]:
    """The checks that decide over a verdict by default."""
    return {check.id for check in packaged_checks() if check.severity == "MUST" and check.included_in("core")}


def ordinary() -> set[str]:
    """One broken worker for each of them, of those that do not take minutes."""
    musts, shown = binding(), dict[str, str]()
    for name in workers("broken"):
        described = describe("broken", name)
        if not described.get("slow") and described["catches"] in musts:
            shown.setdefault(described["catches"], name)
    return set(shown.values())


def image(kind: str, name: str) -> tuple[str, dict]:
    folder = WORKERS / kind / name
    described = describe(kind, name)
    source = folder.parent / described.get("source", name)
    if (source / "go.mod").is_file():
        # Statically, for an image that has nothing else.
        command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(folder / "worker"), "."]
        made = subprocess.run(command, cwd=source, env={**os.environ, "CGO_ENABLED": "0"}, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
    return build(f"pytest-lkagents/fixture-{name}:latest", folder / "Dockerfile", WORKERS), described


@pytest.fixture
def hub(lk_bridge: str) -> Iterator[str]:
    """A model hub beside LiveKit, on the engine's default bridge."""

    class Model(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"weights")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((lk_bridge, 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{lk_bridge}:{server.server_port}/model"
        server.shutdown()


@pytest.fixture(scope="session")
def lk_bridge() -> str:
    import docker

    client = docker.from_env()
    try:
        config = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
        # An engine that was just started does not name the gateway yet.
        return str(config.get("Gateway") or ipaddress.ip_network(config["Subnet"])[1])
    finally:
        client.close()


@pytest.fixture
def other(lk_bridge: str, tmp_path: Path) -> Iterator[str]:
    """Another LiveKit server, on the engine's default bridge."""
    with RealServer(tmp_path, lk_bridge) as server:
        yield server.url


class Services(dict[str, str]):
    """What the options of a fixture worker may name in braces: the fixtures above, started when they are named."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        super().__init__()
        self._request = request

    def __missing__(self, name: str) -> str:
        return str(self._request.getfixturevalue(name))


def options_of(described: dict, request: pytest.FixtureRequest) -> list[str]:
    return [option.format_map(Services(request)) for option in described["options"]]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.alone) if loads(name) else name for name in workers("broken")]
)
def test_broken_worker_is_caught(name: str, lk, keep, request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> None:
    whole = pytestconfig.getoption("whole")
    if not whole and name not in ordinary():
        pytest.skip("a SHOULD, or minutes, or another worker shows this check: --whole runs it")
    tag, described = image("broken", name)
    caught = described["catches"]
    if caught == ANY:
        run = lk("--lk-image", tag, "--lk-suite", ALL, *options_of(described, request), seconds=LONGEST_RUN)
        failed = run.checks("fail", "MUST")
        keep("broken", name, run, expected=sorted(failed))
        assert failed, run.output
        assert not run.checks("error"), run.output
        return
    # What it is the second worker for, in another suite or profile.
    caught_too = described.get("catches_too", []) if whole else []
    met = [ALL, caught, *caught_too] if whole else [caught]
    options = options_of(described, request)
    for _ in range(CHANCES):
        run = lk("--lk-image", tag, "--lk-suite", ",".join(met), *options, seconds=LONGEST_RUN)
        if caught not in run.checks("skip"):
            break
    keep("broken", name, run, expected=[caught, *caught_too])
    assert {caught, *caught_too} <= run.checks("fail"), run.output
    unrelated = run.checks("fail", "MUST") - {caught, *caught_too, *described["also"]}
    assert not unrelated, run.output
    assert not run.checks("error"), run.output
    severity = next(check["severity"] for check in run.verdict["checks"] if check["id"] == caught)
    must = severity == "MUST" or bool(run.checks("fail", "MUST"))
    assert run.code == (1 if must else 0), run.output


@pytest.mark.alone
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", workers("good"))
def test_good_worker_is_left_alone(name: str, lk, keep, request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> None:
    if describe("good", name).get("slow") and not pytestconfig.getoption("whole"):
        pytest.skip("others are more unlike the example: --whole runs it")
    tag, described = image("good", name)
    selection = ["--lk-suite", described.get("suites", "registration,rollout,jobs.own-process,image")]
    if pytestconfig.getoption("whole"):
        selection = ["--lk-profile", "full" if described.get("full") else "core"]
    run = lk("--lk-image", tag, *selection, *options_of(described, request), seconds=900)
    keep("good", name, run, expected=[])
    assert run.checks("fail") <= set(described.get("should", [])), run.output
    assert not run.checks("error"), run.output
    assert run.code == 0, run.output
    assert run.verdict["verdict"] == "pass"


def test_every_promise_is_broken_by_a_worker_and_every_must_by_two() -> None:
    described = [describe("broken", name) for name in workers("broken")]
    shown = Counter(check for worker in described for check in (worker["catches"], *worker.get("catches_too", ())))
    for check in packaged_checks():
        # Deployment files have fixtures of their own, and INFO judges nothing.
        if check.suite not in ("manifests", "autoscaling") and check.severity in ("MUST", "SHOULD"):
            assert shown[check.id] >= (2 if check.severity == "MUST" else 1), check.id


def test_every_fixture_says_what_it_is() -> None:
    for kind in ("good", "broken"):
        for folder in (WORKERS / kind).iterdir():
            assert (folder / "worker.toml").is_file(), folder
            assert Path(folder / "Dockerfile").is_file(), folder


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", workers("good"))
def test_a_noisy_neighbour_changes_nothing(name: str, lk, keep, pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("whole"):
        pytest.skip("takes minutes: --whole runs it")
    tag, described = image("good", name)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        try:
            run = lk("--lk-image", tag, *described["options"], seconds=900)
        finally:
            neighbour.kill()
    keep("good beside a noisy neighbour", name, run, expected=[])
    assert not run.checks("fail"), run.output
    assert not run.checks("error"), run.output
