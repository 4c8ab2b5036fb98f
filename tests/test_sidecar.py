"""The side container's disturbances: what they take away, and that they give it back exactly."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from pytest_lkagents import engine
from pytest_lkagents.probe.sidecar import Sidecar
from pytest_lkagents.settings import PROBE_IMAGE

# The engine's name server knows each container by its own identifier; the dot keeps /etc/hosts from answering.
LOOK_UP = "getent ahostsv4 $(hostname)."


@pytest.fixture(scope="module")
def session() -> Iterator[engine.Session]:
    client = engine.connect()
    made = engine.Session(client)
    try:
        made.open_network()
        yield made
    finally:
        made.close()
        client.close()


@pytest.fixture(scope="module")
def sidecar(session: engine.Session) -> Sidecar:
    return Sidecar(session, PROBE_IMAGE, "disturbed")


@pytest.fixture(scope="module")
def server(session: engine.Session) -> Iterator[str]:
    """A web server on this machine that the side container reaches."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((session.gateway, 0), Empty) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://{session.gateway}:{made.server_port}/"
        made.shutdown()


def rules(sidecar: Sidecar) -> str:
    """The whole firewall without its counters and the destinations seen so far."""
    code, output = sidecar.run("nft", "-s", "list", "tables")
    assert code == 0, output
    own = sidecar.run("nft", "-s", "list", "table", "inet", "lkagents")[1]
    return output + "\n".join(line for line in own.splitlines() if "elements" not in line and "expires" not in line)


class Broken(Exception):
    """What a check may raise in the middle."""


def test_a_partition_loses_everything_and_is_taken_back(sidecar: Sidecar, server: str) -> None:
    before = rules(sidecar)
    assert sidecar.get(server)[0] == 204

    def disturb() -> None:
        with sidecar.partition() as lost:
            assert sidecar.get(server, 1)[0] is None
            assert sidecar.run("sh", "-c", f"timeout 2 {LOOK_UP}")[0] != 0
            assert lost() > 0
            raise Broken

    with pytest.raises(Broken):
        disturb()
    assert rules(sidecar) == before
    assert sidecar.get(server)[0] == 204


def test_names_are_refused_and_given_back(sidecar: Sidecar, server: str) -> None:
    before = rules(sidecar)
    assert sidecar.run("sh", "-c", LOOK_UP)[0] == 0

    def disturb() -> None:
        with sidecar.without_names() as refused:
            assert sidecar.run("sh", "-c", f"timeout 2 {LOOK_UP}")[0] not in (0, 124), "a lookup must fail, and at once"
            assert sidecar.get(server)[0] == 204
            assert refused() > 0
            raise Broken

    with pytest.raises(Broken):
        disturb()
    assert rules(sidecar) == before
    assert sidecar.run("sh", "-c", LOOK_UP)[0] == 0
