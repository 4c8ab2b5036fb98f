"""The simulated autoscaling: its parts against their sources, and the whole against a real server with real workers."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_lkagents.capacity import traces
from pytest_lkagents.capacity.advise import better
from pytest_lkagents.capacity.csv_trace import read_rows
from pytest_lkagents.capacity.dispatch import Dispatcher
from pytest_lkagents.capacity.parameters import ServerModel, WorkerModel
from pytest_lkagents.capacity.scaler import Autoscaler, Seen, recommended
from pytest_lkagents.capacity.scaling import PERCENT, PODS, Policy, Rules, Scaling
from pytest_lkagents.capacity.simulate import simulate
from pytest_lkagents.capacity.traces import Trace
from pytest_lkagents.checks import Evidence, NotJudgeable
from pytest_lkagents.guide import TEST_CORES
from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.manifests.load import load
from pytest_lkagents.manifests.model import Deployment
from pytest_lkagents.settings import Settings
from suites.autoscaling import MOST_CALLS, play_all, scaling_of, traces_for, worker_of
from suites.test_autoscaling import carried, few_refused, judge

from .conftest import ROOT
from .test_workers import image

CORPUS = ROOT / "fixtures/manifests"
AUTOSCALED = CORPUS / "good/kubernetes-hpa.yaml"


# The HorizontalPodAutoscaler, by its documentation's own examples


@pytest.mark.parametrize(
    ("current", "load", "target", "wanted"),
    [(1, 0.2, 0.1, 2), (2, 0.05, 0.1, 1), (10, 0.105, 0.1, 10), (10, 0.095, 0.1, 10), (3, 0.9, 0.5, 6)],
)
def test_recommended(current: int, load: float, target: float, wanted: int) -> None:
    assert recommended(current, Seen(load, current), target) == wanted


def test_replicas_that_start_count_as_idle() -> None:
    # Four at 0.9 with a target of 0.5 want 8; with four more on their way there will be enough.
    assert recommended(8, Seen(0.9, 4, 4), 0.5) == 8


def test_policies_limit_the_pace() -> None:
    """The documentation's example: 80 replicas go down by 10 % of them, or by 4, whichever is more: 80, 72, 64, 57, 51."""
    down = Rules(0, (Policy(PERCENT, 10, 60), Policy(PODS, 4, 60)))
    scaler = Autoscaler(Scaling(10, 100, 0.5, down=down), 80)
    counts, current = [], 80
    for minute in range(1, 5):
        current = scaler.decide(minute * 60.0, current, Seen(0.01, current))
        counts.append(current)
    assert counts == [72, 64, 57, 51]


def test_a_policy_starts_from_the_number_before_what_was_added_and_removed_in_its_period() -> None:
    """The controller's own rule (calculateScaleUpLimitWithScalingRules): what was taken away may come back."""
    up, down = Rules(0, (Policy(PODS, 2, 600),)), Rules(0, (Policy(PODS, 4, 600),))
    scaler = Autoscaler(Scaling(1, 100, 0.5, up=up, down=down), 10)
    assert scaler.decide(15.0, 10, Seen(0.01, 10)) == 6
    assert scaler.decide(30.0, 6, Seen(0.9, 6)) == 11
    assert scaler.decide(45.0, 11, Seen(0.9, 11)) == 12
    assert scaler.decide(60.0, 12, Seen(0.9, 12)) == 12
    assert scaler.decide(75.0, 12, Seen(0.01, 12)) == 6
    assert scaler.decide(90.0, 6, Seen(0.01, 6)) == 6
    # Everything is forgotten in time.
    assert scaler.decide(700.0, 6, Seen(0.01, 6)) == 2


def test_down_waits_for_the_window() -> None:
    scaler = Autoscaler(Scaling(1, 10, 0.5, down=Rules(300, (Policy(PERCENT, 100, 15),))), 4)
    decided = {now: scaler.decide(float(now), 4, Seen(0.1, 4)) for now in range(15, 315, 15)}
    assert decided[285] == 4
    assert decided[300] == 1


