"""CPU load inside a worker's container, made by the worker's own interpreter or shell, else by a program that is brought in:
nothing is needed in the image."""

from __future__ import annotations

import io
import math
import posixpath
import struct
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_lkagents.checks import NotJudgeable, StageError
from pytest_lkagents.inside import COMMAND_FAULT

if TYPE_CHECKING:
    from docker.models.containers import Container

# By this word in its command line a burner is found and ended.
MARK = "lkagents-burner"

# Busy for a share of each period. 50 ms is short against the second over which workers average their load.
PYTHON = (
    "import sys,time\n"
    "share=float(sys.argv[1])\n"
    "while True:\n"
    "    end=time.perf_counter()+0.05*share\n"
    "    while time.perf_counter()<end: pass\n"
    "    time.sleep(0.05*(1-share))\n"
    f"# {MARK}\n"
)
NODE = (
    "const share=Number(process.argv[1]),cell=new Int32Array(new SharedArrayBuffer(4));"
    "for(;;){const end=performance.now()+50*share;while(performance.now()<end);"
    "if(share<1)Atomics.wait(cell,0,0,50*(1-share))}"
    f"// {MARK}"
)
SHELL = f"while :; do :; done # {MARK}"
BROUGHT = f"/.{MARK}"
# A jump to itself, and the number of the processor in ELF's header, for each architecture in the engine's terms.
JUMPS = {"amd64": (b"\xeb\xfe", 62), "arm64": (b"\x00\x00\x00\x14", 183)}


def burning_command(program: str, share: float) -> list[str] | None:
    """The command with which an interpreter burns ``share`` (0 to 1) of a core, or None for an unknown program."""
    base = posixpath.basename(program)
    if base.startswith(("python", "pypy")):
        return [program, "-c", PYTHON, f"{share:g}"]
    if base.startswith(("node", "bun")):
        return [program, "-e", NODE, f"{share:g}"]
    return None


def endless(architecture: str) -> bytes | None:
    """A Linux program that does nothing, for ever, of 122 bytes or so (format: the System V ABI's ELF-64); None for an unknown
    architecture."""
    if architecture not in JUMPS:
        return None
    code, machine = JUMPS[architecture]
    # Both headers and the code are loaded as they stand in the file, to a usual address and at a boundary of any page size.
    base, headers = 0x400000, 64 + 56
    size = headers + len(code)
    header = struct.pack("<4s4B8x", b"\x7fELF", 2, 1, 1, 0)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000) + code


class Burning(ABC):
    """A context in which CPU is burnt: what burns already is ended, too, where not all can begin."""

    def __enter__(self) -> None:
        try:
            self._begin()
        except BaseException:
            self._end()
            raise

    def __exit__(self, *_: object) -> None:
        self._end()

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _end(self) -> None:
        """Also where it has not begun, or in part."""


class Burner(Burning):
    """A context in which a container burns CPU: ``cores`` cores, each busy for ``share`` of the time.

    ``program`` is the worker's interpreter; ``act`` runs a command in a container that shares its process table.
    Raises NotJudgeable if nothing can burn in it, StageError if the engine does not let it.
    """

    def __init__(
        self, container: Container, program: str, act: Callable[..., None], *, cores: float, share: float = 1.0
    ) -> None:
        self._container = container
        self._act = act
        self._count = math.ceil(cores)
        command = burning_command(program, share)
        if command is None and share < 1.0:
            raise NotJudgeable(f"{posixpath.basename(program)!r} is no interpreter that could burn a share of a core")
        self._command = command or ["/bin/sh", "-c", SHELL]

    def _begin(self) -> None:
        command, started = self._command, 0
        while started < self._count:
            if self._start(command):
                started += 1
            elif command != [BROUGHT] and self._bring():
                command = [BROUGHT]
            else:
                raise NotJudgeable("nothing in the image can be run to burn CPU (no interpreter, no shell), or be brought in")

    def _start(self, command: list[str]) -> bool:
        """Whether the container runs it."""
        from docker.errors import APIError

        api = self._container.client.api  # type: ignore[union-attr]
        try:
            made = api.exec_create(self._container.id, command, stdout=False, stderr=False)["Id"]
            api.exec_start(made, detach=True)
            return bool(api.exec_inspect(made)["Running"])
        except APIError as error:
            if COMMAND_FAULT.search(str(error)):
                return False
            raise StageError(f"the engine does not run a burner: {' '.join(str(error).split())[:120]}") from error

    def _bring(self) -> bool:
        """Whether a program that burns could be put into the container: not if its file system cannot be written to, or its
        image is no longer here to say for which processor it is."""
        from docker.errors import APIError

        try:
            image = self._container.image
        except APIError:
            return False
        program = endless(str(image.attrs.get("Architecture"))) if image is not None else None
        if program is None:
            return False
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(posixpath.basename(BROUGHT))
            entry.size, entry.mode = len(program), 0o755
            archive.addfile(entry, io.BytesIO(program))
        try:
            return bool(self._container.put_archive("/", packed.getvalue()))
        except APIError:
            return False

    def _end(self) -> None:
        # Ended from beside: the engine has no call that ends an exec, and its host may be another machine.
        self._act("pkill", "-9", "-f", MARK)
