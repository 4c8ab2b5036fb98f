"""The side container's disturbances: what they take away, and that they give it back exactly."""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from docker.errors import APIError
from docker.models.containers import Container

from pytest_lkagents import engine, inside
from pytest_lkagents.checks import StageError
from pytest_lkagents.probe.answers import follow
from pytest_lkagents.probe.sidecar import Sidecar, parse_devices
from pytest_lkagents.session import Session
from pytest_lkagents.settings import PROBE_IMAGE

# The engine's name server knows each container by its own identifier; the dot keeps /etc/hosts from answering.
LOOK_UP = "getent ahostsv4 $(hostname)."


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    client = engine.connect()
    made = Session(client)
    try:
        made.open_network()
        yield made
    finally:
        made.close()
        client.close()


@pytest.fixture(scope="module")
def sidecar(session: Session) -> Sidecar:
    return Sidecar(session, PROBE_IMAGE, "disturbed")


@pytest.fixture(scope="module")
def server(session: Session) -> Iterator[str]:
    """A web server on this machine that the side container reaches."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302 if self.path == "/leads" else 204)
            if self.path == "/leads":
                self.send_header("Location", "/[on]?to=it#here")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((session.gateway, 0), Empty) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://{session.gateway}:{made.server_port}/"
        made.shutdown()


def test_where_a_redirect_leads_is_told_and_followed(sidecar: Sidecar, server: str) -> None:
    answer = sidecar.ask(f"{server}leads", 5)
    assert (answer.status, answer.location) == (302, f"{server}[on]?to=it")
    followed = follow(sidecar.ask, f"{server}leads", 5)
    assert (followed.status, followed.first) == (204, 302)
    assert sidecar.ask(server, 5).location == ""


def test_a_moment_is_no_time_without_a_limit() -> None:
    asked: list[str] = []
    sidecar = cast(Sidecar, SimpleNamespace(read=lambda *command: asked.extend(command) or "\n000 "))
    assert Sidecar.ask(sidecar, "http://127.0.0.1:8081/", 0.0001).status is None
    assert float(asked[asked.index("-m") + 1]) > 0


def rules(sidecar: Sidecar) -> str:
    """The whole firewall without its counters and the destinations seen so far."""
    code, output = inside.read_in(sidecar.container, "nft", "-s", "list", "tables")
    assert code == 0, output
    own = inside.read_in(sidecar.container, "nft", "-s", "list", "table", "inet", "lkagents")[1]
    return output + "\n".join(line for line in own.splitlines() if "elements" not in line and "expires" not in line)


class Broken(Exception):
    """What a check may raise in the middle."""


def test_a_partition_loses_everything_and_is_taken_back(sidecar: Sidecar, server: str) -> None:
    before = rules(sidecar)
    assert sidecar.get(server)[0] == 204

    def disturb() -> None:
        with sidecar.partition() as lost:
            assert sidecar.get(server, 1)[0] is None
            assert inside.read_in(sidecar.container, "sh", "-c", f"timeout 2 {LOOK_UP}")[0] != 0
            assert lost() > 0
            raise Broken

    with pytest.raises(Broken):
        disturb()
    assert rules(sidecar) == before
    assert sidecar.get(server)[0] == 204


def test_names_are_refused_and_given_back(sidecar: Sidecar, server: str) -> None:
    before = rules(sidecar)
    assert inside.read_in(sidecar.container, "sh", "-c", LOOK_UP)[0] == 0

    def disturb() -> None:
        with sidecar.without_names() as refused:
            assert inside.read_in(sidecar.container, "sh", "-c", f"timeout 2 {LOOK_UP}")[0] not in (0, 124), (
                "a lookup must fail, and at once"
            )
            assert sidecar.get(server)[0] == 204
            assert refused() > 0
            raise Broken

    with pytest.raises(Broken):
        disturb()
    assert rules(sidecar) == before
    assert inside.read_in(sidecar.container, "sh", "-c", LOOK_UP)[0] == 0


def test_a_firewall_that_does_not_answer_is_no_count(session: Session) -> None:
    sidecar = Sidecar(session, PROBE_IMAGE, "emptied")
    assert (sidecar.dropped_inbound(), sidecar.contacted()) == (0, [])
    sidecar._nft("delete table inet lkagents\n")
    for read in (sidecar.dropped_inbound, sidecar.attempts, sidecar.contacted):
        with pytest.raises(StageError, match="does not tell"):
            read()


class Forgetful:
    """A container whose engine loses what a command wrote, but for its beginning or what ``keep`` says, the first ``losses``
    times."""

    def __init__(self, losses: int, keep: Callable[[bytes], bytes] = lambda written: written[:3]) -> None:
        self.losses = losses
        self.keep = keep

    def exec_run(self, command: list[str], demux: bool) -> tuple[int, tuple[bytes | None, None]]:
        assert demux
        made = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        self.losses -= 1
        return made.returncode, (made.stdout if self.losses < 0 else self.keep(made.stdout) or None, None)


@pytest.mark.parametrize(("command", "answer"), [(["echo", "a b"], (0, "a b\n")), (["sh", "-c", "exit 3"], (3, ""))])
def test_output_that_the_engine_lost_is_read_again(command: list[str], answer: tuple[int, str]) -> None:
    assert inside.read_in(Forgetful(2), *command) == answer


@pytest.mark.parametrize("lost", ["all", "the middle", "the beginning"])
def test_output_that_lacks_a_part_is_read_again(lost: str) -> None:
    keep: dict[str, Callable[[bytes], bytes]] = {
        "all": lambda written: b"",
        "the middle": lambda written: written[:4] + written[9:],
        "the beginning": lambda written: written[4:],
    }
    words = "one two three 11\n\n"
    assert inside.read_in(Forgetful(2, keep[lost]), "printf", words) == (0, words)
    assert inside.read_in(Forgetful(0), "printf", "\\303\\251\\n\\377") == (0, "é\n\N{REPLACEMENT CHARACTER}")


def test_output_that_is_always_lost_is_an_error_and_no_answer() -> None:
    with pytest.raises(StageError, match="lost the output of 'ss'"):
        inside.read_in(Forgetful(99), "ss")


def test_a_command_ends_with_the_processes_beside_which_it_runs(session: Session) -> None:
    def start(**options: str) -> Container:
        return session.client.containers.run(
            PROBE_IMAGE, ["sleep", "infinity"], labels=session.labels, detach=True, network_mode="none", **options
        )

    worker = start()
    observer = start(pid_mode=f"container:{worker.id}")
    # With a container's first process all others in its namespace end.
    threading.Timer(1, worker.kill).start()
    code, _, _ = inside.run_in(observer, "sleep", "300")
    assert code != 0
    # The engine may learn of the observer's own end after that of its command.
    observer.wait(timeout=30)
    with pytest.raises(APIError):
        inside.run_in(observer, "true")


def test_devices_of_a_namespace() -> None:
    listed = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1024      12    0    0    0     0          0         0     1024      12    0    0    0     0       0          0
  eth1: 3280125    2741    0    0    0     0          0         0   181093    2203    0    0    0     0       0          0
  eth0:3280125    2741    0    0    0     0          0         0   181093    2203    0    0    0     0       0          0
"""
    assert parse_devices(listed) == ["eth0", "eth1"]
