"""The public fixtures.

``lk_server``, ``lk_worker``, ``lk_wire`` and ``lk_caller`` serve users' own tests; the packaged suites use them too. Without
``--lk-image`` or ``--lk-command`` (or their ini twins) a test that asks for one of them is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_lkagents.checks import Evidence, StageError
from pytest_lkagents.secrets import Redactor
from pytest_lkagents.settings import Settings

if TYPE_CHECKING:
    from pytest_lkagents.callers.caller import Caller
    from pytest_lkagents.server.base import Server
    from pytest_lkagents.stage import Stage
    from pytest_lkagents.wire.tap import Tap
    from pytest_lkagents.worker.base import Worker

SETTINGS = pytest.StashKey[Settings]()
REDACTOR = pytest.StashKey[Redactor]()
STAGE = pytest.StashKey["StageHolder"]()
# Why the ini file's settings cannot be used, where it was not clear at once whether anything needs them.
UNUSABLE = pytest.StashKey[str]()
EVIDENCE = pytest.StashKey[Evidence]()


class StageHolder:
    """Opens the stage at its first use and remembers why it could not be opened."""

    def __init__(self, settings: Settings, redactor: Redactor) -> None:
        self._settings = settings
        self._redactor = redactor
        self._stage: Stage | None = None
        self._broken: StageError | None = None
        self.closing = False
        # While it removes what was started: it heeds Ctrl-C in a way of its own.
        self.removing = False
        # Whether a test took ``lk_settings``, as all do that take a worker.
        self.asked = False

    @property
    def opened(self) -> Stage | None:
        return self._stage

    def get(self) -> Stage:
        if self._broken is not None:
            raise self._broken
        if self._stage is None:
            from pytest_lkagents.stage import Stage

            stage = Stage(self._settings, self._redactor)
            try:
                stage.open()
            except StageError as error:
                self._broken = error
                self._remove(stage)
                raise
            except BaseException:
                self._remove(stage)
                raise
            self._stage = stage
        return self._stage

    def close(self) -> list[str]:
        """What could not be kept for the report, in words."""
        self.closing = True
        stage, self._stage = self._stage, None
        if stage is None:
            return []
        self._remove(stage)
        return stage.unwritten

    def _remove(self, stage: Stage) -> None:
        self.removing = True
        try:
            stage.close()
        finally:
            self.removing = False


@pytest.fixture(scope="session")
def lk_settings(pytestconfig: pytest.Config) -> Settings:
    """The settings of this run, validated and frozen."""
    if (unusable := pytestconfig.stash.get(UNUSABLE, None)) is not None:
        raise StageError(unusable)
    pytestconfig.stash[STAGE].asked = True
    return pytestconfig.stash[SETTINGS]


@pytest.fixture(scope="session")
def lk_stage(pytestconfig: pytest.Config, lk_settings: Settings) -> Stage:
    """The stage itself: workers by role, the image's contents. For suites; users' tests rarely need it."""
    if not lk_settings.has_worker:
        pytest.skip("no worker to judge: give --lk-image or --lk-command (or its ini twin)")
    return pytestconfig.stash[STAGE].get()


@pytest.fixture
def lk_worker(lk_stage: Stage) -> Worker:
    """A registered worker of the user's image. Tests share it, and packaged checks have others; a test that ends or disturbs it
    costs the next one a new start."""
    return lk_stage.fresh_worker()


@pytest.fixture
def lk_server(lk_worker: Worker) -> Server:
    """The LiveKit server with which ``lk_worker`` is registered: ``url``, ``api_key``, ``api_secret``."""
    return lk_worker.server


@pytest.fixture
def lk_wire(lk_worker: Worker) -> Tap:
    """The tap between ``lk_worker`` and its server: ``transcript`` says what they told each other, ``ask()`` asks the
    worker whether it would take a job, ``hold``, ``drop``, ``cut`` and others disturb them."""
    return lk_worker.wire


@pytest.fixture
def lk_caller(lk_stage: Stage, lk_worker: Worker) -> Iterator[Caller]:
    """A caller who asks for ``lk_worker``'s agent; every call is hung up after the test."""
    caller = lk_stage.calls.caller(lk_worker)
    yield caller
    caller.close()


@pytest.fixture
def lk_evidence(request: pytest.FixtureRequest) -> Evidence:
    """What a check measured (a dict of JSON data); it goes into the verdict whether the check passes or fails."""
    evidence = Evidence()
    request.node.stash[EVIDENCE] = evidence
    return evidence
