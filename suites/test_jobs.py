"""Section "Overview": the worker pool model, a process for each job."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from pytest_lkagents.callers.backend import delete_room
from pytest_lkagents.calls import AGENT_SECONDS, ENOUGH_LOST, SEE_JOINS
from pytest_lkagents.checks import MUST, SHOULD, Evidence, NotJudgeable, WorkerFault, check
from pytest_lkagents.stage import Stage
from pytest_lkagents.verdict import SEEN_BESIDE
from pytest_lkagents.worker.base import Worker

from . import accepted, departures, harm, leftovers, pool
from .drained import Drain
from .ended import judge_apart, judge_end
from .harmed import Harm
from .observations import FirstCall
from .scenario import CHECK_SECONDS

# A worker that noticed its loss too late has had time to do so.
LATER_SECONDS = 5


@check(
    "jobs.joins",
    MUST,
    profile="smoke",
    section="Overview",
    why="A worker can be registered and healthy while every job of it fails.",
    remedy="read the worker's log of that job: prewarm, missing model or key, agent name, request function, "
    "job metadata (--lk-metadata), what it expects of its caller (--lk-attribute)",
    roles=("shared",),
)
def test_joins(lk_stage: Stage, lk_evidence: Evidence, lk_first_call: Callable[[], FirstCall]) -> None:
    """A call gets its agent.

    A caller, a real WebRTC participant that speaks, joins a new room and asks for the worker's agent. An agent
    participant must come into the room within 15 s; up to three calls are placed, 3 s apart, because a worker that is
    over its threshold for a moment refuses rightly; one that says that it is full is given up to 15 s before. It must
    not leave again, with its caller there, within 5 s and before anything was heard or read of it, unless another one
    comes within 2 s, in this call and in a second one. When its sound is first heard is recorded and not judged. Skipped
    if the worker does not register; an error for agents that are hidden from callers (permissions), who have to judge
    them; on an overloaded machine a miss is an error, and so it is where the worker may be full for what others use of
    the machine.
    """
    worker = lk_stage.worker("shared")
    try:
        seen = lk_first_call()
    except WorkerFault as fault:
        raise AssertionError(worker.last_words(str(fault).removesuffix(SEE_JOINS))) from None
    lk_evidence["agent_joined_after_s"] = round(seen.agent_s, 2)
    lk_evidence["first_sound_after_s"] = None if seen.sound_s is None else round(seen.sound_s, 2)
    if seen.left_s is not None:
        said = f"the agent of two calls came and left again after {seen.left_s:.1f} s, without a word, with its caller there"
        raise AssertionError(worker.last_words(said))
    lk_evidence.summary = f"the agent joined {seen.agent_s:.1f} s after the caller" + (
        f" and was heard after {seen.sound_s:.1f} s" if seen.sound_s is not None else ""
    )


@check(
    "jobs.serves-every-call",
    MUST,
    section="Overview",
    why="The server gives a call to one worker only: what that one accepts and does not serve, nobody serves.",
    remedy="read the worker's log of the lost jobs: a service that is not always there, a limit on sessions, a lock that one "
    "call holds, a process that is not always ready in time; refuse calls that cannot be served",
    roles=("shared",),
    seconds=600,
    order=9,
)
def test_serves_every_call(lk_stage: Stage, lk_comers: Callable[[], dict[str, str]], lk_evidence: Evidence) -> None:
    """Every call that the worker accepted got its agent, and keeps it beside another call.

    At the end of the run all calls so far are counted that a worker accepted and was given, and to which nothing had
    been done (no signal, no lost connection, no killed process, no limit of CPU but the user's). More are placed with
    one worker: two in the same instant, and one whose caller comes back to the room of a call that was over, deleted
    with the server's DeleteRoom (each three times, if one is missed); and others until a worker had six. A call is lost
    if no agent came within 30 s, on a machine that had time, and missed if it came after 15 s. Two such calls are a
    failure; one is not, nor are those for which this machine had no time, if eight others were served since the first
    (where two got no agent at all, since the last of these), for which more calls are placed if need be. What the load
    test of `resources.quality-of-service` places is judged there. Where agents left calls that nothing disturbed,
    within 20 s, and callers bring nothing by which an agent may know them (`--lk-metadata`, `--lk-attribute`), a call
    is held alone, for twice as long as the longest of them stayed and 3 s: if its agent leaves, too, they do so by
    themselves. If it stays, three more are held alone, with nothing else under way, and beside each of these one or two
    others come, one after the other. It is a failure if all five agents beside another call leave, and all four that
    were alone stayed for half as long again and 3 s; on an overloaded machine it is an error. Skipped if calls are
    refused, or none is served: see `jobs.joins`.
    """
    observed = accepted.observe(lk_stage, lk_comers())
    seen = observed.calls
    missed = [call for call in seen if call.failed]
    lost = [call for call in missed if call.agent_s is None]
    served = [call.agent_s for call in seen if call.agent_s is not None]
    lk_evidence["calls_accepted"], lk_evidence["calls_lost"] = len(seen), len(lost)
    lk_evidence["calls_served_too_late"] = len(missed) - len(lost)
    if not served:
        raise NotJudgeable("none of the calls got an agent: see jobs.joins")
    lk_evidence["slowest_agent_s"] = round(max(served), 2)
    if missed:
        lk_evidence["transcript"] = accepted.lines(lk_stage, missed)
    hows = Counter(observed.how[call.job] for call in missed if call.job in observed.how)
    when = "".join(f"; of {count} of them {how}" for how, count in hows.items())
    assert len(missed) < ENOUGH_LOST, (
        f"{len(missed)} of {len(seen)} calls that it accepted got no agent within {AGENT_SECONDS} s "
        f"({len(lost)} of them none within {accepted.LOST_SECONDS} s), and nothing had disturbed it{when}"
    )
    but = " but one, which did not happen again," if missed else ""
    if unsure := sum(call.missed and call.busy for call in seen):
        but += f" but {unsure}, for which this machine had no time,"
    held = departures.observe(lk_stage)
    if held is not None:
        lk_evidence["alone_stayed_s"] = [round(stayed, 1) for stayed in held.alone]
        lk_evidence["left_beside_another_call_after_s"] = [round(stayed, 1) for stayed in held.beside]
        assert held.problem is None, held.problem
    lk_evidence.summary = f"{len(seen)} calls accepted; all{but} got their agent, within {max(served):.1f} s"


@check(
    "jobs.own-process",
    MUST,
    section="Overview",
    why="Jobs that share a process share their crashes, their blocked loops and their memory.",
    remedy="run jobs in processes, not in threads (job_executor_type)",
    roles=("shared",),
    seconds=CHECK_SECONDS,
    order=2,
)
def test_own_process(lk_evidence: Evidence, lk_pair: Callable[[], pool.Pair], lk_several: Callable[[], Drain | None]) -> None:
    """Calls at once are served by as many processes, none of them the worker's own.

    Two calls at once are served by one worker; its established TCP connections to the server are read with the
    processes that hold them. Those over which a participant signals, which the proxy on the wire tells from others,
    belong to the jobs: they must be held by two different processes, neither of which holds the worker's registration.
    The first call's job must not have lost its connection when the second call has its agent, nor a second after the
    end of that one, which is hung up first (its job's end is awaited, for `lk_exit_timeout` at most); if it has, two
    calls are placed once more, the first of which lasts for longer alone than it did before, and a second time is a
    failure (unless it ends as well beside a call that is not hung up). Of a worker that says that it is full with one
    call, or refuses a second one, the one call is judged. Beside `rollout.drains-every-call` (not where workers take
    turns) the up to four calls are looked at, too, that its worker has when the signal comes, as there may be some
    processes for all. Skipped if fewer such connections than calls are seen, or one process holds them that has no UDP
    socket while others do, as a proxy in the container, or the calls are not served, or agents leave them by themselves
    too soon.
    """
    seen = lk_pair()
    # Each job signals over a connection of its own to the server; whose connections they are is what counts.
    own, jobs = seen.own, seen.jobs
    lk_evidence["worker_pids"] = own
    lk_evidence["pids_holding_job_connections"] = jobs
    if seen.ended_after is not None:
        lk_evidence["job_lasted_s"] = round(seen.ended_after, 1)
        raise AssertionError(f"the job of one call ended, twice, when another call {seen.ended_when}")
    pool.require_seen(seen.during, own, jobs, seen.calls)
    assert not set(jobs) & set(own), "a job runs in the worker's own process"
    assert len(set(jobs)) >= seen.calls, f"{len(jobs)} jobs run in one process"
    several = lk_several()
    calls = seen.calls
    # More connections than calls may be of one job, while another's is away for a moment.
    if several is not None and len(several.job_pids) == len(several.kept) > calls:
        calls = len(several.kept)
        lk_evidence["pids_holding_job_connections_of_more_calls"] = several.job_pids
        processes = len(set(several.job_pids))
        lk_evidence[SEEN_BESIDE] = "rollout.drains-every-call"
        assert not set(several.job_pids) & set(several.own_pids), f"of {calls} calls one runs in the worker's own process"
        assert processes >= calls, f"{calls} calls at once share {processes} process{'es' if processes > 1 else ''}"
    if calls == 1:
        lk_evidence.summary = "one call at a time, in a process that is not the worker's own"
    else:
        lk_evidence.summary = f"{calls} calls at once, each in a process that is not the worker's own"


@check(
    "jobs.ends-with-call",
    MUST,
    section="Overview",
    why="Processes that stay after their call use up memory and process numbers, until the worker is killed for it.",
    remedy="end the job when the last user has left, leave no thread or child process behind, and reap ended children "
    "(an init such as tini as the container's first process)",
    roles=("shared",),
    seconds=400,
    order=1,
)
def test_ends_with_call(
    lk_stage: Stage, lk_evidence: Evidence, lk_pair: Callable[[], pool.Pair], lk_begin_comers: Callable[[], None]
) -> None:
    """After the callers left, the jobs' processes and their connections end, and no zombie stays.

    After both callers of `jobs.own-process` hung up, one after the other, the process table and connections are read
    every 0.3 s. Within `lk_exit_timeout` (default 30 s) of the last hang-up the jobs' processes must be gone, their
    connections to the server closed, and no zombie left that was not there before the calls; where a process of a new
    kind (its parent and its command line) lives on, its end is awaited for 5 s. The job whose caller hung up first has
    the same time from then on, while the other call goes on, for its processes (without those that serve both calls)
    and connections (known by the room that their token names). Skipped if the jobs have no processes of their own; on
    an overloaded machine a miss is an error.
    """
    seen = lk_pair()
    pool.require_own_processes(seen.during, seen.own, seen.jobs, seen.calls)
    judge_apart(lk_stage.settings.exit_timeout, lk_evidence, seen.apart)
    judge_end(lk_stage, lk_evidence, seen.worker, seen.jobs, seen.before, seen.left, "the callers left", told=seen.told)
    # Not before: a process that starts for a later call may reap what this one left.
    lk_begin_comers()


@check(
    "jobs.ends-with-room",
    SHOULD,
    profile="full",
    section="Overview",
    why="Backends end a call by deleting its room; a job that waits for its caller to leave stays, and its place is lost.",
    remedy="end the job when its room is disconnected, whatever the reason, not only when its caller leaves",
    roles=("shared",),
)
def test_ends_with_room(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """After its room was deleted by the server's API, the job's process and its connection end, and no zombie stays.

    A call is served, and its room is deleted with the server's DeleteRoom, which disconnects everybody; the caller does
    not hang up. Within `lk_exit_timeout` (default 30 s) the job's process must be gone, its connection to the server
    closed, and no zombie left that was not there before (see `jobs.ends-with-call`). Skipped if the job has no process
    of its own or calls are not served; on an overloaded machine a miss is an error.
    """
    worker = lk_stage.worker("shared")
    lk_stage.calls.wait_idle(worker)
    before = worker.snapshot()
    caller = lk_stage.calls.caller(worker)
    try:
        call = lk_stage.calls.served(caller)
        now = worker.snapshot()
        jobs = worker.jobs_of(now)
        pool.require_own_processes(now, worker.registered_by(before), jobs, 1)
        deleted = time.monotonic()
        delete_room(worker.server, call.room_name)
        judge_end(lk_stage, lk_evidence, worker, jobs, before, deleted, "its room was deleted")
    finally:
        caller.close()


@check(
    "jobs.side-by-side",
    MUST,
    section="Overview",
    why="A worker is given many calls at once; what they share (a session, a connection to a model) only the last one has.",
    remedy="keep nothing that belongs to one call where another call reaches it: a global, a file, a service's only session",
    seconds=400,
    roles=("crashing",),
    order=1,
)
def test_side_by_side(lk_evidence: Evidence, lk_crash: Callable[[], Harm]) -> None:
    """Two calls at once are both heard, and the second one does nothing to the first.

    Before `jobs.crash-isolated` harms one of two calls, both are listened to. The first one is alone until its agent
    has been heard for 3 s, or for 5 s in vain. For 4 s after the second one has its agent (longer while something is
    suspected) the first is watched: it is harmed if its agent leaves, its process ends, or packets (1.5 s) or the sound
    of an agent that talks without pauses (2.5 s) are missing and stay away for 8 s, or if there was a pause of more
    than 2.5 s. If the first agent was heard, the second one must be within 34 s. What may be a habit or chance counts
    when it is seen in a second pair of calls, with another worker, whose first agent has stayed, or talked, for clearly
    longer before. Skipped for a worker that takes one call at a time, whose jobs share a process or whose calls are not
    served; on an overloaded machine a miss is an error.
    """
    seen = lk_crash().beside
    if seen is None:
        raise NotJudgeable(pool.ONE_AT_A_TIME)
    lk_evidence["first_agent_heard_after_s"], lk_evidence["second_agent_heard_after_s"] = seen.older_heard_s, seen.newer_heard_s
    lk_evidence["first_call"] = seen.evidence
    assert seen.problem is None, seen.problem
    how = "both are heard" if seen.older_heard_s is not None else "judged by packets and presence"
    lk_evidence.summary = f"two calls at once: the first one goes on ({how})"


@check(
    "jobs.crash-isolated",
    MUST,
    section="Overview",
    why="One fault in a native library, or one call that takes too much memory, would end every call of the worker.",
    remedy="run each job in a process of its own, and let the worker survive the death of one",
    seconds=400,
    roles=("crashing",),
    order=1,
)
def test_crash_isolated(lk_evidence: Evidence, lk_crash: Callable[[], Harm]) -> None:
    """A killed job process harms no other call, and the worker takes new ones.

    Two calls are served by two processes; the process of the newer one is killed with SIGKILL, as the kernel or a fault
    in a native library does. The other call is watched for 5 s (longer while something is suspected): it is harmed if
    its agent leaves, its process ends, or packets (1.5 s) or the sound of an agent that talks without pauses (2.5 s)
    are missing and stay away for 8 s, or if there was a pause of more than 2.5 s. Silence of an agent that is there
    counts as in `rollout.sigterm-drains`, after a second look. The worker must still run and be registered, and one of
    three new calls must get its agent (two that are lost before it, as it does not answer within 3 s or takes them and
    does not serve them, are a failure), tried again without the old calls if the worker refuses; a health endpoint that
    answered 200 before must do so again within 10 s, unless the worker is full. Where the new call came beside the
    other one, that one's process, the oldest now, is killed as well, and the new call is watched likewise; if a call
    was lost before, another one is placed. A worker that counts its calls, by the load that it reports, must not count
    one any more `lk_exit_timeout` (default 30 s) after all of them are over. A worker that takes only one call at a
    time is judged by what comes after. Skipped if jobs share a process or calls are not served; on an overloaded
    machine what is not certain is an error.
    """
    _judge(lk_crash(), lk_evidence, "a job's process killed")


@check(
    "jobs.frozen-isolated",
    SHOULD,
    profile="full",
    section="Overview",
    why="A job that blocks its event loop (a synchronous request, a busy loop) answers nobody for as long as it takes.",
    remedy="let the worker's own process never wait for a job without a time limit",
    roles=("frozen",),
)
def test_frozen_isolated(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """A job process that answers nobody harms no other call, and the worker takes new ones.

    Two calls are served by two processes; the process of the newer one is stopped with SIGSTOP, like one whose event
    loop is blocked, until all is judged. The other call is watched for 5 s (longer while something is suspected): it is
    harmed if its agent leaves, its process ends, or packets (1.5 s) or the sound of an agent that talks without pauses
    (2.5 s) are missing and stay away for 8 s, or if there was a pause of more than 2.5 s. The worker must still run and
    be registered, and one of three new calls must get its agent (two that are lost before it, as it does not answer
    within 3 s or takes them and does not serve them, are a failure), tried again without the old calls if the worker
    refuses; a health endpoint that answered 200 before must do so again within 10 s, unless the worker is full. A
    worker that counts its calls, by the load that it reports, must not count one any more `lk_exit_timeout` (default 30
    s) after all of them are over. Skipped if jobs share a process or two calls are not served at once; on an overloaded
    machine what is not certain is an error.
    """
    _judge(harm.freeze(lk_stage), lk_evidence, "a job's process stopped")


@check(
    "jobs.memory-limit",
    SHOULD,
    profile="full",
    section="Overview",
    why="A call that needs more memory than there is must not take the others with it.",
    remedy="let a job that runs out of memory end alone: no handler that ends the worker or its process group",
    roles=("limited",),
)
def test_memory_limit(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """A job that runs out of memory harms no other call, and the worker takes new ones.

    Two calls are served by two processes; the address space of the newer one's is limited to what it has, so that its
    next large allocation fails. If it still lives after 5 s, SIGKILL ends it, as the kernel's OOM killer would. The
    other call is watched for 5 s (longer while something is suspected): it is harmed if its agent leaves, its process
    ends, or packets (1.5 s) or the sound of an agent that talks without pauses (2.5 s) are missing and stay away for 8
    s, or if there was a pause of more than 2.5 s. The worker must still run and be registered, and one of three new
    calls must get its agent (two that are lost before it, as it does not answer within 3 s or takes them and does not
    serve them, are a failure), tried again without the old calls if the worker refuses; a health endpoint that answered
    200 before must do so again within 10 s, unless the worker is full. A worker that counts its calls, by the load that
    it reports, must not count one any more `lk_exit_timeout` (default 30 s) after all of them are over. A worker that
    takes only one call at a time is judged by what comes after. Skipped if the limit cannot be set, jobs share a
    process or calls are not served; on an overloaded machine what is not certain is an error.
    """
    seen = harm.starve(lk_stage)
    _judge(seen, lk_evidence, "a job's process out of memory")


def _judge(seen: Harm, evidence: Evidence, what: str) -> None:
    evidence.update(seen.evidence)
    if seen.clash is not None:
        raise NotJudgeable(f"two calls harm each other, with nobody to harm them: {seen.clash}")
    assert seen.verdict is None, f"{what}: {seen.verdict}"
    other = "" if seen.alone else "the other call went on, "
    evidence.summary = f"{what}: {other}a new one was served after {seen.served_s} s"


@check(
    "jobs.dead-idle-process",
    SHOULD,
    profile="full",
    section="Overview",
    why="The kernel ends processes when memory is short; a job that is given to a dead one is lost.",
    remedy="replace idle processes that died, and start a job again whose process is gone (livekit-agents: 1.8.9 or later)",
    roles=("culled",),
)
def test_dead_idle_process(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """Idle job processes are killed, then a call comes: it gets its agent.

    Up to six calls show which processes wait for a job: those that look like the ones that served them. All that are
    idle then are killed with SIGKILL, and one call is placed at once, without a second try: its agent must come within
    15 s. Skipped if the worker keeps no idle process or more than five, if it refuses the call (another worker can take
    it), or if the server does not ask it; accepting, keeping silent or ending without an agent in the room is a
    failure, and on an overloaded machine an error.
    """
    worker = lk_stage.untouched("culled")
    idle = pool.find_idle(lk_stage, worker)
    lk_evidence["idle_pids_killed"], lk_evidence["calls_to_find_them"] = idle.pids, idle.calls
    lk_evidence["idle_processes_look_like"] = sorted(args for _, args in idle.kinds)
    caller = lk_stage.calls.caller(worker)
    try:
        killed = time.monotonic()
        worker.signal_processes(idle.pids, "SIGKILL")
        try:
            call = lk_stage.calls.served(caller, tries=1)
        except WorkerFault:
            asked = [question for question in worker.wire.transcript.questions(killed) if not question.probe]
            lk_evidence["answers"] = [question.available for question in asked]
            if any(question.available is False for question in asked) or (not asked and worker.is_running):
                raise NotJudgeable(
                    "with its idle processes dead the worker refuses the call, so that another can take it"
                ) from None
            lk_evidence["a_later_call"] = _later(lk_stage, worker)
            said = "the worker accepted it and" if any(lk_evidence["answers"]) else "the worker did not answer and"
            raise AssertionError(f"{len(idle.pids)} idle job processes killed, then a call: {said} no agent came") from None
        joined = round(call.agent_after, 2)
        lk_evidence["call_placed_after_s"] = round(call.joined - killed, 2)
        lk_evidence["agent_joined_after_s"] = joined
    finally:
        caller.close()
    lk_evidence.summary = f"{len(idle.pids)} idle job processes killed: the next call got its agent after {joined} s"


def _later(stage: Stage, worker: Worker) -> str:
    """Whether the worker recovers from its loss, in words."""
    time.sleep(LATER_SECONDS)
    caller = stage.calls.caller(worker)
    try:
        stage.calls.served(caller, tries=1)
    except WorkerFault:
        return f"no agent either, {LATER_SECONDS} s after the lost one"
    finally:
        caller.close()
    return f"served, {LATER_SECONDS} s after the lost one"


@check(
    "jobs.no-leftovers",
    SHOULD,
    profile="full",
    section="Overview",
    why="What every call leaves behind ends the worker sooner or later: no memory, no thread or descriptor left, a full disk.",
    remedy="close what a job opened, remove its files, keep nothing per call in the worker's own process",
    roles=("tidy",),
    seconds=600,
)
def test_no_leftovers(lk_evidence: Evidence, lk_tidied: Callable[[], leftovers.Leftovers]) -> None:
    """After calls, processes, threads, descriptors, files and memory are back where they were.

    After a first pair of calls as warm-up, four more pairs are placed (15, if `resources.no-growth` or
    `storage.ephemeral` run too; up to 15, while threads grow); after each pair the worker is given up to 12 s to rest.
    Counted then are its processes, its files outside the image, and the descriptors, threads and own memory of the
    processes that live all the time. A straight line through each: a slope that is beyond doubt (less two standard
    errors) above 0.5 items or 1 MB per call is a failure, of items if there were more of them after most pairs: a pool
    that grew once is none. Skipped with `--lk-command` or if calls are not served.
    """
    seen = lk_tidied()
    trends = seen.trends()
    lk_evidence["calls_at_rest"] = [rest.calls for rest in seen.rests]
    for name, found in trends.items():
        lk_evidence[name] = found.evidence()
    lk_evidence["surviving_processes"] = [f"{pid} {process.args}" for pid, process in seen.survivors().items()]
    lk_evidence["new_files"] = seen.new_files()[:20]
    lk_evidence["limits_per_call"] = {"items": leftovers.MOST_ITEMS, "bytes": leftovers.MOST_BYTES}
    calls = seen.rests[-1].calls - seen.rests[0].calls
    wrong = []
    for name, found in trends.items():
        in_bytes = name.endswith("bytes")
        if not found.exceeds(leftovers.MOST_BYTES if in_bytes else leftovers.MOST_ITEMS) or not (in_bytes or found.goes_on):
            continue
        what = name.replace("memory_bytes", "of memory").replace("file_bytes", "in files")
        wrong.append(f"{found.slope / 1e6:.1f} MB {what}" if in_bytes else f"{found.slope:.1f} {what}")
        if name == "processes":
            lk_evidence["new_processes"] = seen.new_processes()[:20]
    assert not wrong, f"each of {calls} calls leaves {' and '.join(wrong)} behind"
    memory = trends["memory_bytes"]
    lk_evidence.summary = (
        f"{calls} calls left no process, thread, descriptor or file; memory {memory.slope / 1e6:+.2f} MB per call "
        f"(standard error {memory.stderr / 1e6:.2f})"
    )
