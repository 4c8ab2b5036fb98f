"""How questions are judged that a worker answered too late, and what a second look at them says."""

from __future__ import annotations

import contextlib
import os
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lkagents.busyness import History, Reading
from pytest_lkagents.checks import Evidence, StageError, TooBusy, WorkerFault
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Answer, Question
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.usage import Usage
from suites import new_calls, questions
from suites import test_balancing as balancing
from suites.crowds import Audience
from suites.drained import Drain
from suites.harmed import Harm
from suites.loaded import Loaded
from suites.placed import Placed
from suites.questions import Asked, asked_beside_calls, late_in_peace
from suites.sampling import Sampler
from suites.tally import Tally


def question(room: str, asked: float, after: float | None, *, yes: bool = True, assigned: bool = True) -> Question:
    answers = () if after is None else ((asked + after, yes),)
    given = asked + after if after is not None and yes and assigned else None
    return Question(f"job-{room}", room, "", asked, answers, given)


class Made(SimpleNamespace):
    """A worker that is asked once, whatever other workers are like."""

    __hash__ = object.__hash__


def worker(*asked: Question, disturbed_at: float = float("inf"), says: Answer | None = None) -> Any:
    """``says``: what it says to whom asks it again."""
    log: list[Question] = list(asked)

    def ask(_seconds: float) -> Answer | None:
        log.append(question("probe", time.monotonic(), says.after_s if says else None))
        return says

    transcript = SimpleNamespace(
        questions=lambda since=0.0: [one for one in log if one.asked >= since],
        registrations=lambda: [SimpleNamespace(closed=None)],
        live=lambda: [object()],
    )
    return Made(
        wire=SimpleNamespace(transcript=transcript, ask=ask),
        was_frozen=lambda _since, _until: False,
        reading=lambda: None,
        disturbed_at=disturbed_at,
    )


class Machine:
    """One that had time, but stood still for so many seconds; ``full``: that had none."""

    held_up = History.held_up

    def __init__(self, still: float, *, full: bool = False) -> None:
        self._still = still
        self._full = full

    def had_no_time(self, _since: float, _until: float, _own: float = 0.0) -> bool:
        return self._full

    def stood_still(self, _since: float, _until: float) -> float:
        return self._still


def drain(**came: float) -> Drain:
    """Of calls whose callers came then, by their rooms."""
    kept: list[Any] = [SimpleNamespace(call=SimpleNamespace(room_name=room, joined=at)) for room, at in came.items()]
    return Drain("SIGTERM", None, [], kept)


def stage(shared: Any, *, takes: int = 9, busy: bool = False, still: float = 0.0) -> Any:
    """``takes``: so many calls at once; ``still``: for how long the machine stood still, seconds."""
    placed: list[object] = []

    def served(_caller: object) -> None:
        if len(placed) == takes:
            raise WorkerFault("no agent came")
        placed.append(object())

    def raise_if_too_busy(_worker: object, _since: object) -> None:
        if busy:
            raise StageError("this machine is too busy to judge")

    return SimpleNamespace(
        placed=placed,
        worker=lambda _role: shared,
        workers=lambda _role: [],
        history=Machine(still),
        background=SimpleNamespace(in_peace=contextlib.nullcontext),
        calls=SimpleNamespace(caller=lambda _worker: SimpleNamespace(close=lambda: None), served=served),
        raise_if_too_busy=raise_if_too_busy,
    )


@pytest.fixture(autouse=True)
def at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "still", lambda *_: None)
    monkeypatch.setattr(questions, "wait_free", lambda _worker: None)


@pytest.mark.parametrize(
    ("after", "yes", "assigned", "late"),
    [
        (2.6, True, True, False),
        (2.8, True, False, True),  # it did not get the job
        (2.8, False, False, False),
        (3.1, False, False, True),
        (3.6, True, False, True),
        (None, False, False, True),
    ],
)
def test_when_the_server_has_given_up(after: float | None, yes: bool, assigned: bool, late: bool) -> None:
    asked = question("r", time.monotonic() - 10, after, yes=yes, assigned=assigned)
    assert Asked(cast(Worker, worker()), asked).is_late is late


def test_questions_before_a_signal_know_how_many_calls_there_were() -> None:
    before = [question("gone", 90, 0.1), question("a", 100, 0.1), question("b", 110, 1.3), question("c", 120, 2.5)]
    in_vain, instant, later = question("d", 130, 3.6), question("e", 139, 3.6), question("f", 150, None)
    draining = worker(*before, in_vain, instant, later, disturbed_at=140)
    found = asked_beside_calls([worker(question("x", 100, 5.0)), draining], drain(a=99.5, b=109.5, c=119.5))
    assert [(one.question.room, one.calls) for one in found] == [("gone", 0), ("a", 0), ("b", 1), ("c", 2), ("d", 3)]
    assert [one.question.room for one in found if one.is_late] == ["d"]
    assert found[-1].how_late == "after 3.6 s, beside 3 calls"
    assert asked_beside_calls([draining], None) == []


