"""The verdict as a JSON file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from pytest_lkagents.verdict import Verdict

# Of a name so much goes into that of a temporary file, which may be no longer than 255 bytes either.
NAME_BYTES = 50


def write(verdict: Verdict, path: Path) -> None:
    """Write atomically: a reader sees the whole file or none. What is no file (a device, a pipe) is written to, and a link
    stays one. Raises OSError."""
    text = json.dumps(verdict.to_json(), indent=2, ensure_ascii=False) + "\n"
    target = path.resolve()
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    temporary = target.with_name(f".{os.getpid()}.{target.name[-NAME_BYTES:]}")
    try:
        temporary.write_text(text, encoding="utf-8")
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
