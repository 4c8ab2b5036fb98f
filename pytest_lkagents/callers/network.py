"""Whether the network is gone that has a call: of several addresses of this machine WebRTC takes one and stays with it."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

import psutil

# Media that come at all come within this time, unless the machine is very busy.
MEDIA_SECONDS = 2.0


class OwnNetwork:
    """To be made before the call."""

    def __init__(self) -> None:
        # Any of these may get the call, until it is known which one has.
        self._addresses = {
            one.address for found in psutil.net_if_addrs().values() for one in found if one.family == socket.AF_INET
        }
        self._patience = MEDIA_SECONDS
        self._gone: float | None = None

    def has_gone(self, stats: list[Any]) -> bool:
        """To be asked now and then with the newest statistics of the agent's track (RtcStats; empty: none). True once, where
        the library, and with it the server, would notice some fifteen seconds later."""
        own = {found.local_candidate.candidate.address for found in stats if found.HasField("local_candidate")} - {""}
        if own:
            self._addresses, self._patience = own, 0.0
        if all(is_here(address) for address in self._addresses):
            self._gone = None
            return False
        now = time.monotonic()
        self._gone = self._gone or now
        if now - self._gone < self._patience:
            return False
        self._addresses = set()
        return True


def is_here(address: str) -> bool:
    """Whether this machine (still) has the address; true if it cannot be told."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True
