"""What the kernel shows of a container is what the engine says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.models.containers import Container

from pytest_lkagents import clock, engine
from pytest_lkagents.checks import StageError
from pytest_lkagents.session import Session
from pytest_lkagents.settings import PROBE_IMAGE
from pytest_lkagents.worker import usage

BYTES = 50_000_000


@pytest.fixture
def container() -> Iterator[Container]:
    """It keeps so many bytes in memory, and sleeps."""
    client = engine.connect()
    session = Session(client)
    hoard = f"head -c {BYTES} /dev/zero | tail -c {BYTES} | sleep 60"
    try:
        made = client.containers.create(PROBE_IMAGE, ["sh", "-c", hoard], labels=session.labels)
        made.start()
        yield made
    finally:
        session.close()
        client.close()


def hoarded(meter: usage.Meter) -> usage.Usage | None:
    seen = meter.read()
    return seen if seen is not None and seen.memory_bytes >= BYTES else None


def test_kernel_and_engine_agree(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    by_kernel = clock.poll(lambda: hoarded(usage.Meter(container)), what="memory", seconds=20)
    monkeypatch.setattr(usage, "_as_the_kernel_counts", lambda groups: None)
    by_engine = usage.Meter(container).read()
    assert by_engine is not None
    assert by_kernel.memory_bytes == pytest.approx(by_engine.memory_bytes, rel=0.05)
    assert 0 < by_kernel.cpu_s <= by_engine.cpu_s <= by_kernel.cpu_s + 0.1


def test_a_container_that_is_gone_uses_nothing_that_could_be_read(container: Container) -> None:
    meter = usage.Meter(container)
    assert clock.poll(lambda: hoarded(meter), what="memory", seconds=20)
    container.remove(force=True)
    assert meter.read() is None
    assert usage.Meter(container).read() is None


def test_the_kernel_tells_whom_it_killed(container: Container) -> None:
    """Here for a limit; it counts alike where the whole machine has no memory left."""
    meter = usage.Meter(container)
    assert clock.poll(lambda: hoarded(meter), what="memory", seconds=20)
    assert meter.at_once()[1] == 0
    container.update(mem_limit=2 * BYTES, memswap_limit=2 * BYTES)
    # It dies, or one of the others.
    container.exec_run(["sh", "-c", f"head -c {4 * BYTES} /dev/zero | tail -c {4 * BYTES} > /dev/null"])
    assert meter.at_once()[1] > 0


ID = "4f0c" * 16
# What engines have for the group of a container, and for its processes, where control groups are of version 2.
SCOPES = [
    (f"system.slice/docker-{ID}.scope", f"/system.slice/docker-{ID}.scope"),
    (f"docker/{ID}", f"/docker/{ID}"),
    (f"machine.slice/libpod-{ID}.scope", f"/machine.slice/libpod-{ID}.scope/container"),
    (f"system.slice/docker-{ID}.scope", f"/system.slice/docker-{ID}.scope/init/worker.service"),
]


def told(stats: dict[str, Any]) -> Any:
    """A container that runs, by an engine's answers."""
    attrs = {"State": {"Pid": 4711}}
    api = SimpleNamespace(stats=lambda *_, **__: stats)
    return SimpleNamespace(id=ID, attrs=attrs, reload=lambda: None, client=SimpleNamespace(api=api))


def groups_of_version_2(root: Path, group: str, lines: str, memory: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's files below ``root``; no memory's where its controller is not there."""
    place = root / "cgroup" / group
    place.mkdir(parents=True)
    (place / "cpu.stat").write_text(
        "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnice_usec 0\ncore_sched.force_idle_usec 0\n"
    )
    if memory is not None:
        (place / "memory.stat").write_text(memory)
        (place / "memory.events").write_text("low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\nsock_throttled 0\n")
    process = root / "proc/4711"
    process.mkdir(parents=True)
    (process / "cgroup").write_text(lines)
    monkeypatch.setattr(usage, "CONTROL_GROUPS", root / "cgroup")
    monkeypatch.setattr(usage, "Path", lambda path: root / str(path).lstrip("/"))


MEMORY_OF_VERSION_2 = "anon 70000000\nfile 5000000\nkernel 900000\nshmem 1000000\ninactive_anon 0\n"


@pytest.mark.parametrize(("group", "path"), SCOPES)
def test_what_version_2_of_control_groups_counts(
    tmp_path: Path, group: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, whichever groups there are in the container's own."""
    groups_of_version_2(tmp_path, group, f"0::{path}\n", MEMORY_OF_VERSION_2, monkeypatch)
    meter = usage.Meter(told({}))
    assert meter.at_once() == (0, 0)
    seen = meter.read()
    assert seen is not None
    assert (seen.cpu_s, seen.memory_bytes) == (2.5, 71_000_000)
    assert meter.at_once() == (71_000_000, 2)


STATS_OF_VERSION_2 = {
    "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
    "memory_stats": {"usage": 77_000_000, "stats": {"anon": 70_000_000, "file": 5_000_000, "shmem": 1_000_000}, "limit": 10**9},
}


@pytest.mark.parametrize(
    "lines",
    [
        "0::/../../user.slice\n",  # another process: the engine's numbers are of another namespace
        f"0::/../docker-{ID}.scope\n",  # this process is in a container, which does not see groups above its own
    ],
)
def test_the_engine_is_asked_where_the_kernel_does_not_show_the_group(
    tmp_path: Path, lines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups_of_version_2(tmp_path, "docker/another", lines, MEMORY_OF_VERSION_2, monkeypatch)
    seen = usage.Meter(told(STATS_OF_VERSION_2)).read()
    assert seen is not None
    assert (seen.cpu_s, seen.memory_bytes) == (2.5, 71_000_000)


@pytest.mark.parametrize("memory_stats", [{}, {"usage": 0, "stats": {"anon": 0, "shmem": 0}}, {"usage": 9, "stats": None}])
def test_memory_that_nobody_counts_is_not_none_used(
    tmp_path: Path, memory_stats: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Systems for single-board computers boot without the memory controller; Podman's answers have no table."""
    groups_of_version_2(tmp_path, f"docker/{ID}", f"0::/docker/{ID}\n", None, monkeypatch)
    meter = usage.Meter(told({**STATS_OF_VERSION_2, "memory_stats": memory_stats}))
    seen = meter.read()
    assert seen is not None
    assert (seen.cpu_s, meter.at_once()) == (2.5, (0, 0))
    with pytest.raises(StageError, match=r"counts the memory of containers .*cgroup_enable=memory"):
        _ = seen.memory_bytes


def test_a_group_whose_processes_have_ended_is_of_a_container_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment it is there yet, empty: that does not say that nobody counts."""
    groups_of_version_2(tmp_path, f"docker/{ID}", f"0::/docker/{ID}\n", MEMORY_OF_VERSION_2, monkeypatch)
    meter = usage.Meter(told({}))
    assert meter.read() is not None
    (tmp_path / f"cgroup/docker/{ID}/memory.stat").write_text("anon 0\nfile 5000000\nshmem 0\n")
    assert meter.read() is None
