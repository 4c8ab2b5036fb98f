"""Every option and ini value: declared once, validated once, frozen."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_lkagents import values
from pytest_lkagents.checks import PROFILES, Waiver, parse_waiver
from pytest_lkagents.values import SettingsError
from pytest_lkagents.verdict import Subject

if TYPE_CHECKING:
    import pytest

T = TypeVar("T")

PROBE_IMAGE = "pytest-lkagents/probe:1"
SERVER_IMAGE = "livekit/livekit-server:v1.13.5"
HEALTH = ("optional", "required", "off")
# Calls that a load check places where `lk_sessions` says nothing, and to fill a worker where the first of them say that so
# many will do; and the most that a machine could.
SESSIONS, MORE_CALLS, MOST_PLACED = 4, 10, 1000
# Calls at a time that are simulated in bearable time.
MOST_SIMULATED = 10_000
# What is judged.
WORKERS = ("lk_image", "lk_command")
SUBJECTS = (*WORKERS, "lk_manifests")
# How much of two names is the same where one of them is the other, misspelt.
ALIKE = 0.8
# Options that may be given with an empty value.
MAY_BE_EMPTY = ("lk_metadata",)


@dataclass(frozen=True)
class Option:
    """``kind`` is the ini type; a ``linelist`` may be given several times on the command line."""

    name: str
    help: str
    kind: str = "string"
    metavar: str | None = None
    command_line: bool = True

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


OPTIONS = (
    Option("lk_image", "image of the worker under test", metavar="IMAGE"),
    Option("lk_command", "command that starts the worker under test as a process here, without a shell", metavar="COMMAND"),
    Option("lk_from", "image that is running now and would be replaced (default: the same image)", metavar="IMAGE"),
    Option("lk_manifests", "deployment files to judge: a file, a folder, or - for standard input", "linelist", "PATH"),
    Option("lk_traces", "calls to simulate on them: steady, daily, burst (default: all), or a CSV file", "linelist", "TRACE"),
    Option("lk_calls", "calls at a time to simulate on them, at the peak (default: by the files)", metavar="CALLS"),
    Option("lk_profile", f"which checks run: {', '.join(PROFILES)} (default: core)", metavar="PROFILE"),
    Option("lk_suite", "packaged suites or single checks to run, separated by commas", metavar="NAMES"),
    Option("lk_agent_name", "name under which the worker's agent is dispatched (default: as registered)", metavar="NAME"),
    Option("lk_metadata", "metadata that each call's job is given (default: none)", metavar="TEXT"),
    Option(
        "lk_attribute",
        "one attribute of every caller (with a sip. one, who is of kind SIP); may be repeated",
        "linelist",
        "NAME=VALUE",
    ),
    Option("lk_env_file", "file of NAME=VALUE lines for the worker's environment; may be repeated", "linelist", "FILE"),
    Option("lk_env", "one variable for the worker's environment; may be repeated", "linelist", "NAME=VALUE"),
    Option("lk_cpus", "CPU limit of the worker, in cores (default: none)", metavar="CORES"),
    Option("lk_memory", "memory limit of the worker, such as 2g or 512m (default: none)", metavar="SIZE"),
    Option("lk_server", "LiveKit server: auto, binary, container or a URL (default: auto)", metavar="SERVER"),
    Option("lk_sessions", "calls that a load check places at most (default: 4; 10 to fill a worker)", metavar="CALLS"),
    Option("lk_start_timeout", "seconds a worker has to register (default: 60)", metavar="SECONDS"),
    Option("lk_drain_hold", "how long a call is kept after the stop signal (default: 20s; soak: 10m)", metavar="TIME"),
    Option("lk_strict", "a SHOULD that is not met fails too", "bool"),
    Option("lk_waive", "accept a failing check: CHECK=REASON [until YYYY-MM-DD]; may be repeated", "linelist", "WAIVER"),
    Option("lk_report", "directory for report.html, summary.md and what worker and server told each other", metavar="DIR"),
    Option("lk_baseline", "earlier verdict (--lk-json) to compare with: says what got worse", metavar="FILE"),
    Option("lk_json", "write the verdict to this file as JSON", metavar="FILE"),
    Option("lk_allow_remote", "host of a LiveKit server elsewhere that may be called", metavar="HOST"),
    Option("lk_health", "health endpoint: optional, required or off (default: optional)", command_line=False),
    Option("lk_health_port", "port of the health endpoint (default: 8081, else found)", command_line=False),
    Option("lk_health_path", "path of the health endpoint (default: /)", command_line=False),
    Option("lk_metrics_port", "port on which the worker offers metrics by intention", command_line=False),
    Option("lk_load_threshold", "load above which jobs are meant to be refused (default: not judged)", command_line=False),
    Option("lk_max_cpu_per_session", "cores that a call may add, such as 0.16 (default: the guide's rule)", command_line=False),
    Option("lk_max_memory_per_session", "memory that a call may add, such as 320m (default: the rule)", command_line=False),
    Option("lk_exit_timeout", "seconds a drained worker has to exit (default: 30)", command_line=False),
    Option("lk_server_image", f"image for the container server (default: {SERVER_IMAGE})", command_line=False),
    Option("lk_probe_image", f"image of the side container (default: {PROBE_IMAGE}, built)", command_line=False),
)
BY_NAME = {option.name: option for option in OPTIONS}


@dataclass(frozen=True)
class Settings:
    """Seconds, cores and bytes throughout. ``env`` holds the env files' and ``--lk-env``'s variables; ``origins`` by option
    how it was given: ``--lk-image``, or ``lk_image`` in an ini file.

    There is an ``image`` or a ``command`` (its words, as typed, and where it runs), never both.
    """

    image: str | None = None
    command: tuple[str, ...] = ()
    command_text: str = ""
    command_dir: Path | None = None
    from_image: str | None = None
    manifests: tuple[str, ...] = ()
    standard_input: str = ""
    traces: tuple[str, ...] = ()
    calls: int | None = None
    profile: str = "core"
    suites: tuple[str, ...] = ()
    agent_name: str | None = None
    metadata: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    cpus: float | None = None
    memory_bytes: int | None = None
    server: str = "auto"
    start_timeout: float = 60
    drain_hold: float | None = None
    strict: bool = False
    waivers: tuple[Waiver, ...] = ()
    json_path: Path | None = None
    report_dir: Path | None = None
    baseline_path: Path | None = None
    baseline: dict[str, Any] | None = None
    sessions: int | None = None
    load_threshold: float | None = None
    max_cpu_per_session: float | None = None
    max_memory_per_session: int | None = None
    health: str = "optional"
    health_port: int | None = None
    health_path: str = "/"
    metrics_port: int | None = None
    exit_timeout: float = 30
    server_image: str = SERVER_IMAGE
    probe_image: str = PROBE_IMAGE
    origins: dict[str, str] = field(default_factory=dict, compare=False)

    def origin(self, name: str) -> str:
        """How an option is called where it was given."""
        return self.origins.get(name, BY_NAME[name].flag)

    @property
    def has_worker(self) -> bool:
        return self.image is not None or bool(self.command)

    @property
    def active(self) -> bool:
        """Whether there is something to judge."""
        return self.has_worker or bool(self.manifests)


def declare(parser: pytest.Parser) -> None:
    """Add every option and its ini twin to pytest's parser."""
    group = parser.getgroup("lkagents", "LiveKit agents: conformance of a worker image")
    for option in OPTIONS:
        # A truth value is read here, where the option that has a wrong one can be named.
        kind = "string" if option.kind == "bool" else option.kind
        parser.addini(option.name, option.help, type=kind, default=None)  # type: ignore[arg-type]
        if not option.command_line:
            continue
        if option.kind == "bool":
            group.addoption(option.flag, dest=option.name, action="store_true", default=None, help=option.help)
        else:
            action = "append" if option.kind == "linelist" else "store"
            group.addoption(
                option.flag, dest=option.name, action=action, default=None, metavar=option.metavar, help=option.help
            )
    group.addoption("--lk-doctor", action="store_true", help="list what this machine has and lacks, then exit")


