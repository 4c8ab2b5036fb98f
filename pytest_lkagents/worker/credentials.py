"""What in an image's files, variables and history is a credential. Each is named and never shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_lkagents.key_formats import PRIVATE_KEY, TOKENS
from pytest_lkagents.named_after_secrets import NAMED
from pytest_lkagents.secrets import (
    authorises,
    holds_secret,
    is_key,
    is_placeholder,
    is_token,
    is_written,
    looks_random,
    url_passwords,
)

# Distribution packages and installed libraries ship sample keys and test fixtures; they are not the user's secrets.
LIBRARIES = re.compile(
    r"(^|/)(site-packages|dist-packages|node_modules|usr/share|usr/lib|usr/include|lib/python3[^/]*|go/pkg|\.?cargo/registry|\.cargo"
    r"|pnpm/store|\.pnpm-store|\.bun/install|usr/local/go|go/src/crypto|\.cache/(uv|pip|pypoetry)|[^/]+\.(dist|egg)-info)/"
)
# Nor is the key that the distribution makes for a host which has none.
MADE_BY_PACKAGES = re.compile(r"(^|/)etc/ssl/private/ssl-cert-snakeoil\.key$")
# What a text says to a reader, or a test to the code that it tests.
SAMPLES = re.compile(
    r"(^|/)(tests?|__tests__|specs?|fixtures|examples?|docs?)/|(^|/)test_[^/]*$|[._](test|spec)\.[a-z]+$|\.(md|rst)$",
    re.IGNORECASE,
)
SETS_VARIABLES = re.compile(
    r"(^|/)\.env(rc|(\.[A-Za-z0-9_-]+)*)$|(^|/)[A-Za-z0-9_-]+\.env$|\.sh$|(^|/)\.(profile|(bash|zsh)(rc|_profile|_history))$"
    r"|(^|/)etc/environment$"
)
EXAMPLE = re.compile(r"(example|sample|template|dist)[^/]*$", re.IGNORECASE)
# In a folder of examples what a hand writes is none.
IN_EXAMPLES = re.compile(r"(example|sample|template)[^/]*/", re.IGNORECASE)
ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*[\"']?([^\"'\s#]+)")
# The same in a command, however it is quoted. What has blanks between its quotes is a sentence.
IN_COMMAND = re.compile(r"""\b([A-Za-z_][A-Za-z0-9_]*)=(?:\\?"([^"\s]+)"|\\?'([^'\s]+)'|([^\s"']+))""")
# An option's value in a command, behind it or as the next word, also of a list of quoted words.
OPTION = re.compile(r"""--([A-Za-z][\w-]*)(?:=|\s+|["']\s+["'])["']?([^\s"']+)""")
# A key as services make them; not another option, nor where one is: file:/run/secrets/key, env:KEY_2024, prod/key-2024.
OF_OPTION = re.compile(r"(?![-/.])[A-Za-z0-9+/=_.!~-]{10,}")
KNOWN_TO_ALL = re.compile(r"public|publishable|hash(?!i)|digest|checksum|fingerprint", re.IGNORECASE)
# In a file of variables, written as such.
LIVEKIT_VARIABLE = re.compile(rb"^(?:export\s+)?LIVEKIT_API_SECRET=([A-Za-z0-9+=]{24,})\s*$", re.MULTILINE)
# What a shell puts in, between quotes that let it and in any text; and a program's own words, up to where a quote begins.
EXPANDED = re.compile(r"\$[A-Za-z_]|`")
SUBSTITUTED = re.compile(r"\$[({]")
CALLED = re.compile(r"([A-Za-z_][\w.]*[\[(])+(\w*[\])].*)?$|([a-z_]+|[A-Za-z_]+(\.[A-Za-z_]+)+)(\)|,$)")
# Between a name and what is written out for it: of an argument, an entry, a variable of a certain type, or as a default, also
# for a variable of the environment (JavaScript's ?? and ||, Python's or), and within a document whose quotes are escaped.
SET_TO = (
    rb"""\\?["']?[\])]{0,2}(?:\s*:\s*[A-Za-z][\w.\[\], |]{0,30}?)?\s*(?:=>|:=|\?\?=?|\|\|=?|\bor\b|[:=,])\s*"""
    rb"""(?:[A-Za-z]\w*\((?:default=)?)?\\?["']"""
)
# LiveKit's own secret where it is written out: so, or in a line; and behind its key. As it is generated it has no dashes,
# slashes or underscores, which names of secrets and paths to them have.
LIVEKIT = re.compile(
    rb"""api_?secret""" + SET_TO + rb"""([A-Za-z0-9+=]{24,})\\?["']"""
    rb"""|^\s*(?:(?:export|ENV|ARG)\s+|-\s+)?LIVEKIT_API_SECRET\s*[:=]\s*([A-Za-z0-9+=]{24,})\s*$"""
    rb"""|["']API[A-Za-z0-9]{8,}["']\s*,\s*["']([A-Za-z0-9+=]{24,})["']""",
    re.IGNORECASE | re.MULTILINE,
)
# Other services' keys, written out likewise, as they call them in arguments and headers; as long as theirs are.
API_KEY = re.compile(
    rb"""(?:(?:api|speech|subscription)[-_]?key|auth[-_]?token)""" + SET_TO + rb"""([A-Za-z0-9]{24,})\\?["']""", re.IGNORECASE
)
# Lines of configuration, where values need no quotes: a key or secret as services and LiveKit generate them, behind a name that
# ends so; and LiveKit's own under ``keys:``, behind its key. What may be known to all, or is made of one, is none.
CONFIGURATION = re.compile(r"\.(ya?ml|toml|ini|conf|cfg)$")
LINE = re.compile(
    rb"""^[ \t]*(?:-[ \t]+)?["']?(?![\w.-]*(?:public|publishable|search_?only|docsearch|algolia[\w.-]*search|hash|digest"""
    rb"""|checksum|fingerprint))"""
    rb"""(?:[\w.-]*?(?:api_?key|(?:api|client)_?secret|secret_?key|(?:access|auth)_?token)|(?-i:API[A-Za-z0-9]{9,}))["']?"""
    rb"""[ \t]*[:=][ \t]*["']?([A-Za-z0-9+=]{24,})["']?[ \t]*(?:[#;].*)?\r?$""",
    re.IGNORECASE | re.MULTILINE,
)
# Files that hold nothing but somebody's access to a registry, a repository or a host.
ACCESS = (
    (re.compile(r"(^|/)\.npmrc$"), re.compile(r"_(?:authToken|auth|password)\s*=\s*[\"']?([^\s\"']+)")),
    (re.compile(r"(^|/)[._]netrc$"), re.compile(r"\bpassword\s+(\S+)")),
    (re.compile(r"(^|/)\.pypirc$"), re.compile(r"\bpassword\s*[:=]\s*(\S+)")),
    (re.compile(r"(^|/)\.docker/config\.json$"), re.compile(r"\"auth\"\s*:\s*\"([^\"]+)\"")),
)
WITH_URLS = re.compile(r"(^|/)(\.git-credentials|\.git/config|pip\.conf|\.pip/pip\.conf|\.pypirc|\.npmrc|\.yarnrc(\.yml)?)$")