@pytest.mark.parametrize(
    ("loads", "up_s", "down_s", "counts"),
    [
        # A dip within the window for scaling up is no reason to scale down before the other window is over.
        ((0.5, 0.5, 0.3, 0.5), 60, 600, [10, 10, 10, 10]),
        ((0.5, 0.3, 0.3, 0.3), 60, 30, [10, 10, 6, 6]),
        # A peak within the window for scaling down is none to scale up before the other one is.
        ((0.9, 0.9, 0.9, 0.9), 45, 600, [10, 10, 18, 18]),
        ((0.9, 0.5, 0.9, 0.9), 30, 600, [10, 10, 10, 18]),
    ],
)
def test_both_windows_hold_at_once(loads: tuple[float, ...], up_s: float, down_s: float, counts: list[int]) -> None:
    policies = (Policy(PERCENT, 100, 15),)
    scaler = Autoscaler(Scaling(1, 100, 0.5, up=Rules(up_s, policies), down=Rules(down_s, policies)), 10)
    decided, current = [], 10
    for number, mean in enumerate(loads, start=1):
        current = scaler.decide(15.0 * number, current, Seen(mean, current))
        decided.append(current)
    assert decided == counts


# The server's dispatch


def test_draws_by_what_is_free() -> None:
    dispatcher = Dispatcher(np.random.default_rng(1), 0.7)
    loads = np.array([0.6, 0.2, 0.9, 0.0])
    dispatcher.look(loads, np.array([True, True, True, False]))
    drawn = [dispatcher.offer(lambda _: True, lambda: np.ones(4, bool)) for _ in range(20000)]
    shares = [drawn.count(index) / len(drawn) for index in range(4)]
    assert shares == pytest.approx([0.4 / 1.3, 0.8 / 1.3, 0.1 / 1.3, 0], abs=0.02)


def test_a_refusal_moves_on_and_nobody_below_the_target_load_loses_the_call() -> None:
    dispatcher = Dispatcher(np.random.default_rng(1), 0.7)
    dispatcher.look(np.array([0.1, 0.1]), np.array([True, True]))
    assert dispatcher.offer(lambda worker: worker == 1, lambda: np.array([False, True])) == 1
    dispatcher.look(np.array([0.71, 0.9]), np.array([True, True]))
    assert not dispatcher.bids
    assert dispatcher.offer(lambda _: True, lambda: np.ones(2, bool)) is None


# The whole


def calls(*rows: tuple[float, float], length_s: float = 3600) -> Trace:
    starts, durations = np.array(rows, dtype=np.float64).T
    return Trace("calls", starts, durations, length_s)


def test_one_worker_takes_what_it_can_carry() -> None:
    worker = WorkerModel(slope=0.2, threshold=0.7, window_s=0)
    seen = simulate(calls(*((10 + 5 * number, 1000.0) for number in range(6))), Scaling.fixed(1), worker)
    assert (seen.served + seen.in_progress, seen.refused) == (worker.capacity, 2)
    assert worker.capacity == 4


def test_a_grace_period_cuts_what_is_longer() -> None:
    """Ten calls, one of them long: the fleet shrinks when the others end."""
    scaling = Scaling(1, 10, 0.3, grace_s=60)
    rows = [(60.0 + 30 * number, 900.0) for number in range(20)] + [(120.0 + 30 * number, 3000.0) for number in range(20)]
    trace = calls(*sorted(rows), length_s=6000)
    worker = WorkerModel(slope=0.1)
    short, long = simulate(trace, scaling, worker), simulate(trace, dataclasses.replace(scaling, grace_s=3000), worker)
    assert short.cut > 0
    assert long.cut == 0
    advised = better(scaling, trace.longest_s, lambda tried: simulate(trace, tried, worker), lambda result: not result.cut)
    assert advised is not None
    assert advised.scaling.grace_s == 3000
    assert "grace period" in advised.changes[0]
    half = better(scaling, 3000.4, lambda tried: simulate(trace, tried, worker), lambda result: not result.cut)
    assert half is not None
    assert half.scaling.grace_s == 3001
    assert half.changes == ("a grace period of 3001 s (beside a preStop hook's), as calls last so long",)


