"""Where the time of a run goes: python benchmarks/seconds.py IMAGE [--profile core] [--typical]

Runs the packaged suites once and prints for each check, in the order in which they ran: seconds of its set-up (workers that
were not ready yet), of its own waiting for events, and of the rest, which is its judging; then how the machine's CPU time
compares with the wall time. ``--typical`` prints the table of pytest_lkagents/report/typical.py instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Generator
from typing import Any

import psutil
import pytest

from pytest_lkagents.checks import check_of


class Clock:
    """A pytest plugin: wall time per check and phase, and how much of it the test's thread slept."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float, float]] = []
        self._setup: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        began = time.monotonic()
        try:
            return (yield)
        finally:
            self._setup[item.nodeid] = time.monotonic() - began

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        began, worked = time.monotonic(), time.thread_time()
        try:
            return (yield)
        finally:
            wall, busy = time.monotonic() - began, time.thread_time() - worked
            if (found := check_of(item)) is not None:
                self.rows.append((found.id, self._setup.get(item.nodeid, 0.0), wall - busy, busy))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("--profile", default="core")
    parser.add_argument("--typical", action="store_true")
    given, more = parser.parse_known_args()
    clock = Clock()
    before, began = psutil.cpu_times(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "-q",
            "-p",
            "no:cacheprovider",
            f"--rootdir={folder}",
            "--lk-image",
            given.image,
            "--lk-profile",
            given.profile,
        ]
        code = pytest.main([*arguments, *more], plugins=[clock])
    wall, after = time.monotonic() - began, psutil.cpu_times()
    if given.typical:
        print("SECONDS: dict[str, float] = {")
        for name, *parts in sorted(clock.rows):
            print(f'    "{name}": {sum(parts):.1f},')
        print("}")
        return int(code)
    print("\n| check | set-up s | wait s | judge s |\n|---|---|---|---|")
    for name, *parts in clock.rows:
        print(f"| `{name}` | " + " | ".join(f"{part:.1f}" for part in parts) + " |")
    whole = [sum(row[column] for row in clock.rows) for column in (1, 2, 3)]
    print("| all | " + " | ".join(f"{part:.1f}" for part in whole) + " |")
    busy = sum(after[:3]) + after.softirq - sum(before[:3]) - before.softirq
    print(f"\n{wall:.1f} s of wall time, {busy:.1f} s of CPU time on {psutil.cpu_count()} cores")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
