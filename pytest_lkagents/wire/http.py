"""The little of HTTP/1.1 that the tap needs: which request this is, and the two changes that it makes to one."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

# Bytes. Go's server refuses a larger request head with its default settings only at 1 MiB; a token is about 1 KiB.
HEAD_BOUND = 64 * 1024
LONGEST_LINE = 16 * 1024

REQUEST = re.compile(rb"^([A-Z]{1,16}) (\S+) HTTP/1\.[01]\r?$")
STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3})\b")
END = re.compile(rb"\r?\n\r?\n")
PREFIX = re.compile(rb"^[A-Z]{0,16}( |$)")


@dataclass(frozen=True)
class Request:
    """``path`` without the query, which may hold a token. ``agent``: the upgrade of a worker's connection.
    ``end`` is the length of the head in bytes, 0 while it is incomplete."""

    method: str
    path: str
    upgrade: bool
    agent: bool
    end: int


def end_of_head(data: bytes) -> int:
    """Length of the head including its empty line, 0 if it is not complete."""
    found = END.search(data)
    return found.end() if found else 0


def parse(data: bytes) -> Request | bool | None:
    """What a client's first bytes are: a request whose head is complete, None if more bytes are needed to tell,
    False if it is no HTTP request (or none with a bearable head)."""
    if not PREFIX.match(data[:17]):
        return False
    line, newline, _ = data.partition(b"\n")
    if not newline:
        return None if len(line) <= LONGEST_LINE else False
    found = REQUEST.match(line)
    if not found:
        return False
    end = end_of_head(data)
    if not end:
        return None if len(data) <= HEAD_BOUND else False
    method, target = found[1].decode("ascii"), found[2].decode("ascii", "replace")
    path = target.partition("?")[0]
    upgrade = header(data[:end], b"upgrade").lower() == b"websocket"
    return Request(method, path, upgrade, upgrade and method == "GET" and path.endswith("/agent"), end)


def header(head: bytes, name: bytes) -> bytes:
    """The value of the first header of this (lowercase) name, b"" if there is none."""
    for line in head.split(b"\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""


def _query(head: bytes, name: str) -> bytes:
    """The first value of this name in the query of a request, b"" without one."""
    target = head.partition(b"\n")[0].split(b" ")[1:2]
    query = b"".join(target).partition(b"?")[2].decode("ascii", "replace")
    return parse_qs(query).get(name, [""])[0].encode()


def issuer(head: bytes) -> str:
    """Whom the token of a request names as its issuer, which to LiveKit is the API key; "" without one."""
    return str(_claims(head).get("iss") or "")


def room(head: bytes) -> str:
    """The room that the token of a request opens, by its name; "" without one."""
    grant = _claims(head).get("video")
    return str(grant.get("room") or "") if isinstance(grant, dict) else ""


def _claims(head: bytes) -> dict[str, Any]:
    """What the token of a request claims: the bearer's, else the query's (livekit-server, pkg/service/auth.go). Nothing is
    verified."""
    token = header(head, b"authorization").rpartition(b" ")[2] or _query(head, "access_token")
    claims = token.split(b".")[1:2]
    try:
        known = json.loads(base64.urlsafe_b64decode(claims[0] + b"=="))
    except (IndexError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def without(head: bytes, name: bytes) -> bytes:
    """The head without any header of this (lowercase) name; everything else stays as it is."""
    lines = head.split(b"\n")
    return b"\n".join([lines[0], *(line for line in lines[1:] if line.partition(b":")[0].strip().lower() != name)])


def with_host(head: bytes, host: bytes) -> bytes:
    """The head with another value of its Host header."""
    return re.sub(rb"(?im)^(host[ \t]*:[ \t]*)[^\r\n]*", lambda found: found[1] + host, head, count=1)


def status(head: bytes) -> int | None:
    """The status code of a response, None if this is none."""
    found = STATUS.match(head)
    return int(found[1]) if found else None