LATE = Asked(cast(Worker, worker()), question("d", 130, 3.6, assigned=False), 3)
NO_ANSWER, YES, NO = Answer("probe", None, None), Answer("probe", True, 0.1), Answer("probe", False, 0.1)


@pytest.mark.parametrize(("says", "confirmed"), [(NO_ANSWER, 3), (YES, None)])
def test_a_late_answer_counts_if_another_one_is_late_beside_as_many_calls(says: Answer, confirmed: int | None) -> None:
    looked = stage(worker(says=says))
    certain = late_in_peace(cast(Stage, looked), [LATE])
    assert [one.calls for one in certain] == ([confirmed] if confirmed else [])
    assert len(looked.placed) == 3


def test_one_that_is_late_beside_fewer_calls_has_not_to_take_as_many() -> None:
    [found] = late_in_peace(cast(Stage, stage(worker(says=NO_ANSWER), takes=2)), [LATE])
    assert found.calls == 2


@pytest.mark.parametrize(
    ("says", "takes", "busy"),
    [
        (YES, 2, False),  # what it says beside three is not known
        (NO, 9, False),  # full for another reason
        (NO_ANSWER, 9, True),
    ],
)
def test_an_answer_that_cannot_be_asked_for_again_is_not_judged(says: Answer, takes: int, busy: bool) -> None:
    with pytest.raises(StageError):
        late_in_peace(cast(Stage, stage(worker(says=says), takes=takes, busy=busy)), [LATE])


def test_a_late_no_is_as_good_as_a_quick_one() -> None:
    refused = Asked(LATE.worker, question("d", 130, 3.6, yes=False), 3)
    assert late_in_peace(cast(Stage, stage(worker(says=NO))), [refused]) == []


def test_who_is_still_there_needs_no_second_look_if_the_machine_had_time() -> None:
    other = Asked(cast(Worker, worker()), question("d", 130, 3.6, assigned=False))
    assert late_in_peace(cast(Stage, stage(worker(says=YES))), [LATE, other]) == [other]


@pytest.mark.parametrize(
    ("after", "still", "certain"), [(3.1, 1.6, False), (3.1, 0.0, True), (5.0, 1.6, True), (None, 1.6, True)]
)
def test_who_is_late_by_what_the_machine_stood_still_is_asked_again(after: float | None, still: float, certain: bool) -> None:
    """Less than that says nothing of a deadline that nobody comes near, but one may ask for 1.5 s who the caller is."""
    there = worker(says=YES)
    late = Asked(cast(Worker, there), question("d", 130, after, assigned=False))
    assert late_in_peace(cast(Stage, stage(there, still=still)), [late]) == ([late] if certain else [])


@pytest.mark.parametrize("after", [4.0, 2.9])
@pytest.mark.parametrize(("still", "judged"), [(0.0, AssertionError), (1.8, TooBusy)])
def test_a_late_refusal_is_judged_by_what_the_machine_did_then(after: float, still: float, judged: type[Exception]) -> None:
    """The calls were placed minutes before: what the machine is like when that is judged says nothing."""
    refused = question("r", 130, after, yes=False)
    seen = Loaded("w", "peer", 0.1, 0.9, moved_by="cpu", full_after=1.0)
    seen.refused_call = Placed(cast(Any, SimpleNamespace(room_name="r", agents={})), {"w": refused}, None)
    looked = stage(None, still=still)
    looked.raise_if_too_busy = lambda: None
    with pytest.raises(judged):
        balancing.test_redispatch_on_refusal(cast(Stage, looked), Evidence(), lambda: seen)


@pytest.mark.parametrize(
    ("agents_after", "sound_after", "still", "busy"),
    [
        ((3.0, 4.0), 6.0, 4.0, False),
        ((3.0, 12.0), 6.0, 4.0, True),
        ((12.0, 3.0), 6.0, 4.0, True),
        ((3.0, 12.0), 6.0, 1.5, False),  # late without it, too
        ((3.0, 4.0), 17.0, 4.0, True),
    ],
)
def test_users_that_waited_for_what_the_machine_stood_still(
    agents_after: tuple[float, float], sound_after: float, still: float, busy: bool
) -> None:
    audience = Audience.__new__(Audience)
    audience.stage = stage(None, still=still)
    listens = SimpleNamespace(joined=100.0, agent_after=agents_after[0], heard=SimpleNamespace(first=100.0 + sound_after))
    audience.listener, audience.newest = cast(Any, listens), None
    user = SimpleNamespace(joined=200.0, agent=200.0 + agents_after[1])
    audience.crowd = cast(Any, SimpleNamespace(users=[user]))
    with pytest.raises(TooBusy) if busy else contextlib.nullcontext():
        audience.raise_if_held_up(Sampler(cast(Worker, None)))


