"""What a user is told: one clear line, the right exit code, no traceback of ours."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from pytest_lkagents import outcomes
from pytest_lkagents.checks import MUST, SHOULD, Blame, Check, Evidence, WorkerFailed, WorkerFault
from pytest_lkagents.outcomes import judge
from pytest_lkagents.verdict import CheckResult, told

from .conftest import ROOT, build

SCHEMA = json.loads((ROOT / "tests/verdict.schema.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--lk-image", "nobody/nothing:at-all"], "neither here nor can it be pulled"),
        (["--lk-image", "x", "--lk-profile", "fast"], "--lk-profile: 'fast' is not one of"),
        (["--lk-image", "x", "--lk-suite", "rolout"], "no packaged suite 'rolout'"),
        (["--lk-image", "EXAMPLE", "--lk-suite", "rollout.idle-exits"], "did you mean 'rollout.idle-exit'?"),
        (["--lk-image", "EXAMPLE", "--lk-waive", "rollout.idle-exits=later"], "did you mean 'rollout.idle-exit'?"),
        (["--lk-image", "x", "--lk-waive", "rollout.idle-exit"], "is not CHECK=REASON"),
        (["--lk-image", "x", "--lk-cpus", "many"], "--lk-cpus: 'many' is not a number"),
        (["--lk-image", "x", "--lk-memory", "2x"], "--lk-memory: '2x' is not a size"),
        (["--lk-image", "x", "--lk-start-timeout", "0"], "--lk-start-timeout: '0' is not a number of at least 1"),
        (["--lk-image", "x", "--lk-env", "NOVALUE"], "--lk-env: expected NAME=VALUE"),
        (["--lk-image", "x", "--lk-attribute", "NOVALUE"], "--lk-attribute: expected NAME=VALUE"),
        (["--lk-image", "x", "--lk-env-file", "missing.env"], "--lk-env-file: cannot read"),
        (["--lk-image", "x", "--lk-server", "somewhere"], "--lk-server: 'somewhere' is not auto, binary, container or a URL"),
        (["--lk-image", "x", "--lk-server", "wss://prod.example.com"], "add --lk-allow-remote prod.example.com"),
        (["--lk-suite", "rollout"], "--lk-suite: nothing to judge"),
        (["--lk-image", "EXAMPLE", "--lk-from", "nobody/nothing:at-all"], "neither here nor can it be pulled"),
        (["--lk-from", "x"], "--lk-from: nothing replaces it; give --lk-image too"),
        (["--lk-image", "x", "--lk-drain-hold", "ten"], "--lk-drain-hold: 'ten' is not a time from 1s to 60m"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_4(arguments: list[str], says: str, lk, example: str) -> None:
    run = lk(*[example if argument == "EXAMPLE" else argument for argument in arguments])
    assert run.code == 4, run.output
    assert says in run.output
    assert "Traceback" not in run.output
    assert len([line for line in run.output.splitlines() if line.startswith("ERROR")]) == 1


def test_no_engine(lk) -> None:
    run = lk("--lk-image", "x", env={"DOCKER_HOST": "unix:///nowhere.sock"})
    assert run.code == 4
    assert "no container engine answers at unix:///nowhere.sock" in run.output
    assert "Traceback" not in run.output
    assert run.verdict["verdict"] == "error"
    jsonschema.validate(run.verdict, SCHEMA)


def test_no_server_binary(lk, example: str, tmp_path) -> None:
    run = lk("--lk-image", example, "--lk-server", "binary", env={"XDG_CACHE_HOME": str(tmp_path)})
    assert run.code == 4, run.output
    assert "no livekit-server on PATH" in run.output
    assert run.verdict["verdict"] == "error"
    assert "Traceback" not in run.output


def test_no_livekit_server_there(lk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=greet, args=(other,), daemon=True).start()
        url = f"ws://127.0.0.1:{other.getsockname()[1]}"
        keys = {"LIVEKIT_API_KEY": "APIx", "LIVEKIT_API_SECRET": "s" * 32}
        run = lk("--lk-command", "true", "--lk-server", url, env=keys)
    assert run.code == 4, run.output
    assert f"answer of the LiveKit server at {url}: not within 5 s" in run.output
    assert "Traceback" not in run.output


def greet(listener: socket.socket) -> None:
    """As a server of another kind does."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def test_image_without_a_command(lk, tmp_path) -> None:
    (tmp_path / "Dockerfile").write_text('FROM pytest-lkagents/base:bookworm-1\nCMD ["no-such-program"]\n')
    run = lk("--lk-image", build("pytest-lkagents/fixture-no-program:latest", tmp_path / "Dockerfile", tmp_path))
    assert run.code == 1, run.output
    assert run.checks("fail", "MUST") == {"registration.registers"}
    assert "the image's command cannot be run" in run.output
    assert "Traceback" not in run.output


