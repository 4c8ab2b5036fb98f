"""pytest hooks only: options in, packaged suites selected, verdict out.

Nothing that costs time is imported here: a run that does not use the plugin must not notice it.
"""

from __future__ import annotations

import datetime as dt
import inspect
import os
import sys
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest

from pytest_lkagents import limits, selection, signals
from pytest_lkagents import settings as options
from pytest_lkagents.beginning import (
    adds_checks,
    adds_worker_checks,
    begin,
    is_xdist_worker,
    names_worker,
    require_or_end,
    require_sense,
    uses_xdist,
)
from pytest_lkagents.checks import TRIED_AGAIN, Evidence, TryAgain, check_of
from pytest_lkagents.completeness import lacking, note_left_out
from pytest_lkagents.fixtures import (
    EVIDENCE,
    REDACTOR,
    SETTINGS,
    STAGE,
    UNUSABLE,
    StageHolder,
    lk_caller,
    lk_evidence,
    lk_server,
    lk_settings,
    lk_stage,
    lk_wire,
    lk_worker,
)
from pytest_lkagents.gathered import (
    COMMAND,
    GATHERED,
    TYPED,
    Gathered,
    conclude,
    conclude_unbegun,
    remove_earlier,
    stage_facts,
    withdraw,
)
from pytest_lkagents.manifests import STANDARD_INPUT
from pytest_lkagents.outcomes import doubted, judge, present, redacted, waived, waiver_of
from pytest_lkagents.report import junit
from pytest_lkagents.secrets import Redactor, hidden_in, hidden_in_document
from pytest_lkagents.settings import Settings
from pytest_lkagents.values import SettingsError
from pytest_lkagents.verdict import ERROR, FAIL, PASS, Verdict

__all__ = ["lk_caller", "lk_evidence", "lk_server", "lk_settings", "lk_stage", "lk_wire", "lk_worker"]


def pytest_addoption(parser: pytest.Parser) -> None:
    options.declare(parser)


# Options of pytest that only show something.
SHOWING = ("help", "version", "markers", "showfixtures", "show_fixtures_per_test", "setupplan", "cacheshow")


def _only_shows(config: pytest.Config) -> bool:
    return any(config.getoption(name, None) for name in SHOWING)


def _settings(config: pytest.Config) -> Settings:
    if _only_shows(config):
        return Settings()
    try:
        return options.read(config)
    except SettingsError as error:
        if config.getoption("lk_doctor") or options.concern(config):
            raise pytest.UsageError(str(error)) from None
        config.stash[UNUSABLE] = str(error)
        return Settings()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.getoption("lk_doctor"):
        return None
    from pytest_lkagents.doctor import report

    complete, lines = report(_settings(config))
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for line in lines:
        # Names of files and programs may have signs that a terminal does not.
        print(line.encode(encoding, "backslashreplace").decode(encoding))
    return int(pytest.ExitCode.OK if complete else pytest.ExitCode.USAGE_ERROR)


def pytest_configure(config: pytest.Config) -> None:
    try:
        _configure(config)
    except pytest.UsageError as error:
        if not is_xdist_worker(config):
            conclude_unbegun(config, str(error))
        raise


