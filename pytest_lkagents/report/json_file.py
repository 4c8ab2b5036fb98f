"""The verdict as a JSON file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path

from pytest_lkagents.report.words import NO_TEXT
from pytest_lkagents.verdict import Verdict

# Of a name so much goes into that of a temporary file, which may be no longer than 255 bytes either.
NAME_BYTES = 50
# A file that is mounted by itself, and one in a folder that we may not write to, can be written but not replaced. On a full
# disk there may be room where the earlier verdict lies, which must not be taken for this one in any case.
IRREPLACEABLE = (errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV, errno.ENOSPC, errno.EDQUOT)
STREAMS = ("/dev/stdin", "/dev/stdout", "/dev/stderr")
DESCRIPTORS = ("/dev/fd", "/proc/self/fd")


def _descriptor(path: Path) -> int | None:
    """Which of our open files is meant, as by ``/dev/stdout`` and a shell's ``>(...)``. Behind it may be a pipe, of which there
    is no path, or a file that somebody writes to, which must be neither replaced nor emptied."""
    while str(path) not in STREAMS and str(path.parent) not in DESCRIPTORS and path.exists() and path.is_symlink():
        path = path.parent / path.readlink()
    if str(path) in STREAMS:
        return STREAMS.index(str(path))
    return int(path.name) if str(path.parent) in DESCRIPTORS and path.name.isdecimal() else None


def write(verdict: Verdict, path: Path) -> None:
    """Write atomically where that is possible: a reader sees the whole file or none. What is no file (a device, a pipe) is
    written to, and a link stays one; the folder may be that of the report, which is still to come. Raises OSError."""
    text = json.dumps(verdict.to_json(), indent=2, ensure_ascii=False) + "\n"
    if (opened := _descriptor(path)) is not None:
        try:
            with os.fdopen(os.dup(opened), "w", encoding="utf-8", errors=NO_TEXT) as file:
                file.write(text)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        return
    target = path.resolve()
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8", errors=NO_TEXT)
        return
    try:
        _replace(target, text)
    except OSError as error:
        if error.errno not in IRREPLACEABLE or not target.exists():
            raise
        target.write_text(text, encoding="utf-8", errors=NO_TEXT)


def withdraw(verdict: Verdict, path: Path) -> None:
    """Write ``verdict`` where an earlier one lies, if one does: the run that now begins may be killed. Raises OSError."""
    if _descriptor(path) is None and path.is_file():
        write(verdict, path)


def _replace(target: Path, text: str) -> None:
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}.{target.name[-NAME_BYTES:]}")
    try:
        temporary.write_text(text, encoding="utf-8", errors=NO_TEXT)
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
