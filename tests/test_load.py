"""How a load that was reported while all of a worker's CPU was in use is judged."""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lkagents.busyness import History, Reading
from pytest_lkagents.checks import Evidence, NotJudgeable, TooBusy
from pytest_lkagents.clock import Ledger
from pytest_lkagents.settings import Settings
from pytest_lkagents.stage import Stage
from pytest_lkagents.wire.model import Answer, Entry, Status
from pytest_lkagents.wire.transcript import Transcript
from pytest_lkagents.worker.base import Worker
from suites import load, reports, unloaded
from suites import test_availability as availability
from suites import test_resources as resources
from suites.crowds import LoadTest
from suites.load import most_calls, sunk
from suites.loaded import Loaded
from suites.placed import Placed
from suites.quality import Quality
from suites.reports import counted_at_rest, forgets_call, still_counts
from suites.sampling import Level
from suites.unloaded import look_whether_it_stays


class Log:
    """What a worker reported before its calls, and reports after them."""

    def __init__(self, before: list[float], after: list[float]) -> None:
        now = time.monotonic()
        self._all = [Status(now - 60 + at, load, False, None, has_status=True) for at, load in enumerate(before)]
        self._all += [Status(now + 60 + at, load, False, None, has_status=True) for at, load in enumerate(after)]

    def statuses(self, since: float = 0.0) -> list[Status]:
        return [status for status in self._all if status.at > since]

    def latest_status(self, _since: float = 0.0) -> Status | None:
        return self._all[-1] if self._all else None

    def live(self) -> list[object]:
        return [self]

    def wait(self, predicate: Any, _seconds: float) -> Any:
        return predicate(self)


def worker(before: list[float], after: list[float]) -> Worker:
    return cast(Worker, SimpleNamespace(wire=SimpleNamespace(transcript=Log(before, after))))


@pytest.mark.parametrize(("loads", "rest"), [([0.0, 0.0], 0.0), ([0.1, 0.12, 0.1], None), ([], None)])
def test_a_worker_that_counts_its_calls(loads: list[float], rest: float | None) -> None:
    assert counted_at_rest(worker(loads, [])) == rest


@pytest.mark.parametrize(
    ("after", "stuck"),
    [
        ([0.5, 0.25, 0.25, 0.25], 0.25),  # one of two
        ([0.5, 0.5, 0.5], 0.5),  # both
        ([0.5, 0.25, 0.0], None),
        ([0.25, 0.25], None),  # too few to tell
        ([0.5, 0.31, 0.3, 0.3, 0.3], None),  # an average
        ([0.3, 0.3, 0.3, 0.3], None),  # no count of calls, of which two were 0.5
    ],
)
def test_a_call_that_is_counted_for_ever(after: list[float], stuck: float | None) -> None:
    assert still_counts(worker([0.0, 0.0], after), 0.0, [0.5, 0.25], 0.0) == stuck


@pytest.mark.parametrize(
    ("before", "in_call", "after", "forgets"),
    [
        ([0.0, 0.0, 0.0], [0.25, 0.25], [0.0, 0.0, 0.0], True),
        ([0.0, 0.0, 0.0, 0.25, 0.5], [0.25, 0.25], [0.0, 0.0], True),
        ([0.0, 0.0, 0.0], [0.25, 0.25], [0.0], False),  # too few to tell
        ([0.0, 0.0, 0.0], [0.25], [0.0, 0.0, 0.0], False),
        ([0.0, 0.0, 0.0], [0.25, 0.25], [0.0, 0.25, 0.25], False),
        ([0.0, 0.0, 0.0], [0.1, 0.1], [0.0, 0.0, 0.0], False),  # may be measured and rounded
        ([0.0, 0.0, 0.0], [0.4, 0.2], [0.0, 0.0], False),  # what a call's beginning cost
        ([0.0, 0.0, 0.0, 0.3], [0.2, 0.2], [0.0, 0.0], False),
        ([0.01, 0.02, 0.01], [0.3, 0.3], [0.01, 0.01, 0.01], False),  # is measured
        ([], [], [], False),
    ],
)
def test_a_call_that_is_forgotten_with_the_connection(
    before: list[float], in_call: list[float], after: list[float], forgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "NEXT_SECONDS", 0.1)
    now = time.monotonic()
    came = now - 60 + len(before) - 0.5
    told = forgets_call(worker([*before, *in_call], after), came, now, now, lambda: None)
    assert told == ("it reports load 0, as without a call, and 0.25 before" if forgets else None)


