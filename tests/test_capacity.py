"""The capacity card's arithmetic; that it is measured rightly is shown by tests/test_workers.py."""

from __future__ import annotations

import pytest

from pytest_lkagents.capacity import card
from pytest_lkagents.capacity.card import Step
from pytest_lkagents.capacity.fit import errors_of_95, line

MB = 1_000_000


def levels(count: int) -> list[Step]:
    return [Step(number, 0.02 + 0.1 * number, (200 + 90 * number) * MB) for number in range(count)]


def make(steps: list[Step], gave_way: str = "threshold", threshold: float | None = 0.75) -> card.Card:
    return card.make(steps, gave_way, "", limit_cores=1.0, limit_bytes=None, threshold=threshold)


def test_a_line_and_its_error() -> None:
    exact = line([0, 1, 2, 3], [1, 3, 5, 7])
    assert (exact.base, exact.slope, exact.stderr) == (1, 2, 0)
    # Residuals 0.5, -0.5, -0.5, 0.5 about the same line: sqrt(1 / 2 / 5).
    assert line([0, 1, 2, 3], [1.5, 2.5, 4.5, 7.5]).stderr == pytest.approx(0.3162, abs=1e-4)


@pytest.mark.parametrize("xs", [[1, 2], [2, 2, 2]])
def test_a_line_needs_three_different_points(xs: list[float]) -> None:
    with pytest.raises(ValueError, match="line"):
        line(xs, xs)


def test_the_card_of_a_worker_that_refuses_the_eighth_call() -> None:
    made = make(levels(8))
    assert made.sessions == 7
    assert made.suggested_cores == 1.0  # 0.72 with a quarter on top
    assert made.suggested_bytes == 1088 * MB  # 830 MB with a quarter on top, in steps of 64 MB
    assert made.scale_up == 0.5
    assert made.sessions_at_scale_up == 4
    assert made.replicas(10) == 3
    assert made.evidence()["replicas_for_calls"] == {"10": 3, "50": 13, "100": 25, "500": 125}


@pytest.mark.parametrize(("points", "errors"), [(3, 12.71), (4, 4.30), (7, 2.57), (12, 2.23), (13, 2.20), (22, 2.09)])
def test_few_levels_tell_little(points: int, errors: float) -> None:
    """Student's t, by its usual table."""
    assert errors_of_95(points) == pytest.approx(errors, abs=0.02)


def test_the_error_of_a_card_is_that_of_so_few_levels() -> None:
    steps = [Step(0, 0.0, 200 * MB), Step(1, 0.1, 300 * MB), Step(2, 0.26, 400 * MB)]
    made = make(steps)
    assert made.cores.stderr == pytest.approx(0.0173, abs=1e-4)
    assert "0.130 ± 0.220 cores, 100 ± 0 MB (95 %)" in "\n".join(made.lines())


def test_what_a_worker_said_last_is_no_part_of_the_card() -> None:
    detail = "the worker exited with code 1\n\nits last lines:\n  DB_PASSWORD=t0psecret"
    made = card.make(levels(4), "worker", detail, limit_cores=1.0, limit_bytes=None, threshold=None)
    assert made.lines()[1] == "gives way first       the worker itself: the worker exited with code 1"
    assert not any("\n" in line or "t0psecret" in line for line in made.lines())
    assert made.evidence()["gave_way_detail"] == detail  # in which secrets are hidden


def test_no_limit_is_suggested_below_what_was_used() -> None:
    """A curve that bends upwards, and memory that calls do not add to."""
    cores, memory = (0.02, 0.1, 0.2, 0.3, 2.0), (900, 500, 500, 500, 500)
    made = make([Step(number, cores[number], memory[number] * MB) for number in range(5)])
    assert made.cores.at(4) < 1.5
    assert made.suggested_cores == 2.5
    assert made.suggested_bytes == 1152 * MB


def test_what_was_not_reached_is_said() -> None:
    text = "\n".join(make(levels(4), "bound", None).lines())
    assert "3 or more" in text
    assert "threshold was not met" in text


def test_a_worker_for_one_call_still_has_one() -> None:
    made = make([*levels(2), Step(1, 0.13, 291 * MB)])
    assert made.sessions_at_scale_up == 1
    assert made.replicas(10) == 10
