"""Tokens in what workers write: which count, and that none is ever shown."""

from __future__ import annotations

import base64
import datetime
import json
from types import SimpleNamespace
from typing import Any

import pytest
from livekit import api

from pytest_lkagents.callers import request as request_module
from pytest_lkagents.callers.request import CallRequest
from pytest_lkagents.calls import Calls
from pytest_lkagents.checks import StageError
from pytest_lkagents.secrets import Redactor, new_api_secret, tokens_in
from pytest_lkagents.server.base import Server
from pytest_lkagents.wire.model import Registration


class Elsewhere(Server):
    url = worker_url = "ws://127.0.0.1:1"

    def start(self) -> None: ...

    def stop(self) -> None: ...


HERE = Elsewhere()


def token(secret: str = HERE.api_secret, *, agent: bool = False, minutes: int = 5) -> str:
    grants = api.VideoGrants(agent=True) if agent else api.VideoGrants(room_join=True, room="call", agent=True)
    made = api.AccessToken(HERE.api_key, secret).with_identity("helper").with_grants(grants)
    return made.with_ttl(datetime.timedelta(minutes=minutes)).to_jwt()


def test_tokens_are_found_in_addresses_and_documents() -> None:
    one, other = token(), token(agent=True)
    assert tokens_in(f'joining ws://host/rtc?access_token={one}&sdk=x\n{{"token": "{other}"}}') == {one, other}


def test_what_is_cut_off_or_no_token_is_none() -> None:
    assert not tokens_in(token().rpartition(".")[0])
    assert not tokens_in("eyJhbGciOiJIUzI1NiJ9, agent.py, livekit.agents.worker, 1.8.9.post1")


def test_only_what_opens_the_server_counts() -> None:
    assert HERE.opened_by(token()) == "for a call"
    assert HERE.opened_by(token(agent=True)) == "of a worker"
    assert HERE.opened_by(token(new_api_secret())) is None
    assert HERE.opened_by(token(minutes=-10)) is None


def test_no_token_is_shown() -> None:
    assert Redactor().data({"log": [f"joining with {token()}."]}) == {"log": ["joining with [token]."]}


def claims(token: str) -> dict[str, Any]:
    """What a token says; nothing is verified."""
    said = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4))))


def test_a_caller_is_dispatched_to_the_deployment() -> None:
    made = claims(request_module.token(HERE, "room", CallRequest("me", deployment="blue")))
    assert made["roomConfig"]["agents"] == [{"agentName": "me", "deployment": "blue"}]
    made = claims(request_module.token(HERE, "room", CallRequest(deployment="blue")))
    assert made["roomConfig"]["agents"] == [{"deployment": "blue"}]
    assert "roomConfig" not in claims(request_module.token(HERE, "room", CallRequest()))


@pytest.mark.parametrize(("version", "known"), [("1.13.5", True), ("1.12.0", True), ("1.9.3", False), ("", True)])
def test_an_older_server_is_named_no_deployment(version: str, known: bool) -> None:
    found = Registration("AW_1", "me", "1.8.9", "", 0.0, None, 1, version, deployment="blue")
    assert found.dispatched_to == ("me", "blue" if known else "")


def test_an_older_protocol_cannot_dispatch_to_a_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    # One that has all of it but the field.
    monkeypatch.setattr(api, "RoomAgentDispatch", lambda **known: api.CreateRoomRequest(name=known["agent_name"]))
    with pytest.raises(StageError, match="pip install --upgrade livekit-protocol"):
        request_module.token(HERE, "room", CallRequest("me", deployment="blue"))


@pytest.mark.parametrize(
    ("registered", "wanted", "asked"),
    [
        ([("", "blue")], None, ("", "blue")),
        ([("me", "blue"), ("me", "")], None, ("me", "")),
        ([("me", "blue"), ("a", "red")], "me", ("me", "blue")),
        ([("a", "red")], "me", ("me", "")),
        ([], None, ("", "")),
    ],
)
def test_calls_ask_for_what_the_worker_registered_as(
    registered: list[tuple[str, str]], wanted: str | None, asked: tuple[str, str]
) -> None:
    live = [Registration("", name, "", "", 1.0, None, 1, "", deployment=deployment) for name, deployment in registered]
    worker = SimpleNamespace(server=HERE, wire=SimpleNamespace(transcript=SimpleNamespace(live=lambda: live)))
    settings = SimpleNamespace(agent_name=wanted, metadata="", attributes={})
    stage = SimpleNamespace(settings=settings, media=None, ledger=None, raise_if_closing=None)
    made = Calls(stage).caller(worker).request
    assert (made.agent_name, made.deployment) == asked