def is_typed(config: pytest.Config, name: str) -> bool:
    """Whether an option is given for this run, by a variable or a file of arguments too: an ini file's addopts are for all
    runs, as the rest of it is."""
    if config.getoption(name, None) is None:
        return False
    flag = BY_NAME[name].flag
    replaced = any(words.startswith("addopts=") for words in config.getoption("override_ini", None) or ())
    if replaced or _names(flag, config.invocation_params.args):
        return True
    # What both say is given for this run.
    return _names(flag, shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))) or not _names(flag, config.getini("addopts"))


def _names(flag: str, words: Iterable[str | os.PathLike[str]]) -> bool:
    return any(str(word).partition("=")[0] == flag for word in words)


def without_subject(config: pytest.Config, *, typed: bool) -> list[str]:
    """A line for each option that needs something to judge. ``typed``: for this run, else by addopts."""
    given = [option for option in OPTIONS if option.command_line and config.getoption(option.name, None) is not None]
    found = [option.flag for option in given if option.name not in SUBJECTS and is_typed(config, option.name) == typed]
    return [f"{flag}: nothing to judge; give --lk-image, --lk-command or --lk-manifests too" for flag in found]


def concern(config: pytest.Config) -> bool:
    """Whether a run is about a worker or files whatever it collects, so that values which cannot be used end it at once. An
    ini file is for all runs: what it says may be of no use where no more is to be run, or seen, than tests that need none of
    it."""
    if any(is_typed(config, option.name) for option in OPTIONS if option.command_line):
        return True
    if config.getoption("collectonly"):
        return False
    named = config.args_source == type(config).ArgsSource.ARGS
    if named and not _is_standing(config, "lk_suite"):
        return _is_standing(config, "lk_manifests")
    return any(_is_standing(config, name) for name in SUBJECTS)


