"""What is typed: empty and senseless values, files to write, standard input, signals, own checks; all without a worker."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import asdict
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import jsonschema
import pytest

from pytest_lkagents.clock import poll
from pytest_lkagents.fixtures import REDACTOR, SETTINGS
from pytest_lkagents.gathered import GATHERED, conclude
from pytest_lkagents.report import json_file
from pytest_lkagents.selection import extra_seconds
from pytest_lkagents.settings import Settings, retyped
from pytest_lkagents.values import read_env_file, server
from pytest_lkagents.verdict import Lane, Subject, Verdict

from .conftest import ROOT, start_pytest

FILES = str(ROOT / "examples/render/render.yaml")
HERE = ("--lk-manifests", FILES)
SCHEMA = json.loads((ROOT / "tests/verdict.schema.json").read_text())
NO_ENGINE = {"DOCKER_HOST": "tcp://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lk-image="], "--lk-image: its value is empty"),
        (["--lk-manifests="], "--lk-manifests: its value is empty"),
        ([*HERE, "--lk-report="], "--lk-report: its value is empty"),
        ([*HERE, "--lk-suite=,"], "--lk-suite: ',' names nothing"),
        ([*HERE, "--lk-sessions=3.5"], "'3.5' is not a whole number of 1 to 1000"),
        ([*HERE, "--lk-calls=1e7"], "'1e7' is not a whole number of 1 to 10000"),
        ([*HERE, "--lk-cpus=1e10"], "'1e10' is not a number of 0.01 to 1e+09"),
        ([*HERE, f"--lk-sessions={'9' * 5000}"], "9' is not a whole number of 1 to 1000"),
        ([*HERE, "-o", f"lk_health_port={'9' * 5000}"], "9' is not a port (1 to 65535)"),
        ([*HERE, f"--lk-memory={'9' * 5000}g"], "9' is not a size of at most 1048576g"),
        ([*HERE, "-o", "lk_load_threshold=70"], "lk_load_threshold: '70' is not a number of 0.01 to 1"),
        ([*HERE, "-o", "lk_strict=maybe"], "lk_strict: 'maybe' is neither true nor false"),
        ([*HERE, "-o", "lk_health_path=healthz"], "lk_health_path: 'healthz' is not a slash and then ASCII"),
        ([*HERE, "-o", "lk_health_path=/gesundheit-prüfung"], "is not a slash and then ASCII without blanks"),
        ([*HERE, "-o", "lk_health_path=/is it well"], "is not a slash and then ASCII without blanks"),
        ([*HERE, "-o", "lk_server=foo"], "lk_server: 'foo' is not auto"),
        ([*HERE, "--lk-server=http://[::1"], "'http://[::1' is not auto"),
        ([*HERE, "--lk-server=ws://localhost:99999"], "is not auto"),
        ([*HERE, f"--lk-report={'x' * 300}/y"], "is no path: File name too long"),
        ([*HERE, "--lk-report=/proc/x"], "/proc"),
        ([*HERE, "--lk-env-file=~nobody-of-this-name/agent.env"], "is no path: there is no such user"),
        ([*HERE, "--lk-waive", "manifests.secrets= until 2099-01-01"], "has no reason"),
    ],
)
def test_a_value_without_sense_is_one_line(arguments: list[str], message: str, lk) -> None:
    run = lk(*arguments)
    assert run.code == 4, run.output
    assert message in run.output
    assert "Traceback" not in run.output


def test_no_variable_holds_a_nul(lk, tmp_path: Path) -> None:
    (tmp_path / "worker.env").write_text("MY_API_KEY=planted\0secret\n")
    run = lk("--lk-image", "a", "--lk-env-file", "worker.env")
    assert (run.code, "planted" in run.output) == (4, False), run.output
    assert "line 1: a NUL in the value" in run.output


def test_a_file_of_variables_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "worker.env").write_bytes(b"\xef\xbb\xbfMY_API_KEY=planted\n")
    assert read_env_file(tmp_path / "worker.env", "--lk-env-file") == {"MY_API_KEY": "planted"}


FAILS = """\
from pytest_lkagents.checks import MUST, check
@check('own.one', MUST)
def test_one(lk_evidence):
    assert not 'broken'
