"""The user's own checks and tests beside packaged ones, all without a worker: what is judged of them, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import ROOT

RENDER = ("--lk-manifests", str(ROOT / "examples/render/render.yaml"))
KUBERNETES = ROOT / "examples/kubernetes/worker.yaml"

# As if the worker had been judged in this run.
MEASURED = """
from pytest_lkagents.checks import MUST, check

@check("health.answers", MUST)
def test_answers(lk_evidence):
    lk_evidence["path"] = "/healthz"
"""


def test_files_are_held_against_what_was_measured_and_not_against_what_is_shown_of_it(lk, tmp_path: Path) -> None:
    (tmp_path / "worker.yaml").write_text(KUBERNETES.read_text().replace("path: /,", "path: /healthz,"))
    (tmp_path / "test_own.py").write_text(MEASURED)
    run = lk("--lk-manifests=worker.yaml", "--lk-env", "HEALTH_PATH=/healthz", "test_own.py")
    found = {check["id"]: check for check in run.verdict["checks"]}
    assert found["manifests.health-probe"]["status"] == "pass", run.output
    assert found["health.answers"]["evidence"] == {"path": "[HEALTH_PATH]"}


FOR_EVERY_TEST = """
import pytest

@pytest.fixture(autouse=True)
def everywhere():
    {before}
    yield
    {after}
"""


@pytest.mark.parametrize("fails", ["assert 1 == 2, 'no database'", "pytest.fail('no database')"])
@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_a_fixture_that_fails_accuses_nobody(when: str, fails: str, lk, tmp_path: Path) -> None:
    before, after = (fails, "pass") if when == "setup" else ("pass", fails)
    (tmp_path / "conftest.py").write_text(FOR_EVERY_TEST.format(before=before, after=after))
    (tmp_path / "test_own.py").write_text(MEASURED)
    run = lk(*RENDER, "test_own.py", "--lk-suite", "manifests.secrets")
    assert (run.code, run.verdict["verdict"], run.checks("fail")) == (4, "error", set()), run.output
    found = {check["id"]: check["summary"] for check in run.verdict["checks"]}
    assert found["health.answers"] == f"a fixture failed in {when}: no database"
