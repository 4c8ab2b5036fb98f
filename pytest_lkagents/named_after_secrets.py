"""Settings that are named after a secret: how long it is valid, who may read it, how many tokens of a model there may be,
what a caller is told of it.

Name and value must both say so: another value may be the secret of what the ending names (DB_PASSWORD_APP_ROLE).
"""

from __future__ import annotations

import re

# What ends in this is an amount, and what ends in that a name.
AMOUNTS = re.compile(
    r"_(SECONDS?|SECS?|S|MS|MILLIS(ECONDS)?|MINUTES?|HOURS?|DAYS?|LIFETIME|DURATION|INTERVAL|TIMEOUT|AGE|LENGTH|SIZE|ROTATION"
    r"|EXPIRES?(_(IN|AT))?|VALIDITY|LEEWAY|SKEW|QUOTA|BUDGET|PROJECT)$",
    re.IGNORECASE,
)
NAMES = re.compile(
    r"_(ROLE|PROJECT|ROTATION|METHOD|ENGINE|NAMESPACE|BUCKET|STRATEGY|POLICY|KIND|VALIDATION|CHECK|HASHER|GRANT|EXPIRES)$",
    re.IGNORECASE,
)
PASSWORD = re.compile(r"PASSW|SECRET_?KEY", re.IGNORECASE)
# Whose password it may be.
OWNER = re.compile(r"_(ROLE|PROJECT)$", re.IGNORECASE)
UNIT = r"(ms|[smhdwy]|sec(ond)?s?|min(ute)?s?|hours?|days?|weeks?|months?|years?|bytes?|bits?|char(acter)?s?)"
AMOUNT = re.compile(rf"\d[\d_,.]*(\s*{UNIT}(\s*\d+\s*{UNIT})*)?|P(\d+[DWMY])*(T(\d+[HMS])+)?", re.IGNORECASE)
# As no key is written, whatever its name ends in; a password may be.
SPAN = re.compile(r"\d{1,6}[ -]?(second|minute|hour|day|week|month|year)s?", re.IGNORECASE)
SWITCH = re.compile(r"(en|dis)abled|required|optional", re.IGNORECASE)
PART = r"([A-Za-z][a-z]*|\d{1,6}|[a-z]{1,2}\d{1,4}[a-z]?)"
NAMED = re.compile(rf"{PART}([-_./ ]{PART})*")
# How many tokens of a language model, and which of its own mark something (EOU_TOKEN=end-of-utterance).
TOKENS = re.compile(
    r"(^|_)(MAX|MIN|NUM|TOTAL|INPUT|OUTPUT|CONTEXT|PROMPT|COMPLETION|REASONING|THINKING|LIMIT|DAILY|HOURLY|MONTHLY)"
    r"_((?!API_|ACCESS_|AUTH_)\w+_)?TOKENS$|(^|_)TOKENS?_PER_[A-Z]+$|(^|_)MAX_TOKENS?_\w+$|(^|_)(MAX|MIN|NUM)_(\w+_)?TOKEN$",
    re.IGNORECASE,
)
OF_MODEL = re.compile(r"(^|_)(EOU|EOT|EOS|BOS|PAD|UNK|STOP|START|END|END_OF_[A-Z]+)_TOKEN$", re.IGNORECASE)
MARK = re.compile(r"[a-z]+([-_ ][a-z]+)*|[A-Z]+([-_ ][A-Z]+)*|\[\w+\]|<\|?\w+\|?>")
# What is read out or shown, in three words or more, none of which could be a key. A password's text may be a passphrase.
SAID = re.compile(r"(^|_)(PROMPT|MESSAGE|HINT|GREETING|HOURS|INSTRUCTIONS?|DESCRIPTION|TEXT|NOTE)$", re.IGNORECASE)
ITS_TEXT = re.compile(
    r"(PASSWORDS?|PASSWD|PASS|PASSPHRASE|SECRETS?|KEYS?|TOKEN|CREDENTIALS?|MNEMONIC)_(TEXT|NOTE)$", re.IGNORECASE
)
# Google writes passwords for programs as four times four letters.
SENTENCE = re.compile(
    r"(?!.*\b(?=\w*\d)(?=\w*[A-Za-z])\w{6,})(?![a-z]{4}(\s+[a-z]{4}){3}$)(?![{\[])\S+(\s+\S+){2,}", re.DOTALL | re.IGNORECASE
)


def is_setting(name: str, value: str) -> bool:
    """``name`` with underscores between its words."""
    if SWITCH.fullmatch(value) or (SPAN.fullmatch(value) and not PASSWORD.search(name)):
        return True
    if SAID.search(name) and not ITS_TEXT.search(name) and SENTENCE.fullmatch(value.strip()):
        return True
    of_owner = PASSWORD.search(name) and OWNER.search(name)
    if AMOUNT.fullmatch(value):
        # Cloud projects have numbers, too.
        return bool(TOKENS.search(name) or (AMOUNTS.search(name) and not of_owner))
    if NAMES.search(name) and NAMED.fullmatch(value):
        return not of_owner
    return bool(OF_MODEL.search(name) and MARK.fullmatch(value))
