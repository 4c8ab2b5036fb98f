"""What the process that reports (with xdist: the controller) learns during the run, and the verdict that it makes of it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_lkagents.fixtures import REDACTOR, SETTINGS, STAGE
from pytest_lkagents.manifests import RENDERED, STANDARD_INPUT
from pytest_lkagents.roles import ROLES
from pytest_lkagents.secrets import Redactor
from pytest_lkagents.settings import Settings, json_path, subject
from pytest_lkagents.verdict import RANKS, CheckResult, Lane, Subject, Verdict, told

GATHERED = pytest.StashKey["Gathered"]()
COMMAND = pytest.StashKey[str]()
# For what the user typed: an image may have the name that a variable gives its agent, and is to be typed again.
TYPED = pytest.StashKey[Redactor]()


# What an earlier run left in its report's folder: of workers and figures that this run may not have. The rest it writes anew.
EARLIER = re.compile(rf"capacity\.txt|wire-(gw\d+-)?({'|'.join(ROLES)})(-\d+)?\.jsonl")


def remove_earlier(folder: Path) -> None:
    """Remove what an earlier run left in a report's folder, and nothing else."""
    from pytest_lkagents.report.page import NAME

    if not (folder / NAME).is_file():
        return  # none of ours
    for path in folder.iterdir():
        if EARLIER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError):  # what may not be removed can be written over
                path.unlink()


class Gathered:
    """What the process that reports (with xdist: the controller) learns during the run."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.results: dict[str, CheckResult] = {}
        # The test that each result is of.
        self._by: dict[str, str] = {}
        # What each test of this process measured, before values of the environment were masked in it.
        self._unmasked: dict[str, dict[str, Any]] = {}
        self.facts: dict[str, Any] = {}
        self.broken: str | None = None
        self.verdict: Verdict | None = None
        # What could not be written, in words; and what else is to be said at the end.
        self.unwritten: list[str] = []
        self.notes: list[str] = []
        # What may hold checks that nobody knows.
        self.uncollected: list[str] = []
        # Checks that pytest's own options took away, and how many of them the run would have had.
        self.deselected: list[pytest.Item] = []
        self.left_out = 0
        # What got worse since --lk-baseline; None: there is none.
        self.worse: list[str] | None = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and report.nodeid not in self.uncollected:
            self.uncollected.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        result: dict[str, Any] | None = getattr(report, "lkagents", None)
        if result is None or str(report.outcome) == "rerun":
            return
        made = CheckResult(**result)
        known, by = self.results.get(made.id), self._by.get(made.id)
        # Of several tests that are one check, by parameters, the worst counts.
        # A test that is run again replaces itself; its end, where its fixtures are taken down, may only make it worse.
        replaces = by == report.nodeid and report.when != "teardown"
        if known is None or replaces or RANKS[made.status] >= RANKS[known.status]:
            self.results[made.id], self._by[made.id] = made, report.nodeid

    def keep_unmasked(self, nodeid: str, evidence: dict[str, Any]) -> None:
        self._unmasked[nodeid] = evidence

    def measured(self) -> dict[str, CheckResult]:
        """The results so far, for checks that judge by them: their evidence is as it was measured, and never shown."""
        return {
            name: replace(result, evidence=self._unmasked.get(self._by[name], result.evidence))
            for name, result in self.results.items()
        }

    def merge(self, facts: dict[str, Any]) -> None:
        """Take in what a process knows about its stage (``stage_facts``); with xdist there are several."""
        floor = max(self.facts.get("floor_s", 0.0), facts.get("floor_s", 0.0))
        subject = {
            **self.facts.get("subject", {}),
            **{name: value for name, value in facts.get("subject", {}).items() if value is not None},
        }
        lanes = [*self.facts.get("lanes", ()), *facts.get("lanes", ())]
        self.unwritten += facts.get("unwritten", ())
        self.broken = self.broken or facts.get("broken")
        # Each of them collects all checks.
        self.left_out = max(self.left_out, facts.get("left_out", 0))
        self.notes += [note for note in facts.get("notes", ()) if note not in self.notes]
        self.facts = {**self.facts, **facts, "floor_s": floor, "subject": subject, "lanes": lanes}


def stage_facts(config: pytest.Config) -> dict[str, Any]:
    """What this process's stage has to say for the verdict: ``subject``, ``stage``, ``floor_s`` (seconds), ``lanes``."""
    stage = config.stash[STAGE].opened
    if stage is None:
        return {}
    try:
        return {
            "subject": asdict(stage.subject()),
            "stage": stage.facts(),
            "floor_s": stage.ledger.floor(),
            "lanes": [asdict(lane) for lane in stage.lanes()] if config.stash[SETTINGS].report_dir is not None else [],
        }
    except Exception as error:  # the engine may be gone by now; the results are not
        return {"stage": {"engine": f"gone: {type(error).__name__}"}}


