"""Entries of what platforms call a Secret: secrets, and the plain settings that lie beside them; and what is secret in entries
of ConfigMaps and the like."""

from __future__ import annotations

import re
import urllib.parse

from pytest_lkagents.manifests.model import StoredSecret
from pytest_lkagents.manifests.readers.common import from_outside
from pytest_lkagents.manifests.tree import Node
from pytest_lkagents.manifests.yaml_files import place_in
from pytest_lkagents.named_after_secrets import is_setting
from pytest_lkagents.secrets import (
    POINTER,
    STORED,
    URL_LOGIN,
    as_variable,
    holds_key,
    is_a_name,
    is_placeholder,
    is_secret,
    looks_generated,
    looks_secret,
    stands_in,
    url_passwords,
)

# Names of settings that lie in a Secret beside what is secret, and values of such: an address without a password, a word.
SETTING = re.compile(
    r"(^|_)(REGION|URL|URI|HOST|HOSTNAME|DOMAIN|ENDPOINT|PORT|IP|ENV|USER|USERNAME|EMAIL|NAME|MODEL|LEVEL|ID)$"
)
ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]*://(?![^/\s]*:[^/\s]*@)\S*|([a-z0-9-]+\.)+[a-z]{2,}(:\d+)?|[\d.]+(:\d+)?", re.IGNORECASE
)
# Names of databases and of places in a file system, which are plain as well where their values are such.
PLACED = re.compile(r"(^|_|PG)(DATABASE|DB|SCHEMA|USER|PATH|DIR|DIRECTORY|FOLDER|FILE)$")
PLACE = re.compile(r"[a-z]\w*([.-]\w+)*|(\.{0,2}|~)(/[\w.-]+)+/?", re.IGNORECASE)
WORD = re.compile(r"[A-Z]?[a-z]+([-_ .][a-z]+)*")
KEY = re.compile(r"PASS|PWD|KEY")
# One setting in a file of most formats: NAME=value, name = "value", name: value. What is more than a word is none: a call in a
# script, a path.
LINE = re.compile(r"""^[ \t]*(?:export\s+)?["']?([A-Za-z][\w.-]*)["']?\s*[:=]\s*["']?([\w+/=-]+)["']?,?;?\s*$""", re.MULTILINE)


def is_stored(name: str, text: str) -> bool:
    """Whether an entry of a Secret is a secret's value: no stand-in, template, reference or address, not encrypted, and no
    plain setting by its name or value."""
    plain = as_variable(name).upper()
    # Digits alone may be a password.
    address = ADDRESS.fullmatch(text) and not (text.isdigit() and looks_secret(plain))
    if is_placeholder(text) or is_a_name(plain, text) or STORED.match(text) or "{{" in text or "${" in text or address:
        return False
    if is_setting(plain, text):
        return False
    # A certificate is shown to everybody, and a key's first line alone stands for one.
    if text.startswith("-----BEGIN "):
        return holds_key(text)
    if (looks_secret(plain) or KEY.search(plain)) and not POINTER.search(plain):
        return True
    # A password in it makes any address a secret, but for one that is still to come.
    logins = URL_LOGIN.findall(text)
    if logins and all(stands_in(urllib.parse.unquote(password)) for _, password, _ in logins):
        return False
    if PLACED.search(plain) and PLACE.fullmatch(text) and not looks_generated(text):
        return False
    return "://" in text or not (SETTING.search(plain) or WORD.fullmatch(text))


def secrets_in(name: str, entry: Node) -> list[StoredSecret]:
    """What is secret in an entry of a ConfigMap or the like: its value, or lines of a file that is kept in it. In words
    that do not show it."""
    return [StoredSecret(what, place_in(entry, at)) for what, at in secret_lines(name, entry.text() or "")]


def secret_lines(name: str, text: str) -> list[tuple[str, int]]:
    """The same of any text of this name, a value or a file, each with its line, counted from 0."""
    lines = text.split("\n")
    found = _settings_in(text) if len(lines) > 1 else [(name, 0)] if _is_secret(name, text) else []
    if not found and holds_key(text):
        # Whatever the format. A private key is told by two lines.
        spans = [(at, lines[at : at + together]) for together in (1, 2) for at in range(len(lines))]
        found.append((name, next((at for at, span in spans if holds_key("\n".join(span))), 0)))
    with_password = [at for at, line in enumerate(lines) if url_passwords(line)]
    return found + [(f"a password in the URL of {name}", at) for at in with_password[:1]]


def _is_secret(name: str, value: str) -> bool:
    return not from_outside(value) and is_secret(name, value)


def _settings_in(text: str) -> list[tuple[str, int]]:
    """The names of a file's settings that are secrets, each with its line, counted from 0."""
    return [
        (found[1], text.count("\n", 0, found.start(1)))
        for found in LINE.finditer(text)
        if _is_secret(found[1], found[2]) and looks_generated(found[2])
    ]