def test_a_target_above_the_threshold_refuses_and_the_advice_does_not() -> None:
    trace = traces.steady(60, length_s=7200)
    scaling, worker = Scaling(1, 20, 0.95), WorkerModel(slope=0.1)

    def play(tried: Scaling):
        return simulate(trace, tried, worker)

    def good(result) -> bool:
        return result.refused <= 0.001 * result.calls

    assert not good(play(scaling))
    advised = better(scaling, trace.longest_s, play, good)
    assert advised is not None
    assert good(advised.result)


def test_only_what_is_needed_is_advised() -> None:
    """Calls for which there can be too few workers, whatever else is changed."""
    trace, worker = traces.steady(20, length_s=7200), WorkerModel(slope=0.1)
    advised = better(
        Scaling(1, 4, 0.5, grace_s=30),
        trace.longest_s,
        lambda tried: simulate(trace, tried, worker),
        lambda result: result.refused <= 0.001 * result.calls,
    )
    assert advised is not None
    assert advised.changes == ("up to 8 workers",)
    assert advised.scaling == Scaling(1, 8, 0.5, grace_s=30)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), target=st.floats(0.2, 0.9), grace=st.floats(0, 700))
def test_every_call_is_accounted_for(seed: int, target: float, grace: float) -> None:
    trace = traces.steady(8, seed=seed, length_s=1200)
    seen = simulate(trace, Scaling(1, 6, target, grace_s=grace), WorkerModel(slope=0.2), seed=seed)
    assert seen.calls == len(trace) == seen.served + seen.refused + seen.cut + seen.in_progress
    assert 0 <= seen.utilisation <= 1.2
    assert seen == simulate(trace, Scaling(1, 6, target, grace_s=grace), WorkerModel(slope=0.2), seed=seed)


@pytest.mark.parametrize(("drain_s", "most"), [(10.0, 100), (300.0, 2600), (None, MOST_CALLS), (1800.0, MOST_CALLS)])
def test_traces_of_short_calls_have_no_more_of_them(drain_s: float | None, most: float) -> None:
    many = Scaling(2, 100000, 0.5)
    settings = Settings(traces=("steady",))
    ((trace, own, limited),) = traces_for(many, WorkerModel(), Needs(drain_s=drain_s), settings)
    assert (own, limited) == (False, True)
    assert len(trace) < 400_000
    assert trace.duration_s.sum() / trace.length_s < most
    ((_, _, limited),) = traces_for(dataclasses.replace(many, max_replicas=4), WorkerModel(), Needs(drain_s=drain_s), settings)
    assert not limited


@pytest.mark.parametrize("longest_s", [60.0, 600.0, 1800.0])
def test_a_standard_trace_has_as_many_calls_at_a_time_as_it_says(longest_s: float) -> None:
    trace = traces.steady(100, longest_s=longest_s, length_s=20000)
    level = trace.start_s > traces.RAMP_SECONDS
    assert trace.duration_s.mean() == pytest.approx(traces.mean_seconds(longest_s), rel=0.03)
    assert trace.duration_s[level].sum() / (trace.length_s - traces.RAMP_SECONDS) == pytest.approx(100, rel=0.05)
    # Not all of them as long as the longest.
    assert (trace.duration_s == longest_s).mean() < 0.1


def test_a_worker_that_leaves_between_two_reports_is_no_longer_asked() -> None:
    """Its slot is the last one, and the server still goes by what the others reported before."""
    worker = WorkerModel(slope=0.5, window_s=0, sample_s=20, report_s=20, start_s=5)
    down = Rules(0, (Policy(PERCENT, 100, 15),))
    for seed in range(20):
        trace = traces.daily(30, seed=seed, length_s=7200)
        seen = simulate(trace, Scaling(1, 12, 0.5, down=down, grace_s=600), worker, seed=seed)
        assert seen.calls == seen.served + seen.refused + seen.cut + seen.in_progress


