"""Section "Networking": the optional health endpoint."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from pytest_lkagents.checks import MUST, SHOULD, Evidence, NotJudgeable, StageError, check
from pytest_lkagents.clock import DeadlineMissed, poll
from pytest_lkagents.probe.answers import Answer, shown, shown_from
from pytest_lkagents.stage import Stage
from pytest_lkagents.verdict import SEEN_BESIDE
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.health import Health

from .drained import FAILED_PROBES, Drain
from .healthy import HEALTHY_SECONDS, Failing, answer_within, answers
from .load import BURNT_SHARE
from .loaded import Loaded
from .scenario import CHECK_SECONDS
from .unready import GIVE_UP_SECONDS, until_not_ready

# As long as these take, every 3 s or so: a single one may be lost on a busy machine.
REACH_SECONDS = 10
# The default timeout of orchestrators' probes.
UNDER_LOAD_SECONDS = 1.0
FULL_SECONDS = 10
PROBES = 100
# The other 99 % have to answer in time.
MOST_LATE = 1
PROBE_EVERY = 0.1
# For these without a pause; and what who limits the rate answers: no platform asks so often.
ROW_SECONDS = 20.0
TOO_MANY = 429
# Of an endpoint that failed in between: as many probes as most platforms send in a minute or two, and how many may fail. Where
# one of two or three processes behind it hangs, three or more do, and soon three in a row.
SLOW_PROBES, SLOW_EVERY, MOST_FAILED = 10, 1.0, 2
# By their documentation (Fly.io: community.fly.io/t/22424; Google: github.com/kubernetes/ingress-gce/issues/1768). Kubernetes
# and Consul follow; with the redirect itself Render, Azure Container Apps and curl -f are content.
NOT_FOLLOWED = "AWS ALB (its matcher is 200 by default), Google Cloud's load balancers, Fly.io and Railway fail it"
REMEDY = "answer GET / with 200 while the worker is registered, on 0.0.0.0 (port 8081 by default)"


def _health(stage: Stage, worker: Worker) -> Health:
    if stage.settings.health == "off":
        raise NotJudgeable("the health endpoint is switched off (lk_health = off)")
    found = worker.wait_health()
    if found is not None:
        return found
    port = stage.settings.health_port
    if stage.settings.health == "required" or port is not None:
        raise AssertionError(f"nothing listens on the health port{f' {port}' if port else ''}")
    raise NotJudgeable("no health endpoint, which is optional (lk_health = required to insist)")


def _own_health(stage: Stage, worker: Worker) -> Health:
    """One whose answers are the worker's own."""
    found = _health(stage, worker)
    answer = worker.health_answer(found)
    if answer.leads_elsewhere:
        where = f"GET {found.path} on port {found.port} leads to another host, {shown(answer.location)}"
        if stage.settings.health == "required":
            raise AssertionError(f"{where}, which tells nothing of the worker")
        raise NotJudgeable(f"{where}, which tells nothing of the worker: name a path of its own as lk_health_path")
    return found


