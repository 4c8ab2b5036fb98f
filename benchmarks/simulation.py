"""How long the autoscaling simulation takes, and its memory: ``python benchmarks/simulation.py [WORKERS] [CALLS]``."""

from __future__ import annotations

import argparse
import resource
import time

from pytest_lkagents.capacity import traces
from pytest_lkagents.capacity.parameters import WorkerModel
from pytest_lkagents.capacity.scaling import Scaling
from pytest_lkagents.capacity.simulate import simulate

MEBI = 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workers", metavar="WORKERS", type=int, nargs="?", default=10_000)
    parser.add_argument("calls", metavar="CALLS", type=int, nargs="?", default=1_000_000)
    given = parser.parse_args()
    workers, calls = given.workers, given.calls
    print("| workers | calls | wall s | peak MiB | refused | cut |")
    print("|---|---|---|---|---|---|")
    worker = WorkerModel()
    for share in (0.1, 0.3, 1.0):
        count = round(calls * share)
        # Nearly what all workers carry at the target, for as long as makes so many calls.
        in_progress = 0.95 * workers * 0.5 / worker.slope
        length_s = count * traces.mean_seconds() / in_progress + traces.RAMP_SECONDS / 2
        trace = traces.steady(in_progress, length_s=length_s)
        began = time.perf_counter()
        seen = simulate(trace, Scaling(workers // 4, workers, 0.5, grace_s=600), worker)
        took = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEBI
        print(f"| {seen.most_replicas} | {seen.calls} | {took:.1f} | {peak:.0f} | {seen.refused} | {seen.cut} |", flush=True)


if __name__ == "__main__":
    main()
