"""A livekit-server in a container, for machines without the binary."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.engine import answering, find_image
from pytest_lkagents.probe.sidecar import Sidecar
from pytest_lkagents.server.base import Server, configuration
from pytest_lkagents.session import Session

if TYPE_CHECKING:
    from docker.models.containers import Container

PORT = 7880
UDP_PORT = 7882
START_SECONDS = 30


class ContainerServer(Server):
    """It lives in the network namespace of a side container, which keeps its address over restarts."""

    def __init__(self, session: Session, image: str, probe_image: str) -> None:
        super().__init__()
        self._session = session
        self._image = image
        find_image(session.client, image)
        self._sidecar = Sidecar(session, probe_image, f"server-{self.api_key[-6:].lower()}")
        self._container: Container | None = None
        self.version = image.rpartition(":")[2].removeprefix("v")

    @property
    def url(self) -> str:
        return f"ws://{self._sidecar.address}:{PORT}"

    @property
    def worker_url(self) -> str:
        return self.url

    def start(self) -> None:
        from docker.errors import APIError

        config = configuration(
            self,
            port=PORT,
            udp_port=UDP_PORT,
            node_ip=self._sidecar.address,
            bind=["0.0.0.0"],  # noqa: S104 - of its own container
            interface=None,
        )
        try:
            container = self._session.client.containers.run(
                self._image,
                name=str(self._sidecar.container.name).removesuffix("-net"),
                labels=self._session.labels,
                network_mode=f"container:{self._sidecar.container.id}",
                environment={"LIVEKIT_CONFIG": config},
                detach=True,
            )
        except APIError as error:
            raise StageError(f"the server's container does not start: {error.explanation or error}") from error
        self._container = container
        threading.Thread(target=self._read, args=(container,), daemon=True).start()
        try:
            poll(self.is_up, what="answer of the server's container", seconds=START_SECONDS)
        except DeadlineMissed as missed:
            last = self.log.tail[-1][:200] if self.log.tail else "it wrote nothing"
            raise StageError(f"livekit-server ({self._image}): {missed}; its last line: {last}") from missed

    def _read(self, container: Container) -> None:
        with contextlib.suppress(Exception):  # the stream ends with the container, in several ways
            for data in container.logs(stream=True, follow=True):
                self.log.feed(data)

    @answering()
    def stop(self) -> None:
        """Raises StageError if the engine does not answer."""
        from docker.errors import APIError

        container, self._container = self._container, None
        if container is not None and not self._session.hangs:
            with contextlib.suppress(APIError):
                container.stop(timeout=1)
            # Its name is wanted for the next one, also where it could not be stopped.
            with contextlib.suppress(APIError):
                container.remove(force=True, v=True)