def load_image(tag: str, architecture: str) -> None:
    """An empty image that says to be made for these machines."""

    def archived(files: dict[str, bytes]) -> bytes:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return packed.getvalue()

    layer = archived({"agent": b"not for this machine"})
    described = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/agent"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    files = {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(described).encode(), "layer.tar": layer}
    subprocess.run(["docker", "load", "-q"], input=archived(files), check=True, capture_output=True, timeout=60)


def test_an_image_for_other_machines_is_not_judged(lk) -> None:
    tag = "pytest-lkagents/fixture-foreign:latest"
    load_image(tag, "s390x")
    run = lk("--lk-image", tag)
    assert run.code == 4, run.output
    assert f"image '{tag}' is made for linux/s390x and this engine is linux/" in run.output
    assert run.verdict["verdict"] == "error"
    assert "Traceback" not in run.output
    assert (
        "MISSING image pytest-lkagents/fixture-foreign:latest: is made for linux/s390x"
        in lk("--lk-doctor", "--lk-image", tag).output
    )


def test_doctor(lk, example: str) -> None:
    here = lk("--lk-doctor", "--lk-image", example, "--lk-from", "nobody/nothing:at-all").output
    assert f"image {example}: is here" in here
    assert "image nobody/nothing:at-all: not here" in here
    run = lk("--lk-doctor")
    assert run.code == 0, run.output
    assert "engine: docker" in run.output
    assert "server: livekit-server" in run.output
    lacking = lk("--lk-doctor", env={"DOCKER_HOST": "unix:///nowhere.sock"})
    assert lacking.code == 4
    assert "MISSING no container engine answers" in lacking.output


def test_without_an_image_pytest_is_as_without_the_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own="def test_one(): pass")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    empty = pytester.mkdir("empty")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", str(empty))
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_users_own_tests_get_the_fixtures(lk, example: str, tmp_path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "def test_mine(lk_server, lk_worker, lk_caller):\n"
        "    call = lk_caller.join()\n"
        "    assert call.wait_for_agent(15) is not None\n"
        "    assert lk_worker.is_running and lk_server.url.startswith('ws://')\n"
    )
    # The document's example is run as it stands there.
    document = (ROOT / "docs/wire.md").read_text()
    (tmp_path / "test_wire.py").write_text(document.partition("```python\n")[2].partition("```")[0])
    run = lk("--lk-image", example, "test_wire.py", "test_mine.py")
    assert run.code == 0, run.output
    assert "3 passed" in run.output


def test_waiver_and_strict(lk, example: str, tmp_path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {example}\nENV DEEPGRAM_API_KEY=9f2c7be1a04d4d0bb6e1c3a55b7f\n")
    tag = build("pytest-lkagents/fixture-waived:latest", tmp_path / "Dockerfile", tmp_path)
    failed = lk("--lk-image", tag, "--lk-suite", "image.no-secrets")
    assert failed.code == 1
    assert "9f2c7be1a04d4d0bb6e1c3a55b7f" not in failed.output + json.dumps(failed.verdict)
    run = lk("--lk-image", tag, "--lk-suite", "image.no-secrets", "--lk-waive", "image.no-secrets=rotated already")
    assert run.code == 0, run.output
    assert run.checks("waived") == {"image.no-secrets"}


def test_a_waiver_ends_on_its_day(lk, tmp_path) -> None:
    # In one word: pytest takes a path that stands alone for a test, and looks for its ini file there.
    files = (f"--lk-manifests={ROOT / 'fixtures/manifests/broken/grace-period/short.yaml'}",)
    for day, code in (("2020-01-01", 1), ("2120-01-01", 0)):
        (tmp_path / "pytest.ini").write_text(f"[pytest]\nlk_waive = manifests.grace-period=known until {day}\n")
        assert lk(*files, "--lk-suite", "manifests.grace-period,manifests.secrets").code == code


def test_unused_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest\n"
        "pytest.main(['-VV'])\n"
        "assert 'pytest_lkagents.plugin' in sys.modules\n"
        "heavy = {'livekit', 'docker', 'testcontainers', 'asyncio', 'psutil', 'requests', 'filelock'}\n"
        "ours = {'pytest_lkagents.stage', 'pytest_lkagents.engine', 'pytest_lkagents.doctor'}\n"
        "assert not (heavy | ours) & set(sys.modules), sorted((heavy | ours) & set(sys.modules))\n"
    )
    # Without the other installed plugins, which import what they like.
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_lkagents.plugin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ("ws_url is required, or add LIVEKIT_URL in your environment", True),
        ("LIVEKIT_URL: missing", True),
        ("no server URL", True),
        ("config error: livekitUrl is required", True),
        ("missing field serverURL", True),
        ("missing field `livekit_url`", True),
        ("curlURLs", False),
        ("urllib.error.HTTPError", False),
        ("cannot curl the model", False),
    ],
)
def test_what_names_the_missing_url(output: str, names: bool) -> None:
    from suites.incomplete import REQUIRED

    assert bool(re.search(REQUIRED["LIVEKIT_URL"][1], output, re.IGNORECASE)) is names


