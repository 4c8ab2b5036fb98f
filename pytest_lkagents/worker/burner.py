"""CPU load inside a worker's container, made by the worker's own interpreter: nothing is needed in the image."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_lkagents.checks import NotJudgeable, StageError

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


def burning_command(program: str, share: float) -> list[str] | None:
    """The command with which an interpreter burns ``share`` (0 to 1) of a core, or None for an unknown program."""
    base = posixpath.basename(program)
    if base.startswith(("python", "pypy")):
        return [program, "-c", PYTHON, f"{share:g}"]
    if base.startswith(("node", "bun")):
        return [program, "-e", NODE, f"{share:g}"]
    return None


class Burner:
    """A context in which a container burns CPU: ``cores`` cores, each busy for ``share`` of the time.

    ``program`` is the worker's interpreter; ``act`` runs a command in a container that shares its process table.
    Raises NotJudgeable if nothing in the image can burn, StageError if the engine does not let it.
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

    def __enter__(self) -> Burner:
        from docker.errors import APIError

        api = self._container.client.api  # type: ignore[union-attr]
        try:
            for _ in range(self._count):
                made = api.exec_create(self._container.id, self._command, stdout=False, stderr=False)["Id"]
                api.exec_start(made, detach=True)
                if not api.exec_inspect(made)["Running"]:
                    raise NotJudgeable("nothing in the image can be run to burn CPU (no interpreter, no shell)")
        except APIError as error:
            if "executable file not found" in str(error) or "no such file" in str(error):
                raise NotJudgeable("nothing in the image can be run to burn CPU (no interpreter, no shell)") from error
            raise StageError(f"the engine does not run a burner: {' '.join(str(error).split())[:120]}") from error
        return self

    def __exit__(self, *_: object) -> None:
        # Ended from beside: the engine has no call that ends an exec, and its host may be another machine.
        self._act("pkill", "-9", "-f", MARK)
