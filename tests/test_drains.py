"""What a drain shows: whether it is worth another look, and whether a call was cut before or after another one ended."""

from __future__ import annotations

import signal
from typing import cast

import pytest

from pytest_lkagents.callers.caller import Call
from pytest_lkagents.callers.continuity import AGENT_LEFT, Continuity
from pytest_lkagents.wire.model import Answer, Question
from suites.drained import Drain, Kept, refused_for_all
from suites.judging import exit_codes


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
    assert seen.doubt == ("its health probes were not answered, load 9 on 2 cores" if again else None)


@pytest.mark.parametrize(("cut", "hung_up", "while_held"), [(3.2, 3.5, True), (3.5, 3.5, False), (3.9, 3.5, False)])
def test_a_call_that_is_cut_as_another_one_ends(cut: float, hung_up: float, while_held: bool) -> None:
    def kept(**seen: object) -> Kept:
        return Kept(cast(Call, None), cast(Continuity, None), **seen)  # type: ignore[arg-type]

    ended, lost = kept(hung_up_s=hung_up), kept(trouble=AGENT_LEFT, trouble_s=cut)
    drain = Drain("SIGTERM", None, [], kept=[ended, lost], ended_early_s=cut)
    assert drain.cut is lost
    assert (drain.cut_while_held is lost) is while_held
    assert (drain.ended_while_held is not None) is while_held


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("15", 143), ("SIGRTMIN+3", 128 + signal.SIGRTMIN + 3)])
def test_codes_of_a_worker_that_its_stop_signal_ended(name: str, code: int) -> None:
    assert exit_codes(name) == {0, code, 130, 143}


def test_what_is_refused_for_everybody_because_of_the_signal() -> None:
    def asked(at: float, terminated: bool = True) -> Question:
        return Question("AJ_1", "room", "", at, ((at, False),), terminated=terminated)

    assert refused_for_all([asked(1, False), asked(6)], [], sent=5)
    assert not refused_for_all([asked(1, False), asked(6, False)], [], sent=5)
    assert not refused_for_all([asked(1), asked(6)], [], sent=5)
    assert not refused_for_all([asked(6)], [asked(1)], sent=5)


def test_a_signal_that_was_lost_on_a_worker_that_its_call_fills() -> None:
    seen = Drain("SIGINT", None, [], stopped_s=1.2, asked_at_end=Answer("AJ_1", True, 0.1), outlasted=True, heeds_second=True)
    assert seen.heeded
    assert seen.doubt == "SIGINT was lost, perhaps by chance"
    assert seen.lost_signal == ", but heeds a second one"