# In a compiled Python module a short string follows its type and its length, one byte each: a letter, as it may happen, which
# would hide where a token begins. Source: CPython's Python/marshal.c, TYPE_SHORT_ASCII and its interned twin, with FLAG_REF.
SHORT_STRING = re.compile(rb"[zZ\xda\xfa](?=(.))", re.DOTALL)


def in_text(text: str) -> bool:
    """Whether a text, such as a variable's value, holds an access token, also in a header, a private key, or a URL with a
    password."""
    return bool(_tokens(text.encode("utf-8", "surrogateescape")) or url_passwords(text) or authorises(text))


def findings_in_words(config: Mapping[str, Any], history: Iterable[str], planted: Sequence[str]) -> list[str]:
    """What in an image's variables, labels and commands (``Config`` of its inspection) and in those that made it is a
    secret, in words without the value. ``planted`` are values that must not be in the image."""
    found = []
    variables = [tuple(entry.partition("=")[::2]) for entry in config.get("Env") or []]
    for kind, words in (("ENV", variables), ("label", (config.get("Labels") or {}).items())):
        for name, value in words:
            if holds_secret(name, value) or in_text(value) or any(plant in value for plant in planted):
                found.append(f"{kind} {name}")
    for what in ("Entrypoint", "Cmd"):
        found += [f"{what} {option}" for option in _secret_options(" ".join(config.get(what) or []))]
    for line in history:
        found += [f"history: {name}" for name in (*_assigned_in_command(line), *_secret_options(line))]
        if in_text(line):
            found.append("history: an access token, a private key, or a URL with a password")
        if any(plant in line for plant in planted):
            found.append("history: a value of the worker's environment")
    return found


