"""Fixtures of the packaged suites: observations that several checks share. Their names begin as no user's do: pytest before 9.1
puts fixtures of this file, which lies outside of the user's project, in place of theirs."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_lkagents import limits
from pytest_lkagents.beginning import is_xdist_worker
from pytest_lkagents.checks import TRIED_AGAIN, Evidence, StageError, WorkerFailed, check_of
from pytest_lkagents.fixtures import STAGE
from pytest_lkagents.gathered import GATHERED
from pytest_lkagents.manifests.findings import Needs
from pytest_lkagents.manifests.load import load as load_manifests
from pytest_lkagents.manifests.model import Files
from pytest_lkagents.settings import Settings
from pytest_lkagents.stage import Stage
from pytest_lkagents.verdict import SEEN_BESIDE

from . import (
    accepted,
    assignment,
    crowds,
    drains,
    early,
    faults,
    harm,
    leftovers,
    long_call,
    measured,
    observations,
    pool,
    reconnecting,
)
from . import load as loads
from .drained import Drain
from .harmed import Harm
from .loaded import Loaded
from .scenario import DRAIN_SECONDS, LIMIT_SECONDS
from .shared import Ahead, once, proven

if TYPE_CHECKING:
    from . import autoscaling

# Observations that begin with the run, and the role whose worker each is made on.
AHEAD = {
    "lk_emptying": "draining",
    "lk_crash": "crashing",
    "lk_assigned": "peer",
    "lk_interrupt": "interrupted",
    "lk_reconnection": "reconnecting",
    "lk_late_drain": "cut-once",
    "lk_half_open": "half-open",
    "lk_partition": "partitioned",
}


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A check's evidence says if what it judges was observed twice and, where it fails, on whose worker."""
    evidence = pyfuncitem.funcargs.get("lk_evidence")
    try:
        return (yield)
    except (AssertionError, WorkerFailed):
        if isinstance(evidence, Evidence) and (others := _had_its_workers_before(pyfuncitem)):
            evidence.setdefault(SEEN_BESIDE, ",".join(others))
        raise
    finally:
        for name, shared in pyfuncitem.funcargs.items():
            if isinstance(evidence, Evidence) and isinstance(shared, Ahead) and shared.again_because is not None:
                evidence.setdefault(TRIED_AGAIN, f"{name.removeprefix('lk_')}: {shared.again_because}")


def _had_its_workers_before(item: pytest.Function) -> list[str]:
    """For each role that its workers had before, the id of a check that used them so: it may have a part in a failure."""
    judged = check_of(item)
    if judged is None or "lk_stage" not in item.fixturenames:
        return []
    stage = item.config.stash[STAGE].get()
    before = {earlier for role in judged.roles for earlier in stage.had_before(role)}
    of_run = [found for one in item.session.items if (found := check_of(one)) is not None]
    return [next(found.id for found in of_run if role in found.roles) for role in sorted(before)]


@pytest.fixture(scope="session")
def lk_selected(request: pytest.FixtureRequest) -> set[str]:
    """The ids of the checks of this run: an observation does no more than they need."""
    return {found.id for item in request.session.items if (found := check_of(item)) is not None}


@pytest.fixture(scope="session")
def lk_first_call(lk_stage: Stage) -> Callable[[], observations.FirstCall]:
    return once(observations.first_call, lk_stage)


@pytest.fixture(scope="session")
def lk_before_server(lk_stage: Stage, lk_first_call: Callable[[], observations.FirstCall]) -> Callable[[], early.Early]:
    """A worker that is there before its server."""
    looks = itertools.count()
    return once(lambda stage: early.observe(stage, lk_first_call, last=next(looks) > 0), lk_stage)


@pytest.fixture(scope="session")
def lk_emptying(request: pytest.FixtureRequest, lk_stage: Stage, lk_selected: set[str]) -> Callable[[], Drain]:
    """The worker's own stop signal, with calls of which one is kept; no more of them than the checks need."""
    together = "rollout.sigterm-stops-new-jobs" in lk_selected
    several = {"rollout.drains-every-call", "rollout.drains-after-loss", "rollout.sigint-drains"}
    calls = drains.CALLS if lk_selected & several else 1
    hold, brief = _hold(lk_stage, lk_selected), _users(request, "lk_drain") <= {"image.production-mode"}
    return Ahead(
        lk_stage,
        lambda stage: drains.by_stop_signal(stage, together=together, calls=calls, hold=hold, brief=brief),
    )


@pytest.fixture(scope="session")
def lk_several(request: pytest.FixtureRequest, lk_stage: Stage, lk_selected: set[str]) -> Callable[[], Drain | None]:
    """The same for what has another subject, see ``_beside``."""
    return _beside(request, lk_stage, "lk_emptying", "rollout.drains-every-call" in lk_selected)


