"""What a session does to an engine that hangs, or is gone."""

from __future__ import annotations

from collections import UserDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import requests.sessions
from docker.errors import APIError, ImageNotFound
from requests import ConnectionError, ReadTimeout

from pytest_lkagents import doctor, engine, machine
from pytest_lkagents.beginning import _require
from pytest_lkagents.cache import cache_dir, owner, require_cache
from pytest_lkagents.checks import StageError
from pytest_lkagents.secrets import Redactor
from pytest_lkagents.server.container import ContainerServer
from pytest_lkagents.session import LOOPBACK, Session
from pytest_lkagents.settings import Settings
from pytest_lkagents.stage import Stage


class Hanging:
    """An engine that lists two containers of whichever session it is asked for, and never removes one."""

    def __init__(self) -> None:
        self.asked = 0
        self.containers = self.networks = SimpleNamespace(list=self._list)

    def _list(self, **_: Any) -> list[Any]:
        return [SimpleNamespace(attrs={"HostConfig": {"NetworkMode": "a"}}, remove=self._remove)] * 2

    def _remove(self, **_: Any) -> None:
        self.asked += 1
        raise ReadTimeout("read timed out")


def test_a_hanging_engine_is_asked_once_and_everything_else_is_tidied() -> None:
    client: Any = Hanging()
    session = Session(client)
    with pytest.raises(StageError, match=r"does not answer .*restart it"):
        session.remove()
    session.close()
    assert client.asked == 1
    assert not session.folder.exists()
    assert not (cache_dir() / "sessions" / f"{session.id}.lock").exists()


@pytest.mark.parametrize(
    ("hangs_at", "refused", "said"),
    [
        ("info", "", ["MISSING the container engine does not answer (ReadTimeout): restart it", "MISSING server: "]),
        ("a", "", ["ok      engine: docker 28 ", "MISSING the container engine does not answer", "MISSING server: "]),
        (
            "server",
            "info",
            [
                "note    engine: it answers, and does not say what it is (Forbidden)",
                "ok      image a: ",
                "ok      side ",
                "MISSING the container engine does not answer",
            ],
        ),
        (
            "",
            "server",
            [
                "ok      engine: ",
                "ok      image a: ",
                "ok      side ",
                "note    server: no livekit-server on PATH and no image",
            ],
        ),
    ],
)
def test_what_an_engine_does_not_answer_is_what_the_doctor_finds(
    monkeypatch: pytest.MonkeyPatch, hangs_at: str, refused: str, said: list[str]
) -> None:
    asked, closed = [], []

    def answer(what: str = "info") -> Any:
        asked.append(what)
        if what == hangs_at:
            raise ReadTimeout("read timed out")
        if what == refused:
            raise (APIError if what == "info" else ImageNotFound)("4xx Client Error", explanation="Forbidden")
        return {"ServerVersion": "28", "SecurityOptions": []} if what == "info" else SimpleNamespace(attrs={})

    client = SimpleNamespace(info=answer, version=dict, close=lambda: closed.append(1), images=SimpleNamespace(get=answer))
    monkeypatch.setattr(engine, "connect", lambda: client)
    monkeypatch.setattr(engine, "is_here", lambda _: True)
    client.networks = SimpleNamespace(get=lambda _: None)
    complete, lines = doctor.report(Settings(image="a", server="container", server_image="server"))
    lines = [line for line in lines if not line[8:].startswith(("cpu", "memory", "speech"))]
    assert complete is not bool(hangs_at)
    assert [line.startswith(start) for line, start in zip(lines, said, strict=True)] == [True] * len(said), lines
    assert (asked[-1], closed) == (hangs_at or refused, [1])


def test_where_there_is_no_home_folder_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    # As it is for a user without HOME whom the system does not know.
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(StageError, match="set XDG_CACHE_HOME"):
        require_cache()


def test_caches_at_the_same_place_are_of_different_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ThreadPoolExecutor(8) as several:
        (first,) = set(several.map(lambda _: owner(), range(16)))
    (tmp_path / "cache").rename(tmp_path / "of another container")
    assert owner() != first
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of another container"))
    assert owner().rpartition("/")[2] == first.rpartition("/")[2]


def test_an_engine_elsewhere_is_known_by_its_own_network() -> None:
    def client(config: list[dict[str, str]], **about: object) -> Any:
        network = SimpleNamespace(attrs={"IPAM": {"Config": config}})
        return SimpleNamespace(networks=SimpleNamespace(get=lambda _: network), info=lambda: about)

    assert engine.is_elsewhere(client([{"Subnet": "192.0.2.0/24", "Gateway": "192.0.2.1"}]))
    assert not engine.is_elsewhere(client([{"Subnet": "127.0.0.0/8", "Gateway": LOOPBACK}]))
    assert not engine.is_elsewhere(client([]))
    # Beside a rootful one, whose networks may have the same addresses.
    here = [{"Subnet": "127.0.0.0/8", "Gateway": LOOPBACK}]
    assert engine.is_elsewhere(client(here, SecurityOptions=["name=seccomp,profile=builtin", "name=rootless"]))
    assert engine.is_elsewhere(client(here, OperatingSystem="Docker Desktop"))
    assert not engine.is_elsewhere(client(here, SecurityOptions=["name=apparmor"], OperatingSystem="Debian GNU/Linux 12"))


