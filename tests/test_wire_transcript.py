"""The transcript by itself: its bound, waiting, and lines."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_lkagents.calls import Calls
from pytest_lkagents.describe import lanes
from pytest_lkagents.wire.model import Entry
from pytest_lkagents.wire.transcript import Transcript

pytestmark = pytest.mark.timeout(20)


def entry(kind: str, at: float = 0.0, connection: int = 1, source: str = "worker", **data: object) -> Entry:
    return Entry(at or time.monotonic(), connection, source, kind, data, 0)


def test_the_bound_drops_what_is_not_essential(tmp_path: Path) -> None:
    seen = Transcript(most=100)
    seen.add(entry("register", at=1.0, agent_name="me"))
    seen.add(entry("registered", at=2.0, source="server", worker_id="AW_1"))
    for number in range(10_000):
        seen.add(entry("status", at=10.0 + number, load=0.5))
    kept = seen.entries()
    assert len(kept) <= 100
    assert [known.kind for known in kept[:2]] == ["register", "registered"]
    assert kept[-1].at == 10_009.0
    assert seen.dropped == 10_002 - len(kept)
    assert len(seen.statuses()) <= 100
    seen.write(tmp_path / "wire.jsonl")
    assert json.loads((tmp_path / "wire.jsonl").read_text().splitlines()[0])["count"] == seen.dropped


def test_the_bound_holds_for_essential_entries_too() -> None:
    seen = Transcript(most=100)
    for number in range(1000):
        seen.add(entry("question", at=1.0 + number, source="server", job={"id": f"AJ_{number}"}))
    assert len(seen.entries()) <= 100
    assert len(seen.questions()) <= 100
    assert seen.questions()[-1].job_id == "AJ_999"


def test_waiting_is_woken_by_an_entry() -> None:
    seen = Transcript()
    calls: list[float] = []

    def predicate(found: Transcript) -> float | None:
        calls.append(time.monotonic())
        return found.entries("ping")[0].at if found.entries("ping") else None

    threading.Timer(0.2, lambda: seen.add(entry("ping", at=5.0))).start()
    started = time.monotonic()
    assert seen.wait(predicate, 5) == 5.0
    assert time.monotonic() - started < 1
    assert len(calls) == 2  # once at first, once for the entry: nothing is polled
    assert seen.wait(predicate, 0) == 5.0


def test_waiting_ends_at_its_deadline() -> None:
    seen = Transcript()
    started = time.monotonic()
    assert seen.wait(lambda found: found.live(), 0.2) is None
    assert 0.19 < time.monotonic() - started < 1
    assert seen.wait(lambda found: 0, 0) is None


def test_an_entry_during_the_predicate_is_not_missed() -> None:
    seen = Transcript()

    def predicate(found: Transcript) -> bool:
        known = bool(found.entries("ping"))
        if not known:
            threading.Thread(target=seen.add, args=(entry("ping"),)).start()
            time.sleep(0.05)
        return known

    assert seen.wait(predicate, 5) is True


def test_a_second_registration_of_a_connection_ends_the_first() -> None:
    seen = Transcript()
    for worker_id in ("AW_1", "AW_2"):
        seen.add(entry("register", agent_name="me"))
        seen.add(entry("registered", source="server", worker_id=worker_id))
    seen.add(entry("registered", connection=2, source="server", worker_id="AW_3"))
    assert [known.worker_id for known in seen.live()] == ["AW_2", "AW_3"]
    seen.add(entry("closed", by="worker", how="eof"))
    assert [known.worker_id for known in seen.live()] == ["AW_3"]


@pytest.mark.parametrize(
    "permissions", [{}, {"allowed_permissions": {"hidden": False}}, {"allowed_permissions": {"hidden": True}}]
)
def test_a_registration_says_whether_its_agents_are_hidden(permissions: dict) -> None:
    seen = Transcript()
    seen.add(entry("register", agent_name="me", **permissions))
    seen.add(entry("registered", source="server", worker_id="AW_1"))
    assert seen.live()[0].hidden == permissions.get("allowed_permissions", {}).get("hidden", False)


def test_lines_are_one_line_each() -> None:
    seen = Transcript()
    seen.add(entry("question", source="server", job={"id": "AJ_1", "room": {"name": "two\nlines\x1b[31m"}}))
    seen.add(entry("question", source="server"))
    for kind in ("register", "registered", "status", "answer", "job", "closed", "unknown", "act", "refused", "opened"):
        seen.add(entry(kind))
    assert len(seen.lines()) == 12
    assert all(line.isprintable() for line in seen.lines())
    assert seen.lines(last=0) == []
    assert len(seen.lines(last=3)) == 3


def test_a_job_is_asked_about_on_each_connection_for_itself() -> None:
    seen = Transcript()
    for connection, yes in ((1, False), (2, True)):
        seen.add(entry("question", at=connection * 2.0, connection=connection, source="server", job={"id": "AJ_1"}))
        seen.add(entry("answer", at=connection * 2.0 + 0.5, connection=connection, job_id="AJ_1", available=yes))
    seen.add(entry("assignment", at=5.0, connection=2, source="server", job={"id": "AJ_1"}))
    refused, taken = seen.questions()
    assert (refused.connection, refused.answers, refused.assigned) == (1, ((2.5, False),), None)
    assert (taken.connection, taken.answers, taken.assigned) == (2, ((4.5, True),), 5.0)
    assert [answer.data["after_s"] for answer in seen.entries("answer")] == [0.5, 0.5]


@pytest.mark.parametrize("taken_by", [1, 2])
def test_of_a_worker_with_two_connections_counts_which_one_took_the_call(taken_by: int) -> None:
    seen, now = Transcript(), time.monotonic()
    for connection in (1, 2):
        job = {"id": "AJ_1", "room": {"name": "call"}}
        seen.add(entry("question", at=now - 5, connection=connection, source="server", job=job))
        seen.add(entry("answer", at=now - 4, connection=connection, job_id="AJ_1", available=connection == taken_by))
    server = SimpleNamespace(controllable=True)
    worker = SimpleNamespace(name="shared", server=server, wire=SimpleNamespace(transcript=seen))
    history = SimpleNamespace(stood_still=lambda *_: 0.0)
    calls = Calls(SimpleNamespace(workers=lambda: [worker], raise_if_closing=None, history=history))
    assert not calls.lost("call", now - 6, server)
    seen.add(entry("assignment", at=now - 3, connection=taken_by, source="server", job={"id": "AJ_1"}))
    assert calls.questions("call", now - 6, server)["shared"].connection == taken_by


@pytest.mark.parametrize(
    ("asked_ago", "says", "still", "lost"),
    [
        (5.8, None, 0.0, True),
        (5.8, False, 0.0, True),
        (0.1, None, 0.0, False),  # the caller took its time, or this machine stood still before
        (0.1, False, 0.0, True),
        (None, None, 0.0, True),
        (None, None, 5.0, False),  # nobody asked meanwhile, nor will have been late for that
        (5.8, None, 5.0, False),
    ],
)
def test_a_call_is_lost_once_the_server_has_waited_for_an_answer(
    asked_ago: float | None, says: bool | None, still: float, lost: bool
) -> None:
    seen, now = Transcript(), time.monotonic()
    if asked_ago is not None:
        seen.add(entry("question", at=now - asked_ago, source="server", job={"id": "AJ_1", "room": {"name": "call"}}))
    if says is not None:
        seen.add(entry("answer", at=now, job_id="AJ_1", available=says))
    server = SimpleNamespace(controllable=True)
    worker = SimpleNamespace(name="shared", server=server, wire=SimpleNamespace(transcript=seen))
    history = SimpleNamespace(stood_still=lambda *_: still)
    calls = Calls(SimpleNamespace(workers=lambda: [worker], raise_if_closing=None, history=history))
    assert calls.lost("call", now - 6, server) is lost


@pytest.mark.parametrize(
    ("refused_on", "closed", "refused"), [((1,), (), False), ((1, 2), (), True), ((1,), (2,), True), ((), (), False)]
)
def test_a_call_is_refused_once_every_registration_has_refused_it(
    refused_on: tuple[int, ...], closed: tuple[int, ...], refused: bool
) -> None:
    seen, now = Transcript(), time.monotonic()
    job = {"id": "AJ_1", "room": {"name": "call"}}
    for connection in (1, 2):
        seen.add(entry("register", at=now - 9, connection=connection, agent_name="me"))
        seen.add(entry("registered", at=now - 8, connection=connection, source="server", worker_id=f"AW_{connection}"))
        seen.add(entry("question", at=now - 5, connection=connection, source="server", job=job))
    for connection in refused_on:
        seen.add(entry("answer", at=now - 4, connection=connection, job_id="AJ_1", available=False))
    for connection in closed:
        seen.add(entry("closed", at=now - 4, connection=connection, by="worker", how="eof"))
    server = SimpleNamespace(controllable=True)
    worker = SimpleNamespace(name="shared", server=server, wire=SimpleNamespace(transcript=seen))
    calls = Calls(SimpleNamespace(workers=lambda: [worker], raise_if_closing=None))
    assert calls.refused(SimpleNamespace(room_name="call", joined=now - 6), server) is refused
    assert not calls.refused(SimpleNamespace(room_name="another", joined=now - 6), server)


def test_a_status_that_is_left_out_is_the_one_before() -> None:
    seen = Transcript()
    said: list[tuple[int, dict[str, str]]] = [
        (1, {}),
        (1, {"status": "full"}),
        (1, {}),
        (2, {}),
        (1, {"status": "available"}),
        (1, {}),
    ]
    for connection, status in said:
        seen.add(entry("status", connection=connection, load=0.1, **status))
    assert [known.full for known in seen.statuses()] == [False, True, True, False, False, False]
    assert [known.has_status for known in seen.statuses()] == [False, True, False, False, True, False]


def test_a_lane_is_full_until_the_worker_says_otherwise() -> None:
    seen = Transcript()
    for at, status in ((1.0, {}), (2.0, {"status": "full"}), (3.0, {}), (5.0, {"status": "available"}), (6.0, {})):
        seen.add(entry("status", at=at, load=0.1, **status))
    seen.started = 0.0
    (lane,) = lanes([SimpleNamespace(name="shared", transcript=seen)])
    assert lane.full == [(2.0, 5.0)]