@pytest.fixture(scope="session")
def lk_drain(lk_stage: Stage, lk_selected: set[str], lk_emptying: Callable[[], Drain]) -> Callable[[], Drain]:
    """What a single call notices of the stop signal. Where a call was cut after others had ended, nobody knows for which
    of the two reasons: then it is observed once more, with one call."""

    def observe(stage: Stage) -> Drain:
        seen = lk_emptying()
        if seen.cut is None or seen.cut_while_held is not None:
            return seen
        hold = _hold(stage, lk_selected)
        once_more = Ahead(stage, lambda stage: drains.by_stop_signal(stage, together=False, calls=1, hold=hold, brief=False))
        return once_more()

    return once(observe, lk_stage)


def _beside(
    request: pytest.FixtureRequest, stage: Stage, name: str, selected: bool, *, in_turns: bool = False
) -> Callable[[], Any]:
    """What another check of this run (``selected``) observes by the fixture of this name; with -n each process that asks has an
    observation of its own. None: no check does, workers take turns (unless ``in_turns``), or the observation failed, which
    those say whose subject it is."""

    def observed() -> Any:
        if not selected or (stage.takes_turns and not in_turns):
            return None
        try:
            return request.getfixturevalue(name)()
        except (Exception, pytest.fail.Exception):
            stage.raise_if_closing()
            if limits.is_over():
                raise
            return None

    return observed


def _users(request: pytest.FixtureRequest, name: str) -> set[str]:
    """The ids of this run's checks that use this fixture."""
    items = [item for item in request.session.items if name in getattr(item, "fixturenames", ())]
    return {found.id for item in items if (found := check_of(item)) is not None}


def _hold(stage: Stage, selected: set[str]) -> float:
    limited = LIMIT_SECONDS if "rollout.sigterm-drains" in selected else DRAIN_SECONDS
    return stage.settings.drain_hold or limited


@pytest.fixture(scope="session")
def lk_interrupt(lk_stage: Stage) -> Callable[[], Drain]:
    """SIGINT, with two calls."""
    return Ahead(lk_stage, drains.by_interrupt)


@pytest.fixture(scope="session")
def lk_engine_stop(lk_stage: Stage) -> Callable[[], Drain]:
    """The engine's own way to stop a container, with a call."""
    return Ahead(lk_stage, drains.by_engine)


@pytest.fixture(scope="session")
def lk_unconnected(lk_stage: Stage) -> Callable[[], Drain]:
    """The stop signal, with a call, and then the loss of the server's connection."""
    return Ahead(lk_stage, drains.without_server)


@pytest.fixture(scope="session")
def lk_assigned(lk_stage: Stage) -> Callable[[], assignment.Assigned]:
    """Several calls on two workers."""
    return Ahead(lk_stage, assignment.observe)


@pytest.fixture(scope="session")
def lk_reconnection(lk_stage: Stage) -> Callable[[], reconnecting.Reconnection]:
    """A restart of the server, and a cut connection."""
    return Ahead(lk_stage, reconnecting.reconnection)


@pytest.fixture(scope="session")
def lk_kept_over_loss(
    request: pytest.FixtureRequest, lk_stage: Stage, lk_selected: set[str]
) -> Callable[[], reconnecting.Reconnection | None]:
    """The same for what has another subject, see ``_beside``. It is asked for by who has no further use of its own worker."""
    return _beside(request, lk_stage, "lk_reconnection", "registration.keeps-calls" in lk_selected, in_turns=True)


@pytest.fixture(scope="session")
def lk_late_drain(lk_stage: Stage) -> Callable[[], Drain]:
    """The stop signal, after the connection was lost; then a job's process is killed."""
    return Ahead(lk_stage, reconnecting.drain_after_loss)


@pytest.fixture(scope="session")
def lk_half_open(lk_stage: Stage) -> Callable[[], faults.Aftermath]:
    """Silent connections, with a call."""
    return Ahead(lk_stage, faults.half_open)


@pytest.fixture(scope="session")
def lk_partition(lk_stage: Stage) -> Callable[[], faults.Aftermath]:
    """No network at all, with a call."""
    return Ahead(lk_stage, faults.partition)


@pytest.fixture(scope="session")
def lk_comers(lk_stage: Stage) -> Ahead[dict[str, str]]:
    """Calls in other ways than those of the other checks."""
    return Ahead(lk_stage, accepted.come)


