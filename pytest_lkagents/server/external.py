"""A LiveKit server that somebody else runs, named by URL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.server.base import Server


class ExternalServer(Server):
    """Not ours: it cannot be stopped.

    ``origin``: how its URL was given. Key and secret come from LIVEKIT_API_KEY and LIVEKIT_API_SECRET (the worker's
    variables, else this process's).
    """

    controllable = False

    def __init__(self, url: str, gateway: str, variables: Mapping[str, str], origin: str = "--lk-server") -> None:
        super().__init__()
        self._url = url.replace("http", "ws", 1) if url.startswith("http") else url
        self._gateway = gateway
        self._origin = origin
        found = {name: variables.get(name) or os.environ.get(name) for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")}
        missing = [name for name, value in found.items() if not value]
        if missing:
            raise StageError(f"{origin} {url} needs {' and '.join(missing)}: set them, or name them in --lk-env-file")
        self.api_key, self.api_secret = str(found["LIVEKIT_API_KEY"]), str(found["LIVEKIT_API_SECRET"])

    @property
    def url(self) -> str:
        return self._url

    @property
    def worker_url(self) -> str:
        """In a container "localhost" is the container; the host is the network's gateway."""
        host = urlsplit(self._url).hostname or ""
        if host in ("localhost", "127.0.0.1", "::1"):
            return self._url.replace(f"[{host}]" if ":" in host else host, self._gateway, 1)
        return self._url

    def start(self) -> None:
        try:
            poll(self.is_up, what=f"answer of the LiveKit server at {self._url}", seconds=5)
        except DeadlineMissed as missed:
            raise StageError(f"{missed}: start it, or leave {self._origin} away") from missed

    def stop(self) -> None:
        """Not ours to stop."""
