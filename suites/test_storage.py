"""Section "Storage"."""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_lkagents.checks import MUST, SHOULD, Evidence, WorkerFault, check
from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.contents import MOST_READ_SECONDS

from . import leftovers
from .reconnecting import agent_comes
from .shared import contrast

TYPICAL_BYTES = 1_000_000_000
# The guide: "more than enough" for image and temporary files.
MOST_BYTES = 10_000_000_000


@check(
    "storage.image-size",
    SHOULD,
    profile="smoke",
    section="Storage",
    why="A node pulls the image before it can take calls; large images make scaling slow.",
    remedy="build in stages, leave caches and unused models out",
    seconds=MOST_READ_SECONDS + 60,
)
def test_image_size(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """The image is smaller than 1 GB.

    The size is that of the files in its layers, unpacked, files that a later layer deletes included; it must be below
    1 GB (10^9 bytes), as that of typical agents is. An engine with the classic image store says it itself
    (`docker image inspect`); where the sum of `docker history` is another figure, as with containerd's image store
    (Docker 29), whose figures include what lies compressed beside it or count blocks of the disk, the layers are read
    as `docker save` gives them (that sum counts if one cannot be read). Nothing is started; skipped with
    `--lk-command`.
    """
    size = lk_stage.image_bytes()
    lk_evidence["size_bytes"], lk_evidence["limit_bytes"] = size, TYPICAL_BYTES
    assert size < TYPICAL_BYTES, f"the image has {size / 1e9:.2f} GB, typical are less than 1 GB"
    lk_evidence.summary = f"{size / 1e6:.0f} MB"


@check(
    "storage.ephemeral",
    MUST,
    profile="full",
    section="Storage",
    why="Platforms evict a container that fills its disk, with every call it has.",
    remedy="delete what a job wrote when it ends; write recordings to storage of their own",
    roles=("tidy",),
    seconds=600,
)
def test_ephemeral(lk_stage: Stage, lk_evidence: Evidence, lk_tidied: Callable[[], leftovers.Leftovers]) -> None:
    """Its files need less than 10 GB, the unpacked image included, and no more with every call.

    16 pairs of short calls are placed; the bytes of the worker's files (its writable layer, every mount but the image's
    and the system's, and files that were deleted but are open) are read while the calls are in progress and, after up to
    12 s of rest, when they are over. The highest sum plus the image's unpacked size must be below 10 GB, which the guide calls
    more than enough. The slope of a straight line through the readings at rest, less two standard errors, may be at most
    1 MB per call. Skipped with `--lk-command` or if calls are not served.
    """
    lk_stage.needs_image("a process here has no files of its own")
    seen = lk_tidied()
    found = seen.trends()["file_bytes"]
    calls = seen.rests[-1].calls - seen.rests[0].calls
    image = lk_stage.image_bytes()
    peak = round(max(seen.busy_bytes, *found.values)) + image
    lk_evidence["calls"], lk_evidence["file_bytes"] = calls, found.evidence()
    lk_evidence["image_bytes"], lk_evidence["peak_bytes"], lk_evidence["limit_bytes"] = image, peak, MOST_BYTES
    lk_evidence["limit_bytes_per_call"] = leftovers.MOST_BYTES
    lk_evidence["new_files"] = seen.new_files()[:20]
    assert not found.exceeds(leftovers.MOST_BYTES), f"each of {calls} calls leaves {found.slope / 1e6:.1f} MB of files behind"
    assert peak < MOST_BYTES, f"image and files need {peak / 1e9:.1f} GB"
    lk_evidence.summary = f"{peak / 1e6:.0f} MB with the image, {found.slope / 1e6:+.2f} MB per call over {calls} calls"


@check(
    "storage.read-only",
    SHOULD,
    profile="full",
    section="Storage",
    why="Many clusters forbid containers to write into their image; what a worker needs to write belongs into /tmp.",
    remedy="write below /tmp only; set HOME, cache and model folders (HF_HOME, XDG_CACHE_HOME) accordingly",
    roles=("shared", "read-only"),
)
def test_read_only(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """With a file system that cannot be written to, but for /tmp, it registers and serves a call.

    A worker's container is started with a read-only file system and a tmpfs at `/tmp`. It must register within
    `lk_start_timeout` (default 60 s), and one of three calls must get its agent within 15 s (30 s, if the worker
    accepted it). Skipped if the shared worker does not register with an ordinary file system either, or with
    `--lk-command`; an overloaded machine is an error.
    """
    lk_stage.needs_image("a process here shares this machine's files")
    worker = contrast(lk_stage, "read-only", "with a read-only file system it does not register")
    caller = lk_stage.calls.caller(worker)
    try:
        call = lk_stage.calls.served(caller)
        lk_evidence["agent_joined_after_s"] = round(call.agent_after, 2)
    except WorkerFault as fault:
        raise AssertionError(f"with a read-only file system {fault}") from None
    finally:
        caller.close()
    lk_evidence.summary = "registers and serves a call with nothing but /tmp to write to"


@check(
    "storage.starts-again",
    SHOULD,
    profile="full",
    section="Storage",
    why="Restart policies (Docker, Compose) start the same container again, with all files that the last process left in it.",
    remedy="let no lock, process number or socket of a process that is gone keep the next one from starting; remove what is "
    "left (such as Xvfb's lock) before the start",
    roles=("restarted",),
)
def test_starts_again(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """Killed with a call in progress and started again in the same container, it registers and serves calls.

    With a call in progress all processes of a worker are ended by SIGKILL, as by the kernel when memory runs out. Then
    the same container is started again, with the files that were left. It must register within `lk_start_timeout`
    (default 60 s), and one of three calls must get its agent within 15 s (30 s, if the worker accepted it). Skipped if
    the first call is not served, or with `--lk-command`; an overloaded machine is an error.
    """
    worker = lk_stage.untouched("restarted")
    ever = len(worker.wire.transcript.registrations())
    caller = lk_stage.calls.caller(worker)
    try:
        lk_stage.calls.served(caller)
        worker.kill()
        worker.start_again()
        again = time.monotonic()
        try:
            found = worker.wait_registered(more_than=ever)
        except WorkerFault as fault:
            raise AssertionError(f"killed and started again in the same container, {fault}") from None
        lk_evidence["registered_after_s"] = round(found.registered - again, 2)
        lk_evidence["agent_joined_after_s"] = agent_comes(lk_stage, caller, "killed and started again it registered")
    finally:
        caller.close()
    lk_evidence.summary = f"killed and started again: registered after {lk_evidence['registered_after_s']} s, and serves calls"