@pytest.fixture(scope="session")
def lk_begin_comers(request: pytest.FixtureRequest, lk_stage: Stage, lk_selected: set[str]) -> Callable[[], None]:
    """From now on no check needs the shared worker without calls, so that these come beside the next checks."""

    def begin() -> None:
        if "jobs.serves-every-call" in lk_selected and not lk_stage.takes_turns and not is_xdist_worker(request.config):
            comers: Ahead[dict[str, str]] = request.getfixturevalue("lk_comers")
            comers.begin()

    return begin


@pytest.fixture(scope="session")
def lk_pair(lk_stage: Stage) -> Callable[[], pool.Pair]:
    """Two calls at once, hung up."""
    return once(pool.pair, lk_stage)


@pytest.fixture(scope="session")
def lk_crash(lk_stage: Stage) -> Callable[[], Harm]:
    """One of two jobs' processes is killed."""
    return Ahead(lk_stage, harm.crash)


@pytest.fixture(scope="session", autouse=True)
def lk_started_ahead(request: pytest.FixtureRequest, lk_settings: Settings, lk_selected: set[str]) -> None:
    """What mostly waits begins with the run. Where workers take turns, each observation waits for its own."""
    if is_xdist_worker(request.config) or not lk_settings.has_worker:
        return
    needed = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    begun = {name: role for name, role in AHEAD.items() if name in needed}
    scanned = bool(lk_selected & {"image.no-secrets", "image.ca-certificates"})
    if not begun and not scanned:
        return  # files, for which no stage is opened
    lk_stage: Stage = request.getfixturevalue("lk_stage")
    if lk_stage.takes_turns:
        return
    if scanned:
        lk_stage.scan_after_starts()
    for name, role in begun.items():
        lk_stage.when_ready(role, request.getfixturevalue(name).begin)


@pytest.fixture(scope="session")
def lk_load(lk_stage: Stage) -> Callable[[], Loaded]:
    return once(loads.observe, lk_stage)


@pytest.fixture(scope="session")
def lk_filled(request: pytest.FixtureRequest, lk_stage: Stage, lk_selected: set[str]) -> Callable[[], Loaded | None]:
    """A worker that was filled, for what has another subject, see ``_beside``."""
    return _beside(request, lk_stage, "lk_load", "availability.refuses-while-full" in lk_selected)


@pytest.fixture(scope="session")
def lk_progress(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """One line on the terminal, while a long check runs; nothing with -q."""
    config = request.config
    reporter = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        if reporter is None or config.get_verbosity() < 0:
            return
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            reporter.ensure_newline()
            reporter.write_line(f"  {text}")

    return say


@pytest.fixture(scope="session")
def lk_tidied(lk_stage: Stage, lk_selected: set[str], lk_progress: Callable[[str], None]) -> Callable[[], leftovers.Leftovers]:
    """Pairs of calls and what they leave behind; many where a trend is asked for."""
    many = lk_selected & {"resources.no-growth", "storage.ephemeral"}
    pairs = leftovers.MANY_PAIRS if many else leftovers.PAIRS
    return once(lambda stage: leftovers.observe(stage, pairs, lk_progress), lk_stage)


@pytest.fixture(scope="session")
def lk_loaded(lk_stage: Stage, lk_progress: Callable[[str], None]) -> Callable[[], crowds.LoadTest]:
    """The guide's load test, scaled."""
    return once(lambda stage: crowds.load_test(stage, lk_progress), lk_stage)


@pytest.fixture(scope="session")
def lk_long_drain(lk_stage: Stage) -> Callable[[], long_call.LongCall]:
    """A call of minutes after the stop signal."""
    return once(lambda stage: proven(long_call.observe, stage), lk_stage)


@pytest.fixture(scope="session")
def lk_stop(lk_stage: Stage) -> Callable[[], observations.Stop]:
    return once(observations.stop, lk_stage)


@pytest.fixture(scope="session")
def lk_manifests(request: pytest.FixtureRequest, lk_settings: Settings) -> tuple[Files, Needs]:
    """The deployment files, and what the worker needs: as declared, or as the checks before these measured it."""
    try:
        files = load_manifests(lk_settings.manifests, lk_settings.standard_input)
    except OSError as error:
        raise StageError(f"{error.filename}: {error.strerror}") from None
    return files, measured.needs(request.config.stash[GATHERED].measured(), lk_settings)


@pytest.fixture(scope="session")
def lk_played(
    lk_settings: Settings, lk_manifests: tuple[Files, Needs], lk_progress: Callable[[str], None]
) -> Callable[[], list[autoscaling.Played]]:
    """The files' autoscalers under call traces."""
    from . import autoscaling

    return functools.cache(lambda: autoscaling.play_all(*lk_manifests, lk_settings, lk_progress))
