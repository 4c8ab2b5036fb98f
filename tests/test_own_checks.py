"""The user's own checks and tests beside packaged ones, all without a worker: what is judged of them, and what is told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_lkagents import selection
from pytest_lkagents.checks import MUST, TRIED_AGAIN, Evidence, StageError, TooBusy, check, check_of
from pytest_lkagents.fixtures import EVIDENCE, STAGE
from pytest_lkagents.outcomes import judge
from pytest_lkagents.plugin import pytest_pyfunc_call
from pytest_lkagents.settings import Settings
from pytest_lkagents.stage import Stage

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


def tried_again(function: Callable[..., object], evidence: Evidence, *arguments: str) -> None:
    """A collected check whose first try said that this machine was too busy; StopIteration: a second one was made."""
    stage = SimpleNamespace(background=SimpleNamespace(in_peace=nullcontext), settings=Settings())
    item = SimpleNamespace(
        config=SimpleNamespace(stash={STAGE: SimpleNamespace(opened=stage)}),
        function=function,
        obj=function,
        stash={EVIDENCE: evidence},
        funcargs={"lk_evidence": evidence, "request": None},
        _fixtureinfo=SimpleNamespace(argnames=arguments),
    )
    trying = pytest_pyfunc_call(item)
    next(trying)
    trying.throw(TooBusy("so says this test"))


def test_a_second_try_is_no_evidence() -> None:
    @check("own.nothing", MUST)
    def nothing(lk_evidence: Evidence, least: int = 3) -> None:
        assert least == 3

    evidence = Evidence()
    with pytest.raises(StopIteration):
        tried_again(nothing, evidence, "lk_evidence")
    assert evidence == {TRIED_AGAIN: "so says this test"}
    found = check_of(SimpleNamespace(function=nothing))
    assert (judge(found, None, evidence, 1.0).status, judge(found, None, Evidence(evidence, n=1), 1.0).status) == (
        "error",
        "pass",
    )


def test_what_another_plugin_awaits_is_not_tried_again() -> None:
    @check("own.awaited", MUST)
    async def awaited(lk_evidence: Evidence) -> None:
        raise AssertionError("it is broken")

    with pytest.raises(StageError, match="so says this test"):
        tried_again(awaited, Evidence(n=1), "lk_evidence")


def test_a_run_that_somebody_ends_is_not_complete(lk, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        f"{MEASURED}\ndef test_b():\n    import pytest\n    pytest.exit('enough', returncode=0)\n"
    )
    run = lk(*RENDER, "test_own.py", "--lk-suite", "manifests")
    assert (run.code, run.verdict["verdict"]) == (4, "error"), run.output
    assert "checks were not run, the first manifests." in run.verdict["stage"]["error"]


def test_a_test_of_a_worker_is_skipped_where_there_are_files_only(lk, tmp_path: Path) -> None:
    (tmp_path / "test_b.py").write_text("def test_b(lk_worker):\n    pass\n")
    run = lk(*RENDER, "test_b.py", "-rs", env={"DOCKER_HOST": "tcp://127.0.0.1:1"})
    assert (run.code, run.verdict["verdict"]) == (0, "pass"), run.output
    assert "no worker to judge: give --lk-image" in run.output


ODD_EVIDENCE = """
from pytest_lkagents.checks import MUST, check

@check("own.odd", MUST)
def test_odd(lk_evidence):
    lk_evidence["card"] = 5
    lk_evidence["series_s_calls"] = [[0, 1], [None, 2], [2, None], [float("inf"), 3], [4, 10**400], 5, [], ["6", 1], [7, 3]]
    lk_evidence["transcript"] = None
    assert not FAILS
"""


@pytest.mark.parametrize("fails", [False, True])
def test_own_evidence_may_be_anything(fails: bool, lk, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(ODD_EVIDENCE.replace("FAILS", str(fails)))
    run = lk(*RENDER, "--lk-report=report", "test_own.py")
    assert (run.code, run.verdict["verdict"]) == ((1, "fail") if fails else (0, "pass")), run.output
    assert "INTERNALERROR" not in run.output
    assert "calls, at most 3" in (tmp_path / "report/report.html").read_text()


def test_a_report_that_cannot_be_made_is_one_line_and_the_others_are(lk, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "from pytest_lkagents.report import page\n\n"
        "def broken(verdict, worse):\n    raise RuntimeError('no page, says this test')\n\n"
        "page.render = broken\n"
    )
    run = lk(*RENDER, "--lk-report=report")
    assert (run.code, run.verdict["verdict"]) == (4, "pass"), run.output
    assert "report/report.html: RuntimeError: no page, says this test" in run.output
    assert "Traceback" not in run.output
    assert (tmp_path / "report/summary.md").is_file()


WATCHED = """
import pathlib
from pytest_lkagents.stage import Stage

def opened(self):
    pathlib.Path("opened").touch()