def test_what_a_complete_worker_says_too_names_nothing_missing() -> None:
    from suites.incomplete import own_words

    def own(output: str, usual: str) -> str:
        keys = ("APIa1b2", "APIc3d4")
        workers: list[Any] = [
            SimpleNamespace(logs=lambda text=text: text, environment={"LIVEKIT_API_KEY": key})
            for text, key in zip((output, usual), keys, strict=True)
        ]
        return own_words(*workers)

    usual = "10:00:01 read OPENAI_API_KEY\n10:00:02 job 9fcd-01: api key APIc3d4\nrequired:\nLIVEKIT_URL\n"
    assert own("10:07:31 read OPENAI_API_KEY\n10:07:32 leaving\n", usual) == "#:#:# leaving"
    assert own("10:07:32 job ab12-7e: api key APIa1b2\n", usual) == ""
    assert "api_key" in own("10:07:31 read OPENAI_API_KEY\napi_key is required\n", usual)
    assert own("required:\nLIVEKIT_URL\nmissing:\nLIVEKIT_URL\n", usual).splitlines() == ["LIVEKIT_URL", "missing:"]


def test_own_checks_stand_beside_the_packaged_ones(lk, example: str) -> None:
    mine = ROOT / "examples/own-checks/test_reception.py"
    run = lk("--lk-image", example, "--lk-suite", "image.non-root", str(mine))
    assert run.code == 0, run.output
    assert {"image.non-root", "reception.greets-first", "reception.answers-the-offer-at-once"} <= run.checks("pass"), run.output
    assert "may be rolled out" in run.output
    waived = lk("--lk-image", example, "--lk-suite", "image.non-root", str(mine), "--lk-waive", "reception.greets-fist=typo")
    assert waived.code == 4
    assert "did you mean 'reception.greets-first'?" in waived.output


BUSY_AT_FIRST = """
from pytest_lkagents.checks import MUST, TooBusy, check

tries = []


def look(evidence, then):
    tries.append(then)
    evidence["tries"] = tries.count(then)
    if tries.count(then) == 1 or then == "busy":
        raise TooBusy("this machine is too busy to judge: so says this test")
    assert then in ("well", "renewed"), "it is broken"


@check("peace.well", MUST)
def test_well(lk_stage, lk_evidence):
    look(lk_evidence, "well")


@check("peace.broken", MUST)
def test_broken(lk_stage, lk_evidence):
    look(lk_evidence, "broken")


@check("peace.busy", MUST)
def test_busy(lk_stage, lk_evidence):
    look(lk_evidence, "busy")


used = []


@check("peace.used-up", MUST, roles=("stopped",))
def test_used_up(lk_stage, lk_evidence):
    worker = lk_stage.untouched("stopped")
    lk_evidence["another"], lk_evidence["first_ended"] = worker not in used, not any(one.is_running for one in used)
    used.append(worker)
    look(lk_evidence, "renewed")
"""


