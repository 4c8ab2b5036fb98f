"""Secret values: recognising their names, generating them, and keeping them out of everything that is shown."""

from __future__ import annotations

import base64
import json
import re
import secrets
import urllib.parse
from typing import Any

from pytest_lkagents.key_formats import NOT_ALONE, PIECE, PREFIX, PRIVATE_KEY, ROW, SIGNS, TOKENS
from pytest_lkagents.named_after_secrets import NAMED, is_setting

# Tokenizers, secretaries and what works without a password have names of their own.
SECRET_NAME = re.compile(
    r"(SECRET(?!AR[YI])|(?<!TIK)TOKEN(?!IZ)|PASSWORD(?!LESS(_?(LOGIN|SIGN_?IN|ENABLED|MODE|FLOW|URL))?$)|PASSWD|PRIVATE|"
    r"CREDENTIAL|API_?KEY|ACCESS_?KEY|AUTH_?KEY)",
    re.IGNORECASE,
)

# Keys that are called after what they are for. So are names of keys in stores: the value has to look like a key, too, and be
# no fingerprint, name or public part of one.
KEY_NAME = re.compile(r"^(?!.*(KMS|GPG|PGP))(.*_)?(ENCRYPTION|SIGNING|FERNET|MASTER|SERVICE_ROLE)_?KEY$", re.IGNORECASE)
NAMES_KEY = re.compile(r"-----BEGIN |(ssh|ecdsa)-|mrk-[0-9a-f]{32}$|[a-z]+-?kms://|[0-9A-F]{40}$")

# What is hidden may be more than what is a leak: this word is in names of places too (PRIVATE_SUBNET, PGHOST_PRIVATE).
# At the end it is a key behind words of keys alone.
PRIVATE = re.compile(
    r"PRIVATE(?!_?(KEY|PEM|B64|BASE64)|$)|^GOPRIVATE$"
    r"|(?<!VAPID)(?<!WG)(?<!JWT)(?<!RSA)(?<!EC)(?<!ED25519)(?<!SSH)(?<!SIGNING)(?<!WALLET)_PRIVATE$",
    re.IGNORECASE,
)

# What tools for web sites put into pages, and what Firebase has there: keys that everybody is given. A secret or a password
# that is called so is one that everybody is given by mistake.
PUBLIC = re.compile(
    r"^((NEXT|NUXT|EXPO)_PUBLIC|VITE|REACT_APP|GATSBY|PUBLIC)_(?!.*(SECRET|PASSW|PRIVATE|CREDENTIAL))"
    r"|(^|_)FIREBASE_(WEB_)?API_?KEY$",
    re.IGNORECASE,
)

# Shorter values ("1", "true", "dev") are no secrets, and masking them would make every report unreadable.
SHORTEST_SECRET = 4
SHORTEST_OTHER = 6
# Of a value of several lines (a private key) each line is hidden too: output is shown line by line.
SHORTEST_LINE = 16
# The first line of a private key has 64 signs or more; what has fewer than this stands for one.
SHORTEST_PEM = 48
# What every ``livekit-server --dev`` has for its key and secret is a secret to nobody (cmd/server/main.go).
KNOWN_TO_ALL = frozenset(("devkey", "secret"))


def looks_secret(name: str) -> bool:
    """Whether an environment variable of this name usually holds a secret."""
    return bool(SECRET_NAME.search(name))


