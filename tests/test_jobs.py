"""One job misbehaves, the worker and its other calls go on: shown with a user's own test; and how leftovers are judged."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_lkagents.calls import SEE_JOINS, Accepted
from pytest_lkagents.checks import Evidence, NotJudgeable, WorkerFault
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.processes import SEPARATOR, parse
from suites import test_jobs as jobs
from suites.accepted import enough
from suites.leftovers import MOUNTS, trend
from suites.pool import require_no_relay, require_own_processes

from .test_workers import image

USERS_TEST = """
import time

import pytest


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
    return condition()


def jobs(worker):
    return worker.snapshot().holders_of(worker.server_peer)[1:]


def misbehaves(how, worker, call, pid):
    if how == "raises":
        return until(lambda: not call.agents_present, 20)
    if how == "blocks":
        return until(lambda: call.silence > 3, 20)
    call.leave()
    time.sleep(5)
    return pid in worker.snapshot().living()


def test_other_calls_go_on(lk_worker, lk_caller):
    first = lk_caller.join()
    assert first.wait_until_agent_talks(20) is not None
    [pid] = jobs(lk_worker)
    other = lk_caller.join()
    assert other.wait_until_agent_talks(20) is not None
    assert misbehaves(lk_worker.environment["MISBEHAVE"], lk_worker, first, pid)
    time.sleep(5)
    assert other.agents_present
    # A call that is cut stays silent for good.
    assert until(lambda: other.silence < 2.5, 8)
    with lk_caller.join() as late:
        assert late.wait_until_agent_talks(20) is not None
    other.leave()
    assert lk_worker.is_running
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["raises", "never-ends", "blocks"])
def test_a_job_that_misbehaves_harms_nobody_else(how: str, lk, tmp_path: Path) -> None:
    tag, _ = image("good", "odd-first-job")
    (tmp_path / "test_mine.py").write_text(USERS_TEST)
    run = lk("--lk-image", tag, "--lk-env", f"MISBEHAVE={how}", "test_mine.py")
    assert run.code == 0, run.output
    assert re.search(r"\b1 passed\b", run.output), run.output


@pytest.mark.parametrize(
    ("values", "slope", "exceeds"),
    [
        ((5, 7, 9, 11, 13), 1.0, True),  # one each
        ((5, 6, 7, 8, 9), 0.5, False),  # exactly the bound
        ((4, 8, 8, 8, 8), 0.4, False),  # a pool that grew once
        ((10, 0, 20, 5, 30), 2.25, False),  # too noisy to tell
        ((9, 7, 5, 3, 1), -1.0, False),
    ],
)
def test_only_growth_beyond_doubt_is_a_leftover(values: tuple[int, ...], slope: float, exceeds: bool) -> None:
    found = trend([2, 4, 6, 8, 10], values)
    assert found.slope == pytest.approx(slope)
    assert found.exceeds(0.5) is exceeds


@pytest.mark.parametrize("kind", ["overlay", "zfs", "btrfs", "fuse.fuse-overlayfs"])
def test_the_images_own_files_are_none_of_the_workers(kind: str, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        f"90 80 0:50 / / rw,relatime master:1 - {kind} pool/layer rw\n"
        "91 90 0:51 / /proc rw - proc proc rw\n"
        "92 90 0:52 / /dev/shm rw - tmpfs shm rw\n"
        f"93 90 0:53 /volume /data rw,relatime - {'ext4' if kind == 'overlay' else kind} pool/volume rw\n"
    )
    told = subprocess.run(f"{MOUNTS} {table}", shell=True, capture_output=True, text=True, check=True).stdout.split()
    assert told == ["/dev/shm", "/data"]


def test_a_trend_needs_three_points() -> None:
    with pytest.raises(ValueError, match="three points"):
        trend([1, 2], [0, 0])


