"""How a load that was reported while all of a worker's CPU was in use is judged."""

from __future__ import annotations

import pytest

from pytest_lkagents.wire.model import Status
from suites.load import sunk


@pytest.mark.parametrize(
    ("loads", "to"),
    [
        ([], None),
        ([0.03, 0.4, 0.9, 1.0, 1.0], None),
        # an average, and one that sways
        ([0.2, 0.5, 0.38, 0.7, 0.6, 1.0, 0.8, 1.0], None),
        # what an idle worker may report while it comes to rest
        ([0.25, 0.05, 0.6, 1.0], None),
        ([0.6, 0.95, 0.31, 0.8], 0.31),
        ([0.9, 0.1], 0.1),
    ],
)
def test_a_load_that_sinks(loads: list[float], to: float | None) -> None:
    statuses = [Status(float(at), load, load > 0.7, None, has_status=True) for at, load in enumerate(loads)]
    assert sunk(statuses) == to


def test_a_worker_that_goes_on_to_say_that_it_is_full_has_not_sunk() -> None:
    assert sunk([Status(1.0, 1.0, True, 2, has_status=True), Status(2.0, 0.2, True, 2, has_status=True)]) is None
