"""Commands in our own containers, which the engine may answer late, in part or never."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from pytest_lkagents.checks import StageError

if TYPE_CHECKING:
    from docker.models.containers import Container

READ_END = "--lkagents-end--"
# What the command wrote and an x, so that the shell keeps its last line breaks; then how many bytes that is, and the end.
READ_SCRIPT = f"""
out=$("$@"; code=$?; printf x; exit $code)
code=$?
LC_ALL=C
printf '%s %s%s' "$out" "${{#out}}" {READ_END}
exit $code
"""
READ_TRIES = 5
# What runs here takes a moment, or some seconds on a busy machine.
ANSWER_SECONDS = 60.0
# What an engine says of a command that the image does not let it run (runc, crun); anything else is its own failure.
COMMAND_FAULT = re.compile(
    r"no command specified|executable file .*not found|open executable"
    r"|\bexec:? .*(no such file|denied|format error|a directory)"
    r"|unable to find (user|group)|no matching entries in (passwd|group)|chdir to cwd",
    re.IGNORECASE,
)
# How often it is looked whether the container is still there.
LOOK_SECONDS = 0.5


class Unanswered(StageError):
    """A command did not end in time."""


def run_in(container: Container, *command: str, seconds: float = ANSWER_SECONDS) -> tuple[int | None, bytes, bytes]:
    """Exit code, standard output and errors of a command; no code if the container ended before the command did.

    An engine may leave the stream of such a command open for ever (docker 20.10.24, a container in the process namespace
    of another one that is killed), so the wait for it ends with the container. Raises APIError if the command cannot be
    run, and Unanswered after so many ``seconds``.
    """
    answer: Future[tuple[int | None, bytes, bytes]] = Future()

    def ask() -> None:
        try:
            # Two streams: what goes wrong in a command must not be read as its answer.
            code, streams = container.exec_run(list(command), demux=True)
            assert isinstance(streams, tuple)
            answer.set_result((code, streams[0] or b"", streams[1] or b""))
        except BaseException as error:
            answer.set_exception(error)

    # Not from a pool, which this process would wait for at its end.
    threading.Thread(target=ask, name="lk-exec", daemon=True).start()
    deadline = time.monotonic() + seconds
    while not wait([answer], LOOK_SECONDS).done and _runs(container):
        if time.monotonic() > deadline:
            raise Unanswered(f"the engine does not answer {command[0]!r} within {seconds:g} s: give this machine less to do")
    # What was written until the container's end may be under way.
    return answer.result() if wait([answer], LOOK_SECONDS).done else (None, b"", b"")


def _runs(container: Container) -> bool:
    from docker.errors import NotFound

    try:
        return bool(container.client.api.inspect_container(container.id)["State"]["Running"])  # type: ignore[union-attr, arg-type]
    except NotFound:
        return False


def read_in(container: Container, *command: str) -> tuple[int, str]:
    """Exit code and standard output of a command that changes nothing, in one of our own containers, which have a shell.

    An engine under load may lose some of what a short process wrote, or all of it (moby issues 20951 and 27289). So the
    output says how long it is, and the command is run again if that is not so. Raises APIError if it cannot be run, and
    StageError if its output is lost every time or the container ends meanwhile.
    """
    for _ in range(READ_TRIES):
        code, written, _errors = run_in(container, "sh", "-c", READ_SCRIPT, "sh", *command)
        output, _, length = written.removesuffix(READ_END.encode()).rpartition(b" ")
        if written.endswith(READ_END.encode()) and length == str(len(output)).encode():
            return int(code or 0), output.removesuffix(b"x").decode("utf-8", "replace")
        if code is None:
            raise StageError(f"a container ended in the middle of {command[0]!r}")
    raise StageError(f"the engine lost the output of {command[0]!r} {READ_TRIES} times: give this machine less to do")
