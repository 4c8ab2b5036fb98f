"""The verdict as a JSON file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pytest_lkagents.verdict import Verdict


def write(verdict: Verdict, path: Path) -> None:
    """Write atomically: a reader sees the whole file or none. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(verdict.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
