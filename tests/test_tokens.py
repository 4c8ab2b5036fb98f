"""Tokens in what workers write: which count, and that none is ever shown."""

from __future__ import annotations

import datetime

from livekit import api

from pytest_lkagents.secrets import Redactor, new_api_secret, tokens_in
from pytest_lkagents.server.base import Server


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
