"""What a session does to an engine that hangs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from requests import ReadTimeout

from pytest_lkagents import engine
from pytest_lkagents.checks import StageError


class Hanging:
    """An engine that lists two containers of whichever session it is asked for, and never removes one."""

    def __init__(self) -> None:
        self.asked = 0
        self.containers = self.networks = SimpleNamespace(list=self._list)

    def _list(self, **_: Any) -> list[Any]:
        return [SimpleNamespace(attrs={"HostConfig": {"NetworkMode": "a"}}, remove=self._remove)] * 2

    def _remove(self, **_: Any) -> None:
        self.asked += 1
        raise ReadTimeout("read timed out")


def test_a_hanging_engine_is_asked_once_and_everything_else_is_tidied() -> None:
    client: Any = Hanging()
    session = engine.Session(client)
    with pytest.raises(StageError, match=r"does not answer .*restart it"):
        session.remove()
    session.close()
    assert client.asked == 1
    assert not session.folder.exists()
    assert not (engine.cache_dir() / "sessions" / f"{session.id}.lock").exists()
