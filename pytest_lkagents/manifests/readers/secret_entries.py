"""Entries of what platforms call a Secret: secrets, and the plain settings that lie beside them; and secrets in files that
others hold."""

from __future__ import annotations

import re

from pytest_lkagents.manifests.readers.common import from_outside
from pytest_lkagents.named_after_secrets import is_setting
from pytest_lkagents.secrets import POINTER, STORED, as_variable, holds_secret, is_placeholder, looks_generated, looks_secret

# Names of settings that lie in a Secret beside what is secret, and values of such: an address without a password, a word.
SETTING = re.compile(
    r"(^|_)(REGION|URL|URI|HOST|HOSTNAME|DOMAIN|ENDPOINT|PORT|IP|ENV|USER|USERNAME|EMAIL|NAME|MODEL|LEVEL|ID)$"
)
ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]*://(?![^/\s]*:[^/\s]*@)\S*|([a-z0-9-]+\.)+[a-z]{2,}(:\d+)?|[\d.]+(:\d+)?", re.IGNORECASE
)
WORD = re.compile(r"[A-Z]?[a-z]+([-_ .][a-z]+)*")
KEY = re.compile(r"PASS|PWD|KEY")
# One setting in a file of most formats: NAME=value, name = "value", name: value. What is more than a word is none: a call in a
# script, a path.
LINE = re.compile(r"""^\s*(?:export\s+)?["']?([A-Za-z][\w.-]*)["']?\s*[:=]\s*["']?([\w+/=-]+)["']?,?;?\s*$""", re.MULTILINE)


def is_stored(name: str, text: str) -> bool:
    """Whether an entry of a Secret is a secret's value: no stand-in, template, reference or address, not encrypted, and no
    plain setting by its name or value."""
    plain = as_variable(name).upper()
    # Digits alone may be a password.
    address = ADDRESS.fullmatch(text) and not (text.isdigit() and looks_secret(plain))
    if is_placeholder(text) or STORED.match(text) or "{{" in text or "${" in text or address:
        return False
    if is_setting(plain, text):
        return False
    if (looks_secret(plain) or KEY.search(plain)) and not POINTER.search(plain):
        return True
    # A password in it makes any address a secret.
    return "://" in text or not (SETTING.search(plain) or WORD.fullmatch(text))


def settings_in(text: str) -> list[tuple[str, int]]:
    """The names of a file's settings that are secrets, each with its line, counted from 0."""
    return [
        (found[1], text.count("\n", 0, found.start(1)))
        for found in LINE.finditer(text)
        if not from_outside(found[2]) and holds_secret(found[1], found[2]) and looks_generated(found[2])
    ]