# Names that only point to a secret, and values that stand for one that is still to come.
POINTER = re.compile(
    r"_(FILE|PATH|DIR|NAMES?|USERNAME|HOST|DOMAIN|SERVER|REGISTRY|MOUNT|ARN|URL|URI|TTL|TYPE|ID|PARALLELISM|COUNT|LIMIT|ENDPOINT|SOURCE|BACKEND|PROVIDER"
    r"|PUBLIC_?KEYS?|REGION|ISSUER|AUDIENCES?|ALG|ALGORITHM|FORMAT|ENCODING|HEADER|PREFIX|SCOPE|SCOPES|MODEL|MODE|VERSION|MANAGER|STORE"
    r"|EXPIRY|EXPIRATION)$",
    re.IGNORECASE,
)
# Where something is: a file, an object of a cluster by its namespace and name, or an address, which holds a secret only with a
# password or a query.
PLACE = re.compile(
    r"^(\.{0,2}/|~/|[\w./-]+\.(json|ya?ml|toml|ini|env|txt|pem|key|crt|p12|pfx)$|https?://[^@?]*$"
    r"|(?-i:[a-z]+(-[a-z]+)*/[a-z]+\d{0,2}([-.][a-z0-9]+)*$))",
    re.IGNORECASE,
)
PLACEHOLDER = re.compile(
    r"^(<.*>?|[$`%].*|x{3,}.*|.*x{8,}|sk-ant-\w+-x{3,}.*|\*{3,}.*|change.?me.*|.*placeholder.*|.*dummy.*|.*example.*"
    r"|(.*[-_ ])?replace[-_ ]?(me|this|with|by).*|replace.?|lm-studio|none|null|true|false|unset"
    r"|(?-i:__([A-Z][A-Z0-9_]*|[a-z_]+)__)|\{\{.*\}\}|\{\w+\}|#\{.*\}#?|@@\w+@@"
    r"|\[?redacted\]?|undefined|override[-_ ]?me|dev[-_]?(secret|key)|(api|access|auth|client)[-_ ](secret|key|token)"
    r"|not[-_ ]?an?[-_ ](real[-_ ]|valid[-_ ])?(api[-_ ])?(secret|key|token|password)"
    r"|(set|given|passed|loaded|mounted|injected|provided|supplied|configured)[-_ ](at|on)[-_ ]"
    r"(run[-_ ]?time|start(up)?|deploy(ment)?))$",
    re.IGNORECASE,
)
# What stands for one in words. Such words stand in passwords too, which have digits among their letters.
IN_WORDS = re.compile(
    r"^((.*[-_ ])?(your|replaced?)([-_ .].*)?|.*x{4,}|(put|insert|fill|todo|tbd)[-_ ].*|.*[-_]here"
    r"|set[-_ ](me|this|a|the|in|by)([-_ ].*)?|(.*[-_ ])?change([-_ ]?me|[-_ ](this|it|in|before))([-_ ].*)?"
    r"|(to|must|will)[-_ ]be[-_ ](set|given|injected|provided|supplied|defined|filled|changed|overridden)([-_ ].*)?"
    r"|not[-_ ]?(needed|required|used|set).*|.*no[-_]key.*|fake.*|unused.*|build[-_ ]?(time|only).*)$",
    re.IGNORECASE,
)
# A number that people write between such words, or in one: a counter (0001), a length (256), a name (auth0), the first digits.
DIGIT = re.compile(r"\d")
NUMBER = re.compile(r"[A-Za-z]*\d{1,3}[A-Za-z!]*|0*\d{1,2}|(19|20)\d\d|12(3(4(5(6(7(8(90?)?)?)?)?)?)?)?")
# The host of an address, where names of projects are made of any words.
PLACEHOLDER_HOST = re.compile(
    r"^(.*<.*|[$`%{].*|x{3,}.*|\*{3,}.*|change.?me.*|(.*[-_.])?your[-_.].*|.*placeholder.*|dummy\b.*|.*example.*"
    r"|replace[-_]?(me|this|with)([-_.].*)?)$",
    re.IGNORECASE,
)
# What names an entry of a store (Vault, 1Password, vals, AWS, Google, Azure), or is encrypted (SOPS, App Platform, KMS of AWS,
# SealedSecrets: the length of an RSA key's block, and that block).
STORED = re.compile(
    r"^(ENC\[|EV\[|vault:|op://|ref\+|(aws|gcp)?(ssm|sm|secrets?manager):/|arn:aws[\w-]*:(secretsmanager|ssm|kms):"
    r"|projects/[^/]+/(secrets|locations)/|@Microsoft\.KeyVault\(|[\w-]+@azurekeyvault(\?|$)"
    r"|(?-i:AQICAH[g-j][\w+/]{100,}={0,2}$|A[gQ][A-D][A-Za-z0-9+/]{340,}={0,2}$))",
    re.IGNORECASE,
)
SHORTEST_CREDENTIAL = 8
# User, password and host of an address.
URL_LOGIN = re.compile(r"[a-z0-9]://([^/\s:@\"']*):([^/\s@\"'{}<>]+)@(?=([\w.-]*))", re.IGNORECASE)