def test_memory_does_not_grow_with_the_calls() -> None:
    def peak(length_s: float) -> int:
        trace = traces.steady(100, length_s=length_s)
        tracemalloc.start()
        simulate(trace, Scaling(2, 20, 0.5), WorkerModel())
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(14400) < 2 * peak(3600)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line is not start_s,duration_s"),
        ("start_s,duration_s\n", "no call"),
        ("start_s,duration_s\n1,2\n3\n", ":3: 1 values"),
        ("start_s,duration_s\n1,-2\n", ":2: duration_s: '-2' is not"),
        ("start_s,duration_s\nnan,2\n", ":2: start_s: 'nan' is not"),
        ("start_s,duration_s\n1764567890123,2\n", r":2: start_s: '1764567890123' is not .* below 1e\+10 \(milliseconds\?\)"),
        ("start_s,duration_s\n0,240000\n86400000,240000\n", "over 1003 days, and both columns are seconds"),
    ],
)
def test_a_trace_that_cannot_be_read_names_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_rows(path)


# From the files to the simulation


def only(path: Path) -> Deployment:
    (deployment,) = load([str(path)]).deployments
    return deployment


@pytest.mark.parametrize(
    ("file", "changes", "target", "cores"),
    [
        ("kubernetes-hpa.yaml", [], 0.5, 4),
        ("kubernetes-hpa.yaml", [('requests: {cpu: "4"', "requests: {cpu: 500m"), ("tion: 50", "tion: 70")], 0.0875, 4),
        ("cores-told.yaml", [], 0.55, 8),
        ("hpa-cores.yaml", [], 0.5, 4),
        ("container-metric.yaml", [], 0.5, 4),
    ],
)
def test_a_target_is_a_load_of_the_worker(
    file: str, changes: list[tuple[str, str]], target: float, cores: float, tmp_path: Path
) -> None:
    deployment = only(changed(tmp_path, file, changes))
    assert scaling_of(deployment).target == pytest.approx(target)
    assert worker_of(deployment, Needs())[0].slope == pytest.approx(TEST_CORES / cores)


@pytest.mark.parametrize("measured", [0.0, -0.002])
def test_what_was_measured_as_nothing_is_assumed_and_said(measured: float) -> None:
    needs = Needs(cores_per_session=measured, load_threshold=0.0, start_s=40)
    worker, assumed = worker_of(only(AUTOSCALED), needs)
    assert (worker.slope, worker.threshold) == (pytest.approx(TEST_CORES / 4), 0.7)
    assert len(assumed) == 2


