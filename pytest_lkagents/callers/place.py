"""Where the callers' processes are: in a network of their own, or on this machine as it is.

WebRTC offers every address of its machine, takes the first one that works and stays with it. On a machine where others
make networks and remove them (Compose projects, other CI jobs, another session of ours), that may be one which is gone a
moment later: the call is dead for half a minute, and it is nobody's fault. Only root may enter another network namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pytest_lkagents.server.base import Server

ENTER_SECONDS = 10
# Fails where this address is none of the machine's, or of the namespace's.
HAS_ADDRESS = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind((sys.argv[1], 0))"


@dataclass(frozen=True)
class Place:
    """``namespace``: the network namespace's file, entered by a command before the program; None: this machine."""

    namespace: Path | None = None

    @property
    def command(self) -> list[str]:
        return [] if self.namespace is None else ["nsenter", f"--net={self.namespace}", "--"]

    def url(self, server: Server) -> str:
        """The server's URL, as it can be reached from here."""
        return server.url if self.namespace is None else server.worker_url


HERE = Place()


def may_enter() -> bool:
    """Whether this user may enter network namespaces, as far as can be told before there is one."""
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("nsenter") is not None


def namespace_of(pid: int, address: str) -> Place:
    """The place of this process, if its namespace can be entered and has the address; else this machine: the engine that
    told the number may have process numbers of its own."""
    place = Place(Path(f"/proc/{pid}/ns/net"))
    try:
        subprocess.run(
            [*place.command, sys.executable, "-S", "-c", HAS_ADDRESS, address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ENTER_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return HERE
    return place
