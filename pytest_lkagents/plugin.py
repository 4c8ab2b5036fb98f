"""pytest hooks only: options in, packaged suites selected, verdict out.

Nothing that costs time is imported here: a run that does not use the plugin must not notice it.
"""

from __future__ import annotations

import datetime as dt
import inspect
import os
import time
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pytest_lkagents import settings as options
from pytest_lkagents.checks import Check, Evidence, StageError, TooBusy, check_of
from pytest_lkagents.fixtures import (
    EVIDENCE,
    REDACTOR,
    SETTINGS,
    STAGE,
    StageHolder,
    lk_caller,
    lk_evidence,
    lk_server,
    lk_settings,
    lk_stage,
    lk_wire,
    lk_worker,
)
from pytest_lkagents.outcomes import GATE, judge, present, redacted, waived
from pytest_lkagents.roles import ROLES
from pytest_lkagents.secrets import Redactor, looks_secret
from pytest_lkagents.settings import TRACES, Settings, SettingsError
from pytest_lkagents.verdict import ERROR, FAIL, PASS, CheckResult, Lane, Subject, Verdict

__all__ = ["lk_caller", "lk_evidence", "lk_server", "lk_settings", "lk_stage", "lk_wire", "lk_worker"]

# From this order on a check looks at what all others left.
LAST = 9
GATHERED = pytest.StashKey["Gathered"]()
COMMAND = pytest.StashKey[str]()


class Gathered:
    """What the process that reports (with xdist: the controller) learns during the run."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.results: dict[str, CheckResult] = {}
        self.facts: dict[str, Any] = {}
        self.broken: str | None = None
        self.verdict: Verdict | None = None
        # What got worse since --lk-baseline; None: there is none.
        self.worse: list[str] | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        result: dict[str, Any] | None = getattr(report, "lkagents", None)
        if result is not None:
            self.results[result["id"]] = CheckResult(**result)


def _is_xdist_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _uses_xdist(config: pytest.Config) -> bool:
    return _is_xdist_worker(config) or bool(config.getoption("numprocesses", None))


def pytest_addoption(parser: pytest.Parser) -> None:
    options.declare(parser)


def _settings(config: pytest.Config) -> Settings:
    try:
        return options.read(config)
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.getoption("lk_doctor"):
        return None
    from pytest_lkagents.doctor import report

    complete, lines = report(_settings(config))
    print("\n".join(lines))
    return int(pytest.ExitCode.OK if complete else pytest.ExitCode.USAGE_ERROR)


def pytest_configure(config: pytest.Config) -> None:
    settings = _settings(config)
    redactor = Redactor()
    for name, value in settings.env.items():
        redactor.add(name, value)
    for name, value in _command_secrets(settings):
        redactor.add(name, value)
    config.stash[SETTINGS] = settings
    config.stash[REDACTOR] = redactor
    config.stash[COMMAND] = redactor.text(options.retyped(config))
    config.stash[STAGE] = StageHolder(settings, redactor)
    config.stash[GATHERED] = Gathered()
    config.pluginmanager.register(config.stash[GATHERED], "lkagents-results")
    if settings.suites and not settings.active:
        raise pytest.UsageError("--lk-suite: nothing to judge; give --lk-image, --lk-command or --lk-manifests too")
    if settings.manifests:
        _require_manifests(settings)
    elif settings.traces or settings.calls is not None:
        raise pytest.UsageError("--lk-traces, --lk-calls: nothing to simulate; give --lk-manifests too")
    if settings.command and _uses_xdist(config):
        raise pytest.UsageError(
            "--lk-command: workers of several test processes would want the same ports; leave -n away (-n 0)"
        )
    if settings.from_image is not None and settings.image is None:
        raise pytest.UsageError("--lk-from: nothing replaces it; give --lk-image too")
    if settings.active:
        _select_packaged(config, settings)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """From here on a line per check."""
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not config.stash[SETTINGS].active or reporter is None or config.get_verbosity() or config.getoption("collectonly"):
        return
    if _uses_xdist(config):
        return  # in several processes at once
    from pytest_lkagents.progress import Progress

    found = [check.id for item in session.items if (check := check_of(item)) is not None]
    if found:
        config.pluginmanager.register(Progress(reporter, found), "lkagents-progress")


# What judges deployment files.
FILES = {"manifests", "autoscaling"}


def _require_manifests(settings: Settings) -> None:
    """Raises UsageError where the files cannot be judged."""
    import importlib.util

    for package in ("yaml", "simpy"):
        if importlib.util.find_spec(package) is None:
            raise pytest.UsageError(f"--lk-manifests needs {package}: pip install 'pytest-lkagents[manifests]'")
    from pytest_lkagents.capacity.csv_trace import read_rows
    from pytest_lkagents.manifests.load import find

    for path in settings.manifests:
        if path != "-" and not find(Path(path)):
            raise pytest.UsageError(
                f"--lk-manifests: {path!r} holds no deployment file (*.yaml, *.json, *.toml, Dockerfile); name another folder"
            )
    for name in settings.traces:
        if name not in TRACES:
            try:
                read_rows(Path(name))
            except ValueError as error:
                raise pytest.UsageError(f"--lk-traces: {error}") from None


def _command_secrets(settings: Settings) -> list[tuple[str, str]]:
    """What the command's output could hold and nobody may read: secrets among its words and in the environment."""
    if not settings.command:
        return []
    from pytest_lkagents.command_line import secrets_in

    return [*secrets_in(settings.command), *((name, value) for name, value in os.environ.items() if looks_secret(name))]


