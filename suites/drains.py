"""A worker with calls is asked to stop, in the ways in which workers are."""

from __future__ import annotations

from pytest_lkagents.stage import Stage
from pytest_lkagents.worker.base import Worker

from .drainage import Drainage
from .drained import Drain
from .observations import stop_signal
from .scenario import DRAIN_SECONDS, LIMIT_SECONDS, WITHOUT_SERVER_SECONDS, Ends, Scenario

CALLS = 4


def by_stop_signal(stage: Stage, *, together: bool, calls: int, hold: float, brief: bool) -> Drain:
    """The image's own stop signal, which is what engines and orchestrators send. As any worker that is rolled out, it has had a
    call before, unless ``brief``."""
    scenario = Scenario(
        stop_signal(stage),
        calls=calls,
        hold=hold,
        ends=Ends.OLDEST_FIRST,
        after_a_call=not brief,
        together=together,
        brief=brief,
        probed=True,
    )
    return Drainage(stage, stage.untouched("draining"), scenario).observe()


def by_interrupt(stage: Stage) -> Drain:
    """SIGINT, of whose calls one ends earlier."""
    scenario = Scenario("SIGINT", calls=2, hold=LIMIT_SECONDS, ends=Ends.OLDEST_FIRST)
    return Drainage(stage, stage.untouched("interrupted"), scenario).observe()


def engine_timeout(stage: Stage) -> float:
    """Seconds that the engine is told to wait before it kills what it stops: more than a drain that is in order needs."""
    return DRAIN_SECONDS + stage.settings.exit_timeout + 20


def by_engine(stage: Stage) -> Drain:
    """The engine's own way to stop a container."""
    seconds = engine_timeout(stage)
    scenario = Scenario(stop_signal(stage), send=lambda stopped: stopped.stop(seconds))
    return Drainage(stage, stage.untouched("engine-stopped"), scenario).observe()


def without_server(stage: Stage) -> Drain:
    """By the stop signal; then the worker's connection to the server is cut, and refused for some seconds."""

    def regain(back: Worker) -> None:
        back.wire.accept()

    scenario = Scenario(stop_signal(stage), hold=WITHOUT_SERVER_SECONDS, disturb=Worker.cut_off, repair=regain)
    return Drainage(stage, stage.untouched("unconnected"), scenario).observe()


def by_two_signals(stage: Stage) -> tuple[Drain, bool]:
    """By the stop signal, which is sent once more while the worker drains; whether it came that far."""
    name, sent = stop_signal(stage), []

    def again(draining: Worker) -> None:
        draining.signal(name)
        sent.append(draining)

    seen = Drainage(stage, stage.untouched("insisted"), Scenario(name, disturb=again)).observe()
    return seen, bool(sent)
