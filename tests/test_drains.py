"""When a drain is worth another look."""

from __future__ import annotations

import pytest

from suites.drains import Drain


@pytest.mark.parametrize(
    ("health", "ended", "again"),
    [
        ([200, None, None, 200, None], None, False),  # single ones get lost
        ([200, 200, None, None, None], None, True),
        ([200, 503, None, None, 200], None, False),  # it did answer
        ([200, None, None, None], 4.0, False),  # nobody was there to answer
    ],
)
def test_probes_that_a_busy_machine_may_have_missed(health: list[int | None], ended: float | None, again: bool) -> None:
    seen = Drain("SIGTERM", 8081, [], health=health, stopped_s=0.1, ended_early_s=ended, busy="load 9 on 2 cores")
    assert seen.doubt == ("load 9 on 2 cores" if again else None)
