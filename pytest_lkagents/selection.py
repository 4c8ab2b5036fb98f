"""Which checks are run, and in which order: the packaged suites, the profile, what --lk-suite names."""

from __future__ import annotations

import datetime as dt
import functools
import importlib
import importlib.util
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from pytest_lkagents.checks import Check, check_of, packaged_folder
from pytest_lkagents.manifests import STANDARD_INPUT
from pytest_lkagents.outcomes import GATE
from pytest_lkagents.roles import ROLES
from pytest_lkagents.settings import MORE_CALLS, Settings
from pytest_lkagents.values import OWN_SERVERS, TRACES
from pytest_lkagents.verdict import PASS, CheckResult

# From this order on a check looks at what all others left.
LAST = 9
# How many starts, and ends of jobs, a check waits for at most, each after the other, and how long a call takes whose load is
# to be reported; limits are made for so many of them.
STARTS, ENDS, CALL_SECONDS = 4, 4, 12.0
# What judges deployment files.
FILES = {"manifests", "autoscaling"}


def require_manifests(settings: Settings) -> None:
    """Raises UsageError where the files cannot be judged."""
    for package in ("yaml", "simpy"):
        if importlib.util.find_spec(package) is None:
            raise pytest.UsageError(
                f"{settings.origin('lk_manifests')} needs {package}: pip install 'pytest-lkagents[manifests]'"
            )
    from pytest_lkagents.capacity.csv_trace import read_rows
    from pytest_lkagents.manifests.load import find

    for path in settings.manifests:
        if path != STANDARD_INPUT and not find(Path(path)):
            raise pytest.UsageError(
                f"{settings.origin('lk_manifests')}: {path!r} holds no deployment file (*.yaml, *.json, *.toml, Dockerfile); "
                "name another folder"
            )
    for name in settings.traces:
        if name not in TRACES:
            try:
                read_rows(Path(name))
            except ValueError as error:
                raise pytest.UsageError(f"{settings.origin('lk_traces')}: {error}") from None


@functools.cache
def packaged_suites() -> dict[str, Path]:
    """The packaged suites' files by name."""
    return {path.stem.removeprefix("test_"): path for path in sorted(packaged_folder().glob("test_*.py"))}


def add_packaged(config: pytest.Config, settings: Settings) -> None:
    """Have pytest collect the packaged suites that are asked for. Raises UsageError."""
    suites, origin = packaged_suites(), settings.origin("lk_suite")
    wanted = {name.partition(".")[0] for name in settings.suites}
    for name in sorted(wanted - set(suites)):
        raise pytest.UsageError(f"{origin}: no packaged suite {name!r}; there are {', '.join(suites)}")
    for name in sorted(wanted & FILES if not settings.manifests else ()):
        raise pytest.UsageError(f"{origin}: the suite {name} judges files; give --lk-manifests too")
    own_paths = config.args_source == pytest.Config.ArgsSource.ARGS
    if not settings.has_worker:
        for name in sorted(wanted - FILES):
            raise pytest.UsageError(f"{origin}: {name!r} judges a worker; give --lk-image or --lk-command too")
        wanted = wanted or FILES
    elif wanted or not own_paths:
        wanted |= {GATE.partition(".")[0]} if wanted else set(suites)
        wanted = wanted | FILES if settings.manifests else wanted - FILES
    elif settings.manifests:
        wanted = FILES
    else:
        return
    # The files one by one: a folder would be subject to the user's norecursedirs and python_files.
    files = [str(path) for name, path in suites.items() if name in wanted]
    config.args[:] = [*config.args, *files] if own_paths else files


def rank(check: Check, settings: Settings) -> tuple[int, int]:
    """Checks of a lower rank run first. Where workers take turns, the checks of one worker follow each other."""
    if settings.image is not None and settings.server in OWN_SERVERS:
        return (check.order, 0)
    if check.order < 0 or check.order >= LAST:
        return (check.order * len(ROLES), 0)
    return (max((list(ROLES).index(role) for role in check.roles), default=0), check.order)


