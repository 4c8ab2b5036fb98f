"""Entries of what platforms call a Secret: secrets, and the plain settings that lie beside them."""

from __future__ import annotations

import re

from pytest_lkagents.named_after_secrets import is_setting
from pytest_lkagents.secrets import POINTER, STORED, as_variable, is_placeholder, looks_secret

# Names of settings that lie in a Secret beside what is secret, and values of such: an address without a password, a word.
SETTING = re.compile(
    r"(^|_)(REGION|URL|URI|HOST|HOSTNAME|DOMAIN|ENDPOINT|PORT|IP|ENV|USER|USERNAME|EMAIL|NAME|MODEL|LEVEL|ID)$"
)
ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]*://(?![^/\s]*:[^/\s]*@)\S*|([a-z0-9-]+\.)+[a-z]{2,}(:\d+)?|[\d.]+(:\d+)?", re.IGNORECASE
)
WORD = re.compile(r"[A-Z]?[a-z]+([-_ .][a-z]+)*")
KEY = re.compile(r"PASS|PWD|KEY")


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
