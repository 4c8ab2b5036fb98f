"""What scripts/setup says of a step that fails. No step of its own is run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from .conftest import ROOT

SCRIPT = (ROOT / "scripts/setup").read_text()
STEPS = """
set -euo pipefail
shopt -s inherit_errexit
exec 9>/dev/null
say() { printf '%s\\n' "$*" >&2; }
works() { echo cached; }
breaks() { false; echo installed >"$logs/mark"; echo installed; }
"""


def steps(calls: str, logs: Path) -> subprocess.CompletedProcess[str]:
    step = re.search(r"^step\(\) \{.*?^\}", SCRIPT, re.MULTILINE | re.DOTALL)
    assert step is not None
    return subprocess.run(
        ["bash", "-c", f"logs=$1\n{STEPS}\n{step[0]}\n{calls}", "bash", logs], capture_output=True, text=True, timeout=30
    )


def test_a_step_that_fails_is_not_done_and_ends_the_setup(tmp_path: Path) -> None:
    done = steps("step one works; step two breaks; step three works", tmp_path)
    assert done.returncode != 0
    assert done.stderr.splitlines() == ["one: cached (0 s)", f"two: FAILED, see {tmp_path}/two.log"]
    assert not (tmp_path / "mark").exists()


def test_a_step_beside_the_others_fails_too(tmp_path: Path) -> None:
    done = steps("{ step two breaks; step three works; } &\nwait $! || say 'it failed'", tmp_path)
    assert done.stderr.splitlines() == [f"two: FAILED, see {tmp_path}/two.log", "it failed"]
    assert not (tmp_path / "mark").exists()


def test_no_step_is_a_condition() -> None:
    assert not re.findall(r"^.*\bstep \".*(?:&&|\|\|).*$|^.*(?:if|!|&&|\|\|) step .*$", SCRIPT, re.MULTILINE)