class InOrder:
    """A plugin of its own, registered last, so that its wrapper is the outermost: the order of checks holds whatever --ff,
    --nf or other plugins make of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, object, object]:
        done = yield
        items.sort(key=lambda item: rank(found, self._settings) if (found := check_of(item)) is not None else (0, 0))
        return done


def is_packaged(item: pytest.Item) -> bool:
    """Whether a check is one of ours, whatever its id."""
    return Path(item.path).resolve() in packaged_suites().values()


def chosen(check: Check, settings: Settings, small: set[str], *, own: bool) -> bool:
    """``small`` are the suites with a check in the profile; ``own``: it is the user's, whose file was named."""
    if check.id in settings.suites:
        return True  # asked for by name, whatever the profile
    if own:
        return check.included_in(settings.profile)
    if check.suite in FILES:
        # By their own option, with whatever else is judged; of those named, only what is named; whatever the profile.
        named = [name for name in settings.suites if name.partition(".")[0] in FILES]
        return bool(settings.manifests) and (not named or check.suite in named)
    if check.suite in settings.suites and check.suite not in small:
        return True  # so is a suite that is not in the profile at all, such as capacity
    if settings.suites and check.suite not in settings.suites and check.id != GATE:
        return False
    # An option that only one check looks at is a wish for that check.
    asked_for = bool(check.setting) and getattr(settings, check.setting) is not None
    return asked_for or check.included_in(settings.profile)


def extra_seconds(settings: Settings) -> float:
    """What a check's own limit has to be longer than usual, where what it waits for may take longer: starts, two of which are
    under way at a time, ends of jobs, and calls."""
    defaults = Settings()
    return (
        STARTS * max(settings.start_timeout - defaults.start_timeout, 0.0)
        + ENDS * max(settings.exit_timeout - defaults.exit_timeout, 0.0)
        + CALL_SECONDS * max((settings.sessions or 0) - MORE_CALLS, 0)
    )


def expired(settings: Settings) -> list[str]:
    """A line for each waiver that is over."""
    today = dt.date.today()
    over = [waiver for waiver in settings.waivers if waiver.until is not None and waiver.until < today]
    return [f"the waiver of {waiver.check} expired on {waiver.until}" for waiver in over]


def needless(settings: Settings, results: Mapping[str, CheckResult]) -> list[str]:
    """A line for each waiver of a check that passed; one that was skipped, or not run, tells nothing of its waiver."""
    today = dt.date.today()
    waived = dict.fromkeys(waiver.check for waiver in settings.waivers if waiver.covers(waiver.check, today))
    passed = [name for name in waived if name in results and results[name].status == PASS]
    return [f"the waiver of {name} is no longer needed: the check passes" for name in passed]


def reject_unknown(settings: Settings, collected: set[str]) -> list[str]:
    """Raises UsageError for a check, among those selected or waived, that there is not. Returns a note for each waiver of a
    check that may be the user's own, in a file that was not named; an ini file's is for all runs, whatever they collect."""
    known = collected | {check.id for check in packaged_checks()}
    for name in settings.suites:
        if "." in name and name not in known:
            raise pytest.UsageError(f"{settings.origin('lk_suite')}: no check {name!r}; {_similar(name, known)}")
    sections = {name.partition(".")[0] for name in known}
    elsewhere = []
    for waiver in settings.waivers:
        if waiver.check in known:
            continue
        if waiver.typed and waiver.check.partition(".")[0] in sections:
            raise pytest.UsageError(f"--lk-waive: no check {waiver.check!r}; {_similar(waiver.check, known)}")
        elsewhere.append(f"the waiver of {waiver.check} is of no check here; {_similar(waiver.check, known)}")
    return elsewhere


def packaged_checks() -> list[Check]:
    """Every check of the packaged suites, which are imported for it."""
    package = "pytest_lkagents.suites" if (Path(__file__).parent / "suites").is_dir() else "suites"
    modules = [importlib.import_module(f"{package}.test_{name}") for name in packaged_suites()]
    values = [value for module in modules for value in vars(module).values()]
    return [made for value in values if (made := getattr(value, "__lk_check__", None))]


def _similar(name: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, sorted(known), 1)
    return f"did you mean {close[0]!r}?" if close else f"ids are such as {sorted(known)[0]!r}"