def withdraw(settings: Settings, known: Subject) -> None:
    """Where an earlier verdict lies, say that this run has none as yet."""
    from pytest_lkagents.report import json_file

    if settings.json_path is not None:
        begun = Verdict(settings.profile, known, {}, 0.0, None, (), broken="the run did not end by itself")
        with contextlib.suppress(OSError):  # which is said at the end
            json_file.withdraw(begun, settings.json_path)


def conclude(config: pytest.Config) -> Verdict:
    """Make the verdict and write the files that were asked for."""
    settings, gathered = config.stash[SETTINGS], config.stash[GATHERED]
    redactor = config.stash[REDACTOR]
    if settings.image is not None:
        known = Subject("image", settings.image)
    elif settings.command:
        known = Subject("command", settings.command_text)
    else:
        known = Subject("manifests", ", ".join(RENDERED if one == STANDARD_INPUT else one for one in settings.manifests))
    about = {**asdict(known), **gathered.facts.get("subject", {})}
    ours = {"kind": about["kind"], "sdk": about["sdk"], "name": config.stash[TYPED].text(about["name"])}
    verdict = Verdict(
        settings.profile,
        Subject(**{**redactor.fields(about), **ours}),
        gathered.facts.get("stage", {}),
        time.monotonic() - gathered.started,
        gathered.facts.get("floor_s"),
        told(gathered.results.values()),
        settings.strict,
        gathered.broken,
        gathered.left_out,
        config.stash[COMMAND],
        tuple(Lane(**redactor.fields(lane)) for lane in gathered.facts.get("lanes", [])),
    )
    gathered.verdict = verdict
    if settings.baseline is not None:
        from pytest_lkagents.report import baseline

        gathered.worse = baseline.worse(settings.baseline, verdict)
    for path, write, asked_for in _reports(verdict, settings, gathered.worse):
        unwritten = gathered.unwritten if asked_for else gathered.notes
        try:
            write()
        except OSError as error:
            unwritten.append(f"cannot write {error.filename or path}: {error.strerror}")
        except Exception as error:  # evidence of users' own checks may be anything; the other reports can be made
            unwritten.append(redactor.text(f"cannot make {path}: {type(error).__name__}: {error}"))
    return verdict


def conclude_unbegun(config: pytest.Config, reason: str) -> None:
    """The same for a run that cannot begin: what an earlier one wrote is not to be taken for its verdict."""
    from pytest_lkagents.report import json_file

    if config.getoption("collectonly"):
        return
    if SETTINGS in config.stash and config.stash[SETTINGS].active:
        config.stash[GATHERED].broken = config.stash[REDACTOR].text(reason)
        conclude(config)
    elif (path := json_path(config)) is not None:
        profile = str(config.getoption("lk_profile", None) or Settings().profile)
        with contextlib.suppress(OSError):  # the reason is said in any case
            json_file.write(Verdict(profile, subject(config), {}, 0.0, None, (), broken=reason), path)


def _reports(verdict: Verdict, settings: Settings, worse: list[str] | None) -> Iterator[tuple[Path, Callable[[], None], bool]]:
    """Each of them: where it goes, what writes it, and whether it was asked for."""
    from pytest_lkagents.report import json_file, markdown, page

    if settings.json_path is not None:
        yield settings.json_path, functools.partial(json_file.write, verdict, settings.json_path), True
    if settings.report_dir is not None:
        yield settings.report_dir / page.NAME, functools.partial(page.write, verdict, settings.report_dir, worse), True
        summary = settings.report_dir / markdown.NAME
        yield summary, functools.partial(markdown.write, verdict, summary, worse), True
    # GitHub's own: what is written there is shown on the page of the run.
    if step := os.environ.get("GITHUB_STEP_SUMMARY"):
        yield Path(step), functools.partial(markdown.write, verdict, Path(step), worse, append=True), False