def _is_standing(config: pytest.Config, name: str) -> bool:
    """Whether an ini file says it, by addopts too, or means it: where nothing is typed, as ``concern`` has seen."""
    if config.getoption(name, None) is not None or name in map(_meant, _misspelt(config)):
        return True
    try:
        return _ini(config, BY_NAME[name]) not in (None, "", [])
    except SettingsError:
        return True


def _misspelt(config: pytest.Config) -> list[str]:
    """Names like those of our options that an ini file uses, or -o, and nobody declares. pytest merely warns of them: a gate
    of which a word is misspelt would pass what it was to judge. Others may be of a plugin that is not loaded in this run."""
    unknown: Iterable[str] = getattr(config, "_get_unknown_ini_keys", list)()
    return sorted(name for name in unknown if _meant(name) is not None)


def _meant(name: str) -> str | None:
    start = "lk_"
    if not name.replace("-", "_").startswith(start):
        return None
    import difflib

    # What all of them begin with makes none of them alike.
    known = [option.name.removeprefix(start) for option in OPTIONS]
    close = difflib.get_close_matches(name[len(start) :].replace("-", "_"), known, 1, ALIKE)
    return f"{start}{close[0]}" if close else None


# What selects checks or says where results go is no part of what is typed to see one check again.
NOT_AGAIN = ("lk_suite", "lk_json", "lk_report", "lk_baseline")


def retyped(config: pytest.Config) -> str:
    """The options of this run as one would type them again; a variable's value is named, not shown."""
    words = ["pytest"]
    for option in OPTIONS:
        value = config.getoption(option.name, None) if option.command_line else None
        if not value or option.name in NOT_AGAIN:
            continue
        for one in value if isinstance(value, list) else [value]:
            name = str(one).partition("=")[0]
            shown = f'{name}="${name}"' if option.name == "lk_env" else shlex.quote(str(one))
            words += [option.flag] if option.kind == "bool" else [option.flag, shown]
    known = {option.name for option in OPTIONS if option.name not in NOT_AGAIN}
    for override in config.getoption("override_ini", None) or ():
        name, _, value = override.partition("=")
        if name == "lk_env":
            variable = value.partition("=")[0]
            words += ["-o", f'lk_env={variable}="${variable}"']
        elif name in known:
            words += ["-o", shlex.quote(override)]
    return " ".join(words)


