"""The beginning of a run: what it needs is there, and the workers of its checks are on their way."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from pytest_lkagents.checks import StageError, check_of
from pytest_lkagents.fixtures import REDACTOR, SETTINGS, STAGE
from pytest_lkagents.gathered import GATHERED, conclude
from pytest_lkagents.manifests import STANDARD_INPUT
from pytest_lkagents.selection import FILES, require_manifests
from pytest_lkagents.settings import WORKERS, Settings, is_typed, without_subject
from pytest_lkagents.values import OWN_SERVERS


def is_xdist_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def uses_xdist(config: pytest.Config) -> bool:
    return is_xdist_worker(config) or bool(config.getoption("numprocesses", None))


def begin(session: pytest.Session) -> None:
    """Start the workers of the checks ahead of them. Under xdist every process collects all checks but runs some: it starts
    what it needs when it needs it."""
    config = session.config
    if not config.stash[SETTINGS].has_worker or config.getoption("collectonly") or uses_xdist(config):
        return
    if session.testsfailed and not config.getoption("continue_on_collection_errors"):
        return  # a file could not be collected, so that nothing will run
    found = [check for item in session.items if (check := check_of(item)) is not None]
    needs_stage = any("lk_stage" in getattr(item, "fixturenames", ()) for item in session.items)
    if needs_stage and not adds_worker_checks(config):
        require_or_end(config)
    roles = list(dict.fromkeys(role for check in found for role in check.roles))
    if not roles and not (needs_stage and adds_worker_checks(config)):
        return
    try:
        stage = config.stash[STAGE].get()
    except StageError as error:
        if adds_worker_checks(config):
            _end(config, error)
        return  # every check will say so, and tests that need no stage are run
    stage.warm(roles)


def adds_checks(config: pytest.Config) -> bool:
    """Whether packaged checks run, in any case."""
    settings = config.stash[SETTINGS]
    return config.args_source != pytest.Config.ArgsSource.ARGS or bool(settings.suites or settings.manifests)


def adds_worker_checks(config: pytest.Config) -> bool:
    """Whether packaged checks of a worker run, in any case."""
    settings = config.stash[SETTINGS]
    named = {name.partition(".")[0] for name in settings.suites}
    return settings.has_worker and (config.args_source != pytest.Config.ArgsSource.ARGS or bool(named - FILES))


def names_worker(config: pytest.Config) -> bool:
    """Whether this run is to be about a worker: an ini file names one for all runs, also of tests that have nothing to do
    with it."""
    return any(is_typed(config, name) for name in WORKERS)


def require_sense(config: pytest.Config, settings: Settings) -> None:
    """Raises UsageError for options that do not go together, or with nothing that is given."""
    if settings.image is None and is_typed(config, "lk_from"):
        raise pytest.UsageError("--lk-from: nothing replaces it; give --lk-image too")
    if not settings.manifests and any(is_typed(config, name) for name in ("lk_traces", "lk_calls")):
        raise pytest.UsageError("--lk-traces, --lk-calls: nothing to simulate; give --lk-manifests too")
    if not settings.active:
        if refusals := without_subject(config, typed=True):
            raise pytest.UsageError(refusals[0])
        return
    if settings.manifests:
        require_manifests(settings)
    if not uses_xdist(config):
        return
    if STANDARD_INPUT in settings.manifests:
        raise pytest.UsageError(
            f"{settings.origin('lk_manifests')} -: several test processes cannot share standard input; name a file"
        )
    if settings.manifests and settings.has_worker:
        raise pytest.UsageError(
            f"{settings.origin('lk_manifests')}: files are judged by what was measured of the worker, which several test "
            "processes do not share; leave -n away (-n 0), or judge the files alone"
        )
    if settings.command:
        raise pytest.UsageError(
            f"{settings.origin('lk_command')}: workers of several test processes would want the same ports; "
            "leave -n away (-n 0)"
        )
    if settings.has_worker and settings.server not in OWN_SERVERS:
        raise pytest.UsageError(
            f"{settings.origin('lk_server')}: workers of several test processes would be offered each other's calls; "
            "leave -n away (-n 0)"
        )


def require_or_end(config: pytest.Config, *, whole: bool = True) -> None:
    """Raises UsageError if what was asked for is not there; the verdict says so. Not ``whole``: its image or command
    alone, for tests that may need nothing more."""
    from pytest_lkagents.command_line import CommandError

    try:
        _require(config.stash[SETTINGS], whole=whole)
    except (StageError, CommandError) as error:
        _end(config, error)


def _end(config: pytest.Config, error: Exception) -> NoReturn:
    """Raises UsageError: one line, instead of one for each check."""
    reason = config.stash[REDACTOR].text(str(error))
    config.stash[GATHERED].broken = reason
    conclude(config)
    raise pytest.UsageError(reason) from None


def _require(settings: Settings, *, whole: bool) -> None:
    """Raises StageError or CommandError if what was asked for is not there."""
    if not settings.has_worker:
        return
    from pytest_lkagents import engine
    from pytest_lkagents.cache import require_cache
    from pytest_lkagents.command_line import find_program
    from pytest_lkagents.probe.sidecar import ensure_image
    from pytest_lkagents.server import choose

    if settings.command:
        assert settings.command_dir is not None
        find_program(settings.command, settings.command_dir, {**os.environ, **settings.env})
    if whole:
        require_cache()
        choose.require(settings)
    client = choose.connect(settings) if whole or settings.image is not None else None
    if client is None:
        return
    try:
        with engine.answering():
            if (refusal := engine.too_few_cores(client, settings.cpus, settings.origin("lk_cpus"))) is not None:
                raise StageError(refusal)
            for name in filter(None, (settings.image, settings.from_image)):
                engine.find_image(client, name)
            if whole:
                ensure_image(client, settings.probe_image)
    finally:
        client.close()
