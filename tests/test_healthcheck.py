"""An image's HEALTHCHECK, as the engine states it."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_lkagents.worker.healthcheck import Healthcheck, healthcheck

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"Healthcheck": None}, None, id="null"),
        pytest.param({"Healthcheck": {"Test": ["NONE"]}}, None, id="switched off"),
        pytest.param({"Healthcheck": {"Test": []}}, None, id="inherited"),
        pytest.param({"Healthcheck": {"Test": ["CMD", "ask", "it"]}}, Healthcheck(("ask", "it"), 30, 3, 90), id="words"),
        pytest.param(
            {"Healthcheck": {"Test": ["CMD-SHELL", "ask it"]}}, Healthcheck(("/bin/sh", "-c", "ask it"), 30, 3, 90), id="shell"
        ),
        pytest.param(
            {"Shell": ["/bin/bash", "-lc"], "Healthcheck": {"Test": ["CMD-SHELL", "ask it"]}},
            Healthcheck(("/bin/bash", "-lc", "ask it"), 30, 3, 90),
            id="another shell",
        ),
        pytest.param(
            {
                "Healthcheck": {
                    "Test": ["CMD", "ask"],
                    "Interval": 10 * SECOND,
                    "Timeout": SECOND // 2,
                    "StartPeriod": 60 * SECOND,
                    "Retries": 2,
                }
            },
            Healthcheck(("ask",), 0.5, 2, 80),
            id="all given",
        ),
    ],
)
def test_healthcheck(config: dict[str, Any], expected: Healthcheck | None) -> None:
    assert healthcheck(config) == expected
