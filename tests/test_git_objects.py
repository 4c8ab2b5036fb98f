"""What a repository within an image keeps, read without git: as git itself writes it here."""

import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from pytest_lkagents.worker.credentials import findings_in_version
from pytest_lkagents.worker.git_objects import file_versions

LARGEST = 256 * 1024
SECRET = "LIVEKIT_API_SECRET=k2V9sQ7mZx4Lw8Tc3Rb6Yn1Hd5Jf0Pg\n"
LINES = "".join(f"line {number} of the agent, which stays as it is\n" for number in range(200))
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=lk", "-c", "user.email=lk@example.test", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def commit(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-m", "change")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    commit(tmp_path, agent_py=LINES, _env=SECRET)
    commit(tmp_path, agent_py=LINES.replace("line 77", "token = 'first'"))
    (tmp_path / ".env").unlink()
    commit(tmp_path, agent_py=LINES.replace("line 77", "token = 'second'"))
    return tmp_path


def kept(repository: Path) -> list[bytes]:
    found: list[bytes] = []
    for path in sorted((repository / ".git/objects").rglob("*")):
        if path.is_file():
            found += file_versions(str(path.relative_to(repository)), path.read_bytes(), LARGEST)
    return found


@needs_git
@pytest.mark.parametrize("packed", [False, True])
def test_every_version_of_every_file_is_read(repository: Path, packed: bool) -> None:
    if packed:
        git(repository, "gc", "--aggressive", "--prune=now")
        assert not list((repository / ".git/objects").glob("[0-9a-f][0-9a-f]/*"))
    versions = kept(repository)
    assert SECRET.encode() in versions
    assert len(versions) == 4
    for wanted in (b"first", b"second"):
        assert any(wanted in text for text in versions), wanted
    found = [findings_in_version(text, [], own=True) for text in versions]
    assert [what for one in found for what in one] == ["a LiveKit API secret"]


@needs_git
def test_what_is_damaged_or_too_large_is_left_out(repository: Path) -> None:
    for path in (repository / ".git/objects").rglob("*"):
        if path.is_file():
            name, data = str(path.relative_to(repository)), path.read_bytes()
            assert list(file_versions(name, data[: len(data) // 2], LARGEST)) == []
    git(repository, "gc", "--prune=now")
    pack = next((repository / ".git/objects/pack").glob("*.pack"))
    name, data = str(pack.relative_to(repository)), pack.read_bytes()
    assert [text for text in file_versions(name, data, 1000) if len(text) > 1000] == []
    assert len(list(file_versions(name, data[: len(data) // 2], LARGEST))) < 4
    assert list(file_versions(name, b"PACK" + b"\0" * 3, LARGEST)) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# how to set it\nLIVEKIT_API_SECRET=your-secret-here\n",
        "LIVEKIT_API_SECRET=secret\nLIVEKIT_URL=ws://localhost:7880\n",
        f"Set it like this:\n{SECRET}",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n",
    ],
)
def test_what_a_test_or_a_document_may_hold_is_none(text: str) -> None:
    assert findings_in_version(text.encode(), [], own=True) == []


def test_a_repository_of_others_and_code_are_judged_by_the_workers_own_values() -> None:
    key = b"key = 'sk-proj-9f2c7be1a04d4d0bb6e1c3a55b7f'"
    assert findings_in_version(key, [], own=True) == ["an access token"]
    assert findings_in_version(key, [], own=False) == []
    assert findings_in_version(SECRET.encode(), [], own=False) == []
    quoted = SECRET.replace("=", ' = "', 1).strip() + '"'
    assert findings_in_version(quoted.encode(), [], own=True) == [], "as a test writes it"


def test_an_object_that_inflates_to_much_is_left_out() -> None:
    data = zlib.compress(b"blob 50000000\0" + bytes(50_000_000))
    assert list(file_versions(f".git/objects/ab/{'0' * 38}", data, LARGEST)) == []


def test_a_value_of_the_worker_counts_wherever_it_is() -> None:
    assert findings_in_version(b"say opensesame-1", ["opensesame-1"], own=False) == ["a value of the worker's environment"]