@check(
    "health.answers",
    MUST,
    profile="smoke",
    section="Networking",
    why="Platforms restart, or never route to, a container whose health check fails.",
    remedy=REMEDY,
    roles=("shared",),
    seconds=400,
    order=3,
)
def test_answers(lk_stage: Stage, lk_evidence: Evidence, lk_filled: Callable[[], Loaded | None]) -> None:
    """The health endpoint answers 200 once the worker has registered, and when it is full.

    The health port is `lk_health_port`, else 8081, else one that answers as a health endpoint does (200, 503, or an
    SDK's page `/worker`); one on loopback alone, 8081 too, gives way to one that others can reach with that page or
    with 200 at a path named below. It is awaited for 5 s. GET of `lk_health_path` (default `/`, or where that is 404 or
    leads elsewhere the first of `/healthz`, `/health`, `/livez`, `/readyz`, `/ready` and `/live` that answers 200),
    from this machine or from inside where only loopback is served, must answer 200 within 5 s, asked every 0.5 s, and
    100 times without a pause: what each probe keeps (a connection, a descriptor) is used up one day. Another answer
    than 429 counts if it does not become 200 again within 10 s (not where only loopback is served, nor after 20 s), or
    if more than two of ten later probes, one a second, are answered otherwise too, as where one of several processes
    behind it hangs. Redirects to the same host are followed, ten requests at most, here and in the other checks of
    health, as Kubernetes' probes follow them; the evidence names platforms whose probes do not. One to another host
    says nothing of the worker and is not judged (a failure with `lk_health = required`). Where
    `availability.refuses-while-full` fills a worker with calls (not where CPU alone fills it, or workers take turns),
    its endpoint, unless its path is a readiness probe's, must not answer otherwise for 10 s in a row, as platforms
    restart what is unhealthy. Skipped without a health endpoint (a failure with `lk_health = required` or
    `lk_health_port`) and with `lk_health = off`; no answer at all on an overloaded machine is an error.
    """
    worker = lk_stage.worker("shared")
    health = _own_health(lk_stage, worker)
    lk_evidence["port"], lk_evidence["path"] = health.port, health.path
    answer = answer_within(lk_stage, worker, health, 5)
    lk_evidence["status"] = answer.status
    if answer.first is not None:
        lk_evidence["redirect"], lk_evidence["redirected_to"] = answer.first, shown_from(health.port, answer.url)
        lk_evidence["redirect_not_followed_by"] = NOT_FOLLOWED
    assert answer.status == 200, f"GET {health.path} on port {health.port} answers {answer}"
    answered, status = _in_a_row(worker, health)
    lk_evidence["probes_in_a_row"] = answered
    if status not in (200, TOO_MANY):
        if (status := answer_within(lk_stage, worker, health, HEALTHY_SECONDS).status) != 200:
            raise AssertionError(f"GET {health.path} answers 200 to {answered} probes, and {status or 'nothing'} from then on")
        failed, asked = _failed_slowly(lk_stage, worker, health)
        lk_evidence["failed_now_and_then"] = failed
        assert failed <= MOST_FAILED, f"GET {health.path} does not answer 200 to {failed} of {asked} probes, one a second"
    filled = lk_filled()
    if filled is not None and filled.unhealthy_when_full is not None:
        lk_evidence[SEEN_BESIDE] = "availability.refuses-while-full"
        lk_evidence["status_when_full"], lk_evidence["calls_when_full"] = filled.unhealthy_when_full, filled.calls
        calls = f"{filled.calls} call{'s' if filled.calls != 1 else ''}"
        raise AssertionError(
            f"GET {health.path} answers {filled.unhealthy_when_full} while the worker is full with {calls}, "
            "for which a probe ends it"
        )
    lk_evidence.summary = f"200 on port {health.port}" + (", where a redirect leads" if answer.first is not None else "")


def _in_a_row(worker: Worker, health: Health) -> tuple[int, int | None]:
    """How many probes without a pause are answered with 200, and what the next one is answered, if there was time for one: 200
    otherwise. Each one from inside takes its time."""
    if health.loopback:
        return 0, 200
    end = time.monotonic() + ROW_SECONDS
    for asked in range(PROBES):
        status = worker.health_status(health) if time.monotonic() < end else 200
        if status != 200 or time.monotonic() >= end:
            return asked, status
    return PROBES, 200


def _failed_slowly(stage: Stage, worker: Worker, health: Health) -> tuple[int, int]:
    """How many of some probes with a pause between them failed, and how many were sent: no more than are needed to tell, as
    each may take seconds. Raises TooBusy."""
    before, failed, asked = worker.reading(), 0, 0
    while asked < SLOW_PROBES and failed <= MOST_FAILED:
        stage.raise_if_closing()
        time.sleep(SLOW_EVERY)
        failed += worker.health_status(health) not in (200, TOO_MANY)
        asked += 1
    if failed > MOST_FAILED:
        stage.raise_if_too_busy(worker, before)
    return failed, asked


