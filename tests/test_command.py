"""Workers that are started as processes of this machine, judged without any container engine."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from pytest_lkagents import machine
from pytest_lkagents.cache import cache_dir
from pytest_lkagents.checks import NotJudgeable, WorkerFault
from pytest_lkagents.command_line import CommandError, parse, secrets_in
from pytest_lkagents.probe.sidecar import Listener
from pytest_lkagents.turns import Turns

from .conftest import ROOT, start_pytest

SCHEMA = json.loads((ROOT / "tests/verdict.schema.json").read_text())
WORKERS = ROOT / "fixtures/workers"
# What only an image or a network of its own can show.
IMAGE_ONLY = {"image.no-secrets", "image.ca-certificates", "image.non-root", "storage.image-size"}
NO_ENGINE = {"DOCKER_HOST": "tcp://127.0.0.1:1"}


class Corner:
    """A cache and a temporary folder of its own: whatever was started from here has its name in the environment."""

    def __init__(self, folder: Path) -> None:
        cache = folder / "cache/pytest-lkagents"
        cache.mkdir(parents=True)
        (cache / "livekit-server").symlink_to(cache_dir() / "livekit-server")
        self.home = str(cache.parent)
        # Not below the test's own folder: the socket of Python's fork server would have too long a path (107 bytes).
        self.temporary = Path(tempfile.mkdtemp(prefix="lk-"))
        self.sessions = cache / "sessions"
        self.env = {"XDG_CACHE_HOME": self.home, "TMPDIR": str(self.temporary), **NO_ENGINE}

    def processes(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("XDG_CACHE_HOME") == self.home and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())}")
            except psutil.Error:
                continue
        return found

    def leftovers(self) -> list[str]:
        files = [*self.temporary.glob("pytest-lkagents-*"), *self.sessions.glob("*")]
        return [*self.processes(), *map(str, files)]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return start_pytest(*arguments, cwd=self.temporary, env=self.env)

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + 60
        while not any(words in line and "-m pytest" not in line for line in self.processes()):
            assert time.monotonic() < deadline, f"{words} was not started"
            time.sleep(0.1)


@pytest.fixture
def corner(tmp_path: Path) -> Iterator[Corner]:
    made = Corner(tmp_path)
    yield made
    shutil.rmtree(made.temporary, ignore_errors=True)


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter with livekit-agents, as scripts/setup makes it."""
    found = sorted((cache_dir() / "python-agents").glob("*/bin/python"))
    assert found, "no interpreter with livekit-agents: run scripts/setup"
    return str(found[-1])


def agent(folder: Path, name: str) -> Path:
    """A fixture worker as its image has it."""
    for source in (WORKERS / "common/agent_base.py", WORKERS / "broken" / name / "agent.py"):
        shutil.copy(source, folder)
    return folder / "agent.py"