@pytest.mark.parametrize(
    ("loads", "to"),
    [
        ([], None),
        ([0.03, 0.4, 0.9, 1.0, 1.0], None),
        # an average, and one that sways
        ([0.2, 0.5, 0.38, 0.7, 0.6, 1.0, 0.8, 1.0], None),
        # what an idle worker may report while it comes to rest
        ([0.25, 0.05, 0.6, 1.0], None),
        # out of range, which is another check's business
        ([-0.41, 1.49, 1.29], None),
        ([0.6, 0.95, 0.31, 0.8], 0.31),
        ([0.9, 0.1], 0.1),
    ],
)
def test_a_load_that_sinks(loads: list[float], to: float | None) -> None:
    statuses = [Status(float(at), load, load > 0.7, None, has_status=True) for at, load in enumerate(loads)]
    found = sunk(statuses)
    assert (found[1].load if found else None) == to


@pytest.mark.parametrize(
    ("after", "living", "stayed"),
    [
        ([0.3, 0.3, 0.3], {1}, 0.3),
        ([0.3, 0.3, 0.3], {1, 7}, None),  # a job that does not end
        ([0.3, 0.3], {1}, None),  # too few to tell
        ([0.3, 0.3, 0.29], {1}, None),
        ([0.1, 0.1, 0.1], {1}, None),
    ],
)
def test_a_load_that_stays_although_its_calls_are_over(after: list[float], living: set[int], stayed: float | None) -> None:
    seen = Loaded("w", "", idle=0.1, top=0.3, moved_by="calls", job_pids={7})
    made: Any = worker([0.1, 0.3], after)
    made.name, made.ledger, made.snapshot = "w", Ledger(), lambda: SimpleNamespace(living=lambda: living)
    look_whether_it_stays(made, seen, time.monotonic())
    assert seen.stayed_at == stayed


@pytest.mark.parametrize(
    ("loads", "moved"),
    [
        ([0.0, 0.0, 0.03, 0.01, 0.0], False),  # what a process uses for itself, now and then
        ([0.0, 0.4, 0.0, 0.4, 0.0], False),
        ([0.0, 0.03, 0.05, 0.07], True),  # an average over minutes
        ([0.5, 0.5, 0.5], True),
        ([0.0, 0.0, 0.5], False),  # and no report comes after it
    ],
)
def test_a_load_that_rose_for_a_moment_did_not_follow(loads: list[float], moved: bool) -> None:
    seen = Loaded("w", "", 0.0, 0.0)
    assert load._rise(worker([], loads), seen, time.monotonic(), load.RISE_SECONDS) is moved
    assert seen.top == max(loads)


