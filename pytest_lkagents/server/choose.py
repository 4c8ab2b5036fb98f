"""From the setting ``lk_server`` to a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_lkagents import engine
from pytest_lkagents.checks import StageError
from pytest_lkagents.server.base import Server
from pytest_lkagents.server.binary import SERVER_INSTALL, BinaryServer, find_binary
from pytest_lkagents.server.container import ContainerServer
from pytest_lkagents.server.external import ExternalServer
from pytest_lkagents.session import LOOPBACK, Session
from pytest_lkagents.settings import Settings
from pytest_lkagents.values import OWN_SERVERS

if TYPE_CHECKING:
    from docker import DockerClient


def require(settings: Settings) -> None:
    """Raises StageError with the remedy if the server that was asked for is not on this machine, or does not answer where it
    was said to be."""
    if settings.server not in OWN_SERVERS:
        ExternalServer(settings.server, LOOPBACK, settings.env, settings.origin("lk_server")).start()
        return
    if settings.server == "binary" and find_binary() is None:
        raise StageError(
            f"{settings.origin('lk_server')} binary: no livekit-server on PATH; install it ({SERVER_INSTALL}) or use "
            "--lk-server container"
        )


def needs_engine(settings: Settings) -> bool:
    """Whether a run needs a container engine: for the worker's image, or for the server's."""
    return settings.image is not None or settings.server == "container" or (settings.server == "auto" and not find_binary())


def connect(settings: Settings) -> DockerClient | None:
    """A client for the engine, or None if this run needs none. Raises StageError with the remedy."""
    if not needs_engine(settings):
        return None
    try:
        return engine.connect()
    except StageError as error:
        if settings.image is not None:
            raise
        raise StageError(
            f"no livekit-server on PATH ({SERVER_INSTALL} says how to get it), and {error}"
            if settings.server == "auto"
            else f"{settings.origin('lk_server')} container: {error}"
        ) from error


def make_server(settings: Settings, session: Session) -> Server:
    """A server that is not started yet. Raises StageError with the remedy."""
    if settings.server not in OWN_SERVERS:
        return ExternalServer(settings.server, session.gateway, settings.env, settings.origin("lk_server"))
    require(settings)
    binary = find_binary()
    if settings.server != "container" and binary is not None:
        return BinaryServer(session, binary)
    return ContainerServer(session, settings.server_image, settings.probe_image)