def read(config: pytest.Config) -> Settings:
    """Validate everything once. Raises SettingsError."""
    for name in _misspelt(config):
        raise SettingsError(f"{name}: there is no such option (did you mean {_meant(name)!r}?)")
    given = _given(config)
    _settle_subject(given)

    def origin(name: str) -> str:
        return given[name][1]

    def text(name: str) -> str | None:
        return str(given[name][0]).strip() if name in given else None

    def value(name: str, make: Callable[[str, str], T]) -> T | None:
        found = text(name)
        return make(found, origin(name)) if found is not None else None

    def entries(name: str, make: Callable[[str, str], T]) -> list[T]:
        return [make(entry, origin(name)) for entry in given[name][0]] if name in given else []

    def path(text: str, origin: str) -> Path:
        return values.path_of(config, text, origin)

    def number(least: float, most: float = values.LARGEST) -> Callable[[str, str], float]:
        return lambda text, origin: values.number(text, origin, least, most)

    files = entries("lk_env_file", lambda text, origin: values.read_env_file(path(text.strip(), origin), origin))
    # Of several that set a variable the last one counts.
    variables = [*(entry for file in files for entry in file.items()), *entries("lk_env", values.variable)]
    baseline_path = value("lk_baseline", path)
    report_dir = value("lk_report", lambda text, origin: values.folder_to_write(path(text, origin), text, origin))
    command_text = text("lk_command")
    sources = {name: source for name, (_, source) in given.items()}
    command = value("lk_command", lambda text, origin: values.parse_command(text, origin, sources))
    allowed_host = text("lk_allow_remote")
    defaults = Settings()
    return Settings(
        image=text("lk_image"),
        command=command or (),
        command_text=command_text or "",
        command_dir=path(".", origin("lk_command")) if command else None,
        from_image=text("lk_from"),
        manifests=tuple(entries("lk_manifests", lambda text, origin: values.manifest(path, text, origin))),
        traces=values.traces(path, *given.get("lk_traces", ([], ""))),
        calls=value("lk_calls", lambda text, origin: values.whole(text, origin, MOST_SIMULATED)),
        profile=value("lk_profile", lambda text, origin: values.choice(text, origin, PROFILES)) or defaults.profile,
        suites=value("lk_suite", values.names) or (),
        agent_name=text("lk_agent_name"),
        metadata=text("lk_metadata") or "",
        attributes=dict(entries("lk_attribute", values.attribute)),
        env=dict(variables),
        cpus=value("lk_cpus", number(0.01)),
        memory_bytes=value("lk_memory", values.size),
        server=value("lk_server", lambda text, origin: values.server(text, origin, allowed_host)) or defaults.server,
        start_timeout=value("lk_start_timeout", number(1)) or defaults.start_timeout,
        drain_hold=value("lk_drain_hold", values.duration),
        strict=value("lk_strict", values.yes_or_no) or False,
        waivers=tuple(entries("lk_waive", _waiver)),
        json_path=value("lk_json", lambda text, origin: values.file_to_write(path(text, origin), text, origin, report_dir)),
        report_dir=report_dir,
        baseline_path=baseline_path,
        baseline=_baseline(baseline_path, origin("lk_baseline")) if baseline_path is not None else None,
        sessions=value("lk_sessions", lambda text, origin: values.whole(text, origin, MOST_PLACED)),
        max_cpu_per_session=value("lk_max_cpu_per_session", number(0.001)),
        max_memory_per_session=value("lk_max_memory_per_session", lambda text, origin: values.size(text, origin, 1024**2)),
        load_threshold=value("lk_load_threshold", number(0.01, 1)),
        health=value("lk_health", lambda text, origin: values.choice(text, origin, HEALTH)) or defaults.health,
        health_port=value("lk_health_port", values.port),
        health_path=value("lk_health_path", values.url_path) or defaults.health_path,
        metrics_port=value("lk_metrics_port", values.port),
        exit_timeout=value("lk_exit_timeout", number(1)) or defaults.exit_timeout,
        server_image=text("lk_server_image") or defaults.server_image,
        probe_image=text("lk_probe_image") or defaults.probe_image,
        origins=sources,
    )