def packaged_suites() -> dict[str, Path]:
    """The packaged suites' files by name, in the wheel or in a checkout."""
    here = Path(__file__).resolve().parent
    folder = here / "suites" if (here / "suites").is_dir() else here.parent / "suites"
    return {path.stem.removeprefix("test_"): path for path in sorted(folder.glob("test_*.py"))}


def _select_packaged(config: pytest.Config, settings: Settings) -> None:
    suites = packaged_suites()
    wanted = {name.partition(".")[0] for name in settings.suites}
    for name in sorted(wanted - set(suites)):
        raise pytest.UsageError(f"--lk-suite: no packaged suite {name!r}; there are {', '.join(suites)}")
    for name in sorted(wanted & FILES if not settings.manifests else ()):
        raise pytest.UsageError(f"--lk-suite: the suite {name} judges files; give --lk-manifests too")
    if not settings.has_worker:
        for name in sorted(wanted - FILES):
            raise pytest.UsageError(f"--lk-suite: {name!r} judges a worker; give --lk-image or --lk-command too")
        wanted = wanted or FILES
    own_paths = config.args_source == pytest.Config.ArgsSource.ARGS
    if own_paths and not wanted:
        return
    if settings.has_worker:
        wanted |= {GATE.partition(".")[0]} if wanted else set(suites)
        wanted = wanted | FILES if settings.manifests else wanted - FILES
    # The files one by one: a folder would be subject to the user's norecursedirs and python_files.
    chosen = [str(path) for name, path in suites.items() if name in wanted]
    config.args[:] = [*config.args, *chosen] if own_paths else chosen


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    settings = config.stash[SETTINGS]
    if not settings.active or _is_xdist_worker(config) or config.getoption("collectonly"):
        return
    from pytest_lkagents.command_line import CommandError

    try:
        _require(settings)
    except (StageError, CommandError) as error:
        reason = config.stash[REDACTOR].text(str(error))
        config.stash[GATHERED].broken = reason
        _conclude(config)
        raise pytest.UsageError(reason) from None


def _require(settings: Settings) -> None:
    """Raises StageError or CommandError if what was asked for is not there."""
    if not settings.has_worker:
        return
    from pytest_lkagents import engine
    from pytest_lkagents.command_line import find_program
    from pytest_lkagents.server import choose

    if settings.command:
        assert settings.command_dir is not None
        find_program(settings.command, settings.command_dir, {**os.environ, **settings.env})
    choose.require(settings)
    client = choose.connect(settings)
    if client is None:
        return
    try:
        if settings.image is not None:
            engine.find_image(client, settings.image)
        if settings.from_image is not None:
            engine.find_image(client, settings.from_image)
    finally:
        client.close()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    settings = config.stash[SETTINGS]
    if not settings.active:
        return
    checks = {item: found for item in items if (found := check_of(item)) is not None}
    _reject_unknown(settings, {found.id for found in checks.values()}, config)
    small = {found.suite for found in checks.values() if found.included_in(settings.profile)}
    chosen = [item for item in items if item not in checks or _chosen(checks[item], settings, small)]
    if len(chosen) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    chosen.sort(key=lambda item: _rank(checks[item], settings) if item in checks else (0, 0))
    items[:] = chosen
    if config.getoption("collectonly") or _uses_xdist(config):
        # Under xdist every process collects all checks but runs some: it starts what it needs when it needs it.
        return
    roles = list(dict.fromkeys(role for item in chosen if item in checks for role in checks[item].roles))
    if roles:
        try:
            stage = config.stash[STAGE].get()
        except StageError:
            return  # every check will say so
        stage.warm(roles)


def _rank(check: Check, settings: Settings) -> tuple[int, int]:
    """Checks of a lower rank run first. Where workers take turns, the checks of one worker follow each other."""
    if settings.image is not None:
        return (check.order, 0)
    if check.order < 0 or check.order >= LAST:
        return (check.order * len(ROLES), 0)
    return (max((list(ROLES).index(role) for role in check.roles), default=0), check.order)


