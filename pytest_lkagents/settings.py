"""Every option and ini value: declared once, validated once, frozen."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pytest_lkagents.checks import PROFILES, Waiver, parse_waiver
from pytest_lkagents.command_line import CommandError, parse

if TYPE_CHECKING:
    import pytest

PROBE_IMAGE = "pytest-lkagents/probe:1"
# What --lk-server may be besides a URL.
OWN_SERVERS = ("auto", "binary", "container")
SERVER_IMAGE = "livekit/livekit-server:v1.13.5"
LONGEST_HOLD = 3600.0
# Calls that a load check places where `lk_sessions` says nothing.
SESSIONS = 4
TRACES = ("steady", "daily", "burst")
LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1", "host.docker.internal"}


class SettingsError(ValueError):
    """A value that cannot be used; the message is one line and says what to do."""


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
    Option("lk_env_file", "file of NAME=VALUE lines for the worker's environment", metavar="FILE"),
    Option("lk_env", "one variable for the worker's environment; may be repeated", "linelist", "NAME=VALUE"),
    Option("lk_cpus", "CPU limit of the worker, in cores (default: none)", metavar="CORES"),
    Option("lk_memory", "memory limit of the worker, such as 2g or 512m (default: none)", metavar="SIZE"),
    Option("lk_server", "LiveKit server: auto, binary, container or a URL (default: auto)", metavar="SERVER"),
    Option("lk_sessions", "calls that a load check places at most (default: 4; 10 to fill a worker)", metavar="CALLS"),
    Option("lk_start_timeout", "seconds a worker has to register (default: 60)", metavar="SECONDS"),
    Option("lk_drain_hold", "how long a call is kept after the stop signal, such as 90s or 10m", metavar="TIME"),
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


@dataclass(frozen=True)
class Settings:
    """Seconds, cores and bytes throughout. ``env`` holds the env file's and ``--lk-env``'s variables.

    There is an ``image`` or a ``command`` (its words, as typed, and where it runs), never both.
    """

    image: str | None = None
    command: tuple[str, ...] = ()
    command_text: str = ""
    command_dir: Path | None = None
    from_image: str | None = None
    manifests: tuple[str, ...] = ()
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
        parser.addini(option.name, option.help, type=option.kind, default=None)  # type: ignore[arg-type]
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
    return " ".join(words)


def read(config: pytest.Config) -> Settings:
    """Validate everything once. Raises SettingsError."""
    given: dict[str, tuple[Any, str]] = {}
    for option in OPTIONS:
        value = config.getoption(option.name, None) if option.command_line else None
        source = option.flag
        if value is None:
            value, source = config.getini(option.name), option.name
        if value not in (None, "", []):
            given[option.name] = (value, source)

    _settle_subject(given)

    def text(name: str) -> str | None:
        return str(given[name][0]).strip() if name in given else None

    def origin(name: str) -> str:
        return given[name][1]

    def number(name: str, least: float, default: float | None) -> float | None:
        value = text(name)
        if value is None:
            return default
        try:
            parsed = float(value)
        except ValueError:
            parsed = float("nan")
        if not least <= parsed < 1e9:
            raise SettingsError(f"{origin(name)}: {value!r} is not a number of at least {least:g}")
        return parsed

    def port(name: str) -> int | None:
        value = text(name)
        if value is None:
            return None
        if not value.isdigit() or not 0 < int(value) < 65536:
            raise SettingsError(f"{origin(name)}: {value!r} is not a port (1 to 65535)")
        return int(value)

    def choice(name: str, allowed: tuple[str, ...], default: str) -> str:
        value = text(name)
        if value is None:
            return default
        if value not in allowed:
            raise SettingsError(f"{origin(name)}: {value!r} is not one of {', '.join(allowed)}")
        return value

    env: dict[str, str] = {}
    if (env_file := text("lk_env_file")) is not None:
        env.update(read_env_file(_path(config, env_file, origin("lk_env_file")), origin("lk_env_file")))
    for entry in given.get("lk_env", ([], ""))[0]:
        env.update([_variable(entry, origin("lk_env"))])
    waivers = []
    if "lk_waive" in given:
        entries, came_from = given["lk_waive"]
        for entry in entries:
            try:
                waivers.append(parse_waiver(entry, needs_date=not came_from.startswith("--")))
            except ValueError as error:
                raise SettingsError(f"{came_from}: {error}") from None
    json_path = None
    if (json_text := text("lk_json")) is not None:
        json_path = _path(config, json_text, origin("lk_json"))
        if json_path.is_dir() or not json_path.parent.is_dir() or not os.access(json_path.parent, os.W_OK):
            raise SettingsError(f"{origin('lk_json')}: cannot write {json_text!r}; name a file in an existing directory")
    report_dir = None
    if (report_text := text("lk_report")) is not None:
        report_dir = _path(config, report_text, origin("lk_report"))
        if not report_dir.is_dir() and (report_dir.exists() or not report_dir.parent.is_dir()):
            raise SettingsError(f"{origin('lk_report')}: {report_text!r} is no directory and cannot be made one")
    baseline_path, baseline = None, None
    if (baseline_text := text("lk_baseline")) is not None:
        baseline_path = _path(config, baseline_text, origin("lk_baseline"))
        from pytest_lkagents.report.baseline import read as read_verdict

        try:
            baseline = read_verdict(baseline_path)
        except ValueError as error:
            raise SettingsError(f"{origin('lk_baseline')}: {error}") from None
    health_path = text("lk_health_path") or "/"
    if not health_path.startswith("/"):
        raise SettingsError(f"lk_health_path: {health_path!r} does not start with a slash")
    command = None
    if (command_text := text("lk_command")) is not None:
        command = parse_command(command_text, origin("lk_command"), {name: source for name, (_, source) in given.items()})
    calls, sessions = number("lk_calls", 1, None), number("lk_sessions", 1, None)
    defaults = Settings()
    return Settings(
        image=text("lk_image"),
        command=command or (),
        command_text=command_text or "",
        command_dir=_path(config, ".", origin("lk_command")) if command else None,
        from_image=text("lk_from"),
        manifests=_manifests(config, *given.get("lk_manifests", ([], ""))),
        traces=_traces(config, *given.get("lk_traces", ([], ""))),
        calls=int(calls) if calls is not None else None,
        profile=choice("lk_profile", PROFILES, defaults.profile),
        suites=tuple(name.strip() for name in (text("lk_suite") or "").split(",") if name.strip()),
        agent_name=text("lk_agent_name"),
        metadata=text("lk_metadata") or "",
        attributes=dict(_attribute(entry, origin("lk_attribute")) for entry in given.get("lk_attribute", ([], ""))[0]),
        env=env,
        cpus=number("lk_cpus", 0.01, None),
        memory_bytes=_size(text("lk_memory"), origin("lk_memory") if "lk_memory" in given else ""),
        server=_server(text("lk_server") or defaults.server, text("lk_allow_remote")),
        start_timeout=number("lk_start_timeout", 1, defaults.start_timeout) or defaults.start_timeout,
        drain_hold=_duration(text("lk_drain_hold"), origin("lk_drain_hold") if "lk_drain_hold" in given else ""),
        strict=bool(given["lk_strict"][0]) if "lk_strict" in given else False,
        waivers=tuple(waivers),
        json_path=json_path,
        report_dir=report_dir,
        baseline_path=baseline_path,
        baseline=baseline,
        sessions=int(sessions) if sessions is not None else None,
        max_cpu_per_session=number("lk_max_cpu_per_session", 0.001, None),
        max_memory_per_session=_size(text("lk_max_memory_per_session"), "lk_max_memory_per_session", least=1024**2),
        load_threshold=number("lk_load_threshold", 0.01, None),
        health=choice("lk_health", ("optional", "required", "off"), defaults.health),
        health_port=port("lk_health_port"),
        health_path=health_path,
        metrics_port=port("lk_metrics_port"),
        exit_timeout=number("lk_exit_timeout", 1, defaults.exit_timeout) or defaults.exit_timeout,
        server_image=text("lk_server_image") or defaults.server_image,
        probe_image=text("lk_probe_image") or defaults.probe_image,
    )


def read_env_file(path: Path, origin: str) -> dict[str, str]:
    """NAME=VALUE lines as `docker run --env-file` reads them, with quotes around a value removed and an ``export``
    before the name allowed. A line is never quoted in an error: it may hold a secret."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingsError(f"{origin}: cannot read {str(path)!r}: {reason}") from None
    found: dict[str, str] = {}
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        found.update([_variable(line.removeprefix("export "), f"{origin}: line {number}")])
    return found