Stage.open = opened
"""
WORKER = ("--lk-command", "sleep 9", "--lk-server", "binary")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--lk-suite", "rollout.idle-exits"), "--lk-suite: no check 'rollout.idle-exits'; did you mean"),
        (("--lk-waive", "rollout.idle-exits=known"), "--lk-waive: no check 'rollout.idle-exits'; did you mean"),
        (("--lk-suite", "rollout", "test_typo.py"), "test_typo.py could not be collected"),
    ],
)
def test_nothing_is_started_for_checks_that_will_not_run(more: tuple[str, ...], says: str, lk, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(WATCHED)
    (tmp_path / "test_typo.py").write_text("import no_such_module_of_anybody\n")
    run = lk(*WORKER, *more, "--lk-report=report", env={"DOCKER_HOST": "tcp://127.0.0.1:1"})
    assert not (tmp_path / "opened").exists(), run.output
    assert (run.code, run.verdict["verdict"]) == (2 if "test_typo.py" in more else 4, "error"), run.output
    assert says in run.verdict["stage"]["error"]
    assert says in (tmp_path / "report/summary.md").read_text().replace("\\_", "_")


def test_no_stage_is_opened_for_files(lk, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(WATCHED)
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n")
    run = lk(*WORKER, *RENDER, "test_a.py", env={"DOCKER_HOST": "tcp://127.0.0.1:1"})
    assert (run.code, run.verdict["verdict"]) == (0, "pass"), run.output
    assert not (tmp_path / "opened").exists()


def test_a_file_that_is_not_collected_leaves_a_run_incomplete(lk, tmp_path: Path) -> None:
    (tmp_path / "test_typo.py").write_text("import no_such_module_of_anybody\n")
    run = lk(*RENDER, "test_typo.py", "--continue-on-collection-errors")
    assert run.checks("pass"), run.output
    assert (run.code, run.verdict["verdict"]) == (4, "error"), run.output


def test_what_was_typed_can_be_typed_again(lk, tmp_path: Path) -> None:
    (tmp_path / "deploy-myagent").mkdir()
    (tmp_path / "deploy-myagent/myagent.yaml").write_text(KUBERNETES.read_text().replace("replicas: 2", "replicas: 1"))
    variables = ("--lk-env", "LIVEKIT_AGENT_NAME=myagent", "--lk-env", "MY_TOKEN=deploy")
    run = lk("--lk-manifests=deploy-myagent", *variables, "--lk-strict")
    assert run.code == 1, run.output
    again = "again: pytest --lk-manifests [MY_TOKEN]-myagent --lk-env LIVEKIT_AGENT_NAME="
    assert run.output.count(again) == 2, run.output
    assert run.verdict["subject"]["name"].endswith("/[MY_TOKEN]-myagent")
    found = {check["id"]: check["summary"] for check in run.verdict["checks"]}
    assert found["manifests.replicas"].startswith("[LIVEKIT_AGENT_NAME].yaml:8")


@pytest.mark.parametrize(
    ("running", "live", "signalled", "cut", "again"),
    [
        (True, True, False, False, False),
        (False, False, True, False, True),
        pytest.param(True, True, True, False, True, id="it drains"),
        pytest.param(True, True, False, True, True, id="its connection was cut, and it is back"),
        pytest.param(True, False, False, False, True, id="it is no longer registered"),
    ],
)
def test_users_tests_get_a_worker_to_which_nothing_was_done(
    running: bool, live: bool, signalled: bool, cut: bool, again: bool
) -> None:
    killed: list[str] = []
    wire = SimpleNamespace(transcript=SimpleNamespace(live=lambda: [1] if live else []), disturbed=cut)
    worker = SimpleNamespace(is_running=running, disturbed=signalled, wire=wire, kill=lambda: killed.append("it"))
    roles: list[str] = []

    def last(role: str) -> object:
        roles.append(role)
        return worker

    stage = SimpleNamespace(worker=last, renewed=lambda _role: "a new one", wait_unpromised=lambda _worker: None)
    assert (Stage.fresh_worker(cast(Any, stage)) == "a new one") is again is bool(killed)
    assert roles != ["shared"], "packaged checks judge that one"


IN_ORDER = """
import pathlib
from pytest_lkagents.checks import MUST, check

def done(name):
    with pathlib.Path("order").open("a") as file:
        file.write(f"{name} ")

@check("own.late", MUST, order=99)
def test_late(lk_evidence):
    lk_evidence["n"] = 1
    done("late")
    assert not FAILS

def test_plain():
    done("plain")

@check("own.early", MUST, order=-1)
def test_early(lk_evidence):
    lk_evidence["n"] = 1
    done("early")
"""


def test_the_order_of_checks_is_nobody_elses(lk, tmp_path: Path) -> None:
    own, order = tmp_path / "test_own.py", tmp_path / "order"
    runs = [("--ff", True), ("--ff", True), ("--nf", False), ("--lf", True), ("--lf", False)]
    for number, (option, fails) in enumerate(runs):
        own.write_text(IN_ORDER.replace("FAILS", str(fails)))
        order.write_text("")
        run = lk(*RENDER, "-p", "cacheprovider", option, "test_own.py")
        assert (run.code, order.read_text()) == (int(fails), "late " if number == 4 else "early plain late "), run.output


def test_what_judges_files_is_in_every_profile() -> None:
    judging = [made for made in selection.packaged_checks() if made.suite in selection.FILES]
    assert {made.suite for made in judging} == selection.FILES
    assert {made.profile for made in judging} == {"smoke"}