def _configure(config: pytest.Config) -> None:
    settings = _settings(config)
    redactor, typed = Redactor(), Redactor()
    for name, value in settings.env.items():
        redactor.add(name, value)
    secrets = [pair for given in (settings.env, settings.attributes) for one in given.items() for pair in hidden_in(*one)]
    told = hidden_in_document("metadata", settings.metadata)
    for name, value in [*secrets, *told, *_command_secrets(settings)]:
        redactor.add(name, value)
        typed.add(name, value)
    config.stash[SETTINGS] = settings
    config.stash[REDACTOR] = redactor
    config.stash[TYPED] = typed
    config.stash[COMMAND] = typed.text(options.retyped(config))
    config.stash[STAGE] = StageHolder(settings, redactor)
    config.stash[GATHERED] = Gathered()
    config.pluginmanager.register(config.stash[GATHERED], "lkagents-results")
    limited = config.pluginmanager.hasplugin("timeout") or config.pluginmanager.hasplugin("pytest_timeout")
    if not limited:
        # Checks are marked with it, which must not end a run by itself.
        config.addinivalue_line("markers", "timeout(seconds): the check's own limit, which pytest-timeout would hold")
    if _only_shows(config):
        return
    require_sense(config, settings)
    if not settings.active:
        # What stands there for all runs waits for one that names a worker.
        config.stash[GATHERED].notes += options.without_subject(config, typed=False)[:1] if UNUSABLE not in config.stash else ()
        return
    config.stash[GATHERED].notes += selection.expired(settings)
    if not limited:
        config.stash[GATHERED].notes.append("without pytest-timeout (-p no:timeout) no check has a time limit")
    if STANDARD_INPUT in settings.manifests:
        config.stash[SETTINGS] = replace(settings, standard_input=_standard_input(config, settings.origin("lk_manifests")))
    selection.add_packaged(config, settings)
    config.pluginmanager.register(selection.InOrder(settings), "lkagents-order")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """From here on a line per check. What is needed starts now that it is known what will run."""
    config = session.config
    if (unusable := config.stash.get(UNUSABLE, None)) is not None and not config.getoption("collectonly"):
        needed = any("lk_settings" in getattr(item, "fixturenames", ()) or check_of(item) for item in session.items)
        if needed and not uses_xdist(config):
            conclude_unbegun(config, unusable)
            raise pytest.UsageError(unusable)
    note_left_out(session)
    # With xdist the items are the workers' alone.
    judges = adds_checks(config) or any(check_of(item) for item in session.items)
    if judges and not config.getoption("collectonly") and not is_xdist_worker(config):
        _remove_earlier(config)
    begin(session)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not config.stash[SETTINGS].active or reporter is None or config.get_verbosity() or config.getoption("collectonly"):
        return
    if uses_xdist(config):
        return  # in several processes at once
    from pytest_lkagents.progress import Progress

    found = [check.id for item in session.items if (check := check_of(item)) is not None]
    if found:
        config.pluginmanager.register(Progress(reporter, found), "lkagents-progress")


def _standard_input(config: pytest.Config, origin: str) -> str:
    """All of it, which pytest keeps from tests while it captures their output."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    try:
        return sys.stdin.read()
    except (OSError, UnicodeDecodeError, AttributeError):
        raise pytest.UsageError(f"{origin} -: standard input is closed, or no text") from None
    finally:
        if capture is not None:
            capture.resume_global_capture()


def _command_secrets(settings: Settings) -> list[tuple[str, str]]:
    """What the command's output could hold and nobody may read: secrets among its words and in the environment."""
    if not settings.command:
        return []
    from pytest_lkagents.command_line import secrets_in

    return [*secrets_in(settings.command), *(pair for one in os.environ.items() for pair in hidden_in(*one))]


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    settings = config.stash[SETTINGS]
    if not settings.active or config.getoption("collectonly"):
        return
    if (xml := junit.written_by(config)) is not None:
        config.pluginmanager.register(junit.Suites(xml), "lkagents-junit")
    holder = config.stash[STAGE]
    config.add_cleanup(signals.interrupt_by(lambda: holder.closing))
    config.add_cleanup(signals.not_ignored_by_workers())
    if not is_xdist_worker(config):
        ctrl_c = signals.CtrlC(lambda: holder.closing, lambda: holder.removing)
        config.pluginmanager.register(ctrl_c, "lkagents-ctrl-c")
        config.add_cleanup(ctrl_c.handle())
        if uses_xdist(config) or adds_worker_checks(config):
            require_or_end(config)
        elif names_worker(config):
            require_or_end(config, whole=False)
    if uses_xdist(config) and not is_xdist_worker(config) and adds_checks(config):
        _remove_earlier(config)


