"""How the memory of a worker during a long call is judged."""

from __future__ import annotations

import pytest

from pytest_lkagents.worker.usage import Usage
from suites.drained import Drain
from suites.long_call import MOST_PER_SECOND, LongCall


def call_of(seconds: int, per_second: float) -> LongCall:
    """Read every 2 s, and 3 MB more at every other reading, as allocators do."""
    usage = [Usage(1000.0 + at, 0.0, round(2e8 + per_second * at + 3e6 * (at % 4 == 0))) for at in range(0, seconds, 2)]
    return LongCall(Drain("SIGTERM", None, []), usage)


@pytest.mark.parametrize(("per_second", "grows"), [(0, False), (20_000, False), (96_000, True), (192_000, True)])
def test_a_growth_is_told_from_noise(per_second: float, grows: bool) -> None:
    growth = call_of(480, per_second).growth()
    assert growth is not None
    assert growth.slope == pytest.approx(per_second, abs=1000)
    assert growth.exceeds(MOST_PER_SECOND) is grows


@pytest.mark.parametrize("seconds", [0, 2, 100])
def test_a_short_call_tells_nothing(seconds: int) -> None:
    assert call_of(seconds, 1e6).growth() is None