def script(folder: Path, text: str) -> str:
    (folder / "script.py").write_text(text)
    return shlex.join([sys.executable, str(folder / "script.py")])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--lk-command", "no-such-program start"], "no program 'no-such-program' on PATH"),
        (["--lk-command", "./missing start"], "no program './missing' in"),
        (["--lk-command", "python 'agent.py start"], "--lk-command: the command cannot be read: no closing quotation"),
        (["--lk-command", "API_SECRET=planted-66 python agent.py"], "give variables with --lk-env"),
        (["--lk-command", "cd app && python agent.py"], "is run without a shell"),
        (["--lk-command", "''"], "no program '' on PATH"),
        (["--lk-command", "  "], "--lk-command: its value is empty"),
        (["--lk-command", "python x", "--lk-image", "x"], "--lk-command and --lk-image: give one of them"),
        (["--lk-command", "python x", "--lk-from", "x"], "--lk-from: a command replaces no image"),
        (["--lk-command", "python x", "--lk-cpus", "1"], "--lk-cpus: a process here cannot be limited"),
        (["--lk-command", "python x", "--lk-memory", "1g"], "--lk-memory: a process here cannot be limited"),
        (["--lk-command", "python x", "--lk-server", "container"], "--lk-server container: no container engine answers"),
        (["--lk-command", "python x", "-n", "2"], "--lk-command: workers of several test processes"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_4(arguments: list[str], says: str, lk) -> None:
    run = lk(*arguments, env=NO_ENGINE)
    assert run.code == 4, run.output
    assert says in run.output
    assert "planted-66" not in run.output
    assert "Traceback" not in run.output
    assert len([line for line in run.output.splitlines() if line.startswith("ERROR")]) == 1


def test_what_is_typed_stands_for_the_ini_file(lk, tmp_path: Path) -> None:
    ini = tmp_path / "pytest.ini"
    ini.write_text("[pytest]\nlk_image = nobody/nothing:at-all\nlk_cpus = 1\nlk_from = nobody/nothing:older\n")
    run = lk("--lk-command", "no-such-program", env=NO_ENGINE)
    assert "no program 'no-such-program' on PATH" in run.output
    ini.write_text("[pytest]\nlk_command = no-such-program\n")
    assert "no container engine answers" in lk("--lk-image", "nobody/nothing:at-all", env=NO_ENGINE).output
    ini.write_text("[pytest]\nlk_command = no-such-program\nlk_image = nobody/nothing:at-all\n")
    assert "lk_command and lk_image: give one of them" in lk(env=NO_ENGINE).output


def test_neither_server_nor_engine(lk, tmp_path: Path) -> None:
    run = lk("--lk-command", "python x", env={**NO_ENGINE, "XDG_CACHE_HOME": str(tmp_path)})
    assert run.code == 4, run.output
    assert "no livekit-server on PATH" in run.output
    assert run.verdict["subject"] == {
        "kind": "command",
        "name": "python x",
        **dict.fromkeys(("digest", "size_bytes", "sdk", "sdk_version")),
    }
    jsonschema.validate(run.verdict, SCHEMA)


def test_passwords_in_addresses_are_not_shown(lk, tmp_path: Path) -> None:
    """Neither of the command, nor of a variable that it inherits or that is typed."""
    command = "python x --redis redis://:h7Jd2kP0xQ@cache --db 9vR4mT1sLw --postgres postgres://postgres:postgres@db"
    typed = "QUEUE_URL=amqp://me:zYc8sLw1mT@queue"
    inherited = {"DATABASE_URL": "postgres://me:9vR4mT1sLw@db", "XDG_CACHE_HOME": str(tmp_path)}
    run = lk("--lk-command", command, "--lk-env", typed, env={**NO_ENGINE, **inherited})
    assert run.verdict["subject"]["name"] == (
        "python x --redis redis://:[password]@cache --db [DATABASE_URL] --postgres postgres://postgres:postgres@db"
    )
    shown = run.output + json.dumps(run.verdict)
    assert not any(password in shown for password in ("h7Jd2kP0xQ", "9vR4mT1sLw", "zYc8sLw1mT")), shown


def test_words_and_secrets_of_a_command() -> None:
    assert parse("python 'my agent.py' start") == ("python", "my agent.py", "start")
    words = parse("python agent.py --api-key k-1 --auth_token=t-2 --port 8081")
    assert list(secrets_in(words)) == [("api_key", "k-1"), ("auth_token", "t-2")]
    # Of an address what was made, not words that stand in other lines too.
    words = parse("python agent.py --redis=redis://:h7Jd2kP0%2FxQ@cache postgres://postgres:postgres@db postgres://me:a1@db")
    assert list(secrets_in(words)) == [("password", "h7Jd2kP0%2FxQ"), ("password", "h7Jd2kP0/xQ")]
    with pytest.raises(CommandError, match="empty"):
        parse("")


@pytest.mark.alone
@pytest.mark.usefixtures("health_port")
@pytest.mark.timeout(1200)
def test_smoke_of_the_example_without_an_engine(lk, python: str, corner: Corner, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples/agent/agent.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nlk_command = {python} agent.py start\n")
    run = lk("--lk-profile", "smoke", env=corner.env)
    assert run.code == 0, run.output
    jsonschema.validate(run.verdict, SCHEMA)
    assert run.checks("pass") == {"registration.registers", "health.answers", "jobs.joins", "image.production-mode"}
    assert run.checks("skip") == IMAGE_ONLY
    subject = run.verdict["subject"]
    assert (subject["kind"], subject["name"]) == ("command", f"{python} agent.py start")
    assert (subject["sdk"], subject["sdk_version"]) == ("python", "1.8.9")
    assert run.verdict["stage"]["engine"] is None
    assert run.verdict["stage"]["server"] == "binary"
    assert not corner.leftovers()


@pytest.mark.alone
@pytest.mark.usefixtures("health_port")
@pytest.mark.timeout(1200)
def test_core_of_the_example(lk, python: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("whole"):
        pytest.skip("takes minutes: --whole runs it")
    shutil.copy(ROOT / "examples/agent/agent.py", tmp_path)
    run = lk("--lk-command", f"{python} agent.py start", env=NO_ENGINE, seconds=600)
    assert run.code == 0, run.output
    assert run.checks("skip") >= IMAGE_ONLY | {"registration.outbound-only", "balancing.single-assignment"}
    assert run.checks("pass") >= {
        "registration.waits-for-server",
        "registration.reconnects",
        "availability.rejects-over-threshold",
        "rollout.sigterm-drains",
        "jobs.serves-every-call",
    }


@pytest.mark.alone
@pytest.mark.usefixtures("health_port")
@pytest.mark.timeout(1200)
def test_calls_of_a_command_are_counted(lk, python: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples/agent/agent.py", tmp_path)
    run = lk("--lk-command", f"{python} agent.py start", "--lk-suite", "jobs.serves-every-call", env=NO_ENGINE)
    assert run.code == 0, run.output
    assert "jobs.serves-every-call" in run.checks("pass"), run.output


@pytest.mark.alone
@pytest.mark.usefixtures("health_port")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "caught"),
    [
        ("entry-raises", "jobs.joins"),
        ("exits-with-3", "rollout.idle-exit"),
        ("thread-executor", "jobs.own-process"),
        ("extra-port", "registration.listens-only-for-health"),
    ],
)
def test_broken_worker_is_caught(name: str, caught: str, lk, python: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    if name == "entry-raises" and not pytestconfig.getoption("whole"):
        pytest.skip("three calls that get no agent take a minute: --whole runs it")
    command = f"{python} {agent(tmp_path, name)} start"
    run = lk("--lk-command", command, "--lk-suite", caught, env=NO_ENGINE)
    assert run.checks("fail") == {caught}, run.output
    assert not run.checks("error"), run.output


@pytest.mark.alone
@pytest.mark.usefixtures("health_port")
@pytest.mark.timeout(1200)
def test_users_own_tests_get_the_fixtures(lk, python: str, tmp_path: Path) -> None:
    command = f"{python} {ROOT / 'examples/agent/agent.py'} start"
    (tmp_path / "test_mine.py").write_text(
        "def test_ends(lk_worker):\n"
        "    lk_worker.signal('SIGTERM')\n"
        "    assert lk_worker.wait_exit(30) == 0\n"
        "    assert 'registered worker' in lk_worker.logs()\n"
        "    assert lk_worker.listeners() == []\n"
        "def test_another_one(lk_worker, lk_wire, lk_server):\n"
        "    assert lk_worker.is_running and lk_worker.snapshot().processes\n"
        "    assert lk_wire.ask().available\n"
        "    assert lk_server.url.startswith('ws://127.0.0.1:')\n"
    )
    run = lk("--lk-command", command, "test_mine.py", env=NO_ENGINE)
    assert run.code == 0, run.output
    assert "2 passed" in run.output


@pytest.mark.usefixtures("health_port")
@pytest.mark.timeout(1200)
def test_ctrl_c_leaves_nothing(python: str, corner: Corner, tmp_path: Path) -> None:
    process = corner.start("--lk-command", f"{python} {agent(tmp_path, 'exits-with-3')} start")
    corner.wait_for("agent.py start")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert not corner.leftovers(), output


INTERRUPTED_AT_ITS_END = """
from pytest_lkagents.worker.command import CommandWorker

remove, times = CommandWorker.remove, []

def interrupted(self):
    times.append(1)
    if len(times) <= {times}:
        raise KeyboardInterrupt
    remove(self)

CommandWorker.remove = interrupted
"""


@pytest.mark.parametrize(("times", "says"), [(1, "still removing"), (2, "the next run removes what is left")])
@pytest.mark.timeout(1200)
def test_ctrl_c_while_it_tidies_up_is_heeded_at_the_second_time(
    lk, corner: Corner, tmp_path: Path, times: int, says: str
) -> None:
    (corner.temporary / "conftest.py").write_text(INTERRUPTED_AT_ITS_END.format(times=times))
    process = corner.start("--lk-command", script(tmp_path, "import time\ntime.sleep(600)\n"), "--lk-json=verdict.json")
    corner.wait_for("script.py")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert says in output
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert json.loads((corner.temporary / "verdict.json").read_text())["stage"]["error"] == "the run was interrupted"
    if times > 1:
        assert any("script.py" in line for line in corner.processes())
        lk("--lk-command", f"{sys.executable} -c 'raise SystemExit(7)'", "--lk-suite", "jobs.joins", env=corner.env)
    assert not corner.leftovers(), output


@pytest.mark.timeout(1200)
def test_kill_9_is_swept_by_the_next_run(lk, corner: Corner, tmp_path: Path) -> None:
    command = script(tmp_path, "import time\ntime.sleep(600)\n")
    process = corner.start("--lk-command", command)
    corner.wait_for("script.py")
    process.kill()
    process.communicate(timeout=60)
    assert any("script.py" in line for line in corner.processes())
    run = lk("--lk-command", f"{sys.executable} -c 'raise SystemExit(7)'", "--lk-suite", "jobs.joins", env=corner.env)
    assert run.code == 1, run.output
    assert "exited with code 7 before it registered" in run.output
    assert not corner.leftovers()


def test_orphans_are_ended_and_secrets_are_masked(lk, corner: Corner, tmp_path: Path) -> None:
    command = script(
        tmp_path,
        "import os, subprocess, sys\n"
        "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(os.environ['MY_API_KEY'], sys.argv, os.environ['LIVEKIT_API_SECRET'], os.environ.get('LIVEKIT_REGION'))\n"
        "sys.exit(3)\n",
    )
    env = {**corner.env, "MY_API_KEY": "planted-4f1", "LIVEKIT_REGION": "planted-region"}
    run = lk("--lk-command", f"{command} --token=planted-9c2", "--lk-suite", "jobs.joins", env=env)
    assert run.code == 1, run.output
    assert run.checks("fail") == {"registration.registers"}
    assert "exited with code 3" in run.output
    assert "[MY_API_KEY]" in run.output
    assert "[api-secret] None" in run.output
    for planted in ("planted-4f1", "planted-9c2", "planted-region"):
        assert planted not in run.output + json.dumps(run.verdict)
    assert not corner.leftovers()


@pytest.mark.parametrize(
    "written", ["json.dumps(secret)", "repr(secret)", "b64encode(secret.encode()).decode()", "quote(secret)"]
)
def test_a_secret_is_found_and_masked_however_it_is_spelled(lk, corner: Corner, tmp_path: Path, written: str) -> None:
    secret = 'planted "key"\\\nand its second line, 52b7\n'
    lines = "import json, os, sys\nfrom base64 import b64encode\nfrom urllib.parse import quote\n"
    command = script(tmp_path, f"{lines}secret = os.environ['MY_API_KEY']\nprint('<', {written}, '>', sep='')\nsys.exit(3)\n")
    checks = ["--lk-suite", "registration.registers,environment.secrets-not-logged"]
    run = lk("--lk-command", command, "--lk-env", f"MY_API_KEY={secret}", *checks, env=corner.env)
    assert run.code == 1, run.output
    assert run.checks("fail") == {"registration.registers", "environment.secrets-not-logged"}
    assert "MY_API_KEY in the worker's output" in run.output
    shown = run.output + json.dumps(run.verdict)
    assert "[MY_API_KEY]" in shown
    assert not any(part in shown for part in ("planted", "52b7", "cGxhbnRlZCAia2V5"))


@pytest.mark.usefixtures("health_port")
@pytest.mark.timeout(1200)
def test_port_taken_by_another_program_is_no_fault_of_the_worker(lk, python: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples/agent/agent.py", tmp_path)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", 8081))
        other.listen()
        run = lk("--lk-command", f"{python} agent.py start", "--lk-suite", "jobs.joins", env=NO_ENGINE)
    assert run.code == 4, run.output
    assert run.verdict["verdict"] == "error"
    assert not run.checks("fail")
    assert f"port 8081 of this machine is taken by {psutil.Process().name()} (pid {os.getpid()})" in run.output


def test_doctor(lk, tmp_path: Path) -> None:
    run = lk("--lk-doctor", "--lk-command", "python agent.py start", env=NO_ENGINE)
    assert run.code == 0, run.output
    assert "ok      command: " in run.output
    assert f", in {tmp_path}" in run.output
    assert "port 8081: " in run.output
    assert "note    engine: none answers; --lk-command does without" in run.output
    lacking = lk("--lk-doctor", "--lk-command", "no-such-program", env=NO_ENGINE)
    assert lacking.code == 4
    assert "MISSING command: no program 'no-such-program' on PATH" in lacking.output


def test_a_tree_has_orphans_and_zombies() -> None:
    # A child that nobody waits for, and a grandchild whose parent is gone.
    text = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'pass'])\n"
        "subprocess.run(['sh', '-c', 'sleep 600 >/dev/null & echo $!'])\n"
        "os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    leader = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, start_new_session=True)
    found: dict[int, psutil.Process] = {}
    try:
        assert leader.stdout is not None
        orphan, zombie = int(leader.stdout.readline()), int(leader.stdout.readline())
        found = {process.pid: process for process in machine.tree_of(leader.pid)}
        assert set(found) == {leader.pid, orphan, zombie}
        assert [pid for pid, process in found.items() if process.status() == psutil.STATUS_ZOMBIE] == [zombie]
    finally:
        leader.kill()
        leader.communicate()
        machine.end(found.values())