def _remove_earlier(config: pytest.Config) -> None:
    settings = config.stash[SETTINGS]
    if not settings.active:
        return
    withdraw(settings, options.subject(config))
    if settings.report_dir is not None:
        remove_earlier(settings.report_dir)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    settings = config.stash[SETTINGS]
    if not settings.active:
        return
    checks = {item: found for item in items if (found := check_of(item)) is not None}
    try:
        config.stash[GATHERED].notes += selection.reject_unknown(settings, {found.id for found in checks.values()})
    except pytest.UsageError as error:
        config.stash[GATHERED].broken = str(error)
        items.clear()  # so that nothing is started for them
        if is_xdist_worker(config):
            return  # here it would be an internal error: the process that reports says it
        raise
    small = {found.suite for found in checks.values() if found.included_in(settings.profile)}
    chosen = [
        item
        for item in items
        if item not in checks or selection.chosen(checks[item], settings, small, own=not selection.is_packaged(item))
    ]
    if len(chosen) < len(items):
        gathered = config.stash[GATHERED]
        before = len(gathered.deselected)
        kept = set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        del gathered.deselected[before:]
    items[:] = chosen
    extra = selection.extra_seconds(settings)
    for item in [item for item in chosen if extra and item in checks]:
        # Before the check's own.
        item.add_marker(pytest.mark.timeout(checks[item].seconds + extra, method="signal"), append=False)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """By -k, -m, --deselect or --lf."""
    for item in items:
        if check_of(item) is not None:
            item.config.stash[GATHERED].deselected.append(item)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """What may have another cause than the worker is tried once more, when nothing else of ours is under way."""
    try:
        return (yield)
    except TryAgain as error:
        stage, why = pyfuncitem.config.stash[STAGE].opened, str(error)
        # Another plugin's event loop runs a coroutine: here it would only be made.
        check = check_of(pyfuncitem)
        if check is None or stage is None or inspect.iscoroutinefunction(pyfuncitem.obj):
            raise
    evidence = pyfuncitem.stash.get(EVIDENCE, Evidence())
    evidence.clear()
    try:
        with stage.background.in_peace():
            limits.begin_anew(check.seconds + selection.extra_seconds(stage.settings))
            # By the names that pytest takes for fixtures: a parameter may have a default.
            pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames})
    finally:
        evidence[TRIED_AGAIN] = why
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    done = yield
    check, stage = check_of(item), item.config.stash[STAGE].opened
    if check is None or stage is None or uses_xdist(item.config):
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
    _hide_secrets(report, redactor)
    if check is not None and settings.active and (call.when == "call" or error is not None):
        evidence = item.stash.get(EVIDENCE, Evidence())
        node = None if selection.is_packaged(item) else _typed(item)
        today = dt.date.today()
        waiver = waiver_of(check.id, settings.waivers, today)
        judged = judge(check, error, evidence, call.duration, when=call.when, accepted=waiver is not None)
        if waiver is None and (stage := item.config.stash[STAGE].opened) is not None:
            judged = doubted(judged, stage.out_of_memory(check.roles))
        item.config.stash[GATHERED].keep_unmasked(item.nodeid, judged.evidence)
        result = redacted(waived(replace(judged, node=node), settings.waivers, today), redactor)
        present(report, result, strict=settings.strict, where=item.location, command=item.config.stash[COMMAND])
        report.lkagents = asdict(result)  # type: ignore[attr-defined]
        # For --junit-xml, which reads them from the report of the teardown.
        item.user_properties += [(f"lk_{name}", getattr(result, name)) for name in ("id", "severity", "status", "summary")]
    return report


def _typed(item: pytest.Item) -> str:
    """A test as one would type it where this run was typed: pytest names it by the root directory, which may be elsewhere."""
    file = os.path.relpath(item.path, item.config.invocation_params.dir)
    return f"{file}::{item.nodeid.partition('::')[2]}"