"""


def test_reasons_of_skips_and_expected_failures_hold_no_secret(lk, tmp_path: Path) -> None:
    reason = "'no agent takes planted-secret-4711'"
    (tmp_path / "test_own.py").write_text(
        f"import pytest\ndef test_in_words(): pytest.skip({reason})\n@pytest.mark.skip({reason})\ndef test_by_mark(): ...\n"
        f"def test_expected(): pytest.xfail({reason})\n"
    )
    run = lk(*HERE, "test_own.py", "--lk-env=MY_TOKEN=planted-secret-4711", "-rsx")
    assert run.output.count("no agent takes [MY_TOKEN]") == 3, run.output
    assert "planted" not in run.output


def test_a_password_in_an_address_is_not_in_the_command_that_repeats_a_check(lk, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(FAILS)
    run = lk(*HERE, "test_own.py", "--lk-attribute=queue=amqp://me:zYc8sLw1mT@queue")
    again = [line for line in run.output.splitlines() if "again: pytest" in line and "test_own.py" in line]
    assert again, run.output
    assert all("amqp://me:[queue]@queue" in line for line in again)
    assert "zYc8sLw1mT" not in run.output


@pytest.mark.parametrize("metadata", ['{"shop": {"api_key": "zYc8sLw1mT42"}}', "sk-proj-Q7zYc8sLw1mT42vB6nX9rK3pF5hJ0dG8"])
def test_a_secret_that_jobs_are_told_is_not_in_the_command_that_repeats_a_check(lk, tmp_path: Path, metadata: str) -> None:
    (tmp_path / "test_own.py").write_text(FAILS)
    run = lk(*HERE, "test_own.py", f"--lk-metadata={metadata}")
    assert "again: pytest" in run.output
    assert "zYc8sLw1mT42" not in run.output


def test_of_several_files_of_variables_each_counts_and_the_last_one_most(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("a.env").write_text("A=1\nB=1\nC=1\n")
    pytester.path.joinpath("b.env").write_text("B=2\nC=2\n")
    typed = ("--lk-env-file=a.env", "--lk-env-file=b.env")
    configs = [pytester.parseconfigure(f"--lk-manifests={FILES}", "--lk-env=C=3", *typed)]
    pytester.makeini("[pytest]\nlk_env_file = a.env\n    b.env\n")
    configs.append(pytester.parseconfigure(f"--lk-manifests={FILES}", "--lk-env=C=3"))
    assert [config.stash[SETTINGS].env for config in configs] == [{"A": "1", "B": "2", "C": "3"}] * 2
    assert "--lk-env-file a.env --lk-env-file b.env" in retyped(configs[0])


def test_a_servers_scheme_and_host_may_be_in_capitals() -> None:
    assert server("WS://LocalHost:7880", "--lk-server", None) == "ws://localhost:7880"
    assert server("https://Stage.example/Path", "--lk-server", "stage.Example") == "https://stage.example/Path"


def test_a_servers_password_is_not_shown(lk) -> None:
    run = lk("--lk-image", "a", "--lk-server", "ws://user:planted@localhost:7880")
    assert (run.code, "planted" in run.output) == (4, False), run.output
    run = lk("--lk-image", "a", env={"DOCKER_HOST": "tcp://user:planted@127.0.0.1:1"})
    assert (run.code, "planted" in run.output) == (4, False), run.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*HERE, "--lk-cpus=x"], "--lk-cpus: 'x' is not a number"),
        (["--lk-image="], "--lk-image: its value is empty"),
        ([*HERE, "--lk-suite=nowhere"], "no packaged suite 'nowhere'"),
        ([*HERE, "test_nowhere.py"], "pytest cannot use what was typed"),
    ],
)
def test_an_earlier_verdict_is_not_taken_for_that_of_a_run_that_cannot_begin(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text('{"version": 1, "verdict": "pass"}')
    assert plain(tmp_path, "--lk-json=kept.json", "--collect-only", *arguments)[0] == 4
    assert json.loads(kept.read_text())["verdict"] == "pass"
    code, output = plain(tmp_path, "--lk-json=kept.json", *arguments)
    found = json.loads(kept.read_text())
    jsonschema.validate(found, SCHEMA)
    assert (code, found["verdict"], says in found["stage"]["error"]) == (4, "error", True), output


SERVER = ("--lk-command", "sleep 9", "--lk-server")
CREDENTIALS = {"LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "a-secret-of-this-test"}


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"LIVEKIT_API_KEY": "", "LIVEKIT_API_SECRET": ""}, "needs LIVEKIT_API_KEY and LIVEKIT_API_SECRET: set them"),
        (CREDENTIALS, "start it, or leave --lk-server away"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_line(env: dict[str, str], says: str, lk, tmp_path: Path) -> None:
    summary = tmp_path / "step.md"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        given = (*SERVER, f"ws://localhost:{nobody.getsockname()[1]}")
        run = lk(*given, env={**NO_ENGINE, **env, "GITHUB_STEP_SUMMARY": str(summary)})
        doctor = lk("--lk-doctor", *given, env={**NO_ENGINE, **env})
    assert (run.code, run.verdict["verdict"], run.verdict["checks"]) == (4, "error", []), run.output
    assert [says in line for line in run.output.splitlines() if line.startswith("ERROR")] == [True], run.output
    assert summary.read_text().count("## LiveKit agent") == 1
    assert doctor.code == 4
    assert [line.startswith("MISSING server: ") for line in doctor.output.splitlines() if says in line] == [True]


CANNOT_OPEN = """
from pytest_lkagents.checks import StageError
from pytest_lkagents.stage import Stage

def broken(self):
    raise StageError("no stage, says this test")

