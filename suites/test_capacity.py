"""How many calls one worker carries, and what follows for limits, replicas and autoscaling."""

from __future__ import annotations

from collections.abc import Callable

from pytest_lkagents.checks import INFO, Evidence, NotJudgeable, check
from pytest_lkagents.stage import Stage

from .climb import LEAST_LEVELS, climb

FILE = "capacity.txt"


@check(
    "capacity.sizing",
    INFO,
    profile="full",
    section="Memory and CPU",
    why="How many workers a service needs, and when to add one, is guessed unless it is measured.",
    remedy="give the worker more CPU or memory, or plan with more replicas",
    roles=("crowded",),
    seconds=600,
    order=4,
)
def test_sizing(lk_stage: Stage, lk_evidence: Evidence, lk_progress: Callable[[str], None]) -> None:
    """More and more calls until quality, the load threshold, memory or the bounds of this test give way: a capacity card.

    On one worker (1 core, or `--lk-cpus`) calls are added one by one to 1-6, 8, 10, 13, 16, 20 and 25, for 240 s at
    most; at each level its CPU and memory are read twice a second for 8 s, beginning 4 s after the last call came; at
    rest, once its processes neither come, go nor grow (30 s at most). The climb ends when a user gets no agent in three
    tries, a bound of `resources.quality-of-service` is broken, memory passes 90 % of `--lk-memory`, the worker ends or
    accepts a call to which no agent comes within 15 s, or this machine is short of CPU. Straight lines through the
    levels, the one at rest included, give cores and memory per session. Nothing is judged; skipped with fewer than
    three levels, or if the first call is not served.
    """
    worker = lk_stage.worker("crowded")
    done = climb(lk_stage, lk_progress)
    lk_evidence["curve"] = [
        {**level.evidence(), "reported_load": load} for level, load in zip(done.levels, done.loads, strict=True)
    ]
    lk_evidence["series_s_cores_bytes"] = done.series
    lk_evidence["gave_way_first"], lk_evidence["gave_way_detail"] = done.gave_way, done.detail
    if len(done.levels) < LEAST_LEVELS:
        raise NotJudgeable(f"too few levels for a sizing: {done.detail or done.gave_way}")
    card = done.card(worker)
    lk_evidence.update(card.evidence())
    lk_evidence["card"] = card.lines()
    if lk_stage.settings.report_dir is not None:
        lk_stage.settings.report_dir.mkdir(exist_ok=True)
        path = lk_stage.settings.report_dir / FILE
        path.write_text(lk_stage.redactor.text("".join(f"{text}\n" for text in card.lines())))
    lk_evidence.summary = (
        f"{card.sessions} sessions per worker; {card.cores.slope:.3f} cores and {card.memory.slope / 1e6:.0f} MB each"
    )