@pytest.mark.parametrize(("name", "said"), [("Engine", "docker 5"), ("Podman Engine", "podman 5"), (None, "docker 5")])
def test_an_engine_is_called_by_its_name(name: str | None, said: str) -> None:
    about = {"Components": [{"Name": name}, {"Name": "Conmon"}]} if name else {}
    client: Any = SimpleNamespace(info=lambda: {"ServerVersion": "5", "CgroupVersion": "2"}, version=lambda: about)
    assert engine.describe(client).startswith(said)


def test_the_address_of_a_network_with_both_protocols_is_that_of_ipv4() -> None:
    """As an engine gives them whose ``default-network-opts`` say IPv6."""
    old, new = {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}, {"Subnet": "fd00:1::/64", "Gateway": "fd00:1::1"}
    for configs in ([old, new], [new, old]):
        network: Any = SimpleNamespace(attrs={"IPAM": {"Config": configs}})
        assert engine.gateway_of(network) == "172.18.0.1"


def test_a_bridge_is_here_under_the_name_that_this_session_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = object.__new__(Session)
    session._client, session.id = object(), "0123456789abcdef"
    session._network = SimpleNamespace(attrs={"IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]}})
    address = SimpleNamespace(address="172.18.0.1")
    for name, here in ((session.bridge, True), ("br-4e533375a986", False)):
        monkeypatch.setattr("psutil.net_if_addrs", lambda name=name: {name: [address]})
        assert session.bridge_is_here is here


class Gone:
    """A container of an engine that has died."""

    def __init__(self) -> None:
        self.asked = 0

    def stop(self, **_: Any) -> None:
        self.asked += 1
        raise ConnectionError("connection refused")


def server_in(container: Gone, *, hangs: bool) -> Any:
    server: Any = ContainerServer.__new__(ContainerServer)
    server._container, server._session = container, SimpleNamespace(hangs=hangs)
    return server


def test_a_server_whose_engine_is_gone_is_known_not_to_be_stopped() -> None:
    server = server_in(container := Gone(), hangs=False)
    with pytest.raises(StageError, match=r"does not answer \(ConnectionError\)"):
        server.stop()
    # Nothing is asked of an engine that did not even remove its containers.
    server_in(container, hangs=True).stop()
    assert container.asked == 1


def test_a_server_that_cannot_be_stopped_is_removed_for_the_next_one() -> None:
    removed = []

    def refuse(**_: Any) -> None:
        raise APIError("cannot stop container: permission denied")

    container: Any = SimpleNamespace(stop=refuse, remove=lambda **how: removed.append(how["force"]))
    server_in(container, hangs=False).stop()
    assert removed == [True]


def test_whatever_cannot_be_closed_the_rest_is(capsys: pytest.CaptureFixture[str]) -> None:
    stage: Any = Stage(Settings(image="agent:1"), Redactor())
    closed = []
    stage._workshop.servers = [server_in(Gone(), hangs=False), SimpleNamespace(stop=lambda: closed.append("server"))]
    stage._workshop.taps = [SimpleNamespace(close=lambda: {}["nothing"]), SimpleNamespace(close=lambda: closed.append("tap"))]
    stage.close()
    assert closed == ["server", "server", "tap"]
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("pytest-lkagents: the container engine does not answer")
    assert told[1] == "pytest-lkagents: at the end: KeyError: 'nothing'"


def test_it_is_said_which_engine_has_not_got_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise ImageNotFound("no such image")

    client: Any = SimpleNamespace(images=SimpleNamespace(get=absent, pull=absent))
    monkeypatch.setenv("DOCKER_HOST", "tcp://me:t0psecret@engine.test:2375")
    with pytest.raises(StageError, match=r"asked was the engine at tcp://engine\.test:2375$"):
        engine.find_image(client, "agent:1")
    monkeypatch.delenv("DOCKER_HOST")
    with pytest.raises(StageError, match=r"its default socket \(set DOCKER_HOST for one that `docker context` chose\)$"):
        engine.find_image(client, "agent:1")


def test_more_cores_than_the_engine_has_are_refused_first(monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = SimpleNamespace(info=lambda: {"NCPU": 2}, close=lambda: None)
    assert [engine.too_few_cores(client, cores) for cores in (None, 0.5, 2)] == [None, None, None]
    monkeypatch.setattr("pytest_lkagents.server.choose.connect", lambda _: client)
    monkeypatch.setattr("pytest_lkagents.server.choose.require", lambda _: None)
    with pytest.raises(StageError, match=r"^--lk-cpus 64: this engine has 2 cores, so give 2 at most$"):
        _require(Settings(image="agent:1", cpus=64), whole=True)


class Shifting(UserDict[str, str]):
    """Variables of which one is gone between its name and its value, once, as that in which pytest names its test."""

    torn = False

    def __getitem__(self, name: str) -> str:
        if not self.torn:
            self.torn = True
            raise KeyError(name)
        return super().__getitem__(name)


def test_variables_that_change_while_they_are_copied_are_copied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = Shifting({"LANG": "C"})
    monkeypatch.setattr(machine.os, "environ", variables)
    assert machine.environment() == {"LANG": "C"}
    assert variables.torn


def test_questions_to_an_engine_do_not_read_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    client = docker.DockerClient(base_url="tcp://engine.example:2375", version="1.41")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "own.pem")
    engine._ask_variables_once(client)

    def torn(*_: Any, **__: Any) -> dict[str, str]:
        raise KeyError("PYTEST_CURRENT_TEST")

    monkeypatch.setattr(requests.sessions, "get_environ_proxies", torn)
    said = client.api.merge_environment_settings(client.api.base_url, {}, None, None, None)
    assert said["proxies"]["http"] == "http://proxy.example:3128"
    assert said["verify"] == "own.pem"
    client.close()
