"""The roles in which workers are put on the stage: how each is started, and what stands between it and its server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_lkagents.secrets import new_api_secret


@dataclass(frozen=True)
class Role:
    """How a worker is put on the stage. ``registered``: ready for use only once it has registered; ``beside``: the role
    on whose server it is; ``cpus``: its limit in cores where the user sets none; ``old``: of the image that is replaced
    (--lk-from) where one is given; ``after``: the role whose worker it takes over, instead of one of its own, once the
    checks of that role have passed; ``read_only``: nothing but /tmp can be written to."""

    registered: bool = True
    server_up: bool = True
    firewall: str | None = None
    without: tuple[str, ...] = ()
    replace: Callable[[], dict[str, str]] | None = None
    beside: str | None = None
    cpus: float | None = None
    old: bool = False
    after: str | None = None
    read_only: bool = False


def _renamed() -> dict[str, str]:
    return {"LIVEKIT_AGENT_NAME": "lk-renamed"}


def _wrong_secret() -> dict[str, str]:
    return {"LIVEKIT_API_SECRET": new_api_secret()}


# In the order in which they are started: what takes longest begins first.
ROLES = {
    "shared": Role(),
    "draining": Role(),
    "crashing": Role(),
    "firewalled": Role(firewall="drop-inbound"),
    "cut-once": Role(),
    "early": Role(registered=False, server_up=False),
    "half-open": Role(),
    "partitioned": Role(),
    # What these are to show does not depend on the calls, or the lack of inbound connections, that came before. The observation
    # that takes the longest takes over the worker that is free first.
    "interrupted": Role(after="firewalled"),
    "reconnecting": Role(after="early"),
    "stopped": Role(after="crashing"),
    # Two workers of one server. One core each, so that a burner fills a worker and leaves the machine another core.
    "loaded": Role(cpus=1),
    "peer": Role(cpus=1, beside="loaded"),
    "uncalled": Role(),
    "without-url": Role(registered=False, without=("LIVEKIT_URL",)),
    "without-key": Role(registered=False, without=("LIVEKIT_API_KEY",)),
    "without-secret": Role(registered=False, without=("LIVEKIT_API_SECRET",)),
    "renamed": Role(registered=False, replace=_renamed),
    "wrong-secret": Role(registered=False, replace=_wrong_secret),
    "lost": Role(),
    "sealed": Role(registered=False, firewall="only-server"),
    # For the suite jobs: their job processes are stopped, limited, killed, counted.
    "frozen": Role(),
    "limited": Role(),
    "culled": Role(),
    "tidy": Role(),
    "read-only": Role(read_only=True),
    "restarted": Role(),
    # One core, as above: the users and the server need another one.
    "crowded": Role(cpus=1),
    "nameless": Role(),
    "insisted": Role(),
    "unassigned": Role(),
    "unconnected": Role(),
    "deserted": Role(),
    "dead": Role(after="nameless"),
    "cut-often": Role(after="reconnecting"),
    "engine-stopped": Role(),
    "starting": Role(registered=False),
    "old": Role(old=True),
    "new": Role(beside="old"),
    "victim": Role(),
    "heir": Role(beside="victim"),
    "patient": Role(),
    # For users' tests, which may do anything to it.
    "own": Role(),
}


def name_of(role: str, number: int) -> str:
    """What the role's first, second, ... worker is called."""
    return role if number == 1 else f"{role}-{number}"
