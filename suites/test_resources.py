"""Section "Memory and CPU": what a call costs, and what its user hears while others are served."""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_lkagents.calls import AGENT_SECONDS
from pytest_lkagents.checks import INFO, MUST, SHOULD, Evidence, NotJudgeable, check
from pytest_lkagents.guide import RULE_BYTES, RULE_CORES, TEST_AGENTS, TEST_BYTES, TEST_CORES
from pytest_lkagents.stage import Stage

from . import leftovers
from .crowds import LoadTest
from .long_call import MOST_PER_SECOND, TREND_SECONDS, WARM_SECONDS, LongCall
from .quality import AGENT_BOUND, BOUNDS, bounds_broken
from .scenario import CHECK_SECONDS

GUIDE = {"agents": TEST_AGENTS, "cores_per_agent": round(TEST_CORES, 3), "memory_per_agent_bytes": TEST_BYTES}
IDLE_SECONDS = 3.0


@check(
    "resources.idle",
    INFO,
    section="Memory and CPU",
    why="What a worker without a call uses is what every replica costs.",
    roles=("shared",),
)
def test_idle(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """What a worker without a call uses.

    Once the last job has ended, the worker's CPU time and memory are read twice, 3 s apart. Memory is what nobody can
    take back without ending a process: anonymous and shared memory as the engine counts it, no cached files (with
    `--lk-command`: the processes' proportional set size). The values are recorded, nothing is judged; a worker that
    does not come to rest within 60 s is an error.
    """
    worker = lk_stage.worker("shared")
    lk_stage.calls.wait_idle(worker)
    first = worker.usage()
    time.sleep(IDLE_SECONDS)
    last = worker.usage()
    cores = (last.cpu_s - first.cpu_s) / (last.at - first.at)
    lk_evidence["cores"], lk_evidence["memory_bytes"] = round(cores, 4), last.memory_bytes
    lk_evidence["processes"] = len(worker.snapshot().living())
    lk_evidence.summary = f"{last.memory_bytes / 1e6:.0f} MB and {cores:.3f} cores in {lk_evidence['processes']} processes"


@check(
    "resources.within-ceilings",
    MUST,
    profile="full",
    section="Memory and CPU",
    why="A worker that needs more per call than planned for is killed for its memory, or starves all its calls.",
    remedy="find what the job keeps (models per job instead of per process, recordings); or raise the ceiling and the limits",
    roles=("crowded",),
    seconds=400,
    order=3,
)
def test_within_ceilings(lk_stage: Stage, lk_evidence: Evidence, lk_loaded: Callable[[], LoadTest]) -> None:
    """Each of several calls stays within the declared ceilings, or else within the guide's rule for memory (then a SHOULD).

    A worker (1 core, or `--lk-cpus`) is measured at rest for 4 s, then with `--lk-sessions` (default 4) calls for 20 s,
    beginning 4 s after the last one came and its processes neither come, go nor grow (both for 30 s at most); CPU and
    memory are read twice a second. The difference of the means, divided by the calls that were served, may be at most
    `lk_max_cpu_per_session` (judged only if declared) and `lk_max_memory_per_session`, or else 320 MB, the guide's rule
    of 8 GB for 25 sessions. What exceeds the rule alone is a SHOULD. Skipped if no call is served; an error if this
    machine or the simulated users are short of CPU.
    """
    settings = lk_stage.settings
    declared_cores, declared_memory = settings.max_cpu_per_session, settings.max_memory_per_session
    declared = declared_cores is not None or declared_memory is not None
    cores, memory = declared_cores or RULE_CORES, declared_memory or RULE_BYTES
    if not declared:
        lk_evidence.severity = SHOULD
    seen = lk_loaded()
    lk_evidence["ceilings"] = {"declared": declared, "cores_per_session": cores, "memory_per_session_bytes": memory}
    lk_evidence["guide"] = GUIDE
    lk_evidence.update(seen.evidence())
    found = f"{seen.cores_per_session:.3f} cores and {seen.memory_per_session / 1e6:.0f} MB per call"
    above = seen.cores_per_session > cores
    # The rule's cores are those of whoever wrote it: where nobody declared what a call may use of *these*, it is only said.
    over_cores, over_memory = above and declared_cores is not None, seen.memory_per_session > memory
    wrong = [f"{seen.cores_per_session:.3f} cores (at most {cores:.3g})"] if over_cores else []
    wrong += [f"{seen.memory_per_session / 1e6:.0f} MB (at most {memory / 1e6:.0f})"] if over_memory else []
    if over_memory and declared_memory is None and not over_cores:
        lk_evidence.severity = SHOULD  # the guide's rule, which binds nobody
    assert not wrong, f"a call uses {' and '.join(wrong)}, with {seen.loaded.sessions} calls"
    rule = f" ({'more than' if above else 'within'} the guide's rule of 0.16 cores)" if declared_cores is None else ""
    lk_evidence.summary = f"{found} with {seen.loaded.sessions} calls{rule}"


@check(
    "resources.quality-of-service",
    MUST,
    profile="full",
    section="Memory and CPU",
    why="A worker can serve all its calls and yet none of them well.",
    remedy="more CPU and memory, or fewer calls (a lower load threshold); keep blocking work out of the event loop",
    roles=("crowded",),
    seconds=400,
    order=3,
)
def test_quality_of_service(lk_evidence: Evidence, lk_loaded: Callable[[], LoadTest]) -> None:
    """Beside other calls, a user's call starts soon and sounds whole.

    In the load test of `resources.within-ceilings` the first caller also listens. Its agent must come within 10 s and
    be heard within 15 s; during the 20 s that all calls last, an agent that talks without pauses may have no hole above
    2 s, and one that did so alone may not be silent all the time, at most 5 % of the sound may be concealed, and the
    mean jitter may be 30 ms at most, the usual limit for voice. No other user may wait more than 10 s for an agent, or
    get none within 15 s although the worker accepted the call, and none may lose it: the worker took these calls. The
    last caller listens too: where the first one's agent was heard, this one's must be within 54 s. A hole counts if the
    agent, in a second load test, talks on for more than twice as long before the others come, a lost agent if the
    listener's stays for half as long again, and one that is not heard, or one accepted call without an agent, if that
    happens twice. What a silent agent cannot show is not judged, and one that answers only at the end of a turn is
    silent, as callers make no pause above 0.24 s; skipped if no call is served, and an error if this machine or the
    simulated users are short of CPU.
    """
    seen = lk_loaded()
    quality = seen.loaded.quality
    assert quality is not None
    lk_evidence["sessions"] = seen.loaded.sessions
    lk_evidence.update(seen.loaded.evidence()["quality"])
    lk_evidence["agents_came_after_s"] = seen.agents_after_s
    lk_evidence["bounds"] = {name: bound for name, bound, _ in BOUNDS}
    lk_evidence["accepted_and_not_served"] = seen.unserved
    wrong = bounds_broken(quality)
    if seen.unserved:
        wrong.append(f"to {seen.unserved} calls that it accepted no agent came within {AGENT_SECONDS} s")
    late = max(seen.agents_after_s, default=0.0)
    if late > AGENT_BOUND:
        wrong.append(f"one of the other users waited {late:.1f} s for an agent")
    assert not wrong, f"beside {seen.loaded.sessions - 1} other calls: {'; '.join(wrong)}"
    heard = "packets only" if quality.longest_silence_s is None else f"longest silence {quality.longest_silence_s:.2f} s"
    if quality.sound_s is None:
        heard = "its agent was not heard, so that what speech costs was not measured"
        lk_evidence["not_measured"] = "callers make no pause above 0.24 s: one that answers at the end of a turn says nothing"
    share = "" if quality.concealed_share is None else f", {quality.concealed_share:.1%} concealed"
    lk_evidence.summary = f"beside {seen.loaded.sessions - 1} other calls: agent after {quality.agent_s:.1f} s, {heard}{share}"


@check(
    "resources.no-growth",
    SHOULD,
    profile="full",
    section="Memory and CPU",
    why="A worker that grows with every call is killed for its memory after some hundred of them, with the calls it has.",
    remedy="keep nothing per call in the worker's own process; look for caches, handlers and tasks that stay",
    roles=("tidy",),
    seconds=600,
)
def test_no_growth(lk_evidence: Evidence, lk_tidied: Callable[[], leftovers.Leftovers]) -> None:
    """Over 30 short calls the worker's memory does not grow.

    After a first pair of calls as warm-up, 15 pairs of short calls are placed, and after each pair the worker is given
    up to 12 s to rest; then the anonymous, shared and swapped memory of those processes that live all the time is read.
    A straight line is laid through the 16 readings: its slope less two standard errors may be at most 1 MB per call
    (with 1000 calls between two rollouts that is a gigabyte). Skipped with `--lk-command` or if calls are not served.
    """
    seen = lk_tidied()
    found = seen.trends()["memory_bytes"]
    calls = seen.rests[-1].calls - seen.rests[0].calls
    lk_evidence["calls"], lk_evidence["memory_bytes"] = calls, found.evidence()
    lk_evidence["confidence_95_bytes"] = [round(found.slope - 2 * found.stderr), round(found.slope + 2 * found.stderr)]
    lk_evidence["limit_bytes_per_call"] = leftovers.MOST_BYTES
    grows = f"{found.slope / 1e6:+.2f} MB per call over {calls} calls (standard error {found.stderr / 1e6:.2f})"
    assert not found.exceeds(leftovers.MOST_BYTES), f"its memory grows by {grows}"
    lk_evidence.summary = f"memory {grows}"


@check(
    "resources.no-growth-in-call",
    SHOULD,
    profile="soak",
    section="Memory and CPU",
    why="A call that takes more with every second ends the worker by its memory limit, together with all other calls.",
    remedy="keep no sound or frames in memory: write recordings to a file or send them away, and bound histories and queues",
    roles=("patient",),
    seconds=CHECK_SECONDS,
    order=9,
)
def test_no_growth_in_call(lk_evidence: Evidence, lk_long_drain: Callable[[], LongCall]) -> None:
    """In a call of some minutes the worker's memory does not grow.

    During the call of `rollout.grace-period` the worker's memory (see `resources.idle`) is read every 2 s, from 120 s
    after the stop signal until the caller hangs up. A straight line is laid through the readings: its slope less two
    standard errors may be at most 89 kB per second, with which a call of an hour would take 320 MB by its growth alone,
    all that the guide's rule (8 GB for 25 sessions) has for a call. Skipped if the call was not served, was cut, or
    lasted less than four minutes (`--lk-drain-hold`).
    """
    seen = lk_long_drain()
    lk_evidence["held_s"], lk_evidence["readings"] = seen.drain.held_s, len(seen.usage)
    lk_evidence["limit_bytes_per_s"] = round(MOST_PER_SECOND)
    if not seen.drain.drained:
        raise NotJudgeable("its call did not live until its own end: see rollout.grace-period")
    growth = seen.growth()
    if growth is None:
        raise NotJudgeable(
            f"a call of {seen.drain.held_s:.0f} s is too short to tell; {WARM_SECONDS + TREND_SECONDS:.0f} s or more do"
        )
    lk_evidence["bytes_per_s"], lk_evidence["stderr"] = round(growth.slope), round(growth.stderr)
    lk_evidence["memory_bytes"] = [seen.usage[0].memory_bytes, seen.usage[-1].memory_bytes]
    grows = f"{growth.slope / 1e3:+.1f} kB per second (standard error {growth.stderr / 1e3:.1f})"
    lasted = f"{seen.usage[-1].at - seen.usage[0].at:.0f} s of a call"
    assert not growth.exceeds(MOST_PER_SECOND), f"its memory grows by {grows} in {lasted}"
    lk_evidence.summary = f"memory {grows} in {lasted}"