def _chosen(check: Check, settings: Settings, small: set[str]) -> bool:
    """``small`` are the suites with a check in the profile."""
    if check.id in settings.suites:
        return True  # asked for by name, whatever the profile
    if check.suite in FILES:
        # By their own option, with whatever else is judged; of those named, only what is named.
        named = [name for name in settings.suites if name.partition(".")[0] in FILES]
        return bool(settings.manifests) and (check.suite in named if named else check.included_in(settings.profile))
    if check.suite in settings.suites and check.suite not in small:
        return True  # so is a suite that is not in the profile at all, such as capacity
    if check.suite not in packaged_suites():
        return check.included_in(settings.profile)  # the user's own, whose file was named
    if settings.suites and check.suite not in settings.suites and check.id != GATE:
        return False
    # An option that only one check looks at is a wish for that check.
    asked_for = bool(check.setting) and getattr(settings, check.setting) is not None
    return asked_for or check.included_in(settings.profile)


def _reject_unknown(settings: Settings, collected: set[str], config: pytest.Config) -> None:
    known = collected | _packaged_ids()
    for name in settings.suites:
        if "." in name and name not in known:
            raise pytest.UsageError(f"--lk-suite: no check {name!r}; {_similar(name, known)}")
    for waiver in settings.waivers:
        if waiver.check not in known:
            raise pytest.UsageError(f"--lk-waive: no check {waiver.check!r}; {_similar(waiver.check, known)}")
    for waiver in settings.waivers:
        if waiver.until is not None and waiver.until < dt.date.today():
            config.issue_config_time_warning(
                pytest.PytestConfigWarning(f"the waiver of {waiver.check} expired on {waiver.until}"), stacklevel=2
            )


def _packaged_ids() -> set[str]:
    import importlib

    package = "pytest_lkagents.suites" if (Path(__file__).parent / "suites").is_dir() else "suites"
    found = set()
    for name in packaged_suites():
        module = importlib.import_module(f"{package}.test_{name}")
        found |= {made.id for value in vars(module).values() if (made := getattr(value, "__lk_check__", None))}
    return found


def _similar(name: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, sorted(known), 1)
    return f"did you mean {close[0]!r}?" if close else f"ids are such as {sorted(known)[0]!r}"


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """What this machine was too busy for is tried once more, when nothing else of ours is under way."""
    try:
        return (yield)
    except TooBusy as error:
        stage, busy = pyfuncitem.config.stash[STAGE].opened, str(error)
        if check_of(pyfuncitem) is None or stage is None:
            raise
    evidence = pyfuncitem.stash.get(EVIDENCE, Evidence())
    evidence.clear()
    try:
        with stage.alone_on_the_machine():
            pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters})
    finally:
        evidence["tried_again_because"] = busy
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    done = yield
    check, stage = check_of(item), item.config.stash[STAGE].opened
    if check is None or stage is None or _uses_xdist(item.config):
        return done
    remaining = item.session.items[item.session.items.index(item) + 1 :]
    needed = {role for other in remaining if (found := check_of(other)) is not None for role in found.roles}
    results = item.config.stash[GATHERED].results
    for role in set(check.roles) - needed:
        users = [made.id for other in item.session.items if (made := check_of(other)) is not None and role in made.roles]
        stage.release(role, in_order=all(name in results and results[name].status == PASS for name in users))
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    settings, redactor = item.config.stash[SETTINGS], item.config.stash[REDACTOR]
    check = check_of(item)
    error = call.excinfo.value if call.excinfo is not None else None
    if check is not None and settings.active and (call.when == "call" or error is not None):
        evidence = item.stash.get(EVIDENCE, Evidence())
        result = judge(check, error, evidence, call.duration)
        result = redacted(waived(result, settings.waivers, dt.date.today()), redactor)
        present(report, result, strict=settings.strict, where=item.location, command=item.config.stash[COMMAND])
        report.lkagents = asdict(result)  # type: ignore[attr-defined]
        # For --junit-xml, which reads them from the report of the teardown.
        item.user_properties += [(f"lk_{name}", getattr(result, name)) for name in ("id", "severity", "status", "summary")]
    _hide_secrets(report, redactor)
    return report


def _hide_secrets(report: pytest.TestReport, redactor: Redactor) -> None:
    report.sections = [(title, redactor.text(text)) for title, text in report.sections]
    if report.longrepr is not None and not isinstance(report.longrepr, tuple):
        shown = str(report.longrepr)
        hidden = redactor.text(shown)
        if hidden != shown:
            report.longrepr = hidden


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """xdist: what a worker process knows about the stage."""
    output: dict[str, Any] = getattr(node, "workeroutput", {}).get("lkagents", {})
    _merge(node.config.stash[GATHERED], output)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: object, sched: Any) -> None:
    sched.config.stash[GATHERED].broken = f"a test process crashed in {crashitem}"


