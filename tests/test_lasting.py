"""When a worker was registered nowhere, told from its registrations."""

from __future__ import annotations

import pytest

from pytest_lkagents.wire.model import Entry, Registration
from pytest_lkagents.wire.protocol import SERVER, WORKER
from suites.lasting import absences


def registration(connection: int, registered: float, closed: float | None) -> Registration:
    return Registration(f"AW_{connection}", "", "1", "", registered, closed, connection, "1")


def closed(connection: int, at: float, by: str = WORKER) -> Entry:
    return Entry(at, connection, by, "closed", {"by": by, "how": "eof"}, 0)


@pytest.mark.parametrize(
    ("spans", "away"),
    [
        pytest.param([(0, None)], [], id="stays"),
        pytest.param([(0, 10)], [], id="ended for good"),
        pytest.param([(0, 10), (11, 20), (22, None)], [(10, 11), (20, 22)], id="comes back twice"),
        pytest.param([(0, 10.5), (10, 20.5), (20, None)], [], id="renewed without a gap"),
        pytest.param([(0, None), (1, 5), (7, None)], [], id="one of two is renewed"),
        pytest.param([(0, 10), (0, 10), (12, None)], [(10, 12)], id="both end at once"),
    ],
)
def test_absences(spans: list[tuple[float, float | None]], away: list[tuple[float, float]]) -> None:
    registrations = [registration(number, *span) for number, span in enumerate(spans)]
    ends = [closed(known.connection, known.closed) for known in registrations if known.closed is not None]
    assert [(found.since, found.until) for found in absences(registrations, ends)] == away


def test_who_ended_it() -> None:
    found = absences([registration(1, 0, 10), registration(2, 11, None)], [closed(1, 10, SERVER)])
    assert [away.by for away in found] == [SERVER]
