"""What varies from run to run: python benchmarks/repeat.py IMAGE [--suites SUITES] [--runs 10] [--from OLD] [--neighbour CORES]
                                    [--keep DIR]

Runs packaged suites (default: rollout with a replacement) on the image, and prints for each figure its median with the least
and the most, how the runs ended and which checks were tried again because the machine was busy. ``--neighbour`` burns that many
cores of the machine meanwhile; ``--keep`` keeps the JSON verdicts and the output of the runs that did not pass.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# check, path in its evidence, words, unit, how many of it make one
FIGURES = (
    ("rollout.idle-exit", "exited_after_s", "without a call: exit after the signal", "s", 1),
    ("rollout.sigterm-stops-new-jobs", "stopped_after_s", "with calls: says that it takes no more after the signal", "s", 1),
    ("rollout.exits-when-drained", "exited_after_last_call_s", "drain: exit after the last call", "s", 1),
    ("rollout.replaces-without-loss", "both_generations_s", "replacement: old and new side by side", "s", 1),
    ("resources.within-ceilings", "at_rest.memory_bytes", "memory at rest", "MB", 1e6),
    ("resources.within-ceilings", "cores_per_session", "cores per call", "cores", 1),
    ("resources.within-ceilings", "memory_per_session_bytes", "memory per call", "MB", 1e6),
    ("resources.within-ceilings", "simulated_users_cores", "all simulated users", "cores", 1),
    ("resources.quality-of-service", "agent_s", "the listener's agent after", "s", 1),
    ("resources.quality-of-service", "longest_silence_s", "the listener's longest silence", "s", 1),
    ("resources.quality-of-service", "concealed_share", "concealed sound", "%", 0.01),
    ("capacity.sizing", "sessions_per_worker", "sessions per worker", "", 1),
)


def figure(evidence: dict[str, Any], path: str) -> float | None:
    found: Any = evidence
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


@contextlib.contextmanager
def neighbour(cores: int) -> Iterator[None]:
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        yield
    finally:
        for process in burners:
            process.kill()
            process.wait()


def run(image: str, old: str | None, suites: str) -> tuple[dict[str, Any], str]:
    """The JSON verdict of one run and what it printed; without a verdict, how it ended stands for that."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "verdict.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--lk-image", image, f"--lk-json={path}"]
        command += ["--lk-suite", suites] if suites else []
        command += ["--lk-from", old] if old else []
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if not path.exists():
            return {"verdict": f"exit code {done.returncode}", "duration_s": 0.0, "checks": []}, done.stdout
        return json.loads(path.read_text()), done.stdout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("--from", dest="old")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--suites", default="rollout,rollout.replaces-without-loss", help="empty: the core profile")
    parser.add_argument("--neighbour", type=int, default=0, metavar="CORES")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    given = parser.parse_args()
    seen: dict[tuple[str, str], list[float]] = {}
    ends: Counter[str] = Counter()
    with neighbour(given.neighbour):
        for number in range(1, given.runs + 1):
            verdict, printed = run(given.image, given.old, given.suites)
            found = {check["id"]: check for check in verdict["checks"]}
            for check, path, words, unit, one in FIGURES:
                value = figure(found.get(check, {}).get("evidence", {}), path)
                if value is not None:
                    seen.setdefault((words, unit), []).append(value / one)
            ends[verdict["verdict"]] += 1
            if given.keep and verdict["verdict"] != "pass":
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / f"run-{number}.json").write_text(json.dumps(verdict, indent=1))
                (given.keep / f"run-{number}.txt").write_text(printed)
            odd = [f"{name}: {check['summary']}" for name, check in found.items() if check["status"] not in ("pass", "waived")]
            odd += [
                f"{name}: tried again: {why}"
                for name, check in found.items()
                if (why := check["evidence"].get("tried_again_because"))
            ]
            print(f"run {number}: {verdict['verdict']} in {verdict['duration_s']:.0f} s", *odd, sep="\n  ", file=sys.stderr)
    beside = f" beside {given.neighbour} burnt cores" if given.neighbour else ""
    print(f"{given.image}, {given.runs} runs{beside}: {', '.join(f'{count} {end}' for end, count in ends.items())}\n")
    print("| | median | least | most |\n|---|---|---|---|")
    for (words, unit), values in seen.items():
        least, middle, most = (f"{value:.3g} {unit}".strip() for value in (min(values), statistics.median(values), max(values)))
        print(f"| {words} | {middle} | {least} | {most} |")


if __name__ == "__main__":
    main()