def stands_in(value: str) -> bool:
    """Whether a value stands for one that is still to come."""
    if PLACEHOLDER.match(value):
        return True
    parts = re.split(r"[-_ .]+", value)
    numbers = (part for part in parts if DIGIT.search(part))
    return bool(IN_WORDS.match(value)) and all(NUMBER.fullmatch(part) or ROW.search(part) for part in numbers)


def is_placeholder(value: str) -> bool:
    """Whether a value is too short or too plainly a stand-in to be a credential."""
    return len(value) < SHORTEST_CREDENTIAL or stands_in(value)


# What a program asks for in its own words, as ``python -c`` does in a command: ``os.environ["TOKEN"]``, ``process.env.TOKEN``.
CODE = re.compile(r"^(process|import\.meta|Deno|Bun)\.env\b|^([A-Za-z_]\w*\.)+[A-Za-z_]\w*[\[(]")


# Names in camel case, or with dashes and dots, as keys of files and labels have them.
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
APART = re.compile(r"[.-]")


def as_variable(name: str) -> str:
    """The name with underscores between its words, as variables have them."""
    return APART.sub("_", CAMEL.sub("_", name))


def holds_secret(name: str, value: str) -> bool:
    """Whether this variable of an image really carries a credential, judged by name and value."""
    name = as_variable(name)
    named = looks_secret(PRIVATE.sub("", name)) or (KEY_NAME.search(name) and _looks_like_key(value))
    if not named or any(of.search(name) for of in (PUBLIC, POINTER)) or is_setting(name, value):
        return False
    return not (is_placeholder(value) or is_a_name(name, value) or any(of.search(value) for of in (PLACE, STORED, CODE)))


def _looks_like_key(value: str) -> bool:
    """Whether it is one by itself: names of keys have numbers too, between words."""
    return looks_generated(value) and not (NAMES_KEY.match(value) or NAMED.fullmatch(value))


# As variables of services are called.
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z]+)*_(API_KEY|API_SECRET|ACCESS_KEY|AUTH_TOKEN|ACCESS_TOKEN)")


def is_a_name(name: str, value: str) -> bool:
    """A secret's: its own, or the end of it (``OPENAI_API_KEY=openai-api-key``, ``HOOKS_CLIENT_SECRET=client-secret``; of one
    word alone, ``PASSWORD=password``, it may be meant), or another variable's."""
    words = value.upper().replace("-", "_")
    its_own = "_" in words and f"_{name.upper()}".endswith(f"_{words}")
    return its_own or bool(VARIABLE.fullmatch(value))


# Of one kind of letters each, as words are written.
WORDS = re.compile(r"^([a-z]+|[A-Z]+|[A-Z][a-z]+)([-_. ]([a-z]+|[A-Z]+|[A-Z][a-z]+))*$")


def can_be_told(name: str, value: str) -> bool:
    """Whether this variable carries a credential that is one wherever it stands: ``postgres``, as a local database has it,
    stands in many a text by chance."""
    return holds_secret(name, value) and not WORDS.match(value)


WEAK = re.compile(r"[A-Z]?[a-z]{1,12}[-_]?\d{1,4}!?")


def secrets_of(name: str, value: str) -> list[str]:
    """What of this variable is a credential wherever it stands: the whole value, and the passwords of its URLs
    (``REDIS_URL``)."""
    passwords = []
    for user, password, host in URL_LOGIN.findall(value):
        plain = urllib.parse.unquote(password)
        # Local databases have their own name, or a word and a number.
        if looks_random(plain) and not WEAK.fullmatch(plain) and plain not in (urllib.parse.unquote(user), host):
            passwords += [password] if password == plain else [password, plain]
    return [value, *passwords] if can_be_told(name, value) else passwords