def _hide_secrets(report: pytest.TestReport, redactor: Redactor) -> None:
    report.sections = [(title, redactor.text(text)) for title, text in report.sections]
    if hasattr(report, "wasxfail"):
        report.wasxfail = redactor.text(report.wasxfail)
    if isinstance(report.longrepr, tuple):
        # Of a skip: where, and why.
        path, line, reason = report.longrepr
        report.longrepr = (path, line, redactor.text(reason))
    elif report.longrepr is not None:
        shown = str(report.longrepr)
        hidden = redactor.text(shown)
        if hidden != shown:
            report.longrepr = hidden


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """xdist: what a worker process knows about the stage."""
    output: dict[str, Any] = getattr(node, "workeroutput", {}).get("lkagents", {})
    node.config.stash[GATHERED].merge(output)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: object, sched: Any) -> None:
    sched.config.stash[GATHERED].broken = f"a test process crashed in {crashitem}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    # No wrapper: the terminal's summary is written after this and shows the verdict.
    config = session.config
    facts = stage_facts(config)
    if config.stash[STAGE].asked:
        facts["asked"] = True
    facts["unwritten"] = config.stash[STAGE].close()
    if is_xdist_worker(config):
        gathered = config.stash[GATHERED]
        facts |= {"broken": gathered.broken, "left_out": gathered.left_out, "notes": gathered.notes}
        config.workeroutput["lkagents"] = facts  # type: ignore[attr-defined]
    settings = config.stash[SETTINGS]
    if not settings.active or is_xdist_worker(config) or config.getoption("collectonly"):
        return
    gathered = config.stash[GATHERED]
    gathered.merge(facts)
    if gathered.verdict is not None:
        return  # the run ended before its checks, and said why
    status = int(session.exitstatus)
    gathered.broken = gathered.broken or next(lacking(session, status), None)
    if not (gathered.results or gathered.broken or adds_checks(config)):
        if settings.json_path is not None:
            gathered.notes.append(f"no check was run, so there is no verdict: {settings.json_path} was not written")
        return
    from pytest_lkagents.report import words

    if not gathered.results:
        why = f"no check was run: {words.left_out(gathered.left_out)} (-k, --lf or the like)" if gathered.left_out else None
        gathered.broken = gathered.broken or why or "no check was collected"
    elif gathered.left_out:
        gathered.notes.append(f"{words.left_out(gathered.left_out)} (-k, --lf or the like): the verdict is without them")
    gathered.notes += selection.needless(settings, gathered.results)
    verdict = conclude(config)
    if status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        if verdict.verdict == FAIL:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif verdict.verdict == ERROR or gathered.unwritten:
            session.exitstatus = pytest.ExitCode.USAGE_ERROR


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    gathered = config.stash[GATHERED]
    if gathered.verdict is not None and (gathered.results or gathered.broken):
        _show_verdict(terminalreporter, config, gathered.verdict)
    if (unusable := config.stash.get(UNUSABLE, None)) is not None:
        terminalreporter.write_line(f"note: {unusable}; without it no worker and no file is judged", yellow=True)
    for line in gathered.notes:
        terminalreporter.write_line(f"note: {line}", yellow=True)
    for line in [f"not complete: {gathered.broken}"] * bool(gathered.broken) + gathered.unwritten:
        terminalreporter.write_line(line, red=True)


def _show_verdict(terminalreporter: pytest.TerminalReporter, config: pytest.Config, verdict: Verdict) -> None:
    from pytest_lkagents.report import terminal

    gathered = config.stash[GATHERED]
    terminalreporter.section(f"LiveKit agent: {verdict.subject.name}")

    def write_line(line: str, colour: str | None) -> None:
        terminalreporter.write_line(line, **({colour: True} if colour else {}))

    whole = not config.pluginmanager.has_plugin("lkagents-progress") and config.get_verbosity() >= 0
    terminal.show(verdict, write_line, terminalreporter._tw.fullwidth, whole=whole)
    if gathered.worse is not None:
        terminalreporter.write_line(
            f"since {config.stash[SETTINGS].baseline_path}:{'' if gathered.worse else ' nothing got worse'}"
        )
        for line in gathered.worse:
            for part in terminal.wrapped(line, "  ", terminalreporter._tw.fullwidth):
                terminalreporter.write_line(part, yellow=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    holder = config.stash.get(STAGE, None)
    if holder is not None:
        holder.close()
