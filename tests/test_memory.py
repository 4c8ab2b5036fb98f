"""Whether one more worker has room on this machine, and whom the kernel killed."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_lkagents.memory import Memory, why_killed
from pytest_lkagents.outcomes import doubted
from pytest_lkagents.verdict import CheckResult

GIGABYTE = 1_000_000_000


def worker(name: str = "shared", *, used: int = 0, killed: int = 0, called: bool = False) -> Any:
    wire = SimpleNamespace(transcript=SimpleNamespace(answers=lambda: [True] if called else []))
    return SimpleNamespace(name=name, killed=killed, wire=wire, look_at_memory=lambda: used)


@pytest.mark.parametrize(
    ("available", "starting", "waits"),
    [(2, 0, False), (1.4, 0, True), (2.4, 1, True), (2.6, 1, False)],
)
def test_a_worker_waits_for_room(available: float, starting: int, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a gigabyte, and half of one is to be left."""
    looks = 0

    def memory() -> Any:
        nonlocal looks
        looks += 1
        return SimpleNamespace(available=(available if looks == 1 else 99) * GIGABYTE)

    monkeypatch.setattr("pytest_lkagents.memory.psutil.virtual_memory", memory)
    room = Memory(lambda: [worker(used=GIGABYTE), worker(used=9 * GIGABYTE, called=True)], lambda: None)
    with contextlib.ExitStack() as starts:
        for _ in range(starting):
            starts.enter_context(room.room())
        assert looks == 0, "nothing is known yet"
        room.look()
        with room.room():
            assert (looks > 1) is waits


def test_a_failure_is_none_where_the_kernel_took_processes() -> None:
    assert why_killed([worker(), worker("peer")]) is None
    why = why_killed([worker(), worker("peer", killed=2)])
    assert why is not None
    assert "2 processes of worker peer" in why
    failed = CheckResult("jobs.joins", "MUST", "fail", "its agent left", 1.0)
    assert doubted(failed, None) is failed
    found = doubted(failed, why)
    assert (found.status, found.summary) == ("error", f"{why}; seen: its agent left")
    passed = CheckResult("jobs.joins", "MUST", "pass", "it came", 1.0)
    assert doubted(passed, why) is passed