@check(
    "health.reachable",
    MUST,
    section="Networking",
    why="Probes come from the host or the node, not from inside the container.",
    remedy="bind the health endpoint to 0.0.0.0, not to localhost",
    roles=("shared",),
)
def test_reachable(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """The health endpoint can be reached from another host.

    A container beside the worker on the same network asks its health port with GET of `lk_health_path` for up to 10 s;
    with `--lk-command` an address of this machine other than loopback is asked instead. Any HTTP status counts as
    reached, but for another one than 200 where loopback is answered with 200 before and after; no answer is a failure,
    and on an overloaded machine an error. Skipped without a health endpoint (a failure with `lk_health = required` or
    `lk_health_port`) and with `lk_health = off`, or if this machine has no address but loopback.
    """
    worker = lk_stage.worker("shared")
    health = _health(lk_stage, worker)
    path = health.path
    inside = worker.answer_inside(path, health.port).status
    before = worker.reading()
    answers: list[Answer] = []

    def reached() -> bool:
        """By any answer, but for one that says less than what is said inside."""
        last = answers[-1]
        return last.status == 200 or last.leads_elsewhere or (last.status is not None and inside != 200)

    def asked() -> bool:
        answers.append(lk_stage.answer_to_another_host(worker, health.port, path))
        return reached()

    with contextlib.suppress(DeadlineMissed), worker.ledger.waiting(worker.name):
        poll(asked, what="answer", seconds=REACH_SECONDS, every=1)
    outside = answers[-1].status
    lk_evidence["port"], lk_evidence["tries"] = health.port, len(answers)
    lk_evidence["status_from_inside"], lk_evidence["status_from_another_host"] = inside, outside
    if outside is None:
        lk_stage.raise_if_too_busy(worker, before)
    elif not reached():
        lk_evidence["status_from_inside"] = inside = worker.answer_inside(path, health.port).status
    assert reached(), f"port {health.port} answers {inside or 'nothing'} inside, {outside or 'nothing'} from another host"
    who = "another host" if lk_stage.settings.image is not None else "who asks at this machine's own address"
    lk_evidence["asked_by"] = who
    lk_evidence.summary = f"{who} gets {outside} on port {health.port}"


@check(
    "health.unhealthy-when-lost",
    SHOULD,
    profile="full",
    section="Networking",
    why="A worker that lost its server for good and stays healthy is never replaced.",
    remedy="fail the health check, or exit, once the connection cannot be had back",
    roles=("lost",),
    seconds=GIVE_UP_SECONDS + 60,
)
def test_unhealthy_when_lost(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """The health endpoint does not stay 200 when the server is gone for good.

    The LiveKit server of a registered worker is stopped and its address refuses connections; GET of `lk_health_path` is
    asked once a second for 180 s, as the Python SDK tries for about 130 s before it gives up. It passes when the status
    is not 200 for more than 5 s, or the worker exits with a code other than 0; an exit with 0, or 200 all the time, is
    a failure. Skipped without a health endpoint (a failure with `lk_health = required` or `lk_health_port`) and with
    `lk_health = off`, or if the server is given by URL and cannot be stopped.
    """
    if not lk_stage.controllable:
        raise NotJudgeable("the LiveKit server given by URL cannot be stopped")
    worker = lk_stage.untouched("lost")
    _own_health(lk_stage, worker)
    lost = time.monotonic()
    worker.stop_server()
    how = until_not_ready(worker, lost, GIVE_UP_SECONDS, lk_evidence)
    assert how, f"still 200 {GIVE_UP_SECONDS} s after the server was lost"
    lk_evidence.summary = f"without a server it {how}"


@check(
    "health.unhealthy-when-dead",
    SHOULD,
    profile="full",
    section="Networking",
    why="Platforms replace what has ended or fails its probe; one that outlives its worker and looks well does neither.",
    remedy="end the container with its worker (exec it, or let what starts it exit when it does), start it again, or ask it "
    "before a health check is answered with 200",
    roles=("dead",),
)
def test_unhealthy_when_dead(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """When the process that is registered dies, the container ends, it comes back, or its health endpoint tells.

    The process that holds the connection of the registration is killed with SIGKILL, as the kernel does when memory is
    short. Within `lk_start_timeout` (default 60 s) the container, or with `--lk-command` the process that was started,
    must have ended, or the worker be registered again, or its health endpoint have answered something else than 200 for
    more than 5 s (which says nothing where it did not answer 200 before). If it is the container's first process, the
    container ends with it, and nothing is killed. An overloaded machine is an error.
    """
    worker = lk_stage.untouched("dead")
    own = worker.registered_by(worker.snapshot())
    if not own:
        raise NotJudgeable("the process that holds the registration cannot be seen")
    lk_evidence["registered_pids"], lk_evidence["first_pid"] = own, worker.first_pid
    if worker.first_pid in own:
        lk_evidence.summary = "the process that is registered is the first one, with which it ends"
        return
    health, before = answers(worker), worker.reading()
    ever = len(worker.wire.transcript.registrations())
    killed = time.monotonic()
    worker.signal_processes(own, "SIGKILL")
    how = _told(worker, health, ever, lk_stage.settings.start_timeout)
    lk_evidence["told_after_s"], lk_evidence["told_by"] = round(time.monotonic() - killed, 1), how
    if how is None:
        lk_stage.raise_if_too_busy(worker, before)
        looks = f"and its health endpoint answers {worker.health_status(health)}" if health else "and nothing tells"
        raise AssertionError(
            f"{lk_stage.settings.start_timeout:g} s after its process was killed it is not registered, not ended, {looks}"
        )
    lk_evidence.summary = f"after its process was killed, {how}, {lk_evidence['told_after_s']} s later"


def _told(worker: Worker, health: Health | None, ever: int, seconds: float) -> str | None:
    """How it shows within ``seconds`` that its process is gone; None: it does not. ``ever``: its registrations before."""
    failing = Failing()

    def told() -> str | None:
        if not worker.is_running:
            return f"it ended with code {worker.exit_code}"
        if len(worker.wire.transcript.registrations()) > ever:
            return "it registered again"
        if health is not None and failing.look(worker.health_status(health)):
            return "its health endpoint failed"
        return None

    with contextlib.suppress(DeadlineMissed), worker.ledger.waiting(worker.name):
        return poll(told, what="sign of its end", seconds=seconds, every=0.3)
    return None


@check(
    "health.answers-while-draining",
    SHOULD,
    section="Networking",
    why="A liveness probe that fails during the drain kills the calls that the drain protects.",
    remedy="keep the health endpoint open and at 200 until the last call has ended",
    roles=("draining",),
    seconds=CHECK_SECONDS,
    order=2,
)
def test_answers_while_draining(lk_stage: Stage, lk_evidence: Evidence, lk_drain: Callable[[], Drain]) -> None:
    """The health endpoint answers while the worker drains.

    During the drain of `rollout.sigterm-drains` GET of `lk_health_path` is asked every 0.5 s, from the stop signal
    until the last call is hung up. Three probes in a row without 200 are a failure, as orchestrators restart a
    container for that by default; a missing answer on an overloaded machine is an error. Skipped without a health
    endpoint (a failure with `lk_health = required` or `lk_health_port`) and with `lk_health = off`, and if fewer than
    three probes could be made because the call was cut at once.
    """
    _own_health(lk_stage, lk_stage.worker("shared"))
    seen = lk_drain()
    if seen.health_port is None:
        raise NotJudgeable("the draining worker had no health endpoint")
    if len(seen.health) < FAILED_PROBES:
        raise NotJudgeable(f"it did not drain: {seen.cut.trouble if seen.cut else 'the call was over at once'}")
    longest = seen.unhealthy
    lk_evidence["probes"], lk_evidence["failed_in_a_row"] = len(seen.health), longest
    lk_evidence["statuses"] = sorted({str(status) for status in seen.health})
    if seen.unanswered:
        seen.raise_if_busy()
    assert longest < FAILED_PROBES, f"{longest} probes in a row failed after {seen.signal} with a call in progress"
    lk_evidence.summary = f"{len(seen.health)} probes during the drain, {longest} failed in a row"


@check(
    "health.answers-under-load",
    MUST,
    profile="full",
    section="Networking",
    why="A liveness probe that times out under load has the platform kill a worker when it is needed most.",
    remedy="keep blocking work out of the loop (or thread) that answers the health check",
    roles=("crowded",),
    order=2,
)
def test_answers_under_load(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """The health endpoint answers within a second while all its CPU is in use.

    All cores of a worker (1 core, or `--lk-cpus`) are burnt inside its container; once its status is "full", or after
    10 s, GET of `lk_health_path` is asked 100 times, every 0.1 s, or until two did not answer in time. 99 of the 100
    must answer 200 within 1 s, the default timeout of orchestrators' probes. Skipped without a health endpoint (a
    failure with `lk_health = required` or `lk_health_port`) and with `lk_health = off`, or if nothing in the image can
    burn CPU, or if the endpoint of a container serves only loopback, as the engine takes its time for each request from
    inside; a miss on an overloaded machine is an error, and so is a burner that got less than half of these cores.
    """
    worker = lk_stage.worker("crowded")
    health = _own_health(lk_stage, worker)
    if health.loopback and lk_stage.settings.image is not None:
        raise NotJudgeable("its endpoint serves only loopback (see health.reachable), from where an answer takes its time")
    with lk_stage.background.alone_on_the_machine(), worker.burn():
        began, before = time.monotonic(), worker.reading()
        # The load is averaged over some seconds; a worker may do its worst only when it is over its threshold.
        worker.wire.transcript.wait(lambda seen: any(status.full for status in seen.statuses(began)), FULL_SECONDS)
        times: list[float] = []
        asked = missed = late = 0
        # One that always answers slowly is known after a few.
        while asked < PROBES and missed + late <= MOST_LATE:
            began = time.monotonic()
            status = worker.health_status(health)
            passed = time.monotonic() - began
            asked += 1
            if status == 200:
                times.append(passed)
                late += passed > UNDER_LOAD_SECONDS
            else:
                missed += 1
            time.sleep(max(PROBE_EVERY - passed, 0.0))
        used = worker.cores_used()
    times.sort()
    lk_evidence["probes"], lk_evidence["not_200"], lk_evidence["late"] = asked, missed, late
    lk_evidence["limit_s"], lk_evidence["cores_used"] = UNDER_LOAD_SECONDS, round(used, 2)
    lk_evidence["median_s"] = round(times[len(times) // 2], 3) if times else None
    if missed + late > MOST_LATE:
        lk_stage.raise_if_too_busy(worker, before)
        seen = f"{missed} were not answered with 200" if missed else f"{late} took longer than {UNDER_LOAD_SECONDS:g} s"
        raise AssertionError(f"with its CPU in use, of {asked} probes {seen}")
    allowed = worker.cpus or float(os.cpu_count() or 1)
    if used < BURNT_SHARE * allowed:
        raise StageError(f"this machine is too busy to judge: the burner got {used:.2f} of {allowed:g} cores")
    lk_evidence["p99_s"] = slow = round(times[PROBES - MOST_LATE - 1], 3)
    lk_evidence.summary = f"99 % of {PROBES} probes answered within {slow:.3f} s while it used {used:.2f} cores"


@check(
    "health.reports-jobs",
    SHOULD,
    section="Networking",
    why="Autoscalers and rollouts that read active_jobs act on what it says.",
    remedy="let /worker count the jobs in progress",
    roles=("shared",),
)
def test_reports_jobs(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """``/worker`` active_jobs equals the calls in progress.

    `active_jobs` of the `/worker` page on the health port must be 0 within 15 s before a call (a job may take 10 s to
    end), 1 within 5 s after a call got its agent, 2 within 5 s after another one did (where the worker takes it and both
    agents stay), and 0 again within 30 s after they were hung up; a field that is left out counts as 0. Skipped without
    a health endpoint (a failure with `lk_health = required` or `lk_health_port`) and with `lk_health = off`, or if it
    has no `/worker` page or no `active_jobs` during the call. Other values on an overloaded machine are an error.
    """
    worker = lk_stage.worker("shared")
    health = _health(lk_stage, worker)
    if not worker.worker_info(health):
        raise NotJudgeable("the worker does not offer /worker")

    def settles(expected: int, seconds: float) -> int | None:
        """The value once it is as expected, or the last one."""
        value: int | None = None

        def read() -> bool:
            nonlocal value
            # The Python SDK leaves fields out that are zero.
            value = worker.worker_info(health).get("active_jobs", 0)
            return value == expected

        with contextlib.suppress(DeadlineMissed):
            poll(read, what="active_jobs", seconds=seconds, every=0.3)
        return value

    began = worker.reading()
    # A job may take its shutdown time (10 s in Python) to end after the call of an earlier check.
    lk_evidence["before"] = settles(0, 15)
    caller = lk_stage.calls.caller(worker)
    try:
        first = lk_stage.calls.served(caller)
        lk_evidence["with_one_call"] = settles(1, 5)
        offered = "active_jobs" in worker.worker_info(health)
        second = lk_stage.calls.further(caller)
        two = settles(2, 5) if second is not None else None
        # One whose agent leaves by itself is none of two.
        if second is not None and first.agents_present and second.agents_present:
            lk_evidence["with_two_calls"] = two
    finally:
        caller.close()
    lk_evidence["after"] = settles(0, 30)
    if not offered:
        raise NotJudgeable("/worker does not offer active_jobs")
    expected = {"before": 0, "with_one_call": 1, "with_two_calls": 2, "after": 0}
    wrong = {when: value for when, value in lk_evidence.items() if when in expected and value != expected[when]}
    if wrong:
        lk_stage.raise_if_too_busy(worker, began)
    assert not wrong, "; ".join(f"active_jobs is {value} {when.replace('_', ' ')}" for when, value in wrong.items())
    during = "1, 2" if "with_two_calls" in lk_evidence else "1"
    lk_evidence.summary = f"active_jobs 0, {during}, 0 before, during and after calls"