class Fake:
    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self.runs = True

    def listeners(self) -> list[Listener]:
        return [Listener("tcp", "0.0.0.0", port) for port in self.ports]


def turns(*outcomes: Fake | Exception, share_ports: bool = True) -> tuple[Turns, list[str], list[Any]]:
    """Turns whose workers come in this order, the names that were started, and who had to give way."""
    names: list[str] = []
    left: list[Any] = []
    coming = iter(outcomes)
    workers: list[Fake] = []

    def prepare(role: str, name: str) -> Any:
        names.append(name)
        outcome = next(coming)
        if isinstance(outcome, Exception):
            raise outcome
        workers.append(outcome)
        return outcome

    def leave(worker: Any) -> None:
        worker.runs = False
        left.append(worker)

    def running() -> Any:
        return [worker for worker in workers if worker.runs]

    made = Turns(prepare, running, leave, share_ports=share_ports)  # type: ignore[arg-type]
    return made, names, left


def test_workers_take_turns_and_come_back() -> None:
    first, second, third = Fake(8081), Fake(8081), Fake(8081)
    made, names, left = turns(first, second, third)
    assert made.worker("shared") is first
    assert made.worker("shared") is first
    assert made.worker("stopped") is second
    assert left == [first]
    assert made.worker("shared") is third
    assert names == ["shared", "stopped", "shared-2"]
    third.runs = False  # by a check: it is not started again, what it left is looked at
    assert made.worker("shared") is third


def test_containers_have_ports_of_their_own() -> None:
    first, second = Fake(8081), Fake(8081)
    made, _, left = turns(first, second, share_ports=False)
    assert made.worker("peer") is second
    assert made.worker("loaded") is first
    assert not left


def test_a_fault_is_remembered() -> None:
    made, names, _ = turns(WorkerFault("it exited"))
    for _ in range(2):
        with pytest.raises(WorkerFault):
            made.worker("shared")
    assert names == ["shared"]


@pytest.mark.parametrize("second", [WorkerFault("exited"), Fake(), Fake(8081)])
def test_two_that_want_one_port_are_not_judged_side_by_side(second: Fake | Exception) -> None:
    made, names, left = turns(Fake(8081), second)
    for role in ("peer", "peer"):
        with pytest.raises(NotJudgeable, match=r"side by side here: port 8081 is taken by the first; give --lk-image"):
            made.worker(role)
    assert names == ["loaded", "peer"]
    assert left == ([second] if isinstance(second, Fake) else [])


def test_two_with_ports_of_their_own_run_side_by_side() -> None:
    made, _, left = turns(Fake(40001), Fake(40002))
    assert made.worker("peer").ports == (40002,)
    assert made.worker("loaded").ports == (40001,)
    assert not left
