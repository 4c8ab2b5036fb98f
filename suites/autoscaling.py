"""Deployment files put into the simulation: what they say of scaling, the worker as far as it is known, call traces."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_lkagents.capacity import traces
from pytest_lkagents.capacity.advise import Advice, better
from pytest_lkagents.capacity.parameters import WorkerModel
from pytest_lkagents.capacity.result import Result
from pytest_lkagents.capacity.scaling import DOWN, UP, Policy, Rules, Scaling
from pytest_lkagents.capacity.simulate import simulate
from pytest_lkagents.capacity.traces import Trace
from pytest_lkagents.checks import NotJudgeable
from pytest_lkagents.guide import TEST_CORES
from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.manifests.model import Autoscaler, Deployment, Files, Pace
from pytest_lkagents.manifests.rules.scaling import THRESHOLD, counted_cores, load_target
from pytest_lkagents.settings import Settings
from pytest_lkagents.values import TRACES

# Standard traces have no more calls of the usual length at a time: about a million in a day. Of shorter ones they have fewer,
# so that there are as many in a day.
MOST_CALLS = 5000.0
# If all replicas at once refuse some of them, as few replicas do of calls that come by chance, fewer calls are tried.
FEWER = 1.5
# Standard traces rise to this share of what all replicas carry at the autoscaler's target: room that whoever wrote the
# maximum surely meant to have.
PEAK = 0.8


@dataclass(frozen=True)
class Played:
    """One deployment under one trace. ``assumed``: what of the worker was neither measured nor declared. ``limited``: the
    trace has fewer calls than the workers are for, as it would take too long. ``another``: a trace of the same kind with other
    calls at a time, where their number is ours and not the user's."""

    deployment: Deployment
    trace: Trace
    scaling: Scaling
    worker: WorkerModel
    result: Result
    own: bool
    assumed: tuple[str, ...]
    limited: bool = False
    # It has fewer calls than our own number, as all replicas at once refused some of those.
    eased: bool = False
    another: Callable[[float], Trace] | None = None

    @property
    def peak(self) -> int:
        """Calls at a time, at most."""
        return max(point.calls for point in self.result.series)

    def with_result(self, result: Result) -> Played:
        return dataclasses.replace(self, result=result)

    def advice(self, good: Callable[[Result], bool]) -> Advice | None:
        play = functools.partial(_play, self.trace, self.worker)
        return better(self.scaling, self.trace.longest_s, play, good)

    def carried(self, good: Callable[[Result], bool]) -> Played | None:
        """The same with as many calls of our number as are ``good`` with all replicas at once, which no autoscaler can be
        better than; None: not even one call at a time is."""
        trace = self.trace
        if self.another is None or trace.rises_to is None:
            return self
        always = Scaling.fixed(self.scaling.ceiling, grace_s=self.scaling.grace_s)
        while not good(_play(trace, self.worker, always)):
            rises_to = (trace.rises_to or 0) / FEWER
            if rises_to < 1:
                return None
            trace = self.another(rises_to)
        if trace is self.trace:
            return self
        return dataclasses.replace(self, trace=trace, result=_play(trace, self.worker, self.scaling), eased=True)

    def evidence(self) -> dict[str, Any]:
        scaling = self.scaling
        return {
            "deployment": str(self.deployment.place),
            "trace": self.trace.name,
            "rises_to": self.trace.rises_to,
            "replicas": [scaling.min_replicas, scaling.max_replicas],
            "target_load": scaling.target,
            "grace_s": scaling.grace_s,
            "longest_call_s": round(self.trace.longest_s, 1),
            "worker": dataclasses.asdict(self.worker),
            "assumed": list(self.assumed),
            **self.result.evidence(),
        }


def _play(trace: Trace, worker: WorkerModel, scaling: Scaling) -> Result:
    return simulate(trace, scaling, worker)


def play_all(files: Files, needs: Needs, settings: Settings, say: Callable[[str], None]) -> list[Played]:
    """Every deployment with an autoscaler under every trace. Raises NotJudgeable where there is none that can be simulated."""
    if needs.load_metric == "calls":
        raise NotJudgeable("calls and not CPU moved its load, and a load of cores is simulated: see manifests.scaling-metric")
    played, reasons = [], []
    for deployment in files.deployments:
        if deployment.place.file in files.for_development:
            reasons.append(f"{deployment.place.file}: for development by its name")
            continue
        try:
            scaling = scaling_of(deployment)
        except NotJudgeable as reason:
            reasons.append(str(reason))
            continue
        worker, assumed = worker_of(deployment, needs)
        for trace, own, limited in traces_for(scaling, worker, needs, settings):
            say(f"autoscaling: {trace.name}, {len(trace)} calls on {scaling.min_replicas} to {scaling.max_replicas} workers")
            result = simulate(trace, scaling, worker)
            another = None if own or settings.calls else functools.partial(_standard, trace.name, needs)
            played.append(Played(deployment, trace, scaling, worker, result, own, assumed, limited, another=another))
    if not played:
        raise NotJudgeable("; ".join(dict.fromkeys(reasons)) or "no deployment that scales")
    return played


