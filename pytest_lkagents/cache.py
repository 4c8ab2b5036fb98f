"""Where things that outlive a run are kept, and whose they are."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

from filelock import FileLock

from pytest_lkagents.checks import StageError


def cache_dir() -> Path:
    """Where things that outlive a run are kept (server binaries, session locks)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "pytest-lkagents"


def require_cache() -> None:
    """Raises StageError with the remedy if nothing can be kept there."""
    folder = cache_dir() / "sessions"
    if str(folder).startswith("~"):
        raise StageError("this user has no home folder to keep anything in: set XDG_CACHE_HOME to a folder of yours")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageError(
            f"cannot write into {cache_dir()} ({error.strerror}): set XDG_CACHE_HOME to a folder of yours"
        ) from None
    if not os.access(folder, os.W_OK):
        raise StageError(f"cannot write into {folder}: set XDG_CACHE_HOME to a folder of yours")


def owner() -> str:
    """This user on this machine: only sessions of the same owner can be known to be dead, as their locks are in one cache.
    Names do not tell: containers that share the host's network share its name, and may keep caches at the same place."""
    return f"{socket.gethostname()}/{os.getuid()}/{cache_dir()}/{_cache_id()}"


def _cache_id() -> str:
    """What this cache is known by, and no other one; made at its first use."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    kept = cache_dir() / "id"
    with FileLock(f"{kept}.lock"):
        found = kept.read_text(encoding="utf-8").strip() if kept.is_file() else ""
        if not found:
            found = uuid.uuid4().hex[:12]
            # As a whole or not at all: a run that is killed meanwhile leaves no other one.
            fresh = kept.with_suffix(".new")
            fresh.write_text(found, encoding="utf-8")
            fresh.replace(kept)
    return found
