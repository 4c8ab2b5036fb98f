"""A livekit-server process on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

from pytest_lkagents.cache import cache_dir
from pytest_lkagents.checks import StageError
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.machine import environment, fixed_port
from pytest_lkagents.server.base import Server, configuration
from pytest_lkagents.session import Session

# How to get one.
SERVER_INSTALL = "https://docs.livekit.io/home/self-hosting/local/"
# A server starts in well under a second; the bound is for a machine that is busy building images.
START_SECONDS = 20


def find_binary() -> Path | None:
    """``livekit-server`` on PATH, else the newest one in the cache."""
    on_path = shutil.which("livekit-server")
    if on_path:
        return Path(on_path)
    cached = sorted((cache_dir() / "livekit-server").glob("v*/livekit-server"), key=_version_key)
    return cached[-1] if cached else None


def _version_key(path: Path) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in path.parent.name[1:].split(".")]


def version_of(binary: Path) -> str | None:
    try:
        output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    words = output.split()
    return words[2] if len(words) > 2 else None


class BinaryServer(Server):
    def __init__(self, session: Session, binary: Path) -> None:
        super().__init__()
        self._session = session
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._pick_ports()
        self.version = version_of(binary)

    def _pick_ports(self) -> None:
        try:
            self._port = fixed_port(self._session.gateway)
            self._udp_port = fixed_port(self._session.gateway, socket.SOCK_DGRAM)
        except OSError as error:
            raise StageError(f"no port for livekit-server on {self._session.gateway}: {error.strerror or error}") from error

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    @property
    def worker_url(self) -> str:
        return f"ws://{self._session.gateway}:{self._port}"

    def start(self) -> None:
        # Another program may take a port between choosing and binding it; before the first start, choose again.
        first = not self.log.tail
        for attempt in range(3 if first else 1):
            if attempt:
                self._pick_ports()
            try:
                self._launch()
                return
            except DeadlineMissed as missed:
                self.stop()
                problem = str(missed)
        last = self.log.tail[-1] if self.log.tail else "it wrote nothing"
        raise StageError(f"livekit-server ({self._binary}) does not start: {problem}; its last line: {last[:200]}")

    def _launch(self) -> None:
        config = configuration(
            self,
            port=self._port,
            udp_port=self._udp_port,
            node_ip=self._session.gateway,
            bind=sorted({"127.0.0.1", self._session.gateway}),
            interface=self._session.bridge,
        )
        # By file, not by variable or argument: both are readable in the process table.
        path = self._session.folder / f"server-{self._port}.yaml"
        path.write_text(config)
        path.chmod(0o600)
        variables = {name: value for name, value in environment().items() if not name.startswith("LIVEKIT_")}
        try:
            process = subprocess.Popen(
                [self._binary, "--config", path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,  # Ctrl-C reaches pytest only; we stop the server when its callers have left
            )
        except OSError as error:
            raise StageError(f"livekit-server ({self._binary}) cannot be run: {error.strerror}") from error
        self._session.record_process(process.pid)
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()
        poll(
            lambda: process.poll() is not None or self.is_up(),
            what="answer of the server",
            seconds=START_SECONDS,
            every=0.05,
        )
        if process.poll() is not None:
            raise DeadlineMissed(f"it ended with code {process.returncode}", START_SECONDS)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), 65536):
            self.log.feed(data)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            # With participants in rooms it would wait for them without bound.
            process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join(2)
        if process.stdout is not None:
            process.stdout.close()
        (self._session.folder / f"{process.pid}.pid").unlink(missing_ok=True)
