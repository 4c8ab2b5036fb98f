"""What calls leave behind in a worker at rest: processes, threads, descriptors, memory and files, as a trend per call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pytest_lkagents.capacity import fit
from pytest_lkagents.checks import StageError, TooBusy, WorkerFault
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker
from pytest_lkagents.worker.processes import Process

from .pool import settle

# Pairs of calls, after a first one that warms up (imports, caches, idle processes). The many make a trend that can be told
# from noise: 30 calls.
PAIRS = 4
MANY_PAIRS = 15
TALK_SECONDS = 2.0
# Between pairs; a job that does not end by then is seen in the number of processes.
REST_SECONDS = 12.0
# Half an item per call: what is left by every call, or by every second one, is a leak.
MOST_ITEMS = 0.5
# With 1000 calls between two rollouts this is a gigabyte: memory limits and ephemeral storage are of that order.
MOST_BYTES = 1_000_000

SEPARATOR = "--lkagents--"
# From a table of mounts, without the root's, whatever its kind (overlay; zfs, btrfs, fuse of other storage drivers).
MOUNTS = """awk '$5 == "/" || $(NF-2) ~ /^(overlay|proc|sysfs|cgroup2?|mqueue|devpts)$/ {next}
  $5 !~ /^\\/(proc|sys)(\\/|$)/ {print $5}'"""
# For each pid: descriptors and threads, then bytes that are its own (anonymous, shared memory, swapped out), whether shared
# with a parent or not: file pages come and go with the machine's cache. Then the files on every mount but the image's own
# layer, which the engine compares itself, and the system's; and those that have no name any more but are open, by device and
# inode: they take their place on the disk until then. What only looks like a file is memory.
SCRIPT = f"""
for pid in "$@"; do
  count=$(ls /proc/$pid/fd 2>/dev/null | wc -l)
  threads=$(awk '/^Threads:/ {{print $2}}' /proc/$pid/status 2>/dev/null)
  kib=$(awk '/^(RssAnon|RssShmem|VmSwap):/ {{sum += $2}} END {{print sum + 0}}' /proc/$pid/status 2>/dev/null)
  echo "$pid $count ${{threads:-0}} ${{kib:-0}}"
done
echo {SEPARATOR}
{MOUNTS} /proc/1/mountinfo | while read -r mount; do
  find "/proc/1/root$mount/" -xdev -type f -printf '%s %p\\n' 2>/dev/null
done
find /proc/[0-9]*/fd -lname '* (deleted)' ! -lname '/memfd:*' ! -lname '/dev/zero*' ! -lname '/SYSV*' -print0 2>/dev/null |
  xargs -0 -r stat -L -c '%s deleted file %d:%i %F' 2>/dev/null | sed -n 's/ regular.* file$//p' | sort -u
true
"""


@dataclass(frozen=True)
class Held:
    """What one process has: open descriptors, threads, and bytes of memory that are its own."""

    descriptors: int
    threads: int
    memory: int


@dataclass(frozen=True)
class Rest:
    """One moment at rest, after ``calls`` calls: what processes hold by their pid, files by path with their bytes."""

    calls: int
    processes: dict[int, Process]
    held: dict[int, Held]
    files: dict[str, int]
    layer_bytes: int


@dataclass(frozen=True)
class Trend(fit.Line):
    """The line through ``values`` over the calls."""

    values: tuple[float, ...]

    @property
    def goes_on(self) -> bool:
        """Whether it rose from most moments to the next: a pool that grew once or twice, by however many, is no leak."""
        steps = [after > before for before, after in pairwise(self.values)]
        return 2 * sum(steps) > len(steps)

    def evidence(self) -> dict[str, object]:
        return {
            "at_rest": [round(value, 1) for value in self.values],
            "per_call": round(self.slope, 3),
            "stderr": round(self.stderr, 3),
        }


def trend(calls: Sequence[int], values: Sequence[float]) -> Trend:
    """Raises ValueError for less than three points, which have no standard error."""
    fitted = fit.line(calls, values)
    return Trend(fitted.base, fitted.slope, fitted.stderr, tuple(values))