Stage.open = broken
"""


def test_a_stage_that_cannot_be_opened_is_one_line(lk, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CANNOT_OPEN)
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n\ndef test_b(lk_worker):\n    pass\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as answering:
        Thread(target=answering.serve_forever, daemon=True).start()
        given = (*SERVER, f"ws://localhost:{answering.server_port}")
        for more in ((), ("--lk-suite", "image.non-root"), ("--lk-suite", "registration", "test_a.py")):
            run = lk(*given, *more, env={**NO_ENGINE, **CREDENTIALS})
            assert (run.code, run.verdict["checks"]) == (4, []), run.output
            assert run.verdict["stage"]["error"] == "no stage, says this test"
            assert run.output.count("no stage, says this test") <= 3, run.output
        # Of the user's own tests those are run that need none.
        run = lk(*given, "test_a.py", env={**NO_ENGINE, **CREDENTIALS})
        answering.shutdown()
    assert (run.code, "1 passed, 1 error" in run.output) == (1, True), run.output


@pytest.mark.skipif(pytest.version_tuple < (9, 0), reason="pytest reads [tool.pytest] since 9.0")
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("lk_strict = true", "may be rolled out"),
        ("lk_start_timeout = 90.5", "may be rolled out"),
        ("lk_calls = 0", "lk_calls: '0' is not a whole number"),
        ('lk_server = ["auto"]', "lk_server: write it as a string"),
        ("lk_attribute = 3", "lk_attribute: write it as a list of strings"),
    ],
)
def test_an_ini_file_may_be_native_toml(line: str, says: str, lk, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.pytest]\nlk_manifests = {json.dumps(FILES)}\n{line}\n")
    run = lk("--lk-suite", "manifests.secrets")
    assert (run.code, says in run.output) == (0 if "may" in says else 4, True), run.output
    assert "INTERNALERROR" not in run.output


@pytest.mark.parametrize("name", ["https://registry.internal/agent", "a b", "A"])
def test_what_is_no_name_of_an_image_is_one_line(name: str, lk) -> None:
    run = lk("--lk-image", name)
    assert run.code == 4, run.output
    assert "is neither here nor can it be pulled" in run.output
    assert "Traceback" not in run.output


@pytest.mark.parametrize("host", ["tcp://localhost:abc", "tcp://[::1"])
def test_what_is_no_address_of_an_engine_is_one_line(host: str, lk) -> None:
    run, doctor = (lk("--lk-image", "a", *more, env={"DOCKER_HOST": host}) for more in ((), ("--lk-doctor",)))
    for output in (run.output, doctor.output):
        assert f"no container engine answers at {host}: start Docker" in output
        assert "Traceback" not in output
    assert (run.code, doctor.code) == (4, 4)


def test_checks_run_without_limits_where_nobody_holds_them(lk) -> None:
    run = lk(*HERE, "-p", "no:timeout", "--strict-markers", "-W", "error", "--lk-suite", "manifests.secrets")
    assert (run.code, run.checks("pass")) == (0, {"manifests.secrets"}), run.output
    assert "note: without pytest-timeout (-p no:timeout) no check has a time limit" in run.output


def test_where_nothing_can_be_kept_is_said(lk) -> None:
    run = lk("--lk-image", "a", env={"XDG_CACHE_HOME": "/proc/nowhere"})
    assert run.code == 4, run.output
    assert "set XDG_CACHE_HOME" in run.output
    assert "MISSING cannot write into" in lk("--lk-doctor", "--lk-image", "a", env={"XDG_CACHE_HOME": "/proc/nowhere"}).output


def test_the_doctor_speaks_to_every_terminal(lk, tmp_path: Path) -> None:
    (tmp_path / "café.yaml").write_text(Path(FILES).read_text())
    run = lk("--lk-doctor", "--lk-manifests=café.yaml", env={"PYTHONIOENCODING": "ascii"})
    assert (run.code, "caf\\xe9.yaml can be judged" in run.output) == (0, True), run.output


def test_the_doctor_says_how_to_get_what_is_missing(lk, tmp_path: Path) -> None:
    for more in ((), ("--lk-server", "binary")):
        env = {**NO_ENGINE, "XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)}
        output = lk("--lk-doctor", *more, env=env).output
        missing = [line for line in output.splitlines() if line.startswith("MISSING")]
        assert len(missing) == 2, output
        assert all("https://docs." in line for line in missing), output
        assert "--lk-doctor" not in output


def verdict() -> Verdict:
    return Verdict("core", Subject("image", "agent:1"), {}, 1.0, None, ())


def test_what_stands_where_json_goes_stays_what_it_is(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "target.json", tmp_path / "link.json", tmp_path / "pipe"
    target.write_text("")
    target.chmod(0o600)
    link.symlink_to(target)
    json_file.write(verdict(), link)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert json.loads(target.read_text())["version"] == 1
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        json_file.write(verdict(), pipe)
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert json.loads(os.read(reader, 100_000))["version"] == 1
    finally:
        os.close(reader)
    json_file.write(verdict(), tmp_path / ("n" * 255))


@pytest.mark.parametrize(
    ("name", "number"),
    [("replace", errno.EBUSY), ("write_text", errno.EACCES), ("write_text", errno.EROFS), ("write_text", errno.ENOSPC)],
)
def test_json_goes_to_a_file_that_cannot_be_replaced(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is mounted by itself into a container, or stands in a folder where nothing can be made, or on a full disk."""
    target, does = tmp_path / "verdict.json", getattr(Path, name)

    def refused(path: Path, *arguments: object, **more: object) -> object:
        if path == target:
            return does(path, *arguments, **more)
        raise OSError(number, os.strerror(number), str(path))

    target.write_text("an earlier one, which is longer" * 99)
    monkeypatch.setattr(Path, name, refused)
    json_file.write(verdict(), target)
    assert json.loads(target.read_text())["version"] == 1
    with pytest.raises(OSError, match=os.strerror(number)):
        json_file.write(verdict(), tmp_path / "another.json")


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_run_that_is_killed_leaves_no_earlier_verdict(processes: str, lk, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import os, signal\n"
        "from pytest_lkagents.checks import MUST, check\n"
        "@check('own.ends', MUST)\n"
        "def test_ends(request):\n"
        "    ours = os.getppid() if hasattr(request.config, 'workerinput') else os.getpid()\n"
        "    os.kill(ours, signal.SIGKILL)\n"
    )
    path = tmp_path / "kept.json"
    path.write_text('{"verdict": "pass"}')
    path.chmod(0o600)
    run = lk(*HERE, "test_own.py", "--lk-suite=manifests.secrets", f"--lk-json={path}", "-n", processes)
    assert run.code == -signal.SIGKILL, run.output
    found = json.loads(path.read_text())
    jsonschema.validate(found, SCHEMA)
    assert (found["verdict"], found["stage"]["error"]) == ("error", "the run did not end by itself")
    assert (found["subject"]["kind"], stat.S_IMODE(path.stat().st_mode)) == ("manifests", 0o600)
    json_file.withdraw(verdict(), tmp_path / "new.json")
    assert not (tmp_path / "new.json").exists()


