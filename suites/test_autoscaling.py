"""Section "Autoscaling": what the deployment files' autoscaler would do to calls, simulated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pytest_lkagents.capacity.result import Result
from pytest_lkagents.checks import MUST, SHOULD, Evidence, NotJudgeable, check

if TYPE_CHECKING:  # it needs the extra
    from .autoscaling import Played

# Of standard traces: so rare a refusal is chance (two calls at the same instant), and the trace an assumption.
REFUSED_SHARE = 0.001
# Of a trace with fewer calls than a thousand, one.
REFUSED_CALLS = 1
# What all replicas at once may refuse, so that a trace asks for something that an autoscaler can give.
CARRIED_SHARE = 0.0005
# A fleet that carries less than a quarter of what it could is paid for four times.
LEAST_UTILISATION = 0.25
AFTER_MANIFESTS = 11

AllPlayed = Callable[[], "list[Played]"]


def judge(played: list[Played], evidence: Evidence, good: Callable[[Played], bool], words: Callable[[Result], str]) -> None:
    """Fails with the first that is not good, and what would make it so."""
    evidence["runs"] = [run.evidence() for run in played]
    bad = [run for run in played if not good(run)]
    if not bad:
        few = [run for run in played if run.limited or (run.eased and run.scaling.min_replicas < run.scaling.ceiling)]
        still = next((run for run in few if run.result.most_replicas <= run.scaling.min_replicas), None)
        if still is not None:
            why = "no more were simulated" if still.limited else "of more even all replicas at once refuse some"
            raise NotJudgeable(
                f"{still.scaling.source}: a trace of {still.result.calls} calls needs no more than the minimum, and {why}: "
                "give --lk-calls"
            )
        return
    worst = bad[0]
    advice = worst.advice(lambda result: good(worst.with_result(result)))
    better = "no setting tried was better"
    if advice is not None:
        evidence["suggestion"] = {"changes": list(advice.changes), **advice.result.evidence()}
        better = f"{words(advice.result)} with {' and '.join(advice.changes)}"
    raise AssertionError(
        f"{worst.scaling.source}: under the trace {worst.trace.name} {words(worst.result)}; {better} (simulated)"
    )


def refused(result: Result) -> str:
    return f"{result.refused} of {result.calls} calls are refused"


def cut(result: Result) -> str:
    return f"{result.cut} of {result.calls} calls are cut by the grace period"


def used(result: Result) -> str:
    return f"calls use {result.utilisation:.0%} of what the workers could carry"


def few_refused(run: Played) -> bool:
    return run.result.refused <= max(REFUSED_SHARE * run.result.calls, 0 if run.own else REFUSED_CALLS)


def carried(played: list[Played]) -> tuple[list[Played], list[Played]]:
    """Those that are good, or that an autoscaler could make good, with fewer calls where our number was too many; and those
    that none could."""
    judged: list[Played] = []
    beyond: list[Played] = []
    for run in played:
        fair: Played | None = run
        if not few_refused(run):
            fair = run.carried(lambda result: result.refused <= CARRIED_SHARE * result.calls)
        (beyond if fair is None else judged).append(fair or run)
    return judged, beyond


@check(
    "autoscaling.no-refused-calls",
    SHOULD,
    profile="smoke",
    section="Autoscaling",
    why="A call that meets only full workers gets no agent, and nothing asks again.",
    remedy="scale up earlier (a lower target), faster, or from more workers",
    seconds=600,
    order=AFTER_MANIFESTS,
)
def test_no_refused_calls(lk_evidence: Evidence, lk_played: AllPlayed) -> None:
    """Calls that come steadily, in a daily wave or as the user's own trace says find a free worker; bursts are reported.

    Each Kubernetes deployment with an HPA or a KEDA autoscaler (CPU target and maximum known) is simulated: the
    server's dispatch, the workers' load, the autoscaler, start (30 s at least) and drain; others are left out, and with
    none left, or where calls and not CPU moved the worker's load in the same run, it is skipped. So is one where the
    file does not tell at which load of a worker its target is met: there is neither CPU limit nor NUM_CPUS, another
    metric beside the CPU, or a container beside the worker whose use counts.
    The standard traces (`--lk-traces`: steady for 4 h, daily for 24 h, burst for 2 h) rise to `--lk-calls` at a time,
    or else to 80 % of what the maximum of replicas carries at the target, or to as many fewer (by a third each time) as
    all replicas at once would not refuse (skipped if those refuse some of one call at a time); a CSV file is played as
    it is, from its first call on. At most 0.1 % of the calls of a trace may be refused (or one of a standard trace),
    because a rarer refusal is chance; a standard burst is reported and not judged, because its height is an assumption.
    What is neither measured nor declared is assumed and listed as evidence: a load threshold of 0.7, 3.8/30 cores per
    call. With a trace of the user's own the check is a MUST.
    """
    found = lk_played()
    if any(run.own for run in found):
        lk_evidence.severity = MUST
    judged = [run for run in found if run.own or run.trace.name != "burst"]
    lk_evidence["limit_share"] = REFUSED_SHARE
    bursts = [run for run in found if run not in judged]
    lk_evidence["bursts"] = [run.evidence() for run in bursts]
    if not judged:
        raise NotJudgeable("a burst alone is not judged: how high it is, is an assumption; give a trace of your own")
    judged, beyond = carried(judged)
    lk_evidence["not_judged"] = [run.evidence() for run in beyond]
    judge(judged, lk_evidence, few_refused, refused)
    if beyond:
        run = beyond[0]
        raise NotJudgeable(
            f"{run.scaling.source}: so few calls at a time are carried by {run.scaling.ceiling} workers that all of them at "
            "once refuse some by chance: give --lk-calls or a trace of your own"
        )
    more = "".join(f"; in a burst to {run.peak} calls {run.result.refused / run.result.calls:.1%}" for run in bursts)
    lost, calls = sum(run.result.refused for run in judged), sum(run.result.calls for run in judged)
    lk_evidence.summary = f"{lost} of {calls} simulated calls refused{more}"


@check(
    "autoscaling.no-cut-calls",
    MUST,
    profile="smoke",
    section="Autoscaling",
    why="A worker that is scaled down goes at the end of its grace period, with the calls that it still has.",
    remedy="a grace period as long as the longest call, and a longer stabilisation window for scaling down",
    seconds=600,
    order=AFTER_MANIFESTS,
)
def test_no_cut_calls(lk_evidence: Evidence, lk_played: AllPlayed) -> None:
    """Scaling down cuts no call of up to ten minutes, or as long as is declared.

    The simulation of `autoscaling.no-refused-calls` is played for each trace, the burst included. A worker that is
    scaled down takes no new call and ends with its last one, or at the end of its grace period:
    `terminationGracePeriodSeconds` (30 s where the file says nothing) less what a preStop hook sleeps. Calls of
    standard traces last 4 minutes on average and 10 minutes at most, or as long as `--lk-drain-hold` says (where that
    is less, they last two fifths of it on average); those of a CSV file last as long as it says. A single cut call is a
    failure; skipped where nothing can be simulated.
    """
    found = lk_played()
    judge(found, lk_evidence, lambda run: not run.result.cut, cut)
    lk_evidence.summary = f"none of {sum(run.result.calls for run in found)} simulated calls cut"


@check(
    "autoscaling.utilisation",
    SHOULD,
    profile="smoke",
    section="Autoscaling",
    why="Workers that wait for calls are paid for as well.",
    remedy="a higher target (well below the load threshold), or fewer workers at least",
    seconds=600,
    order=AFTER_MANIFESTS,
)
def test_utilisation(lk_evidence: Evidence, lk_played: AllPlayed) -> None:
    """Under steady calls the workers are used.

    In the same simulation, the time of all calls is divided by what all replicas could have carried below the load
    threshold, over the whole trace; replicas that start or drain count too, because they are paid for. The share must
    be 25 % or more: a fleet below that is paid for four times. Only the steady trace (4 h) and the user's own traces
    are judged; with others alone, or where nothing can be simulated, it is skipped. So is a low share where the standard
    trace has fewer calls than the workers are for, so that it does not take too long (5000 at a time; fewer where
    `--lk-drain-hold` makes them short).
    """
    steady = [run for run in lk_played() if run.own or run.trace.name == "steady"]
    if not steady:
        raise NotJudgeable("only a steady trace, or one of the user's own, tells")
    lk_evidence["runs"] = [run.evidence() for run in steady]
    lk_evidence["limit_share"] = LEAST_UTILISATION
    for run in steady:
        if run.limited and run.result.utilisation < LEAST_UTILISATION:
            raise NotJudgeable(f"{run.trace.name} has fewer calls than so many workers are for; --lk-calls says how many")
        assert run.result.utilisation >= LEAST_UTILISATION, (
            f"{run.scaling.source}: under the trace {run.trace.name} {used(run.result)} (simulated)"
        )
    lk_evidence.summary = "; ".join(f"{run.trace.name}: {used(run.result)}" for run in steady)
