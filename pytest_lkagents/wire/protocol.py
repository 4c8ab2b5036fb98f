"""LiveKit's agent protocol: from a message's payload to its kind and plain data, and the messages of a probe."""

from __future__ import annotations

import functools
import json
import math
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from livekit.protocol import agent, models

from pytest_lkagents.secrets import looks_secret
from pytest_lkagents.wire.model import shortened

WORKER, SERVER, TAP = "worker", "server", "tap"

# Field of the oneof -> our word.
KINDS: dict[str, dict[str, str]] = {
    WORKER: {
        "register": "register",
        "availability": "answer",
        "update_worker": "status",
        "update_job": "job",
        "ping": "ping",
        "simulate_job": "simulate",
        "migrate_job": "migrate",
    },
    SERVER: {
        "register": "registered",
        "availability": "question",
        "assignment": "assignment",
        "termination": "termination",
        "pong": "pong",
        "go_away": "go_away",
    },
}
JOB_TYPES = {"publisher": agent.JobType.JT_PUBLISHER, "participant": agent.JobType.JT_PARTICIPANT}
UNKNOWN, MALFORMED, OVERSIZED = "unknown", "malformed", "oversized"

TOKEN = "[token]"  # noqa: S105
JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
# A field of a JSON document with a string as its value: what jobs are told is mostly one.
PAIR = re.compile(r'"([^"\\]{1,100})"\s*:\s*"((?:[^"\\]|\\.)+)"')
# Characters and elements that the transcript keeps of one value: 100,000 entries must fit into memory.
LONGEST_TEXT = 2000
MOST_ELEMENTS = 100
DEEPEST = 20
NO_NUMBERS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
SCALARS = frozenset((str, int, bool, float, bytes))


def decode(source: str, payload: bytes, *, text: bool) -> tuple[str, dict[str, Any]]:
    """Kind and data of one message of ``source`` ("worker" or "server"); ``text`` is protojson, else protobuf.

    Never raises. Data are dicts, lists, strings, finite numbers; field names as in the proto file, enumerations by name
    without their prefix (``"available"`` for WS_AVAILABLE), every field without presence is there; tokens are
    "[token]". What does not parse is ``("malformed", {"problem": ...})``; a message without a kind that we know is
    ``("unknown", {"fields": [numbers or names]})``; unknown fields elsewhere add ``"unknown_fields": True``.
    """
    try:
        return _decode(source, payload, text)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, ValueError, RecursionError):
        # The parser's own words may quote the message, and thereby a token.
        return MALFORMED, {"problem": "not protojson" if text else "not protobuf", "text": text}
    except Exception as error:  # the tap must stay transparent whatever a decoder does
        return MALFORMED, {"problem": type(error).__name__, "text": text}