@pytest.mark.parametrize(
    ("moved_by", "recovered", "busy"), [(None, None, True), ("cpu", None, True), ("cpu", 3.0, False), (None, None, False)]
)
def test_a_load_that_was_watched_on_a_busy_machine_is_watched_again(
    moved_by: str | None, recovered: float | None, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second look at the same reports, on a machine that has calmed down, would accuse the worker."""

    def by_cpu(_stage: object, _worker: object, _peer: object, _caller: object, seen: Loaded, **_: object) -> bool:
        seen.moved_by = moved_by
        seen.asked_when_full = Answer("probe", moved_by is None, 0.1)
        return False

    def recover(_worker: object, seen: Loaded, _ended: float) -> None:
        seen.recovered_after = recovered

    def raise_if_too_busy() -> None:
        if busy or recovered is not None:
            raise TooBusy("this machine is too busy to judge")

    monkeypatch.setattr(load, "_at_rest", lambda *_: Loaded("w", "", 0.1, 0.1))
    monkeypatch.setattr(load, "_by_cpu", by_cpu)
    monkeypatch.setattr(load, "_by_calls", lambda *_: None)
    monkeypatch.setattr(load, "recover", recover)
    wire = SimpleNamespace(transcript=Transcript(), hold=lambda *_: nullcontext())
    watched: Any = SimpleNamespace(wire=wire, is_running=True, reading=lambda: None)
    stage: Any = SimpleNamespace(
        calls=SimpleNamespace(caller=lambda _worker: SimpleNamespace(close=lambda: None)),
        raise_if_filled_by_others=lambda *_: None,
        raise_if_too_busy=raise_if_too_busy,
    )
    with pytest.raises(TooBusy) if busy else nullcontext():
        load._observe(cast(Stage, stage), cast(Worker, watched), None)


@pytest.mark.parametrize(
    ("loads", "unmoved", "judged"),
    [
        ([0.01], False, NotJudgeable),  # it may have room for a hundred
        ([0.01, 0.02], False, NotJudgeable),
        ([0.02, 0.01], False, AssertionError),
        ([0.01, 0.02, 0.01], False, AssertionError),
        ([0.0, 0.0], True, AssertionError),
        ([], False, AssertionError),
    ],
)
def test_a_load_that_rose_a_little_with_each_of_few_calls(loads: list[float], unmoved: bool, judged: type[Exception]) -> None:
    seen = Loaded("w", "", 0.0, max(loads, default=0.0), calls=len(loads), cores_used=1.0, unmoved=unmoved)
    seen.steps = [(number, one, False) for number, one in enumerate(loads, 1)]
    with pytest.raises(judged):
        availability.test_load_follows_work(Evidence(), lambda: seen)


@pytest.mark.parametrize(
    ("loads", "after", "living", "kept"),
    [
        ([0.04, 0.08, 0.12, 0.16], [0.16, 0.04, 0.04, 0.04], set(), 0.04),
        ([0.04, 0.08, 0.12, 0.16], [0.16, 0.04, 0.0], set(), None),
        ([0.04, 0.08, 0.12, 0.16], [0.04, 0.04, 0.04], {7}, None),  # a job that does not end
        ([0.04, 0.08, 0.11, 0.16], [0.04, 0.04, 0.04], set(), None),  # is no count
        ([0.04, 0.08], [0.04, 0.04, 0.04], set(), None),  # may be chance
    ],
)
def test_a_place_that_is_kept_by_a_worker_with_room_for_many(
    loads: list[float], after: list[float], living: set[int], kept: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unloaded, "FORGET_SECONDS", -unloaded.PROMISED_SECONDS)
    seen = Loaded("w", "", 0.0, max(loads), moved_by="calls", calls=len(loads), job_pids={7}, ended=time.monotonic())
    seen.steps = [(number, one, False) for number, one in enumerate(loads, 1)]
    made: Any = worker([0.0, *loads], after)
    made.snapshot = lambda: SimpleNamespace(living=lambda: living)
    seen.promised = seen.ended - 1
    looked: list[float] = []
    monkeypatch.setattr(unloaded, "still_counts", lambda *how: looked.append(how[-1]) or still_counts(*how))
    unloaded.look_whether_it_forgot(made, seen)
    # What was promised is lost some seconds later, when all calls are over and not counted any more.
    assert not looked or looked == [pytest.approx(seen.promised + unloaded.PROMISED_SECONDS)]
    assert seen.still_counted == kept
    with pytest.raises(AssertionError if kept else NotJudgeable):
        availability.test_recovers(cast(Stage, SimpleNamespace(workers=lambda _: [])), Evidence(), lambda: seen)


@pytest.mark.parametrize("room", [12, 15, 30, 33, 40])
def test_a_worker_counts_its_calls_for_however_many_it_has_room(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rounded loads each step would differ from the next, and none be a multiple of another."""
    placed = cast(Placed, SimpleNamespace(served_by="w", questions={}))
    certain: list[float] = []
    monkeypatch.setattr(load, "place", lambda *_: placed)
    monkeypatch.setattr(load, "answers", lambda _: None)
    monkeypatch.setattr(load, "_ask_when_full", lambda _worker, _seen, least: certain.append(least))
    seen = Loaded("w", "", 0.0, 0.0)
    monkeypatch.setattr(load, "_risen", lambda *_: Status(float(seen.calls), seen.calls / room, False, None, has_status=True))
    watched: Any = SimpleNamespace(name="w", jobs_of=lambda _: [], snapshot=lambda: None)
    watched.reading = lambda: SimpleNamespace(used_until=lambda _: SimpleNamespace(worker=0.1))
    load._by_calls(cast(Stage, SimpleNamespace(settings=Settings(sessions=4))), watched, None, cast(Any, None), seen)
    assert seen.counts_calls
    assert certain == [4 / room], "no more than it says itself"
    kept = [3 / room] * 3
    assert still_counts(worker([0.0], kept), 0.0, seen.first_steps(2), 0.0) == 3 / room


@pytest.mark.parametrize(
    ("at", "busy_until", "judged"),
    [
        ([2.0, 4.0, 6.0, 8.0], 0.0, None),
        ([11.0, 13.0, 15.0], 0.0, AssertionError),
        ([11.0, 13.0, 15.0, 17.0], 12.0, None),  # as when the workers of a run start
        ([11.0, 13.0], 12.0, TooBusy),
        ([2.0, 13.0, 15.0, 17.0], 1.0, AssertionError),
        ([2.0, 4.0, 6.0], 99.0, TooBusy),  # it may never say anything again
        ([], 99.0, TooBusy),
    ],
)
def test_a_long_pause_counts_where_the_machine_had_time(
    at: list[float], busy_until: float, judged: type[Exception] | None
) -> None:
    """A second look sees the same pauses."""
    registered = time.monotonic() - 18
    log = Transcript()
    for moment in at:
        log.add(Entry(registered + moment, 1, "worker", "status", {"load": 0.1}, 0))
    made: Any = SimpleNamespace(
        wire=SimpleNamespace(transcript=log), registration=lambda: SimpleNamespace(registered=registered)
    )
    history = SimpleNamespace(stood_still=lambda *_: 0.0, had_no_time=lambda since, _until: since < registered + busy_until)
    stage: Any = SimpleNamespace(
        worker=lambda _: made, workers=lambda _: [made], history=history, raise_if_too_busy=lambda: None
    )
    for _ in range(2):
        with pytest.raises(judged) if judged else nullcontext():
            availability.test_reports_load(stage, Evidence(), lambda: cast(Loaded, None))


def test_what_others_used_before_a_report() -> None:
    history = History()
    history._readings[:] = [Reading(100 + step / 2, busy) for step, busy in enumerate([0, 0.5, 1, 1.5, 4.5, 5, 5.5, 6])]
    assert history.most_in_use(102.0) == 3.5
    assert history.most_in_use(103.4) < 3.0


def test_a_worker_that_goes_on_to_say_that_it_is_full_has_not_sunk() -> None:
    assert sunk([Status(1.0, 1.0, True, 2, has_status=True), Status(2.0, 0.2, True, 2, has_status=True)]) is None


@pytest.mark.parametrize(
    ("settings", "loads", "moved_by", "most"),
    [
        (Settings(), [], None, 4),
        (Settings(), [0.2, 0.4, 0.6], None, 4),  # four are placed in any case
        (Settings(), [0.1, 0.2, 0.3, 0.4], None, 10),
        (Settings(), [0.05, 0.1, 0.15, 0.2], None, 4),  # ten lead to 0.5 only
        (Settings(load_threshold=0.5), [0.05, 0.1, 0.15, 0.2], None, 10),
        (Settings(), [0.1, 0.2, 0.3, 0.4], "cpu", 4),
        (Settings(memory_bytes=10**9), [0.1, 0.2, 0.3, 0.4], None, 4),
        (Settings(sessions=6), [0.1, 0.2, 0.3, 0.4], None, 6),
        (Settings(sessions=2), [0.1], None, 2),
    ],
)
def test_calls_that_may_fill_a_worker(settings: Settings, loads: list[float], moved_by: str | None, most: int) -> None:
    seen = Loaded("w", "", idle=0.0, top=0.0, moved_by=moved_by)
    seen.steps = [(number, load, False) for number, load in enumerate(loads, 1)]
    assert most_calls(settings, seen) == most


@pytest.mark.parametrize(("sound", "measured"), [(0.8, True), (None, False)])
def test_what_the_speech_of_silent_agents_costs_is_not_known(sound: float | None, measured: bool) -> None:
    rest, loaded = Level(0, 0.0, 0.0, 1, 1), Level(4, 0.2, 0.3, 2, 2, Quality(0.5, sound, None, None, None))
    evidence = Evidence()
    resources.test_quality_of_service(evidence, lambda: LoadTest(rest, loaded, 4, 0, 0, 0.1))
    assert ("not_measured" not in evidence) is measured
    assert ("was not measured" not in (evidence.summary or "")) is measured
