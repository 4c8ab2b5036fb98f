"""Callers against a real LiveKit server, without a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from livekit.rtc._proto.stats_pb2 import RtcStats

from pytest_lkagents.callers import child
from pytest_lkagents.callers import media as media_module
from pytest_lkagents.callers import network as network_module
from pytest_lkagents.callers.caller import Caller
from pytest_lkagents.callers.crowd import Crowd
from pytest_lkagents.callers.media import Media
from pytest_lkagents.callers.network import OwnNetwork
from pytest_lkagents.callers.place import HERE, namespace_of
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import Ledger, poll
from pytest_lkagents.server.external import ExternalServer
from tests.wire_server import RealServer

NOTICE_SECONDS = 15
# A run that is killed at a bad moment: it has a call, and says who its callers' process is.
KILLED = """
import sys, time
from pytest_lkagents.callers.caller import Caller
from pytest_lkagents.callers.media import Media
from pytest_lkagents.clock import Ledger
from pytest_lkagents.server.external import ExternalServer

url, key, secret = sys.argv[1:]
media = Media()
Caller(ExternalServer(url, "", {"LIVEKIT_API_KEY": key, "LIVEKIT_API_SECRET": secret}), media, Ledger()).join()
print(media.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with RealServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def media() -> Iterator[Media]:
    made = Media()
    yield made
    made.close()


def caller(server: RealServer, media: Media, **changed: Any) -> Caller:
    keys = {"LIVEKIT_API_KEY": server.key, "LIVEKIT_API_SECRET": server.secret, **changed}
    return Caller(ExternalServer(server.url, "", keys), media, Ledger())


def comes(what: Callable[[], bool]) -> None:
    poll(what, what="what the test waits for", seconds=NOTICE_SECONDS)


def test_what_the_server_refuses_is_said_and_the_next_call_works(server: RealServer, media: Media) -> None:
    with pytest.raises(StageError, match="a caller cannot join the LiveKit server: "):
        caller(server, media, LIVEKIT_API_SECRET="x" * 40).join()
    call = caller(server, media).join()
    call.leave()
    call.leave()
    assert call.hung_up


# An address that no machine has (RFC 5737).
NOWHERE = "203.0.113.7"


def stats_of(address: str) -> list[RtcStats]:
    stats = RtcStats()
    stats.local_candidate.candidate.address = address
    return [stats]


def test_a_call_whose_network_is_gone_is_noticed() -> None:
    network = OwnNetwork()
    assert not network.has_gone([])
    assert not network.has_gone(stats_of("127.0.0.1"))
    assert network.has_gone(stats_of(NOWHERE))
    assert not network.has_gone([])  # once is enough


def test_a_network_that_vanishes_while_a_call_begins_may_not_be_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "MEDIA_SECONDS", 0.3)
    mine, others = OwnNetwork(), OwnNetwork()
    here = network_module.is_here
    monkeypatch.setattr(network_module, "is_here", lambda address: address != "127.0.0.1" and here(address))
    assert not mine.has_gone([])
    assert not others.has_gone([])
    assert not others.has_gone(stats_of("127.0.0.2"))
    comes(lambda: mine.has_gone([]))


def test_a_network_that_has_not_the_address_is_not_entered() -> None:
    assert namespace_of(os.getpid(), NOWHERE) == HERE
    assert namespace_of(2**30, "127.0.0.1") == HERE


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGABRT])
def test_a_media_library_that_ends_takes_its_calls_along_and_nothing_else(
    server: RealServer, media: Media, ending: signal.Signals
) -> None:
    calls = caller(server, media)
    lost = calls.join()
    assert media.pid is not None
    assert lost.disconnected is None
    os.kill(media.pid, ending)
    comes(lambda: lost.disconnected is not None)
    lost.leave()
    assert not lost.hung_up
    assert calls.join().disconnected is None
    calls.close()


def test_a_media_library_that_hangs_is_given_up(server: RealServer, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = caller(server, media)
    lost = calls.join()
    assert media.pid is not None
    monkeypatch.setattr(media_module, "ANSWER_SECONDS", 0.5)
    os.kill(media.pid, signal.SIGSTOP)
    with pytest.raises(StageError, match=r"the callers' media library did not answer within 0\.5 s"):
        lost.leave()
    monkeypatch.undo()
    assert calls.join().disconnected is None


def test_one_that_is_closed_says_so(server: RealServer, media: Media) -> None:
    calls = caller(server, media)
    call = calls.join()
    media.close()
    call.leave()
    with pytest.raises(StageError, match="closed"):
        calls.join()


def open_files() -> set[str]:
    return {found for fd in os.listdir("/proc/self/fd") if (found := where(fd)).startswith(("pipe:", "socket:"))}


def where(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:  # of the listing itself
        return ""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of open files here")
@pytest.mark.parametrize("lost", [False, True])
def test_what_was_open_is_closed_with_it_and_not_when_it_is_forgotten(lost: bool) -> None:
    before = open_files()
    keys = {"LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "secret"}
    media, crowd = Media(), Crowd(ExternalServer("ws://127.0.0.1:1", "", keys))
    media.start()
    if lost:
        assert media.pid is not None
        os.kill(media.pid, signal.SIGKILL)
        comes(lambda: media._process is not None and media._process.poll() is not None)
        media.start()
    crowd.close()
    media.close()
    comes(lambda: open_files() == before)


def test_nothing_is_left_when_the_run_is_killed(server: RealServer) -> None:
    arguments = [sys.executable, "-c", KILLED, server.url, server.key, server.secret]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        callers = psutil.Process(int(run.stdout.readline()))
        run.kill()
    comes(lambda: not callers.is_running() or callers.status() == psutil.STATUS_ZOMBIE)


def test_a_process_that_ended_says_why(server: RealServer, media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    start = child.start
    monkeypatch.setattr(child, "start", lambda _module, place, **how: start("no_such_module", place, **how))
    with pytest.raises(StageError, match=r"cannot call: its process ended with code 1: .*No module named .*no_such_module"):
        caller(server, media).join()