def _decode(source: str, payload: bytes, text: bool) -> tuple[str, dict[str, Any]]:
    message: Any = agent.WorkerMessage() if source == WORKER else agent.ServerMessage()
    unknown = False
    names: list[Any] = []
    if text:
        fields = json.loads(payload.decode("utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("not an object")
        names = [str(name)[:100] for name in fields][:MOST_ELEMENTS]
        try:
            json_format.ParseDict(fields, message)
        except json_format.ParseError:
            message.Clear()
            json_format.ParseDict(fields, message, ignore_unknown_fields=True)
            unknown = True
    else:
        message.ParseFromString(payload)
        strange = UnknownFieldSet(message)
        names = [strange[index].field_number for index in range(min(len(strange), MOST_ELEMENTS))]
    which = message.WhichOneof("message")
    kind = KINDS[source].get(which or "")
    if kind is None:
        return UNKNOWN, {"fields": names if which is None else [which]}
    found = [unknown or bool(names and not text)]
    data: dict[str, Any] = plain(getattr(message, which), found)
    if found[0]:
        data["unknown_fields"] = True
    return kind, data


@dataclass(frozen=True)
class Field:
    """What there is to know about a field of a message before looking at its value."""

    name: str
    presence: bool
    secret: bool
    words: Mapping[int, str] | None


@functools.cache
def _fields(descriptor: Any) -> tuple[Field, ...]:
    return tuple(
        Field(
            field.name,
            field.has_presence,
            looks_secret(field.name),
            None if field.enum_type is None else _words(field.enum_type),
        )
        for field in descriptor.fields
    )


def plain(message: Message, unknown: list[bool], depth: int = 0) -> dict[str, Any]:
    """A message as a dict. Sets ``unknown[0]`` if it or a message inside it has unknown fields."""
    data: dict[str, Any] = {}
    if len(UnknownFieldSet(message)):
        unknown[0] = True
    if depth > DEEPEST:
        return {"deeper": True}
    for field in _fields(message.DESCRIPTOR):
        name = field.name
        if field.presence and not message.HasField(name):
            continue
        value = getattr(message, name)
        if field.secret and value:
            data[name] = TOKEN
        elif type(value) in SCALARS:
            data[name] = _value(value, field, unknown, depth)
        elif isinstance(value, Message):
            data[name] = plain(value, unknown, depth + 1)
        elif isinstance(value, Mapping):
            data[name] = {
                clip(key): TOKEN if looks_secret(str(key)) else _value(item, None, unknown, depth)
                for key, item in list(value.items())[:MOST_ELEMENTS]
            }
        else:
            data[name] = [_value(item, field, unknown, depth) for item in value[:MOST_ELEMENTS]]
    return data


def _value(value: Any, field: Field | None, unknown: list[bool], depth: int) -> Any:
    if field is not None and field.words is not None:
        return field.words.get(value, value)
    kind = type(value)
    if kind is str:
        return clip(value)
    if kind is bool or kind is int:
        return value
    if kind is float:
        # The load is a 32-bit float: 0.1 and not 0.10000000149011612. What is none has a name in protojson, as JSON has none.
        return float(f"{value:.7g}") if math.isfinite(value) else NO_NUMBERS[str(value)]
    if kind is bytes:
        return f"({len(value)} bytes)"
    return plain(value, unknown, depth + 1)


@functools.cache
def _words(enumeration: Any) -> dict[int, str]:
    """Number -> lowercase name, without the prefix that all names of this enumeration share (WS_, JT_, JS_ ...)."""
    names: dict[int, str] = {value.number: value.name.lower() for value in enumeration.values}
    prefixes = {name.partition("_")[0] for name in names.values() if "_" in name}
    shared = len(prefixes) == 1 and all("_" in name for name in names.values())
    return {number: name.partition("_")[2] if shared else name for number, name in names.items()}


def clip(value: Any) -> Any:
    """A string without tokens, nor secrets of a JSON document, and of bounded length; other values as they are."""
    if not isinstance(value, str):
        return value
    if "eyJ" in value:
        value = JWT.sub(TOKEN, value)
    if ":" in value and '"' in value:
        value = PAIR.sub(lambda pair: f'"{pair[1]}": "{TOKEN}"' if looks_secret(pair[1]) else pair[0], value)
    return value if len(value) <= LONGEST_TEXT else f"{shortened(value, LONGEST_TEXT)}... ({len(value)} characters)"


def probe_question(registration: Mapping[str, Any], room: str | None, metadata: str = "") -> tuple[str, Message]:
    """Job id and ServerMessage of a question about a job that does not exist, shaped as the server's own are: a worker
    that registered for publishers or participants is asked about one of these."""
    unique = secrets.token_hex(6)
    kind = JOB_TYPES.get(str(registration.get("type")), agent.JobType.JT_ROOM)
    of_room = kind == agent.JobType.JT_ROOM
    caller = None if of_room else models.ParticipantInfo(sid=f"PA_probe{unique}", identity=f"caller-probe{unique}")
    job = agent.Job(
        id=f"AJ_probe{unique}",
        dispatch_id=f"AD_probe{unique}",
        type=kind,
        participant=caller,
        metadata=metadata,
        room=models.Room(sid=f"RM_probe{unique}", name=room or f"lk-probe-{unique}", creation_time=int(time.time())),
        namespace=str(registration.get("namespace", "")),
        agent_name=str(registration.get("agent_name", "")),
        state=agent.JobState(status=agent.JobStatus.JS_RUNNING, started_at=time.time_ns(), updated_at=time.time_ns()),
    )
    deployment = registration.get("deployment")
    if deployment and "deployment" in job.DESCRIPTOR.fields_by_name:
        job.deployment = str(deployment)
    return job.id, agent.ServerMessage(availability=agent.AvailabilityRequest(job=job))


def encode(message: Message, *, text: bool) -> bytes:
    """The payload of a message: protojson for a worker that speaks it, else protobuf."""
    return json_format.MessageToJson(message, indent=None).encode() if text else message.SerializeToString()


def check_kinds(source: str, kinds: Iterable[str]) -> frozenset[str]:
    """Raises ValueError for a source or kind that does not exist: such a rule would silently never match."""
    if source not in KINDS:
        raise ValueError(f"source {source!r} is neither 'worker' nor 'server'")
    known = {*KINDS[source].values(), UNKNOWN, MALFORMED}
    wrong = set(kinds) - known
    if wrong:
        raise ValueError(f"a {source} sends no {', '.join(sorted(wrong))}; its kinds are {', '.join(sorted(known))}")
    return frozenset(kinds)