def _given(config: pytest.Config) -> dict[str, tuple[Any, str]]:
    """Each option's value, and how it was given. What is typed is not empty: a variable of the shell was, which was to name
    something. Raises SettingsError."""
    return {option.name: found for option in OPTIONS if (found := _given_one(config, option)) is not None}


def _given_one(config: pytest.Config, option: Option) -> tuple[Any, str] | None:
    found = config.getoption(option.name, None) if option.command_line else None
    if found is None:
        found = _ini(config, option)
        return (found, option.name) if found not in (None, "", []) else None
    if option.name not in MAY_BE_EMPTY and not all(str(one).strip() for one in (found if isinstance(found, list) else [found])):
        raise SettingsError(f"{option.flag}: its value is empty; leave it away, or name what is meant")
    return found, option.flag


def _readable(config: pytest.Config, name: str) -> tuple[Any, str] | None:
    """The same of one option, where another one cannot be used."""
    try:
        return _given_one(config, BY_NAME[name])
    except SettingsError:
        return None


def json_path(config: pytest.Config) -> Path | None:
    """Where the verdict goes, though other values cannot be used; None: nowhere, or nobody can tell."""
    if (given := _readable(config, "lk_json")) is None:
        return None
    text, origin = str(given[0]).strip(), given[1]
    try:
        return values.file_to_write(values.path_of(config, text, origin), text, origin, None)
    except SettingsError:
        return None


def subject(config: pytest.Config) -> Subject:
    """What was to be judged, as it was given: of a command not even its words, of which some may be secrets."""
    for name in SUBJECTS:
        if (given := _readable(config, name)) is not None:
            known = [] if name == "lk_command" else given[0] if isinstance(given[0], list) else [given[0]]
            return Subject(name.removeprefix("lk_"), ", ".join(map(str, known)))
    return Subject("image", "")


def _ini(config: pytest.Config, option: Option) -> Any:
    """What an ini file says. TOML ([tool.pytest]) has numbers, truth values and single strings too, which pytest refuses, in
    several ways. Raises SettingsError."""
    import pytest

    try:
        return config.getini(option.name)
    except (TypeError, ValueError, pytest.UsageError):
        value = getattr(getattr(config, "_inicfg", {}).get(option.name), "value", None)
        if option.kind == "linelist" and isinstance(value, str):
            return [line.strip() for line in value.splitlines() if line.strip()]
        if option.kind != "linelist" and isinstance(value, (bool, int, float)):
            return str(value)
        wanted = "a list of strings" if option.kind == "linelist" else "a string"
        raise SettingsError(f"{option.name}: write it as {wanted}") from None


def _waiver(text: str, origin: str) -> Waiver:
    try:
        typed = origin.startswith("--")
        return replace(parse_waiver(text, needs_date=not typed), typed=typed)
    except ValueError as error:
        raise SettingsError(f"{origin}: {error}") from None


def _baseline(path: Path, origin: str) -> dict[str, Any]:
    from pytest_lkagents.report.baseline import read as read_verdict

    try:
        return read_verdict(path)
    except ValueError as error:
        raise SettingsError(f"{origin}: {error}") from None


# What goes with an image, and with nothing else.
OF_IMAGES = ("lk_image", "lk_from", "lk_cpus", "lk_memory")


def _settle_subject(given: dict[str, tuple[Any, str]]) -> None:
    """What is typed stands for the ini file's: a command for its image and all that goes with it, an image for its
    command."""
    typed = {name for name, (_, source) in given.items() if source.startswith("--")}
    if "lk_command" in typed:
        for name in OF_IMAGES:
            if name not in typed:
                given.pop(name, None)
    elif "lk_image" in typed:
        given.pop("lk_command", None)