def looks_random(value: str) -> bool:
    """Whether a literal looks made by a generator rather than written by hand: letters and digits, and no stand-in."""
    return not is_placeholder(value) and any(sign.isdigit() for sign in value) and any(sign.isalpha() for sign in value)


# Of 20 letters and digits that a generator makes, three are digits, on average.
DIGITS = 3


def looks_generated(value: str) -> bool:
    """Whether a word is a key rather than a name: in a script, ``password = settings_v2`` holds none."""
    return looks_random(value) and sum(sign.isdigit() for sign in value) >= DIGITS


def is_key(value: str) -> bool:
    """Whether a word is a key that a generator made, and no hand."""
    return looks_generated(value) and not is_written(value)


def is_written(value: str) -> bool:
    """Whether it was made by hand: a row of signs, or a stand-in, which Kubernetes' Secrets encode."""
    if ROW.search(value):
        return True
    try:
        return stands_in(base64.b64decode(value, validate=True).decode("ascii"))
    except ValueError:
        return False


def is_token(word: str) -> bool:
    """Whether what has the form of a token (TOKENS) is one: ``sk-voice-agent-2025-01-31`` is a name, and documents have rows of
    signs in their place."""
    body = PREFIX.sub("", word, count=1)
    whole = PIECE.search(body) is not None or word.startswith("glpat-")
    return whole and len(set(body)) >= SIGNS and is_key(body)


# What a header that authorises somebody holds, also as OpenTelemetry's variables write it.
AUTHORIZATION = re.compile(
    r"\bauthorization\\?[\"']?\s*[:=]\s*\\?[\"']?(?:basic|bearer)(?:\s|%20)+([\w+/=.~-]{16,})", re.IGNORECASE
)


def _authorises(word: str) -> bool:
    """Whether what stands in such a header is a key, or a user with a password, as Basic encodes them."""
    try:
        user, colon, password = base64.b64decode(word + "=" * (-len(word) % 4), validate=True).decode("ascii").partition(":")
    except ValueError:
        colon = ""
    if colon:
        return looks_random(password or user) and not ROW.search(password or user)
    return is_key(word) and not (NAMED.fullmatch(word) or "..." in word)


def authorises(text: str) -> bool:
    """Whether a text holds a header with a key."""
    return any(map(_authorises, AUTHORIZATION.findall(text)))


def holds_key(text: str) -> bool:
    """Whether a text holds what is a key whatever it is called: a private key, a token as its issuer writes them, or a header
    with one."""
    if authorises(text):
        return True
    data = text.encode("utf-8", "surrogateescape")
    tokens = [token.decode("ascii") for token in TOKENS.findall(data)]
    if any(is_token(token) for token in tokens if not token.startswith(NOT_ALONE)):
        return True
    # What stands for a key is words, and documents show its beginning.
    return any(
        len(found[1]) >= SHORTEST_PEM and looks_random(found[1].decode("ascii")) and data[found.end() : found.end() + 1] != b"."
        for found in PRIVATE_KEY.finditer(data)
    )


def is_secret(name: str, value: str) -> bool:
    """Whether the value of this variable is one, by both; or whatever it is called."""
    return holds_secret(name, value) or holds_key(value)


def url_passwords(text: str) -> list[str]:
    """The passwords in a text's URLs, as they stand there and as they are meant, without stand-ins and plain words, as local
    databases have them."""
    found = [password for _, password, _ in URL_LOGIN.findall(text) if looks_random(password)]
    return list(dict.fromkeys(spelled for password in found for spelled in (password, urllib.parse.unquote(password))))


def hidden_in(name: str, value: str) -> list[tuple[str, str]]:
    """What of a variable nobody may read, with its name: all of a secret, also one that only its value tells, and of others the
    passwords of their URLs."""
    return (
        [(name, value)]
        if looks_secret(name) or is_secret(name, value)
        else [(name, password) for password in url_passwords(value)]
    )