def _assigned_in_command(line: str) -> Iterable[str]:
    """The names to which a command assigns a secret that is written out in it."""
    for name, double, single, bare in IN_COMMAND.findall(line):
        if EXPANDED.search(double):
            continue
        if single or _is_literal(double or bare):
            value = (double or single or bare).rstrip("\\")
            if holds_secret(name, value):
                yield name


def _secret_options(line: str) -> Iterable[str]:
    """The options to which a command gives a secret that is written out in it."""
    for name, value in OPTION.findall(line):
        written = OF_OPTION.fullmatch(value) and not NAMED.fullmatch(value) and not KNOWN_TO_ALL.search(name)
        if written and is_key(value) and holds_secret(name, value):
            yield f"--{name}"


def _is_literal(value: str) -> bool:
    return not (SUBSTITUTED.search(value) or CALLED.match(value))


def findings_in(path: str, data: bytes, planted: Sequence[str]) -> list[str]:
    """What in one file is a secret, in words without the value. ``planted`` are values that must not be in the image."""
    found = _planted_in(data, planted)
    if LIBRARIES.search(path) or MADE_BY_PACKAGES.search(path):
        return found
    if path.endswith(".pyc"):
        data = b"\n".join(_short_strings(data)) + data
    found += _tokens(data)
    if not SAMPLES.search(path):
        for written, kind in ((LIVEKIT, "a LiveKit API secret"), (API_KEY, "an API key")):
            if any(_generated(_word(match)) for match in written.finditer(data)):
                found.append(kind)
        if CONFIGURATION.search(path) and any(is_key(_word(match)) for match in LINE.finditer(data)):
            found.append("a key or secret of a service")
    text = data.decode("utf-8", "replace")
    if SETS_VARIABLES.search(path) and not EXAMPLE.search(path):
        found += _assigned(text, generated=bool(IN_EXAMPLES.search(path)))
    for where, what in ACCESS:
        if where.search(path) and any(not is_placeholder(value) for value in what.findall(text)):
            found.append("access to another service")
    if WITH_URLS.search(path) and url_passwords(text):
        found.append("a URL with a password")
    return found


def findings_in_version(data: bytes, planted: Sequence[str], *, own: bool) -> list[str]:
    """The same of a file that a repository keeps, or of a part of it, whose name is not known: it may be a test or an example.
    Only what is one anywhere counts, and a LiveKit API secret where nothing is done but to set variables. ``own``: the
    repository is the worker's; others have tokens for their tests."""
    found = _planted_in(data, planted)
    if not own:
        return found
    if any(is_token(token.decode("ascii")) for token in TOKENS.findall(data)):
        found.append("an access token")
    words = map(str.strip, data.decode("utf-8", "replace").splitlines())
    lines = [line for line in words if line and not line.startswith("#")]
    # A template of such a file has made-up values of other services.
    variables = LIVEKIT_VARIABLE.findall(data) if all(map(ASSIGNMENT.match, lines)) else []
    if any(_generated(secret.decode("ascii")) for secret in variables):
        found.append("a LiveKit API secret")
    return found


def _planted_in(data: bytes, planted: Sequence[str]) -> list[str]:
    there = any(value.encode("utf-8", "surrogateescape") in data for value in planted)
    return ["a value of the worker's environment"] if there else []


def _short_strings(data: bytes) -> Iterable[bytes]:
    """What may be one in a compiled module; where it is none, what comes of it is no token either."""
    for matched in SHORT_STRING.finditer(data):
        begin = matched.end() + 1
        string = data[begin : begin + matched[1][0]]
        if string.isascii():
            yield string


def _tokens(data: bytes) -> list[str]:
    found = ["a private key"] if PRIVATE_KEY.search(data) else []
    # Names of styles and packages look like tokens but for the digits.
    if any(_generated(token.decode("ascii")) for token in TOKENS.findall(data)):
        found.append("an access token")
    return found


def _generated(value: str) -> bool:
    return looks_random(value) and not is_written(value)


def _word(match: re.Match[bytes]) -> str:
    return next(group for group in match.groups() if group is not None).decode("ascii")


def _assigned(text: str, *, generated: bool) -> Iterable[str]:
    """What is set to a secret, one by its looks too if ``generated``."""
    for line in text.splitlines():
        matched = ASSIGNMENT.match(line)
        if matched is None or not _is_literal(matched[2]) or (generated and not is_key(matched[2])):
            continue
        if holds_secret(matched[1], matched[2]):
            yield f"{matched[1]} is set"