@dataclass
class Leftovers:
    """``rests`` are the baseline and a moment after each further pair of calls."""

    rests: list[Rest] = field(default_factory=list)
    # Bytes in files while calls were in progress, at most.
    busy_bytes: int = 0

    def survivors(self) -> dict[int, Process]:
        """The processes that were there all the time."""
        first, *others = (rest.processes for rest in self.rests)
        return {pid: process for pid, process in first.items() if all(pid in other for other in others)}

    def trends(self) -> dict[str, Trend]:
        calls = [rest.calls for rest in self.rests]
        kept = self.survivors()
        return {
            "processes": trend(calls, [len(rest.processes) for rest in self.rests]),
            "descriptors": trend(calls, [sum(rest.held[pid].descriptors for pid in kept) for rest in self.rests]),
            "threads": trend(calls, [sum(rest.held[pid].threads for pid in kept) for rest in self.rests]),
            "memory_bytes": trend(calls, [sum(rest.held[pid].memory for pid in kept) for rest in self.rests]),
            "files": trend(calls, [len(rest.files) for rest in self.rests]),
            "file_bytes": trend(calls, [sum(rest.files.values()) + rest.layer_bytes for rest in self.rests]),
        }

    @property
    def threads_grow(self) -> bool:
        """Whether each call so far left a thread, which may fill a pool that makes one for each task until it is full."""
        found = self.trends()["threads"]
        return found.exceeds(MOST_ITEMS) and found.goes_on

    def new_files(self) -> list[str]:
        return sorted(set(self.rests[-1].files) - set(self.rests[0].files))

    def new_processes(self) -> list[str]:
        first, last = self.rests[0].processes, self.rests[-1].processes
        return [f"{pid} {process.state} {process.args}" for pid, process in last.items() if pid not in first]


def observe(stage: Stage, pairs: int, say: Callable[[str], None]) -> Leftovers:
    """So many pairs of calls, and further ones, MANY_PAIRS at most, while threads grow. Raises WorkerFault when calls are not
    served."""
    worker = stage.worker("tidy")
    stage.calls.wait_idle(worker)
    seen = Leftovers()
    calls = 0
    for number in range(MANY_PAIRS + 1):
        if number > pairs and not seen.threads_grow:
            break
        if number == pairs + 1:
            say(f"leftovers: as threads grow, up to {2 * (MANY_PAIRS - pairs)} more short calls")
        elif number % 4 == 1 and number <= pairs:
            say(f"leftovers: {calls} of {2 * pairs + 2} short calls placed")
        placed, jobs = _two_calls(stage, worker, seen)
        calls += placed
        seen.rests.append(measure(stage, worker, calls, jobs))
    return seen


def _two_calls(stage: Stage, worker: Worker, seen: Leftovers) -> tuple[int, set[int]]:
    """Two calls side by side, one if the worker takes no more: how many, and who served them."""
    caller = stage.calls.caller(worker)
    try:
        call = stage.calls.served(caller)
        placed = 1
        try:
            call = stage.calls.served(caller, tries=1)
            placed = 2
        except (WorkerFault, TooBusy):
            pass
        now = worker.snapshot()
        jobs = set(worker.jobs_of(now)) - set(worker.registered_by(now))
        call.wait_until_agent_talks(TALK_SECONDS)
        files, layer_bytes = _files(_read(worker, []), worker)
        seen.busy_bytes = max(seen.busy_bytes, sum(files.values()) + layer_bytes)
        return placed, jobs
    finally:
        caller.close()


def measure(stage: Stage, worker: Worker, calls: int, jobs: set[int]) -> Rest:
    """Wait until the jobs have ended and the worker rests, then count. Raises StageError if it cannot be read."""
    now = settle(stage, worker, jobs, REST_SECONDS)
    output = _read(worker, [process.pid for process in now.processes])
    files, layer_bytes = _files(output, worker)
    processes = {process.pid: process for process in now.processes}
    return Rest(calls, processes, _held(output), files, layer_bytes)


def held_by(worker: Worker, processes: Sequence[Process]) -> dict[int, Held]:
    """By pid. Raises NotJudgeable where that cannot be seen, StageError."""
    return _held(_read(worker, [process.pid for process in processes]))


def _held(output: str) -> dict[int, Held]:
    """By pid."""
    found = {}
    for line in output.partition(f"{SEPARATOR}\n")[0].splitlines():
        pid, descriptors, threads, kib = map(int, line.split())
        found[pid] = Held(descriptors, threads, kib * 1024)
    return found


def _read(worker: Worker, pids: Sequence[int]) -> str:
    output = worker.beside("sh", "-c", SCRIPT, "sh", *map(str, pids))
    if SEPARATOR not in output:
        raise StageError("the worker's processes and files cannot be read")
    return output


def _files(output: str, worker: Worker) -> tuple[dict[str, int], int]:
    """Files with their bytes, those of the writable layer with none, and that layer's bytes."""
    files = {}
    for line in output.partition(f"{SEPARATOR}\n")[2].splitlines():
        size, _, path = line.partition(" ")
        files[path.removeprefix("/proc/1/root")] = int(size) if size.isdigit() else 0
    added, layer_bytes = worker.written()
    files.update(dict.fromkeys(added, 0))
    return files, layer_bytes