def test_a_worker_that_counts_its_calls_is_not_simulated_as_one_that_uses_cores() -> None:
    with pytest.raises(NotJudgeable, match=r"manifests\.scaling-metric"):
        play_all(load([str(AUTOSCALED)]), Needs(load_metric="calls"), Settings(), print)


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("cpu-beside-own-metric.yaml", [], "goes by livekit_agents_worker_load"),
        ("kubernetes-hpa.yaml", [('limits: {cpu: "4", ', "limits: {")], "depends on its node"),
        (
            "kubernetes-hpa.yaml",
            [('requests: {cpu: "4", ', "requests: {"), ('limits: {cpu: "4", ', "limits: {")],
            "never scales",
        ),
        ("kubernetes-hpa.yaml", [('limits: {cpu: "4"', 'limits: {cpu: "${CORES}"')], "not in the file"),
        ("cores-told.yaml", [('value: "8"', 'value: "${CORES}"')], "NUM_CPUS"),
        ("container-metric.yaml", [("containerR", "r"), ("ContainerR", "R")], "beside the worker"),
        ("own-metric.yaml", [], "no CPU target"),
        ("render.yaml", [], "how Render scales is not simulated$"),
    ],
)
def test_what_a_target_means_for_the_load_is_not_guessed(
    file: str, changes: list[tuple[str, str]], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(NotJudgeable, match=reason):
        scaling_of(only(changed(tmp_path, file, changes)))


def changed(tmp_path: Path, file: str, changes: list[tuple[str, str]]) -> Path:
    text = (CORPUS / "good" / file).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / file
    path.write_text(text)
    return path


def test_few_small_workers_are_not_accused_of_calls_that_all_of_them_would_refuse(tmp_path: Path) -> None:
    """Erlang's formula: of 6.3 calls at a time twelve places refuse 1 %."""
    small = [('cpu: "4"', 'cpu: "1"'), ("maxReplicas: 20", "maxReplicas: 2")]
    settings = Settings(traces=("steady",))
    files = load([str(changed(tmp_path, "kubernetes-hpa.yaml", small))])
    (run,) = play_all(files, Needs(), settings, print)
    assert not few_refused(run)
    (eased,), beyond = carried([run])
    assert (few_refused(eased), beyond) == (True, [])
    assert 100 < eased.result.calls < run.result.calls
    # They are two, and never more: that is no reason to judge nothing.
    judge([eased], Evidence(), few_refused, lambda _: "")
    more = dataclasses.replace(eased, scaling=dataclasses.replace(eased.scaling, min_replicas=2, max_replicas=9))
    with pytest.raises(NotJudgeable, match="of more even all replicas at once refuse some"):
        judge([more], Evidence(), lambda _: True, lambda _: "")
    # The user's own number stays as it is.
    asked = play_all(files, Needs(), dataclasses.replace(settings, calls=run.trace.rises_to), print)
    assert carried(asked) == (asked, [])
    # Four places for one call at a time.
    tiny = [('cpu: "4"', "cpu: 250m"), ("maxReplicas: 20", "maxReplicas: 2")]
    found = play_all(load([str(changed(tmp_path, "kubernetes-hpa.yaml", tiny))]), Needs(), settings, print)
    assert carried(found) == ([], found)


def test_a_late_autoscaler_is_not_helped_by_fewer_calls(tmp_path: Path) -> None:
    late = changed(tmp_path, "kubernetes-hpa.yaml", [("averageUtilization: 50", "averageUtilization: 90")])
    found = play_all(load([str(late)]), Needs(), Settings(traces=("steady",)), print)
    assert carried(found) == (found, [])
    assert not few_refused(found[0])


def test_a_trace_of_ones_own_begins_with_its_first_call(tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    path.write_text("start_s,duration_s\n28830,60\n28800,90\n")
    trace = traces.from_csv(path)
    assert (trace.start_s.tolist(), trace.duration_s.tolist(), trace.length_s) == ([0, 30], [90, 60], 90)
    path.write_text("start_s,duration_s\n1764567920,60\n1764567890,90\n")
    again = traces.from_csv(path)
    assert (again.start_s.tolist(), again.duration_s.tolist(), again.length_s) == ([0, 30], [90, 60], 90)


# As a user does


def test_the_checks_judge_the_files(lk) -> None:
    run = lk("--lk-manifests", str(AUTOSCALED), "--lk-suite", "autoscaling", "--lk-traces", "steady", "--lk-calls", "30")
    assert run.code == 0, run.output
    assert run.checks("pass") == {"autoscaling.no-refused-calls", "autoscaling.no-cut-calls", "autoscaling.utilisation"}
    check = next(check for check in run.verdict["checks"] if check["id"] == "autoscaling.no-refused-calls")
    assert check["evidence"]["runs"][0]["calls"] > 500


def test_a_late_autoscaler_refuses_calls(lk, tmp_path: Path) -> None:
    file = tmp_path / "late.yaml"
    file.write_text(AUTOSCALED.read_text().replace("averageUtilization: 50", "averageUtilization: 90"))
    assert "90" in file.read_text()
    run = lk("--lk-manifests", str(file), "--lk-suite", "autoscaling", "--lk-traces", "steady")
    assert run.checks("fail") == {"autoscaling.no-refused-calls"}, run.output
    check = next(check for check in run.verdict["checks"] if check["id"] == "autoscaling.no-refused-calls")
    assert check["evidence"]["suggestion"]["refused"] <= check["evidence"]["runs"][0]["calls"] / 1000


def test_a_short_grace_period_cuts_calls(lk, tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    text = AUTOSCALED.read_text()
    line = next(line for line in text.splitlines() if "terminationGracePeriodSeconds" in line)
    file.write_text(text.replace(line, line.partition(":")[0] + ": 20"))
    run = lk("--lk-manifests", str(file), "--lk-suite", "autoscaling.no-cut-calls", "--lk-traces", "daily", "--lk-calls", "60")
    assert run.code == 1, run.output
    assert run.checks("fail", "MUST") == {"autoscaling.no-cut-calls"}


def test_a_trace_of_ones_own(lk, tmp_path: Path) -> None:
    csv = tmp_path / "calls.csv"
    # 120 calls within half a minute, in which no worker starts: two workers carry no more than 46.
    csv.write_text("start_s,duration_s\n" + "".join(f"{100 + number / 4},120\n" for number in range(120)))
    run = lk("--lk-manifests", str(AUTOSCALED), "--lk-suite", "autoscaling.no-refused-calls", "--lk-traces", str(csv))
    assert run.code == 1, run.output  # a MUST, as the trace is no assumption


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lk-manifests", str(AUTOSCALED), "--lk-traces", "weekly"], "'weekly' is neither steady, daily, burst nor"),
        (["--lk-manifests", str(AUTOSCALED), "--lk-traces", __file__], "the first line is not start_s,duration_s"),
        (["--lk-manifests", str(AUTOSCALED), "--lk-calls", "many"], "--lk-calls"),
        (["--lk-traces", "daily"], "nothing to simulate; give --lk-manifests too"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, lk) -> None:
    run = lk(*arguments)
    assert run.code == 4
    assert message in run.output
    assert "Traceback" not in run.output


# Against a real server with real workers

# Starts and ends, in seconds, each several seconds from whatever it could depend on: a worker reports every 2.5 s.
ON_ONE = [(0, 18), (4, 22), (8, 26), (12, 17), (14, 19), (25, 43), (29, 47), (33, 51), (36, 41)]
ON_TWO = [(3 * number, 3 * number + 35) for number in range(9)]
# What a user's own test would do: place calls by a plan and note when those came that got no agent.
REAL = """
import json, time
from pathlib import Path

def refused(stage, plan):
    caller = stage.calls.caller(stage.worker("loaded"))
    events = sorted((when, joins, number) for number, call in enumerate(plan) for when, joins in zip(call, (True, False)))
    calls, began = {}, time.monotonic()
    for when, joins, number in events:
        time.sleep(max(began + when - time.monotonic(), 0))
        calls[number] = caller.join() if joins else calls[number].leave() or calls[number]
    caller.close()
    return [plan[number][0] for number, call in calls.items() if not call.agents]

def test_one(lk_stage):
    Path("one.json").write_text(json.dumps(refused(lk_stage, ON_ONE)))

def test_two(lk_stage):
    lk_stage.worker("peer")
    lk_stage.calls.wait_idle(lk_stage.worker("loaded"))
    Path("two.json").write_text(json.dumps(refused(lk_stage, ON_TWO)))
"""


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_simulated_refusals_are_the_real_ones(lk, tmp_path: Path) -> None:
    """A worker that counts its calls refuses the fourth: the same calls get no agent in reality and in the simulation."""
    tag, described = image("good", "job-count-load")
    test = tmp_path / "test_real.py"
    test.write_text(f"ON_ONE = {ON_ONE}\nON_TWO = {ON_TWO}\n{REAL}")
    run = lk("--lk-image", tag, *described["options"], str(test))
    assert run.code == 0, run.output
    worker = WorkerModel(slope=1 / 3, threshold=0.7, window_s=0)
    for name, workers, plan in (("one", 1, ON_ONE), ("two", 2, ON_TWO)):
        trace = calls(*((float(start), float(end - start)) for start, end in plan), length_s=100)
        # The stage's server asks a worker whatever its load (target_load 1), so that it is the worker that refuses.
        simulated = simulate(trace, Scaling.fixed(workers), worker, ServerModel(target_load=1.0))
        assert json.loads((tmp_path / f"{name}.json").read_text()) == list(simulated.refusals_s), name
        assert simulated.refused > 0
