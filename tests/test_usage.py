"""What the kernel shows of a container is what the engine says of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from docker.models.containers import Container

from pytest_lkagents import clock, engine
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