def scaling_of(deployment: Deployment) -> Scaling:
    """Raises NotJudgeable where the file says too little, or its platform scales in a way of its own."""
    scaler = deployment.autoscaler
    if scaler is None:
        raise NotJudgeable(f"{deployment.place.file}: no autoscaler")
    if not scaler.kubernetes:
        raise NotJudgeable(f"{scaler.place.file}: how {deployment.platform.name} scales is not simulated")
    target = load_target(deployment)
    if isinstance(target, str):
        raise NotJudgeable(f"{scaler.place}: {target}; not simulated")
    if scaler.maximum is None:
        raise NotJudgeable(f"{scaler.place}: no maximum")
    for name in ("grace_s", "pre_stop_s", "minimum", "windows"):
        if name in deployment.unclear:
            raise NotJudgeable(f"{deployment.unclear[name].place}: {deployment.unclear[name].value}; not simulated")
    grace = deployment.grace_s.value if deployment.grace_s is not None else deployment.platform.grace_default_s or 0.0
    least = max(scaler.minimum.value if scaler.minimum is not None else 1, 1)
    try:
        return Scaling(
            least,
            scaler.maximum.value,
            target,
            up=_rules(scaler, scaler.up, UP, up=True),
            down=_rules(scaler, scaler.down, DOWN, up=False),
            grace_s=max(grace - deployment.pre_stop_s, 0.0),
            source=str(scaler.place),
        )
    except ValueError as error:
        raise NotJudgeable(f"{scaler.place}: the platform would not take it: {error}") from None


def _rules(scaler: Autoscaler, pace: Pace, default: Rules, *, up: bool) -> Rules:
    window = scaler.up_window if up else scaler.down_window
    return Rules(
        window.value if window is not None else default.stabilization_s,
        tuple(Policy(step.kind, step.value, step.period_s) for step in pace.steps) or default.policies,
        pace.select,
        pace.tolerance if pace.tolerance is not None else default.tolerance,
    )


def worker_of(deployment: Deployment, needs: Needs) -> tuple[WorkerModel, tuple[str, ...]]:
    """The worker of a deployment whose target load is known, and what of it had to be assumed."""
    assumed = []
    counted = counted_cores(deployment)
    assert counted is not None, "there is no target load without it"
    # What was measured of calls that cost next to nothing may be noise, 0 or less.
    cores = needs.cores_per_session if (needs.cores_per_session or 0) > 0 else None
    threshold = needs.load_threshold if (needs.load_threshold or 0) > 0 else None
    if cores is None:
        assumed.append(f"{TEST_CORES:.3f} cores per call, as in the guide's load test")
    if threshold is None:
        assumed.append(f"a load threshold of {THRESHOLD:g}")
    # What was measured began with a container on a machine that had the image; a cluster schedules and pulls before.
    start = max(needs.start_s or 0.0, WorkerModel().start_s)
    if start != needs.start_s:
        assumed.append(f"{start:.0f} s until a new worker has registered, scheduling and pulling the image included")
    model = WorkerModel(
        slope=(cores or TEST_CORES) / counted,
        threshold=threshold or THRESHOLD,
        start_s=start,
    )
    return model, tuple(assumed)


def traces_for(scaling: Scaling, worker: WorkerModel, needs: Needs, settings: Settings) -> list[tuple[Trace, bool, bool]]:
    """The traces asked for, whether each is the user's own, and whether it is limited (Played). Standard ones rise to
    ``lk_calls`` at a time, or to what these replicas are made for; calls are as long as the declared drain at most, or else ten
    minutes."""
    found: list[tuple[Trace, bool, bool]] = []
    for name in settings.traces or TRACES:
        if name not in TRACES:
            found.append((traces.from_csv(Path(name)), True, False))
            continue
        target = min(scaling.target or worker.threshold, worker.threshold)
        carried = max((target - worker.base) / worker.slope, 1.0) * scaling.ceiling
        most = MOST_CALLS * min(1.0, traces.mean_seconds(_longest(needs)) / traces.mean_seconds())
        peak = settings.calls or max(1.0, min(PEAK * carried, most))
        limited = settings.calls is None and PEAK * carried > most
        found.append((_standard(name, needs, peak), False, limited))
    return found


def _longest(needs: Needs) -> float:
    return needs.drain_s or traces.LONGEST_SECONDS


def _standard(kind: str, needs: Needs, calls: float) -> Trace:
    return traces.standard(kind, calls, longest_s=_longest(needs))