@pytest.mark.alone
def test_what_the_machine_was_too_busy_for_is_tried_once_more(lk, example: str, tmp_path: Path) -> None:
    mine = tmp_path / "test_peace.py"
    mine.write_text(BUSY_AT_FIRST)
    # One of its checks says so each time.
    run = lk("--lk-image", example, "--lk-suite", "storage.image-size", str(mine), busy_runs=1)
    seen = {check["id"]: (check["status"], check["evidence"]) for check in run.verdict["checks"]}
    again = {"tries": 2, "tried_again_because": "this machine is too busy to judge: so says this test"}
    assert seen["peace.well"] == ("pass", again)
    assert seen["peace.broken"] == ("fail", again)
    assert seen["peace.busy"] == ("error", again)
    # What was done to a worker at the first time must not be what is judged at the second.
    assert seen["peace.used-up"] == ("pass", {**again, "another": True, "first_ended": True})


def test_evidence_says_why_something_was_observed_twice() -> None:
    from suites.conftest import pytest_pyfunc_call
    from suites.shared import Ahead

    def observed_at_once(observe: Callable[[object], object]) -> Future[object]:
        future: Future[object] = Future()
        future.set_result(observe(stage))
        return future

    peace, calls = SimpleNamespace(in_peace=nullcontext), SimpleNamespace(ceased=None)
    stage = SimpleNamespace(observe_ahead=observed_at_once, background=peace, calls=calls)
    looks = iter([SimpleNamespace(doubt="the machine stalled"), SimpleNamespace(doubt=None)])
    drain, evidence = Ahead(stage, lambda _: next(looks)), Evidence()
    judged = pytest_pyfunc_call(SimpleNamespace(funcargs={"lk_evidence": evidence, "drain": drain}))
    next(judged)
    assert drain().doubt is None
    assert list(judged) == []
    assert evidence == {"tried_again_because": "drain: the machine stalled"}


@pytest.mark.parametrize(
    ("failure", "beside"),
    [(AssertionError("it failed"), "suite.earlier"), (WorkerFailed("it ended", Blame()), "suite.earlier"), (None, None)],
)
def test_a_failure_of_a_worker_that_was_another_checks_before_is_repeated_with_that_check(
    failure: Exception | None, beside: str | None
) -> None:
    from pytest_lkagents.fixtures import STAGE
    from suites.conftest import pytest_pyfunc_call

    def item(name: str, role: str) -> SimpleNamespace:
        made = dataclasses.replace(check_named(name), roles=(role,))
        return SimpleNamespace(function=SimpleNamespace(__lk_check__=made), fixturenames=("lk_stage",))

    earlier, judged, evidence = item("suite.earlier", "crashing"), item("suite.judged", "stopped"), Evidence()
    before = {"stopped": ["crashing"]}
    stage = SimpleNamespace(had_before=lambda role: before.get(role, []))
    judged.funcargs = {"lk_evidence": evidence}
    judged.session = SimpleNamespace(items=[judged, earlier])
    judged.config = SimpleNamespace(stash={STAGE: SimpleNamespace(get=lambda: stage)})
    running = pytest_pyfunc_call(judged)
    next(running)
    if failure is None:
        assert list(running) == []
    else:
        with pytest.raises(type(failure)):
            running.throw(failure)
    assert evidence.get("seen_beside") == beside


def check_named(name: str, severity: str = MUST) -> Check:
    return Check(name, severity, "core", "", "", "", "", (), 60, 0, "")


def test_a_worker_that_failed_fails_one_must() -> None:
    made = {severity: check_named(f"suite.{severity.lower()}", severity) for severity in (MUST, SHOULD)}
    failed = WorkerFailed("it ended\nits last lines:\n  bye", Blame())

    def judged(severity: str) -> CheckResult:
        return judge(made[severity], failed, Evidence(), 1.0)

    assert judged(SHOULD).status == "skip"
    first = judged(MUST)
    assert (first.status, first.summary, first.evidence) == ("fail", "it ended", {"details": "its last lines:\n  bye"})
    assert first.remedy == WorkerFailed.remedy
    assert judge(check_named("suite.another"), failed, Evidence(), 1.0).status == "skip"
    # Run again, it is no less certain.
    assert judged(MUST).status == "fail"


def test_what_a_worker_failed_at_is_not_accepted_with_another_failure() -> None:
    failed = WorkerFailed("it ended", Blame())
    accepted = judge(check_named("a.accepted"), failed, Evidence(), 1.0, accepted=True)
    assert (accepted.status, accepted.unready) == ("skip", True)
    assert judge(check_named("a.other"), failed, Evidence(), 1.0).status == "fail"


