"""A container of ours that sees the processes of a worker's container: it shares their namespace, and ends with them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_lkagents.checks import StageError
from pytest_lkagents.inside import read_in, run_in
from pytest_lkagents.session import Session

if TYPE_CHECKING:
    from docker.models.containers import Container


class Observer:
    """Made of ``image``, under this ``name``, when it is first needed.

    ``worker`` and ``sidecar`` are the containers whose processes and network it shares; ``ends`` waits a moment and tells
    whether the worker has ended, which takes along what runs beside it before the engine says so.
    """

    def __init__(
        self, session: Session, image: str, name: str, worker: Container, sidecar: Container, ends: Callable[[], bool]
    ) -> None:
        self._session = session
        self._image = image
        self._name = name
        self._worker = worker
        self._sidecar = sidecar
        self._ends = ends
        self._container: Container | None = None
        self._lock = threading.Lock()

    def look(self, *command: str) -> tuple[int, str]:
        """Exit code and output of a command, which may be run twice. Raises ValueError with the engine's words if it cannot
        run, StageError if its output is lost."""
        from docker.errors import APIError

        try:
            try:
                return read_in(self._running(), *command)
            except APIError:
                # A signal for all processes of the container ends what runs beside the worker, too.
                if self._ends():
                    raise
                self.forget()
                return read_in(self._running(), *command)
        except APIError as error:
            raise ValueError(str(error)) from error
        except StageError as error:
            # What runs in the worker's process namespace ends with it, in the middle of a word.
            if self._ends():
                raise ValueError(str(error)) from error
            raise

    def act(self, *command: str) -> None:
        """Run a command once and as it is: a second signal may mean something else, and a shell around it could be what it
        looks for."""
        from docker.errors import APIError

        with contextlib.suppress(APIError):
            run_in(self._running(), *command)

    def forget(self) -> None:
        """Let go of a container that has ended, or may have: the next command makes another one."""
        from docker.errors import APIError, NotFound

        with self._lock, contextlib.suppress(APIError):
            self._container = None
            with contextlib.suppress(NotFound):
                self._session.client.containers.get(self._name).remove(force=True)

    def remove(self) -> None:
        from docker.errors import APIError

        if self._container is not None:
            with contextlib.suppress(APIError):
                self._container.remove(force=True, v=True)

    def _running(self) -> Container:
        """Raises APIError if the worker is gone."""
        with self._lock:
            if self._container is None:
                self._container = self._session.client.containers.run(
                    self._image,
                    ["sleep", "infinity"],
                    name=self._name,
                    labels=self._session.labels,
                    pid_mode=f"container:{self._worker.id}",
                    network_mode=f"container:{self._sidecar.id}",
                    cap_add=["KILL", "SYS_PTRACE"],
                    detach=True,
                )
            return self._container