def test_json_may_go_into_the_reports_folder(lk, tmp_path: Path) -> None:
    run = lk(*HERE, "--lk-report", "report", "--lk-json=report/verdict.json", "--lk-suite", "manifests.secrets")
    assert run.code == 0, run.output
    assert json.loads((tmp_path / "report/verdict.json").read_text())["verdict"] == "pass"
    assert (tmp_path / "report/report.html").is_file()
    run = lk(*HERE, "--lk-report", "another", "--lk-json=nowhere/verdict.json")
    assert (run.code, "--lk-json: cannot write 'nowhere/verdict.json'" in run.output) == (4, True), run.output


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_json_goes_to_files_that_are_open(folder: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    try:
        json_file.write(verdict(), Path(folder, str(writer)))
        assert json.loads(os.read(reader, 100_000))["version"] == 1
    finally:
        os.close(reader)
        os.close(writer)
    with (tmp_path / "out").open("w") as file:
        file.write("before\n")
        file.flush()
        (tmp_path / "link").symlink_to(Path(folder, str(file.fileno())))
        json_file.withdraw(verdict(), tmp_path / "link")
        json_file.write(verdict(), tmp_path / "link")
        file.write("after\n")
    before, *found, after = (tmp_path / "out").read_text().splitlines()
    assert (before, json.loads("\n".join(found))["version"], after) == ("before", 1, "after")
    with pytest.raises(OSError, match=f"{folder}/999"):
        json_file.write(verdict(), Path(folder, "999"))


def test_json_goes_to_a_shells_pipe(tmp_path: Path) -> None:
    typed = f"{sys.executable} -m pytest -q -p no:cacheprovider --lk-manifests={FILES} --lk-json >(cat >kept.json; echo >done)"
    run = subprocess.run(["bash", "-c", typed], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    poll((tmp_path / "done").exists, what="the pipe's end", seconds=10)
    assert run.returncode == 0, run.stdout + run.stderr
    assert json.loads((tmp_path / "kept.json").read_text())["verdict"] == "pass"


def test_standard_input_is_read(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--lk-manifests", "-"],
        cwd=tmp_path,
        input=Path(FILES).read_text(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "\nstandard input may be rolled out" in run.stdout


def test_a_report_that_cannot_be_written_is_no_success_and_the_others_are_written(lk, tmp_path: Path) -> None:
    (tmp_path / "report/report.html").mkdir(parents=True)
    run = lk(*HERE, "--lk-report", "report", env={"GITHUB_STEP_SUMMARY": "/nowhere/summary"})
    assert run.code == 4, run.output
    assert "cannot write report/report.html" in run.output.replace(f"{tmp_path}/", "")
    assert "note: cannot write /nowhere/summary" in run.output
    assert (tmp_path / "report/summary.md").is_file()


def test_what_an_earlier_run_left_is_not_taken_for_this_ones(lk, tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    ours = ["capacity.txt", "wire-shared.jsonl", "wire-gw1-half-open.jsonl", "wire-shared-3.jsonl"]
    theirs = ["wire-notes.jsonl", "wire-shared.txt", "my-capacity.txt", "notes.jsonl", "wire-shared.jsonl.gz"]
    for name in [*ours, *theirs, "report.html"]:
        (report / name).touch()
    (tmp_path / "test_else.py").write_text("def test_nothing(): ...")
    (tmp_path / "pytest.ini").write_text("[pytest]\nlk_image = agent:1\nlk_report = report\n")
    assert "1 passed" in lk("test_else.py").output
    # One that judges nothing leaves it alone, whatever it runs; one in several processes does not.
    (tmp_path / "pytest.ini").write_text("[pytest]\nlk_report = report\n")
    assert "1 passed" in plain(tmp_path)[1]
    (tmp_path / "pytest.ini").unlink()
    assert {path.name for path in report.iterdir()} == {*ours, *theirs, "report.html"}
    for processes in ([], ["-n", "2"]):
        for name in ours:
            (report / name).touch()
        run = lk(*HERE, "--lk-report", "report", "--lk-suite", "manifests.secrets", *processes)
        assert run.code == 0, run.output
        assert {path.name for path in report.iterdir()} == {*theirs, "report.html", "summary.md"}


def test_an_expired_waiver_is_a_note_also_where_warnings_are_errors(lk) -> None:
    run = lk(*HERE, "-W", "error", "--lk-waive", "manifests.secrets=known until 2020-01-01")
    assert run.code == 0, run.output
    assert "note: the waiver of manifests.secrets expired on 2020-01-01" in run.output


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_waiver_of_a_check_that_passes_is_said_to_be_needed_no_more(processes: str, lk, tmp_path: Path) -> None:
    # In this order: passes, is skipped, is not selected, and passes, of which the waiver is over.
    waivers = (
        "manifests.secrets=known until 2120-01-01",
        "manifests.resources=known until 2120-01-01",
        "rollout.idle-exit=known until 2120-01-01",
        "manifests.grace-period=known until 2020-01-01",
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nlk_waive =\n" + "".join(f"    {waiver}\n" for waiver in waivers))
    code, output = plain(tmp_path, f"--lk-manifests={FILES}", "-c", "pytest.ini", "-n", processes)
    needless = [line for line in output.splitlines() if "needed" in line]
    assert (code, needless) == (0, ["note: the waiver of manifests.secrets is no longer needed: the check passes"]), output


def test_until_when_a_failure_is_accepted_is_said_in_the_verdict(lk) -> None:
    check = "manifests.grace-period"
    files = (f"--lk-manifests={ROOT / 'fixtures/manifests/broken/grace-period/short.yaml'}", "--lk-suite", check)
    run = lk(*files, "--lk-waive", f"{check}=known until 2120-01-01")
    assert run.verdict["checks"][0]["summary"].startswith("waived (known, until 2120-01-01): "), run.output
    assert f"may be rolled out; waived: {check}." in run.output
    run = lk(*files, "--lk-waive", f"{check}=known until 2020-01-01")
    assert (run.code, run.verdict["checks"][0]["status"]) == (1, "fail"), run.output
    assert run.verdict["checks"][0]["summary"].endswith("; its waiver expired on 2020-01-01")


@pytest.mark.parametrize("name", ["pytest.ini", "pytest.toml"])
def test_a_misspelt_name_in_an_ini_file_is_no_gate_that_passes(name: str, lk, tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n")
    for text, arguments, code in (
        ("lk_imag = 'a'", (), 4),
        ("lk_strct = 'yes'", (f"--lk-manifests={FILES}", "--lk-suite=manifests.secrets"), 4),
        # It is of no use to these tests in any case.
        ("lk_imag = 'a'", ("test_a.py",), 0),
        ("lk_strct = 'yes'", ("test_a.py",), 0),
    ):
        (tmp_path / name).write_text(f"[pytest]\n{text}\n")
        status, output = plain(tmp_path, *arguments)
        assert status == code, output
        assert re.search(
            r"(ERROR|note): lk_(imag|strct): there is no such option \(did you mean 'lk_(image|strict)'\?\)", output
        )
    assert "'lk_image'" in lk(*HERE, "-o", "lk_imag=a").output
    assert "'lk_env_file'" in lk(*HERE, "-o", "lk-env-file=a").output


def test_names_of_another_plugin_that_is_not_loaded_are_no_misspelt_ones(lk) -> None:
    others = [
        word for name in ("lk_room", "lk_url", "lk_api_key", "lk_other_plugin", "lka_image") for word in ("-o", f"{name}=a")
    ]
    run = lk(*HERE, "--lk-suite=manifests.secrets", *others)
    assert (run.code, "no such option" in run.output) == (0, False), run.output


OWN = '''
import pytest
from pytest_lkagents.checks import MUST, check

@pytest.mark.parametrize("n", [1, 2])
@check("own.both", MUST)
def test_both(n, lk_evidence):
    """Two in one."""
    lk_evidence["n"] = n
    assert n == 2

@check("own.odd", MUST)
def test_odd(lk_evidence):
    """Evidence that is no JSON."""
    lk_evidence["pairs"] = {(1, 2): 3}

@check("own.infinite", MUST)
def test_infinite(lk_evidence):
    """A number that JSON does not have."""
    lk_evidence["most"] = float("inf")
'''


def test_own_checks(lk, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(OWN)
    run = lk(*HERE, "test_own.py")
    found = {check["id"]: check for check in run.verdict["checks"]}
    assert (found["own.both"]["status"], run.verdict["verdict"], run.code) == ("fail", "fail", 1), run.output
    assert found["own.odd"]["status"] == "error"
    assert "no JSON data" in found["own.odd"]["summary"]
    assert found["own.infinite"]["evidence"] == {"most": "inf"}
    assert f"again: pytest --lk-manifests {FILES} 'test_own.py::test_both[1]'" in run.output


OWN_FIGURE = '''
from pytest_lkagents.checks import INFO, check

@check("own.figure", INFO)
def test_figure(lk_evidence):
    """A figure."""
    raise RuntimeError("it cannot be taken")
'''


def test_strict_is_for_promises_and_not_for_figures(lk, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(OWN_FIGURE)
    run = lk(*HERE, "test_own.py", "--lk-strict")
    assert (run.code, run.verdict["verdict"], run.checks("error")) == (0, "pass", {"own.figure"}), run.output


def test_a_run_that_is_stopped_is_not_complete(lk, tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_a():\n    assert False\n")
    run = lk("-x", *HERE, "--lk-suite", "manifests", "test_a.py")
    assert run.verdict["verdict"] == "error", run.output
    assert "not complete: the run was stopped: stopping after 1 failures" in run.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_as_ctrl_c_does(tmp_path: Path, number: signal.Signals) -> None:
    began, ended = tmp_path / "began", tmp_path / "ended"
    (tmp_path / "test_long.py").write_text(
        "import pathlib, time, pytest\n"
        "@pytest.fixture\ndef opened():\n    yield\n"
        f"    pathlib.Path({str(ended)!r}).touch()\n"
        f"def test_long(opened):\n    pathlib.Path({str(began)!r}).touch()\n    time.sleep(60)\n"
    )
    process = start_pytest(*HERE, "--lk-json=verdict.json", "test_long.py", cwd=tmp_path, env=NO_ENGINE)
    try:
        poll(began.exists, what="the test's begin", seconds=60)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2, output
    assert ended.exists()
    assert json.loads((tmp_path / "verdict.json").read_text())["stage"]["error"] == "the run was interrupted"


def test_ctrl_c_does_not_disturb_a_run_that_ends_already(tmp_path: Path) -> None:
    began, ending, ended = tmp_path / "began", tmp_path / "ending", tmp_path / "ended"
    (tmp_path / "test_long.py").write_text(
        "import pathlib, time, pytest\n"
        f"@pytest.fixture\ndef opened():\n    yield\n    pathlib.Path({str(ending)!r}).touch()\n"
        f"    time.sleep(2)\n    pathlib.Path({str(ended)!r}).touch()\n"
        f"def test_long(opened):\n    pathlib.Path({str(began)!r}).touch()\n    time.sleep(60)\n"
    )
    process = start_pytest(*HERE, "--lk-json=verdict.json", "test_long.py", cwd=tmp_path, env=NO_ENGINE)
    try:
        poll(began.exists, what="the test's begin", seconds=60)
        process.send_signal(signal.SIGINT)
        poll(ending.exists, what="the test's end", seconds=60)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, ended.exists(), "Traceback" in output) == (2, True, False), output
    assert re.search(r"test_long\.py:\d+: KeyboardInterrupt", output), output
    assert output.count("pytest-lkagents: this run is ending already, and removes what it started\n") == 1
    assert json.loads((tmp_path / "verdict.json").read_text())["stage"]["error"] == "the run was interrupted"


def test_values_of_the_environment_leave_ids_alone(lk) -> None:
    run = lk(*HERE, "--lk-env", "NODE_ENV=production", "--lk-env", "WHAT=SHOULD", "--lk-env", "WHERE=manifests")
    assert run.code == 0, run.output
    assert "manifests.production-command" in run.checks("pass")
    assert {check["severity"] for check in run.verdict["checks"]} <= {"MUST", "SHOULD", "INFO"}


def test_values_of_the_environment_leave_the_verdicts_own_names_alone(pytester: pytest.Pytester) -> None:
    config = pytester.parseconfigure(*HERE, "--lk-env", "A=digest", "--lk-env", "B=registered", "--lk-env", "C_TOKEN=kind")
    for name, value in (("D", "manifests"), ("E", "python"), ("F", "planted")):
        config.stash[REDACTOR].add(name, value)
    lane = Lane("planted", [(0, 1)], [], [], [], [])
    config.stash[GATHERED].merge({"subject": {"digest": "planted", "sdk": "python"}, "lanes": [asdict(lane)]})
    made = conclude(config)
    assert (made.subject.kind, made.subject.sdk, made.subject.digest) == ("manifests", "python", "[F]")
    assert [shown.name for shown in made.lanes] == ["[F]"]


def test_a_file_whose_name_is_no_text_is_judged(lk, tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    with open(os.fsencode(tmp_path / "deploy") + b"/caf\xe9.yaml", "w") as file:
        file.write(Path(FILES).read_text())
    run = lk("--lk-manifests", "deploy")
    assert run.code == 0, run.output
    assert "caf\\udce9.yaml" in json.dumps(run.verdict).replace("\\\\", "\\")


OWN_OF_A_PACKAGED_SECTION = '''
import time
import pytest
from pytest_lkagents.checks import MUST, StageError, check

@pytest.fixture
def breaks():
    yield
    raise StageError("the stage broke afterwards")

@check("manifests.mine", MUST)
def test_mine(lk_evidence, breaks):
    """Broken, and then its fixture is."""
    lk_evidence["n"] = 1
    raise AssertionError("it is broken")

@check("manifests.known", MUST)
def test_known(lk_evidence):
    """Broken, as is known."""
    lk_evidence["n"] = 1
    raise AssertionError("it is broken")

@check("own.slow", MUST, seconds=0.5)
def test_slow(lk_evidence):
    """Slow."""
    lk_evidence["n"] = 1
    time.sleep(5)
'''


def test_own_checks_that_break_at_their_end_or_take_too_long(lk, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(OWN_OF_A_PACKAGED_SECTION)
    run = lk(*HERE, "test_own.py", "--lk-suite", "manifests.secrets", "-o", "timeout_method=thread")
    found = {check["id"]: (check["status"], check["summary"]) for check in run.verdict["checks"]}
    assert found["manifests.mine"] == ("fail", "it is broken"), run.output
    assert found["own.slow"][0] == "error"
    assert "own limit: Timeout" in found["own.slow"][1]
    assert "again: pytest --lk-manifests" in run.output
    assert "test_own.py::test_mine" in run.output
    # A waiver is of a check wherever it is.
    run = lk(*HERE, "test_own.py::test_known", "--lk-waive", "manifests.known=why", "--lk-waive", "elsewhere.a=why")
    assert (run.code, run.checks("waived")) == (0, {"manifests.known"}), run.output
    assert "note: the waiver of elsewhere.a is of no check here" in run.output
    # An ini file's is there also where the test's file is not run. (As to the one word, see test_a_waiver_ends_on_its_day.)
    (tmp_path / "pytest.ini").write_text("[pytest]\nlk_waive = manifests.known=why until 2120-01-01\n")
    run = lk(f"--lk-manifests={FILES}", "--lk-suite", "manifests.secrets")
    assert (run.code, "note: the waiver of manifests.known is of no check here" in run.output) == (0, True), run.output
    assert lk(*HERE, "--lk-suite", "manifests.secrets", "--lk-waive", "manifests.known=why").code == 4


def test_a_name_that_is_none_is_said_by_several_processes_too(lk) -> None:
    run = lk("-n", "2", *HERE, "--lk-suite", "manifests.nope")
    assert run.code == 4, run.output
    assert "no check 'manifests.nope'" in run.output
    assert "INTERNALERROR" not in run.output


def test_files_are_not_judged_by_what_another_process_measured(lk) -> None:
    run = lk("-n", "2", *HERE, "--lk-image", "a")
    assert run.code == 4, run.output
    assert "leave -n away" in run.output


def test_deployment_files_are_judged_beside_tests(lk, tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n")
    run = lk("--lk-command", "sleep 9", "--lk-server", "ws://localhost:7880", *HERE, "test_a.py", env=NO_ENGINE)
    assert run.checks("pass") >= {"manifests.secrets"}, run.output
    assert not any(check["id"].startswith("registration") for check in run.verdict["checks"])


def test_an_ini_files_worker_is_nothing_to_other_tests(lk, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nlk_image = agent:1\nlk_json = verdict.json\n")
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n")
    run = lk("test_a.py", env=NO_ENGINE)
    assert (run.code, run.verdict) == (0, None), run.output
    assert "note: no check was run, so there is no verdict" in run.output
    for shows in ("--fixtures", "--setup-plan", "--cache-show", "--help"):
        assert lk(shows, "test_a.py", "-p", "cacheprovider", env=NO_ENGINE).code == 0, shows
    (tmp_path / "test_b.py").write_text("def test_b(lk_worker):\n    pass\n")
    run = lk("test_b.py", env=NO_ENGINE)
    assert run.code == 4, run.output


@pytest.mark.parametrize("line", ["lk_env_file = absent.env", "lk_json = absent/verdict.json"])
def test_what_an_ini_file_names_is_needed_where_it_is_used(line: str, lk, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nlk_image = agent:1\n{line}\n")
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n")
    (tmp_path / "test_b.py").write_text("def test_b(lk_worker):\n    pass\n")
    name = line.partition(" ")[0]
    for arguments in (["--help"], ["--markers"]):
        assert plain(tmp_path, *arguments)[0] == 0, arguments
    for arguments in (["--collect-only"], ["--collect-only", "test_b.py"], ["test_a.py"], ["-n", "2", "test_a.py"]):
        code, output = plain(tmp_path, *arguments)
        assert (code, f"note: {name}: " in output) == (0, True), output
    for arguments in ([], ["test_a.py", "test_b.py"], ["--lk-doctor"], ["--lk-profile=smoke", "test_a.py"]):
        code, output = plain(tmp_path, *arguments)
        assert (code, f"ERROR: {name}: " in output) == (4, True), output
    code, output = plain(tmp_path, "-n", "2", "test_b.py")
    assert (code, f"StageError: {name}: " in output) == (1, True), output


@pytest.mark.parametrize("line", ["lk_suite = rollout\nlk_calls = 3\nlk_from = agent:1", "lk_env_file = absent.env"])
def test_an_ini_file_may_leave_what_is_judged_to_who_types(line: str, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{line}\n")
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n")
    code, output = plain(tmp_path)
    assert (code, "1 passed" in output) == (0, True), output


@pytest.mark.parametrize(
    ("worker", "says"),
    [
        (("--lk-image", "no/such:image"), "no container engine answers at tcp://127.0.0.1:1"),
        (("--lk-command", "no-such-program start"), "no program 'no-such-program' on PATH"),
    ],
)
def test_a_worker_that_is_typed_must_be_there_whatever_runs(worker: tuple[str, ...], says: str, lk, tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n")
    run = lk(*worker, "test_a.py", env=NO_ENGINE)
    assert (run.code, run.verdict["verdict"], "passed" in run.output) == (4, "error", False), run.output
    assert [says in line for line in run.output.splitlines() if line.startswith("ERROR")] == [True], run.output


NOTHING_REQUIRED = """
from pytest_lkagents import beginning

beginning._require = lambda settings, whole: None
"""


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_run_that_leaves_its_worker_alone_is_not_complete(processes: str, lk, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(NOTHING_REQUIRED)
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n\ndef test_b():\n    pass\n")
    (tmp_path / "test_c.py").write_text("def test_c(lk_settings):\n    assert lk_settings.image == 'a'\n")
    for arguments in (["test_a.py"], ["test_a.py", "-k", "nothing"]):
        run = lk("--lk-image", "a", "-n", processes, *arguments, env=NO_ENGINE)
        assert (run.code, run.verdict["verdict"]) == (4, "error"), run.output
        assert "not complete: no test that ran asks for the worker" in run.output
    run = lk("--lk-image", "a", "-n", processes, "test_a.py", "test_c.py", env=NO_ENGINE)
    assert (run.code, run.verdict, "3 passed" in run.output) == (0, None, True), run.output


def test_an_option_without_anything_to_judge_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n")
    code, output = plain(tmp_path, "--lk-profile=full", "--lk-strict", "--lk-json=out.json")
    assert (code, "ERROR: --lk-profile: nothing to judge" in output) == (4, True), output
    for shows in ("--help", "--markers"):
        assert plain(tmp_path, shows, "--lk-strict")[0] == 0
    # What stands there for all runs waits for one that names a worker.
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --lk-report=report --lk-strict\n")
    code, output = plain(tmp_path)
    assert (code, "note: --lk-strict: nothing to judge" in output) == (0, True), output
    code, output = plain(tmp_path, "--lk-report=another")
    assert (code, "ERROR: --lk-report: nothing to judge" in output) == (4, True), output
    # These are for one run, as a CI's variable is.
    for arguments, variables in ((["-o", "addopts=--lk-strict"], {}), ([], {"PYTEST_ADDOPTS": "--lk-strict"})):
        code, output = plain(tmp_path, *arguments, **variables)
        assert (code, "ERROR: --lk-strict: nothing to judge" in output) == (4, True), output


@pytest.mark.parametrize(
    ("lines", "arguments", "says"),
    [
        ("lk_suite = nowhere", HERE, "lk_suite: no packaged suite 'nowhere'"),
        ("lk_suite = rollout", HERE, "lk_suite: 'rollout' judges a worker"),
        ("lk_suite = manifests.secrts", HERE, "lk_suite: no check 'manifests.secrts'"),
        ("lk_suite = manifests", ("--lk-image=a",), "lk_suite: the suite manifests judges files"),
        ("lk_suite = nowhere", (*HERE, "--lk-suite=elsewhere"), "--lk-suite: no packaged suite 'elsewhere'"),
        ("lk_manifests = .", (), "lk_manifests: "),
        ("lk_server = ws://localhost:1", ("--lk-command=sleep 9",), "lk_server ws://localhost:1 needs LIVEKIT_API_KEY"),
        ("lk_server = container", ("--lk-command=sleep 9",), "lk_server container: no container engine"),
    ],
)
def test_a_value_is_named_by_where_it_is_given(lines: str, arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{lines}\n")
    none = dict.fromkeys(("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"), "")
    code, output = plain(tmp_path, "-c", "pytest.ini", *arguments, **none)
    assert (code, [line.startswith(f"ERROR: {says}") for line in output.splitlines() if "ERROR" in line]) == (4, [True]), output


def plain(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """pytest as it is typed, without an engine: its exit code, and what it says."""
    process = start_pytest(*arguments, cwd=folder, env={**NO_ENGINE, **variables})
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def test_the_example_of_a_gate_needs_nothing_of_the_checkout(tmp_path: Path) -> None:
    """Its command, with a manifest's folder only, where the repository's own tests need what is not installed."""
    yaml = pytest.importorskip("yaml")
    steps = yaml.safe_load((ROOT / "examples/ci/github.yml").read_text())["jobs"]["conformance"]["steps"]
    gate = next(step for step in steps if "--lk-image" in step.get("run", ""))
    assert gate["working-directory"] == "${{ runner.temp }}"
    checkout, temporary = tmp_path / "checkout", tmp_path / "temporary"
    (checkout / "deploy").mkdir(parents=True)
    temporary.mkdir()
    (checkout / "deploy/render.yaml").write_text(Path(FILES).read_text())
    (checkout / "conftest.py").write_text("import no_such_module_of_anybody\n")
    (checkout / "pytest.ini").write_text("[pytest]\naddopts = --cov\n")
    (checkout / "agent.env").write_text("OPENAI_API_KEY=planted-4711\n")
    typed = gate["run"].replace("pytest --lk-image=myagent:${{ github.sha }}", f"{sys.executable} -m pytest")
    env = {**os.environ, "GITHUB_WORKSPACE": str(checkout)}
    run = subprocess.run(["bash", "-c", typed], cwd=temporary, env=env, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (temporary / "report/report.html").is_file()


def test_a_part_of_the_checks_is_said_to_be_one(lk) -> None:
    run = lk(*HERE, "-k", "secrets")
    assert run.checks("pass") == {"manifests.secrets"}, run.output
    assert "checks were left out (-k, --lf or the like)" in run.output
    assert f"may be rolled out; {run.verdict['stage']['left_out']} checks were left out." in run.output
    assert "left out" not in lk(*HERE, "--lk-suite", "manifests").output
    none = lk(*HERE, "--lk-suite", "manifests.secrets", "-k", "nothing")
    why = "no check was run: 1 check was left out (-k, --lf or the like)"
    assert (none.code, none.verdict["stage"]["error"]) == (4, why), none.output
    assert f"is neither cleared nor rejected: {why}." in none.output


def test_checks_are_collected_whatever_the_users_own_tests_are_called(lk, tmp_path: Path) -> None:
    names = {"python_functions": "should_*", "python_files": "spec_*.py", "python_classes": "Spec"}
    ini = "".join(f"{name} = {value}\n" for name, value in names.items())
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}")
    run = lk(*HERE, "--lk-suite", "manifests.secrets")
    assert (run.code, run.checks("pass")) == (0, {"manifests.secrets"}), run.output


def test_why_nothing_was_judged_is_said(lk, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("def pytest_collection_modifyitems(items):\n    items.clear()\n")
    run = lk(*HERE, "--lk-suite", "manifests.secrets")
    assert (run.code, "not complete: no check was collected" in run.output) == (4, True), run.output


def test_several_processes_say_what_one_does(lk) -> None:
    waived = ("--lk-waive", "elsewhere.a=why", "--lk-waive", "manifests.secrets=known until 2020-01-01")
    one, several = (lk(*HERE, "-k", "secrets", *waived, "-n", number) for number in ("0", "2"))
    notes = [line for line in one.output.splitlines() if line.startswith("note: ")]
    assert len(notes) == 3, one.output
    assert sorted(line for line in several.output.splitlines() if line.startswith("note: ")) == sorted(notes), several.output


def test_longer_starts_and_ends_give_checks_more_time() -> None:
    assert extra_seconds(Settings()) == 0
    assert extra_seconds(Settings(start_timeout=300)) == 4 * 240
    assert extra_seconds(Settings(exit_timeout=130, sessions=60)) == 4 * 100 + 50 * 12