def test_a_failure_is_known_to_be_the_fault_that_others_are_skipped_for() -> None:
    def joins() -> None:
        try:
            raise WorkerFault("no agent came")
        except WorkerFault as fault:
            raise AssertionError(str(fault)) from None

    with pytest.raises(AssertionError) as raised:
        joins()
    assert judge(check_named("jobs.joins"), raised.value, Evidence(), 1.0).fault
    assert judge(check_named("registration.registers"), WorkerFault("it never came"), Evidence(), 1.0, accepted=True).fault
    # Of a worker that differs from the shared one, it explains nothing.
    assert not judge(check_named("storage.read-only"), raised.value, Evidence(), 1.0).fault
    assert not judge(check_named("jobs.joins"), AssertionError("it left again"), Evidence(), 1.0).fault


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("Timeout (>60.0s) from pytest-timeout.", "error"),
        ("Timeout >0.5s", "error"),
        ("Timeout of the tool call", "fail"),
        ("Timeout >2s for the first word", "fail"),
    ],
)
def test_a_failure_that_speaks_of_a_timeout_is_one(said: str, status: str) -> None:
    with pytest.raises(pytest.fail.Exception) as raised:
        pytest.fail(said)
    assert judge(check_named("own.tool"), raised.value, Evidence(), 1.0).status == status


def test_what_does_not_hold_in_a_library_is_no_fault_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    from suites import lasting
    from suites.lasting import absences

    # Where this plugin is installed, the packaged checks are not those of this checkout, which are imported here.
    monkeypatch.setattr(outcomes, "packaged_folder", lambda: Path(lasting.__file__).resolve().parent)

    def of_library(_known: object) -> None:
        raise AssertionError("a buffer is not empty")

    with pytest.raises(AssertionError) as raised:
        absences([], map(of_library, [None]))  # type: ignore[arg-type]
    assert judge(check_named("registration.stays"), raised.value, Evidence(), 1.0).status == "error"
    # Of a user's own check it may be the words.
    with pytest.raises(AssertionError) as raised:
        of_library(None)
    assert judge(check_named("own.tool"), raised.value, Evidence(), 1.0).status == "fail"


def test_a_fault_that_nobody_reports_is_no_pass() -> None:
    unready = CheckResult(
        "a.unready", MUST, "skip", "the worker was not ready for this check: no agent came", 1.0, unready=True
    )
    absent = CheckResult("a.absent", MUST, "skip", "there is no health endpoint", 1.0)
    well = CheckResult("a.well", MUST, "pass", "well", 1.0)

    def statuses(*results: CheckResult) -> list[str]:
        return [result.status for result in told(results)]

    assert statuses(unready, absent, well) == ["error", "skip", "pass"]
    for status in ("fail", "waived"):
        assert statuses(unready, CheckResult("a.reports", MUST, status, "does not join", 1.0, fault=True)) == ["skip", status]
    assert statuses(unready, CheckResult("a.other", MUST, "fail", "a key in the image", 1.0)) == ["skip", "fail"]
    assert statuses(unready, CheckResult("a.other", MUST, "waived", "a key in the image", 1.0)) == ["error", "waived"]
    assert statuses(unready, CheckResult("a.other", SHOULD, "fail", "runs as root", 1.0)) == ["error", "fail"]


def test_the_pages_of_the_checks_are_current() -> None:
    listed = subprocess.run(
        [sys.executable, ROOT / "scripts/list-checks", "--check"], capture_output=True, text=True, timeout=60
    )
    assert listed.returncode == 0, listed.stderr


def test_every_check_says_how_it_is_measured_why_and_what_to_do() -> None:
    for page in (ROOT / "docs/checks").glob("*.md"):
        # A figure (INFO) needs no mending.
        fix = () if "**Severity**: INFO" in page.read_text() else ("How to fix it",)
        for section in ("How it is measured", "Why it matters", *fix):
            text = page.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0].strip()
            assert len(text) > 10, f"{page.name}: {section}"


def test_from_asks_for_the_replacement_whatever_the_profile(lk, example: str) -> None:
    collect = ("--lk-image", example, "--collect-only", "-q")
    assert "test_replaces_without_loss" not in lk(*collect).output
    assert "test_replaces_without_loss" in lk(*collect, "--lk-from", example).output
    assert "test_replaces_without_loss" not in lk(*collect, "--lk-from", example, "--lk-suite", "image").output