OUTPUT = f"""\
    1     0 10001 Ssl  80000 2 python agent.py start
   13     1 10001 S    30000 0 python -c from multiprocessing.forkserver import main
   17    13 10001 Sl   90000 1 python -c from multiprocessing.forkserver import main
   21    17 10001 S    1000 0 cat
   22     1 10001 Z    0 0 [cat] <defunct>
{SEPARATOR}
0 0 10.0.0.2:1 10.0.0.1:7880 users:(("python",pid=1,fd=9))
0 0 10.0.0.2:2 10.0.0.1:7880 users:(("python",pid=17,fd=9))
0 0 10.0.0.2:3 10.0.0.9:443 users:(("python",pid=17,fd=10))
{SEPARATOR}
"""


def test_a_snapshot_knows_who_lives() -> None:
    seen = parse(OUTPUT)
    assert seen.zombies() == {22}
    assert set(seen.living()) == {1, 13, 17, 21}
    assert seen.living()[17].state == "Sl"
    assert (seen.living()[17].resident_bytes, seen.living()[17].cpu_s) == (90000 * 1024, 1)


def test_a_proxy_in_the_container_serves_no_call_itself() -> None:
    """Many connections are one process's, which holds no socket for media, while the jobs do."""
    forwarded = OUTPUT.replace('"python",pid=17,fd=9', '"python",pid=1,fd=10')
    media = 'udp UNCONN 0 0 10.0.0.2:40000 0.0.0.0:* users:(("python",pid=17,fd=11))\n'
    seen = parse(forwarded + media)
    with pytest.raises(NotJudgeable, match=r"sends no media: python agent\.py start"):
        require_no_relay(seen, [], seen.holders_of("10.0.0.1:7880"))
    # One process that serves both, and one of which nothing is known.
    require_no_relay(parse(OUTPUT + media), [], [17, 17])
    require_no_relay(parse(forwarded), [1], [1, 1])
    with pytest.raises(NotJudgeable, match="sends no media"):
        require_no_relay(seen, [], [13, 21])
    # Several processes, one of which has only just joined its call.
    require_no_relay(seen, [], [1, 17])


def test_an_avatar_is_its_agents_child() -> None:
    seen = parse(OUTPUT)
    assert seen.without_children([17, 21]) == [17]
    assert seen.without_children([21, 17, 13]) == [13]
    assert seen.without_children([17, 17]) == [17, 17]


def test_a_connection_is_known_by_its_port() -> None:
    seen = parse(OUTPUT)
    assert seen.holders_of("10.0.0.1:7880") == [1, 17]
    assert seen.holders_of("10.0.0.1:7880", {2, 3}) == [17]


@pytest.mark.parametrize(("own", "jobs"), [([1], [1, 17]), ([1], [17, 17]), ([1], [17])])
def test_jobs_that_share_a_process_are_not_judged_twice(own: list[int], jobs: list[int]) -> None:
    with pytest.raises(NotJudgeable):
        require_own_processes(parse(OUTPUT), own, jobs)


def test_a_lost_call_is_chance_only_if_enough_were_served_since() -> None:
    served, lost = Accepted("shared", "room", "job", 0.0, 1.0), Accepted("shared", "room", "job", 0.0, None)
    assert not enough([served] * 5)
    assert enough([served] * 6)
    assert not enough([served] * 5 + [Accepted("peer", "room", "job", 0.0, 1.0)] * 5), "each counts its own calls"
    assert not enough([served] * 6 + [lost])
    assert not enough([served] * 6 + [lost] + [served] * 7)
    assert enough([lost] + [served] * 8)
    assert enough([lost, lost])
    late, busy = Accepted("shared", "room", "job", 0.0, 18.0), Accepted("shared", "room", "job", 0.0, 18.0, busy=True)
    assert enough([lost, late])
    assert not enough([busy, busy]), "in a moment of peace it may be in time"
    assert not enough([busy, busy] + [served] * 7)
    assert enough([busy, busy] + [served] * 8)
    assert not enough([served] + [busy] * 9), "nobody was served since"


def test_a_check_does_not_refer_to_itself() -> None:
    stage = cast(Stage, SimpleNamespace(worker=lambda _role: SimpleNamespace(last_words=lambda text: text)))

    def nobody() -> jobs.FirstCall:
        raise WorkerFault(f"no agent came to any call to 2 workers{SEE_JOINS}")

    with pytest.raises(AssertionError, match=r"^no agent came to any call to 2 workers$"):
        jobs.test_joins(stage, Evidence(), nobody)