def hidden_in_document(name: str, text: str) -> list[tuple[str, str]]:
    """The same of a text that may be a JSON document (a job's metadata mostly is one): of its fields, or else of all of it."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return hidden_in(name, text)
    return [pair for field, value in _strings(name, document) for pair in hidden_in(field, value)]


def _strings(name: str, data: Any) -> list[tuple[str, str]]:
    """The strings of a document with the names of their fields, from the outermost on; ``name`` for those without one."""
    found, left = [], [(name, data)]
    while left:
        field, value = left.pop(0)
        if isinstance(value, str):
            found.append((field, value))
        elif isinstance(value, dict):
            left.extend(value.items())
        elif isinstance(value, list):
            left.extend((field, one) for one in value)
    return found


# A JSON Web Token: header and claims are JSON objects, and so begin alike in base64.
TOKEN = re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{16,}")


def tokens_in(text: str) -> set[str]:
    """The JSON Web Tokens in a text, whole ones only."""
    return set(TOKEN.findall(text))


def without_tokens(text: str) -> str:
    return TOKEN.sub("[token]", text)


def new_api_key() -> str:
    return "API" + secrets.token_hex(6)


def new_api_secret() -> str:
    """A secret of 43 characters; the server asks for at least 32."""
    return secrets.token_urlsafe(32)


# A shorter value has too few characters of its own in base64.
SHORTEST_INSIDE = 8


def _inside_base64(encoded: bytes) -> set[str]:
    """What base64 makes of a value as a part of something longer (``key:secret``), wherever it begins: the characters that do
    not depend on what is around it."""
    if len(encoded) < SHORTEST_INSIDE:
        return set()
    found = set()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + encoded).decode().rstrip("=")
        own = whole[-(-8 * before // 6) : 8 * (before + len(encoded)) // 6]
        found |= {own, own.translate(str.maketrans("+/", "-_"))}
    return found


def spellings(value: str) -> set[str]:
    """The forms in which programs write a value: as it is, in a JSON document or a repr, in a URL, as base64, alone or with
    something before it."""
    # A variable of the environment may hold any bytes.
    encoded = value.encode("utf-8", "surrogateescape")
    return {
        value,
        value.strip(),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        urllib.parse.quote(encoded, safe=""),
        # Without what fills the last group up: it is left out in some places.
        base64.b64encode(encoded).decode().rstrip("="),
        *_inside_base64(encoded),
    } - {""}


class Redactor:
    """Replaces known secret values, however they are spelled, by ``[name]``, and all tokens by ``[token]``, in strings and in
    nested data."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        # Longest first: a secret may contain another one.
        self._values: list[str] = []

    def add(self, name: str, value: str) -> None:
        least = SHORTEST_SECRET if looks_secret(name) else SHORTEST_OTHER
        if len(value.strip()) < least or value in KNOWN_TO_ALL:
            return
        lines = {line.strip() for line in value.splitlines() if len(line.strip()) >= SHORTEST_LINE}
        for part in set().union(*map(spellings, (value, *url_passwords(value)))) | lines:
            self._names.setdefault(part, name)
        self._values = sorted(self._names, key=len, reverse=True)

    def text(self, text: str) -> str:
        for value in self._values:
            if value in text:
                text = text.replace(value, f"[{self._names[value]}]")
        # Of those that the server makes for jobs none is known beforehand. What is no text (a file's name may be any bytes)
        # could not be written to a report.
        return without_tokens(text).encode("utf-8", "backslashreplace").decode()

    def data(self, data: Any) -> Any:
        """The same for dicts, lists, tuples and their strings; other values stay as they are."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, dict):
            return {self.data(key): self.data(value) for key, value in data.items()}
        if isinstance(data, (list, tuple)):
            return [self.data(value) for value in data]
        return data

    def fields(self, data: dict[str, Any]) -> dict[str, Any]:
        """The same for a record, whose own names are ours."""
        return {name: self.data(value) for name, value in data.items()}