def _variable(text: str, origin: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not re.match(r"^[A-Za-z_][A-Za-z0-9_.-]*$", name):
        raise SettingsError(f"{origin}: expected NAME=VALUE")
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return name, value


def _attribute(text: str, origin: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SettingsError(f"{origin}: expected NAME=VALUE, such as sip.phoneNumber=+15550100")
    return name.strip(), value.strip()


def _manifests(config: pytest.Config, entries: list[str], origin: str) -> tuple[str, ...]:
    """Paths that are there; "-" is standard input."""
    found = []
    for entry in entries:
        if entry == "-":
            found.append(entry)
            continue
        path = _path(config, entry, origin)
        if not path.exists():
            raise SettingsError(f"{origin}: there is no {entry!r}; name a deployment file, a folder, or - for standard input")
        if not os.access(path, os.R_OK):
            raise SettingsError(f"{origin}: {entry!r} cannot be read")
        found.append(str(path))
    return tuple(found)


def _traces(config: pytest.Config, entries: list[str], origin: str) -> tuple[str, ...]:
    """Kinds of traces, and paths of CSV files, as the user names them."""
    found = []
    for entry in (part.strip() for given in entries for part in given.split(",")):
        if entry in TRACES:
            found.append(entry)
            continue
        path = _path(config, entry, origin)
        if not path.is_file():
            raise SettingsError(f"{origin}: {entry!r} is neither {', '.join(TRACES)} nor a CSV file of calls")
        found.append(str(path))
    return tuple(found)


def _path(config: pytest.Config, text: str, origin: str) -> Path:
    """Command-line paths are relative to where pytest was typed, ini paths to the ini file."""
    path = Path(text).expanduser()
    if path.is_absolute():
        return path
    base = config.invocation_params.dir if origin.startswith("--") else (config.inipath or config.rootpath / "x").parent
    return Path(base) / path


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


def parse_command(text: str, origin: str, others: dict[str, str]) -> tuple[str, ...]:
    """The command's words. ``others`` are the options given, by name, as they were given."""
    if "lk_from" in others:
        raise SettingsError(f"{others['lk_from']}: a command replaces no image; give --lk-image instead of it")
    if "lk_image" in others:
        raise SettingsError(f"{origin} and {others['lk_image']}: give one of them, there is one worker to judge")
    for option in ("lk_cpus", "lk_memory"):
        if option in others:
            raise SettingsError(f"{others[option]}: a process here cannot be limited; leave it away, or give --lk-image")
    try:
        return parse(text)
    except CommandError as error:
        raise SettingsError(f"{origin}: {error}") from None


# The engine refuses limits below 6 MB.
LEAST_MEMORY = 6 * 1024**2


def _size(text: str | None, origin: str, least: int = LEAST_MEMORY) -> int | None:
    if text is None:
        return None
    matched = re.match(r"^(\d+(?:\.\d+)?)\s*([kmg]?)i?b?$", text, re.IGNORECASE)
    size = int(float(matched[1]) * 1024 ** ("kmg".index(matched[2].lower()) + 1 if matched[2] else 0)) if matched else 0
    if size < least:
        raise SettingsError(f"{origin}: {text!r} is not a size of at least {least // 1024**2}m, such as 512m or 2g")
    return size


def _duration(text: str | None, origin: str) -> float | None:
    """Seconds from ``90``, ``90s`` or ``10m``; at most an hour, which is what the SDKs drain for."""
    if text is None:
        return None
    matched = re.match(r"^(\d+(?:\.\d+)?)\s*(s|m|h)?$", text, re.IGNORECASE)
    seconds = float(matched[1]) * {"s": 1, "m": 60, "h": 3600}[(matched[2] or "s").lower()] if matched else 0.0
    if not 1 <= seconds <= LONGEST_HOLD:
        raise SettingsError(f"{origin}: {text!r} is not a time from 1s to 60m, such as 90s or 10m")
    return seconds


def _server(text: str, allowed_host: str | None) -> str:
    if text in OWN_SERVERS:
        return text
    parts = urlsplit(text)
    if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
        raise SettingsError(f"--lk-server: {text!r} is not auto, binary, container or a URL such as ws://localhost:7880")
    if parts.hostname not in LOCAL_HOSTS | {allowed_host}:
        raise SettingsError(
            f"--lk-server: {parts.hostname} is not this machine and this tool places calls; "
            f"if that is meant, add --lk-allow-remote {parts.hostname}"
        )
    return text