@pytest.mark.parametrize(("own", "busy"), [(1.7, False), (0.4, True)])
def test_a_worker_that_fills_the_machine_itself_keeps_its_users_waiting(
    own: float, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    history = History()
    history._readings[:] = [Reading(100.0 + second, 2.0 * second) for second in range(60)]
    sampler = Sampler(cast(Worker, None))
    sampler.seen = [Usage(100.0 + second / 2, own * second / 2, 0) for second in range(120)]
    audience = Audience.__new__(Audience)
    audience.stage = cast(Stage, SimpleNamespace(history=history))
    audience.listener = audience.newest = None
    audience.crowd = cast(Any, SimpleNamespace(users=[SimpleNamespace(joined=110.0, agent=122.0)]))
    with pytest.raises(TooBusy) if busy else contextlib.nullcontext():
        audience.raise_if_held_up(sampler)


@pytest.mark.parametrize(
    ("asked", "still", "lost"),
    [
        # The first two of three calls, of which the last one is served.
        ([("a", None, False), ("b", None, False), ("c", 0.1, True)], 0.0, 2),
        ([("a", 8.0, False), ("b", None, False), ("c", 0.1, True)], 0.0, 2),
        ([("a", 0.1, True), ("b", None, False), ("c", 0.1, True)], 0.0, 2),  # taken, and not served
        ([("a", 2.9, False), ("c", 0.1, True)], 0.0, 1),  # a yes so late that the server had given up
        ([("a", 0.1, False), ("c", 0.1, True)], 0.0, 0),
        ([("a", None, False), ("other", None, False), ("c", 0.1, True)], 0.0, 1),
        ([("a", 8.0, False), ("b", 8.0, False), ("c", 0.1, True)], 20.0, 0),
        ([("c", 8.0, True)], 0.0, 0),
    ],
)
def test_calls_that_were_lost_before_one_that_was_served(
    asked: list[tuple[str, float | None, bool]], still: float, lost: int
) -> None:
    now = time.monotonic() - 60
    late = [question(room, now + at, after, assigned=given) for at, (room, after, given) in enumerate(asked)]
    made = worker(question("a", now - 30, None), *late)
    stage = cast(Stage, SimpleNamespace(history=Machine(still)))
    caller = cast(Any, SimpleNamespace(rooms={"a", "b", "c"}))
    served = cast(Any, SimpleNamespace(room_name="c"))
    assert questions.lost_before(stage, made, caller, served, now - 1) == lost


@pytest.mark.parametrize(("answered_after", "lost"), [(8.0, 0), (12.0, 1)])
def test_a_long_silence_is_none_of_a_machines_whose_cores_are_in_use(answered_after: float, lost: int) -> None:
    now = time.monotonic() - 60
    made = worker(question("a", now, answered_after, assigned=False), question("c", now + 20, 0.1))
    stage = cast(Stage, SimpleNamespace(history=Machine(0.0, full=True)))
    caller = cast(Any, SimpleNamespace(rooms={"a", "c"}))
    assert questions.lost_before(stage, made, caller, cast(Any, SimpleNamespace(room_name="c")), now - 1) == lost


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("why", [None, WorkerFault("no agent came"), TooBusy("this machine is too busy to judge")])
def test_a_call_that_is_placed_once_more_after_a_crash_counts_where_it_is_lost(
    lost: int, why: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is refused says nothing; its job is one of those that may keep a place while they live."""
    monkeypatch.setattr(new_calls, "lost_before", lambda *_: lost)

    def served(_caller: object) -> Any:
        if why is not None:
            raise why
        return SimpleNamespace()

    stage = cast(Stage, SimpleNamespace(calls=SimpleNamespace(served=served)))
    transcript = SimpleNamespace(answers=lambda _since: [True])
    jobs = SimpleNamespace(jobs_of=lambda _snapshot: [9], snapshot=lambda: None, wire=SimpleNamespace(transcript=transcript))
    tally = object.__new__(Tally)
    tally._worker, tally._rest, tally._jobs = cast(Worker, jobs), 0.0, {7, 8}
    seen = Harm(7, alone=False, evidence={"new_calls_lost": 1})
    new_calls.NewCalls(stage, cast(Worker, jobs), cast(Any, None), seen, tally).place_once_more()
    assert seen.evidence["new_calls_lost"] == 1 + lost
    assert bool(seen.not_served) is bool(lost)
    assert tally._jobs == ({7, 8, 9} if why is None else {7, 8})
