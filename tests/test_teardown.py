"""What a run started is taken down whatever fails meanwhile, and whoever interrupts it once."""

from __future__ import annotations

import pytest

from pytest_lkagents.teardown import tear_down


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_step_that_was_interrupted_is_done_from_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []

    def interrupted_once() -> None:
        done.append("half")
        if len(done) == 1:
            interrupt()
        done.append("whole")

    tear_down([interrupted_once, lambda: done.append("next")])
    assert done == ["half", "half", "whole", "next"]
    told = capsys.readouterr().err
    assert told == "pytest-lkagents: still removing what this run started; Ctrl-C once more leaves it\n"


@pytest.mark.parametrize("between", [0, 1])
def test_who_interrupts_twice_leaves_the_rest_to_the_next_run(between: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Be that in the same step, or in a later one."""
    done: list[str] = []
    raised = []

    def interrupted() -> None:
        if not raised or not between:
            raised.append(1)
            interrupt()

    tear_down([interrupted, *[lambda: done.append("between")] * between, interrupt, lambda: done.append("never")])
    assert done == ["between"] * between
    assert capsys.readouterr().err.splitlines() == [
        "pytest-lkagents: still removing what this run started; Ctrl-C once more leaves it",
        "pytest-lkagents: the next run removes what is left",
    ]
