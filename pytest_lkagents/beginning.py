"""The beginning of a run: what it needs is there, and the workers of its checks are on their way."""

from __future__ import annotations

import os

import pytest

from pytest_lkagents.checks import StageError, check_of
from pytest_lkagents.fixtures import REDACTOR, SETTINGS, STAGE
from pytest_lkagents.gathered import GATHERED, conclude
from pytest_lkagents.settings import Settings


def is_xdist_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def uses_xdist(config: pytest.Config) -> bool:
    return is_xdist_worker(config) or bool(config.getoption("numprocesses", None))


def begin(session: pytest.Session) -> None:
    """Start the workers of the checks ahead of them. Under xdist every process collects all checks but runs some: it starts
    what it needs when it needs it."""
    config = session.config
    if not config.stash[SETTINGS].active or config.getoption("collectonly") or uses_xdist(config):
        return
    found = [check for item in session.items if (check := check_of(item)) is not None]
    if not adds_checks(config) and any("lk_stage" in getattr(item, "fixturenames", ()) for item in session.items):
        require_or_end(config)
    roles = list(dict.fromkeys(role for check in found for role in check.roles))
    if roles:
        try:
            stage = config.stash[STAGE].get()
        except StageError:
            return  # every check will say so
        stage.warm(roles)


def adds_checks(config: pytest.Config) -> bool:
    """Whether packaged checks run, in any case."""
    settings = config.stash[SETTINGS]
    return config.args_source != pytest.Config.ArgsSource.ARGS or bool(settings.suites or settings.manifests)


def require_or_end(config: pytest.Config) -> None:
    """Raises UsageError if what was asked for is not there; the verdict says so."""
    from pytest_lkagents.command_line import CommandError

    try:
        _require(config.stash[SETTINGS])
    except (StageError, CommandError) as error:
        reason = config.stash[REDACTOR].text(str(error))
        config.stash[GATHERED].broken = reason
        conclude(config)
        raise pytest.UsageError(reason) from None


def _require(settings: Settings) -> None:
    """Raises StageError or CommandError if what was asked for is not there."""
    if not settings.has_worker:
        return
    from pytest_lkagents import engine
    from pytest_lkagents.command_line import find_program
    from pytest_lkagents.server import choose

    if settings.command:
        assert settings.command_dir is not None
        find_program(settings.command, settings.command_dir, {**os.environ, **settings.env})
    engine.require_cache()
    choose.require(settings)
    client = choose.connect(settings)
    if client is None:
        return
    try:
        if settings.image is not None:
            engine.find_image(client, settings.image)
        if settings.from_image is not None:
            engine.find_image(client, settings.from_image)
    finally:
        client.close()
