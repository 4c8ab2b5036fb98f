"""The file of ``--junit-xml``, which pytest writes."""

from __future__ import annotations

from typing import Any

import pytest


class Suites:
    """Registered as a plugin where such a file is written. A packaged check lies outside of the user's project, so that pytest
    has no name of its file for it: its test case stands under its suite."""

    def __init__(self, xml: Any) -> None:
        """``xml``: pytest's own plugin (``written_by``)."""
        self._xml = xml

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        result: dict[str, Any] | None = getattr(report, "lkagents", None)
        if result is not None and result["node"] is None:
            self._xml.node_reporter(report).add_attribute("classname", result["id"].partition(".")[0])


def written_by(config: pytest.Config) -> Any | None:
    """What writes the file, in the process that does; None: nobody."""
    return next((plugin for plugin in config.pluginmanager.get_plugins() if hasattr(plugin, "node_reporter")), None)
