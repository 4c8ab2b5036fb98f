"""The program that burns CPU where an image has neither interpreter nor shell."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from docker.errors import APIError, ImageNotFound

from pytest_lkagents.checks import NotJudgeable, StageError
from pytest_lkagents.clock import poll
from pytest_lkagents.worker.burner import Burner, endless

HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")


@pytest.mark.skipif(not HERE, reason="this processor is none that it is made for")
def test_it_burns_until_it_is_ended(tmp_path: Path) -> None:
    program = tmp_path / "endless"
    program.write_bytes(endless(HERE) or b"")
    program.chmod(0o755)
    with subprocess.Popen([program]) as running:
        try:
            poll(lambda: psutil.Process(running.pid).cpu_times().user > 0.1, what="CPU time", seconds=10)
            assert running.poll() is None
        finally:
            running.kill()


def test_every_architecture_that_is_known_has_one() -> None:
    assert all((endless(architecture) or b"").startswith(b"\x7fELF") for architecture in ("amd64", "arm64"))
    assert endless("s390x") is None


class Refusing:
    """A container whose engine runs nothing in it, and whose image is not here any more."""

    id = "c0ffee"

    def __init__(self, says: str) -> None:
        self._says = says
        self.client = self.api = self

    def exec_create(self, *_: Any, **__: Any) -> dict[str, str]:
        raise APIError(self._says)

    @property
    def image(self) -> Any:
        raise ImageNotFound("no such image")


@pytest.mark.parametrize(
    ("says", "raised"),
    [
        (
            'OCI runtime exec failed: exec failed: unable to start: exec: "/bin/sh": stat /bin/sh: no such file or directory',
            False,
        ),
        ('exec: "python": executable file not found in $PATH', False),
        ("crun: executable file `/bin/sh` not found: No such file or directory", False),
        (
            "crun: open executable: No such file or directory: OCI runtime attempted to invoke a command that was not found",
            False,
        ),
        ("crun: exec /bin/sh: Permission denied", False),
        ("container c0ffee is not running", True),
    ],
)
def test_an_image_without_what_could_burn(says: str, raised: bool) -> None:
    container: Any = Refusing(says)
    with (
        pytest.raises(
            StageError if raised else NotJudgeable, match="does not run a burner" if raised else "nothing in the image"
        ),
        Burner(container, "worker", lambda *_: None, cores=1),
    ):
        pass


def test_what_burns_already_is_ended_when_the_next_core_cannot_be_burnt(monkeypatch: pytest.MonkeyPatch) -> None:
    acts: list[tuple[str, ...]] = []
    begun = iter([True])
    monkeypatch.setattr(Burner, "_start", lambda *_: next(begun))
    container: Any = None
    with pytest.raises(StopIteration), Burner(container, "sh", lambda *words: acts.append(words), cores=2):
        pass
    assert [words[0] for words in acts] == ["pkill"]
