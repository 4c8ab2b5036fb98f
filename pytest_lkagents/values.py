"""Values as they are typed or stand in an ini file: from text to what is meant, or one line that says what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytest_lkagents.command_line import CommandError, parse
from pytest_lkagents.manifests import STANDARD_INPUT

if TYPE_CHECKING:
    import pytest

# From a path as it is given, and how, to where it is.
Paths = Callable[[str, str], Path]
# What --lk-server may be besides a URL.
OWN_SERVERS = ("auto", "binary", "container")
LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1", "host.docker.internal"}
TRACES = ("steady", "daily", "burst")
LONGEST_HOLD = 3600.0
# No figure that is asked for is larger.
LARGEST = 1e9
# Of a value that cannot be used so much is shown.
SHOWN = 60


class SettingsError(ValueError):
    """A value that cannot be used; the message is one line and says what to do."""


def number(text: str, origin: str, least: float, most: float = LARGEST) -> float:
    try:
        parsed = float(text)
    except ValueError:
        parsed = float("nan")
    if not least <= parsed <= most:
        bound = f"at least {least:g}" if most == LARGEST and not parsed > most else f"{least:g} to {most:g}"
        raise SettingsError(f"{origin}: {text[:SHOWN]!r} is not a number of {bound}")
    return parsed


def whole(text: str, origin: str, most: int) -> int:
    return _whole(text, origin, most, f"a whole number of 1 to {most}")


def port(text: str, origin: str) -> int:
    return _whole(text, origin, 65535, "a port (1 to 65535)")


def _whole(text: str, origin: str, most: int, wanted: str) -> int:
    # Of thousands of digits Python makes no whole number.
    if not text.isdecimal() or not 1 <= float(text) <= most:
        raise SettingsError(f"{origin}: {text[:SHOWN]!r} is not {wanted}")
    return int(float(text))


def choice(text: str, origin: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise SettingsError(f"{origin}: {text!r} is not one of {', '.join(allowed)}")
    return text


def names(text: str, origin: str) -> tuple[str, ...]:
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise SettingsError(f"{origin}: {text[:SHOWN]!r} names nothing; leave it away, or name suites or checks")
    return found


def yes_or_no(value: object, origin: str) -> bool:
    """An option without a value, or a word in an ini file."""
    text = str(value).strip().lower()
    if text not in ("1", "yes", "true", "on", "0", "no", "false", "off"):
        raise SettingsError(f"{origin}: {value!r} is neither true nor false")
    return text in ("1", "yes", "true", "on")


def path_of(config: pytest.Config, text: str, origin: str) -> Path:
    """Command-line paths are relative to where pytest was typed, ini paths to the ini file."""
    base = config.invocation_params.dir if origin.startswith("--") else (config.inipath or config.rootpath / "x").parent
    try:
        path = Path(base) / Path(text).expanduser()
    except RuntimeError:
        raise SettingsError(f"{origin}: {text[:SHOWN]!r} is no path: there is no such user with a home folder") from None
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # what it has to be is for others to say
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a sign that no path has"
        raise SettingsError(f"{origin}: {text[:SHOWN]!r} is no path: {reason}") from None
    return path


def file_to_write(path: Path, text: str, origin: str, folder: Path | None) -> Path:
    """``folder``: one that will be there when it is written (``folder_to_write``)."""
    there = path.exists()
    if folder is not None and not folder.exists() and path.parent.resolve() == folder.resolve():
        return path
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if there else path.parent, os.W_OK):
        raise SettingsError(f"{origin}: cannot write {text!r}; name a file in an existing directory")
    return path


def folder_to_write(path: Path, text: str, origin: str) -> Path:
    if not path.is_dir() and (path.exists() or not path.parent.is_dir()):
        raise SettingsError(f"{origin}: {text!r} is no directory and cannot be made one")
    if not os.access(path if path.is_dir() else path.parent, os.W_OK):
        raise SettingsError(f"{origin}: cannot write into {text!r}")
    return path


def read_env_file(path: Path, origin: str) -> dict[str, str]:
    """NAME=VALUE lines as `docker run --env-file` reads them, with quotes around a value removed and an ``export``
    before the name allowed. A line is never quoted in an error: it may hold a secret."""
    try:
        # Editors of other systems put a byte order mark before the first name.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingsError(f"{origin}: cannot read {str(path)!r}: {reason}") from None
    found: dict[str, str] = {}
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        found.update([variable(line.removeprefix("export "), f"{origin}: line {number}")])
    return found


def variable(text: str, origin: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if "\0" in value:
        raise SettingsError(f"{origin}: a NUL in the value, which no variable can hold")
    if not equals or not re.match(r"^[A-Za-z_][A-Za-z0-9_.-]*$", name):
        raise SettingsError(f"{origin}: expected NAME=VALUE")
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return name, value


def attribute(text: str, origin: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SettingsError(f"{origin}: expected NAME=VALUE, such as sip.phoneNumber=+15550100")
    return name.strip(), value.strip()


def manifest(path: Paths, text: str, origin: str) -> str:
    """A path that is there; "-" is standard input."""
    if text == STANDARD_INPUT:
        return text
    found = path(text, origin)
    if not found.exists():
        raise SettingsError(f"{origin}: there is no {text!r}; name a deployment file, a folder, or - for standard input")
    if not os.access(found, os.R_OK):
        raise SettingsError(f"{origin}: {text!r} cannot be read")
    return str(found)


def traces(path: Paths, entries: list[str], origin: str) -> tuple[str, ...]:
    """Kinds of traces, and paths of CSV files, as the user names them."""
    found = []
    for entry in (part.strip() for given in entries for part in given.split(",")):
        if entry in TRACES:
            found.append(entry)
            continue
        file = path(entry, origin)
        if not file.is_file():
            raise SettingsError(f"{origin}: {entry!r} is neither {', '.join(TRACES)} nor a CSV file of calls")
        found.append(str(file))
    return tuple(found)


def url_path(text: str, origin: str) -> str:
    """A path as requests have it: what HTTP does not take would read as an endpoint that does not answer."""
    if not re.fullmatch(r"/[!-~]*", text):
        raise SettingsError(
            f"{origin}: {text[:SHOWN]!r} is not a slash and then ASCII without blanks, such as /healthz (others as in %20)"
        )
    return text


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
# No machine has more.
MOST_MEMORY = 1024**5


def size(text: str, origin: str, least: int = LEAST_MEMORY) -> int:
    """Bytes from ``512m`` or ``2g``."""
    matched = re.match(r"^(\d+(?:\.\d+)?)\s*([kmg]?)i?b?$", text, re.IGNORECASE)
    found = float(matched[1]) * 1024 ** ("kmg".index(matched[2].lower()) + 1 if matched[2] else 0) if matched else 0
    if not least <= found <= MOST_MEMORY:
        bound = f"at least {least // 1024**2}m" if found < least else f"at most {MOST_MEMORY // 1024**3}g"
        raise SettingsError(f"{origin}: {text[:SHOWN]!r} is not a size of {bound}, such as 512m or 2g")
    return int(found)


def duration(text: str, origin: str) -> float:
    """Seconds from ``90``, ``90s`` or ``10m``; at most an hour, which is what the SDKs drain for."""
    matched = re.match(r"^(\d+(?:\.\d+)?)\s*(s|m|h)?$", text, re.IGNORECASE)
    seconds = float(matched[1]) * {"s": 1, "m": 60, "h": 3600}[(matched[2] or "s").lower()] if matched else 0.0
    if not 1 <= seconds <= LONGEST_HOLD:
        raise SettingsError(f"{origin}: {text[:SHOWN]!r} is not a time from 1s to 60m, such as 90s or 10m")
    return seconds


def server(text: str, origin: str, allowed_host: str | None) -> str:
    """One of OWN_SERVERS, or a URL of this machine or of the host that is allowed, with scheme and host in small letters. No
    password is shown."""
    if text in OWN_SERVERS:
        return text
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("ws", "wss", "http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
        parts = urlsplit("")
    if "@" in text:
        raise SettingsError(
            f"{origin}: a URL without user and password is wanted; give LIVEKIT_API_KEY and _SECRET by --lk-env"
        )
    if not known:
        raise SettingsError(f"{origin}: {text!r} is not auto, binary, container or a URL such as ws://localhost:7880")
    if parts.hostname not in LOCAL_HOSTS | {(allowed_host or "").lower()}:
        raise SettingsError(
            f"{origin}: {parts.hostname} is not this machine and this tool places calls; "
            f"if that is meant, add --lk-allow-remote {parts.hostname}"
        )
    return parts._replace(netloc=parts.netloc.lower()).geturl()