def _merge(gathered: Gathered, facts: dict[str, Any]) -> None:
    floor = max(gathered.facts.get("floor_s", 0.0), facts.get("floor_s", 0.0))
    subject = {
        **gathered.facts.get("subject", {}),
        **{k: v for k, v in facts.get("subject", {}).items() if v is not None},
    }
    lanes = [*gathered.facts.get("lanes", ()), *facts.get("lanes", ())]
    gathered.facts = {**gathered.facts, **facts, "floor_s": floor, "subject": subject, "lanes": lanes}


def _facts(config: pytest.Config) -> dict[str, Any]:
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


def pytest_sessionfinish(session: pytest.Session) -> None:
    # No wrapper: the terminal's summary is written after this and shows the verdict.
    config = session.config
    facts = _facts(config)
    config.stash[STAGE].close()
    if _is_xdist_worker(config):
        config.workeroutput["lkagents"] = facts  # type: ignore[attr-defined]
    if not config.stash[SETTINGS].active or _is_xdist_worker(config) or config.getoption("collectonly"):
        return
    gathered = config.stash[GATHERED]
    _merge(gathered, facts)
    status = int(session.exitstatus)
    if status in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR):
        gathered.broken = gathered.broken or f"the run was {'interrupted' if status == 2 else 'ended by an internal error'}"
    verdict = _conclude(config)
    judging = bool(gathered.results) or config.args_source != pytest.Config.ArgsSource.ARGS
    if judging and status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        if verdict.verdict == FAIL:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif verdict.verdict == ERROR:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR


def _conclude(config: pytest.Config) -> Verdict:
    settings, gathered = config.stash[SETTINGS], config.stash[GATHERED]
    redactor = config.stash[REDACTOR]
    if settings.image is not None:
        known = Subject("image", settings.image)
    elif settings.command:
        known = Subject("command", settings.command_text)
    else:
        known = Subject("pod", ", ".join(settings.manifests))  # what the files make
    subject = Subject(**redactor.data({**asdict(known), **gathered.facts.get("subject", {})}))
    verdict = Verdict(
        settings.profile,
        subject,
        gathered.facts.get("stage", {}),
        time.monotonic() - gathered.started,
        gathered.facts.get("floor_s"),
        tuple(gathered.results.values()),
        settings.strict,
        gathered.broken,
        config.stash[COMMAND],
        tuple(Lane(**lane) for lane in redactor.data(gathered.facts.get("lanes", []))),
    )
    gathered.verdict = verdict
    if settings.baseline is not None:
        from pytest_lkagents.report import baseline

        gathered.worse = baseline.worse(settings.baseline, verdict)
    try:
        _write_reports(verdict, settings, gathered.worse)
    except OSError as error:
        gathered.broken = f"cannot write {error.filename}: {error.strerror}"
    return verdict


def _write_reports(verdict: Verdict, settings: Settings, worse: list[str] | None) -> None:
    """Raises OSError."""
    if settings.json_path is not None:
        from pytest_lkagents.report import json_file

        json_file.write(verdict, settings.json_path)
    if settings.report_dir is not None:
        from pytest_lkagents.report import markdown, page

        page.write(verdict, settings.report_dir, worse)
        markdown.write(verdict, settings.report_dir / "summary.md")
    # GitHub's own: what is written there is shown on the page of the run.
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        from pytest_lkagents.report import markdown

        markdown.write(verdict, Path(summary), append=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    gathered = config.stash[GATHERED]
    if gathered.verdict is None or not (gathered.results or gathered.broken):
        return
    from pytest_lkagents.report import terminal

    terminalreporter.section(f"LiveKit agent: {gathered.verdict.subject.name}")

    def write_line(line: str, colour: str | None) -> None:
        terminalreporter.write_line(line, **({colour: True} if colour else {}))

    whole = not config.pluginmanager.has_plugin("lkagents-progress") and config.get_verbosity() >= 0
    terminal.show(gathered.verdict, write_line, terminalreporter._tw.fullwidth, whole=whole)
    if gathered.worse is not None:
        terminalreporter.write_line(
            f"since {config.stash[SETTINGS].baseline_path}:{'' if gathered.worse else ' nothing got worse'}"
        )
        for line in gathered.worse:
            terminalreporter.write_line(f"  {line}", yellow=True)
    if gathered.broken:
        terminalreporter.write_line(f"not complete: {gathered.broken}", red=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    holder = config.stash.get(STAGE, None)
    if holder is not None:
        holder.close()
