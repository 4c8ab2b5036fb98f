"""Counts who comes to the address of a server that is down."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

from pytest_lkagents.checks import StageError

BACKLOG = 128


class Doorkeeper:
    """Accepts every connection to ``host:port`` and resets it at once, as a balancer whose server is down does.

    A connection that the kernel refuses cannot be counted without privileges; this one can. Raises StageError if the
    address is taken.
    """

    def __init__(self, host: str, port: int) -> None:
        self.attempts = 0
        self._closed = False
        self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind((host, port))
            self._listener.listen(BACKLOG)
        except OSError as error:
            self._listener.close()
            raise StageError(f"attempts at {host}:{port} cannot be counted: {error.strerror}") from error
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._closed:
            try:
                visitor, _ = self._listener.accept()
            except OSError:
                return
            self.attempts += not self._closed
            # Linger for 0 s: the close is a reset.
            with contextlib.suppress(OSError), visitor:
                visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """Free the address; the count stays. Closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        # On Linux only a shutdown wakes up accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(2)
