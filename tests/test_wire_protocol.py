"""The tap's pure parts on arbitrary input: frames, messages, HTTP heads, and one direction of a connection."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from google.protobuf.json_format import MessageToJson
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from livekit.protocol import agent, models

from pytest_lkagents.secrets import Redactor
from pytest_lkagents.wire import http, protocol
from pytest_lkagents.wire import websocket as ws
from pytest_lkagents.wire.flow import Flow, Host
from pytest_lkagents.wire.model import Entry
from pytest_lkagents.wire.rules import HOLD, Rule, RuleBook
from pytest_lkagents.wire.transcript import Transcript

from .conftest import ROOT

# Where git does not look, and not where the tests are started from.
set_hypothesis_home_dir(ROOT / ".pytest_cache/hypothesis")
settings.register_profile("wire", deadline=None)
settings.load_profile("wire")

BOUND = 300
# Of a frame: two bytes, eight of its length, four of its mask.
LONGEST_HEADER = 14
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJBUEkifQ.c2lnbmF0dXJl"

frames = st.builds(
    lambda payload, opcode, fin, masked: ws.build(payload, opcode, fin=fin, masked=masked),
    st.binary(max_size=BOUND * 2),
    st.sampled_from([0, 1, 2, 8, 9, 10]),
    st.booleans(),
    st.booleans(),
)
streams = st.one_of(st.binary(max_size=2000), st.lists(frames, max_size=12).map(b"".join))
cuts = st.lists(st.integers(1, 400), max_size=30)


def chunks(data: bytes, sizes: list[int]) -> list[bytes]:
    """``data`` cut into pieces of these sizes, the last size being used until the end."""
    pieces, at = [], 0
    for size in itertools.chain(sizes, itertools.repeat(sizes[-1] if sizes else len(data) + 1)):
        if at >= len(data):
            return pieces
        pieces.append(data[at : at + size])
        at += size
    return pieces


def joined(found: list[ws.Frame]) -> list[tuple[Any, ...]]:
    """Frames, the pieces of an oversized one put together: how it is cut depends on the chunks."""
    whole: list[tuple[Any, ...]] = []
    raw = b""
    for frame in found:
        raw += frame.raw
        if frame.last:
            whole.append((raw, frame.opcode, frame.fin, frame.payload, frame.length, frame.oversized))
            raw = b""
    return [*whole, (raw,)]


@given(streams, cuts)
def test_frames_do_not_depend_on_the_chunks(data: bytes, sizes: list[int]) -> None:
    whole, pieces = ws.Splitter(BOUND), ws.Splitter(BOUND)
    expected = whole.feed(data)
    found: list[ws.Frame] = []
    for chunk in chunks(data, sizes):
        found += pieces.feed(chunk)
        assert pieces.buffered <= BOUND + LONGEST_HEADER
    assert joined(found) == joined(expected)
    raw = b"".join(frame.raw for frame in found)
    assert data.startswith(raw)
    assert len(raw) + pieces.buffered == len(data)


@given(st.binary(max_size=70000), st.sampled_from([1, 2, 9]), st.booleans(), st.booleans())
def test_built_frames_are_read_back(payload: bytes, opcode: int, fin: bool, masked: bool) -> None:
    (frame,) = ws.Splitter().feed(ws.build(payload, opcode, fin=fin, masked=masked))
    assert (frame.payload, frame.opcode, frame.fin, frame.length) == (payload, opcode, fin, len(payload))


@given(st.binary(max_size=100), st.binary(min_size=4, max_size=4))
def test_masking_is_xor(data: bytes, key: bytes) -> None:
    assert ws.mask(data, key) == bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_000])
def test_aiohttp_reads_what_is_built(size: int) -> None:
    payload = bytes(index % 251 for index in range(size))

    async def go() -> None:
        async def handler(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse(max_msg_size=0, compress=False)
            await socket.prepare(request)
            assert request.transport is not None
            request.transport.write(ws.build(payload))  # type: ignore[attr-defined]
            await socket.receive()
            return socket

        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://{host}:{port}/", max_msg_size=0) as socket:
                assert await socket.receive_bytes(timeout=5) == payload
        finally:
            await runner.cleanup()

    asyncio.run(go())


@given(st.sampled_from(["worker", "server"]), st.binary(max_size=400), st.booleans())
def test_decoder_never_raises(source: str, payload: bytes, text: bool) -> None:
    kind, data = protocol.decode(source, payload, text=text)
    assert kind in {*protocol.KINDS[source].values(), "unknown", "malformed"}
    assert isinstance(data, dict)


words = st.sampled_from(["", "x", "AJ_1", "WS_FULL", "\ud800", "1e400", "\0", "ä"])
plain_values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words)
json_values = st.one_of(plain_values, st.lists(plain_values, max_size=2), st.dictionaries(words, plain_values, max_size=2))


@given(
    st.sampled_from(["worker", "server"]),
    st.dictionaries(
        st.sampled_from(["register", "availability", "updateWorker", "assignment", "ping", "else"]),
        st.dictionaries(st.sampled_from(["job", "load", "status", "token", "agentName", "jobId", "x"]), json_values),
        max_size=2,
    ),
)
def test_decoder_never_raises_on_json(source: str, message: dict[str, Any]) -> None:
    kind, _ = protocol.decode(source, json.dumps(message).encode(), text=True)
    assert kind in {*protocol.KINDS[source].values(), "unknown", "malformed"}


def test_decoder_survives_depth() -> None:
    assert protocol.decode("worker", b"[" * 200_000, text=True)[0] == "malformed"
    nested = b'{"register":' + b'{"a":' * 5000 + b"1" + b"}" * 5001
    assert protocol.decode("worker", nested, text=True)[0] in ("malformed", "register")


@pytest.mark.parametrize("text", [False, True])
def test_tokens_are_replaced_wherever_they_are(text: bool) -> None:
    message = agent.ServerMessage(
        assignment=agent.JobAssignment(
            job=agent.Job(
                id="AJ_1",
                room=models.Room(name="r", turn_password="t0psecret"),
                metadata=f"see {JWT}",
                attributes={"my_api_key": "t0psecret", "plain": "x"},
            ),
            url=f"ws://server/?access_token={JWT}",
            token="opaque-t0psecret",
        )
    )
    payload = MessageToJson(message).encode() if text else message.SerializeToString()
    kind, data = protocol.decode("server", payload, text=text)
    assert kind == "assignment"
    assert data["token"] == "[token]"
    assert data["job"]["id"] == "AJ_1"
    assert data["job"]["attributes"] == {"my_api_key": "[token]", "plain": "x"}
    assert "t0psecret" not in str(data)
    assert "eyJ" not in str(data)


def test_secrets_of_a_jobs_metadata_are_replaced() -> None:
    metadata = {
        "customer": 'a: "b"',
        "api_key": 't0p"secret',
        "inner": [{"authToken": "t0psecret", "tokens": 5}],
        "empty_token": "",
    }
    for indent in (None, 2):
        text = json.dumps(metadata, indent=indent)
        message = agent.ServerMessage(availability=agent.AvailabilityRequest(job=agent.Job(metadata=text)))
        _, data = protocol.decode("server", message.SerializeToString(), text=False)
        known = {**metadata, "api_key": "[token]", "inner": [{"authToken": "[token]", "tokens": 5}]}
        assert json.loads(data["job"]["metadata"]) == known
    assert protocol.clip('he said "token": "') == 'he said "token": "'


@pytest.mark.parametrize("text", [False, True])
def test_absent_status_and_load(text: bool) -> None:
    def decoded(status: agent.UpdateWorkerStatus) -> dict[str, Any]:
        message = agent.WorkerMessage(update_worker=status)
        payload = MessageToJson(message).encode() if text else message.SerializeToString()
        kind, data = protocol.decode("worker", payload, text=text)
        assert kind == "status"
        return data

    assert "status" not in decoded(agent.UpdateWorkerStatus(load=0.25))
    assert decoded(agent.UpdateWorkerStatus())["load"] == 0.0
    assert decoded(agent.UpdateWorkerStatus(status=agent.WorkerStatus.WS_AVAILABLE, load=0.1)) == {
        "status": "available",
        "load": 0.1,
        "job_count": 0,
        "draining": False,
        "seq": 0,
    }
    assert decoded(agent.UpdateWorkerStatus(status=agent.WorkerStatus.WS_FULL))["status"] == "full"


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(("load", "word"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_a_load_that_is_no_number_is_kept_as_json_has_it(load: float, word: str, text: bool, tmp_path: Path) -> None:
    message = agent.WorkerMessage(update_worker=agent.UpdateWorkerStatus(load=load))
    payload = MessageToJson(message).encode() if text else message.SerializeToString()
    kind, data = protocol.decode("worker", payload, text=text)
    assert data["load"] == word
    seen = Transcript()
    seen.add(Entry(1.0, 1, "worker", kind, data, len(payload)))
    assert str(seen.statuses()[0].load) == str(load)
    assert f"load {load:.2f}" in seen.lines()[0]
    seen.write(tmp_path / "wire.jsonl")
    json.loads((tmp_path / "wire.jsonl").read_text(), parse_constant=pytest.fail)


def test_unknown_fields_and_kinds_are_told() -> None:
    ping = agent.WorkerMessage(ping=agent.WorkerPing(timestamp=5)).SerializeToString()
    field_2000 = b"\x82\x7d\x02hi"
    kind, data = protocol.decode("worker", ping + field_2000, text=False)
    assert (kind, data) == ("ping", {"timestamp": 5, "unknown_fields": True})
    assert protocol.decode("worker", field_2000, text=False) == ("unknown", {"fields": [2000]})
    assert protocol.decode("server", b'{"novelty": {"a": 1}}', text=True) == ("unknown", {"fields": ["novelty"]})
    assert protocol.decode("worker", b'{"ping": {"timestamp": "5", "more": 1}}', text=True)[1]["unknown_fields"] is True
    assert protocol.decode("worker", b"\xff\xff", text=False)[0] == "malformed"
    assert protocol.decode("worker", b"[1]", text=True)[0] == "malformed"


def test_long_values_are_cut() -> None:
    message = agent.ServerMessage(availability=agent.AvailabilityRequest(job=agent.Job(metadata="x" * 100_000)))
    _, data = protocol.decode("server", message.SerializeToString(), text=False)
    assert len(data["job"]["metadata"]) < 2100


SECRET = "pq8f7Gh2kZ5vN1xW9bT4"


@pytest.mark.parametrize("before", range(180, 202))
@pytest.mark.parametrize("around", ["", '"', " "])
def test_no_secret_is_cut_before_it_is_hidden(before: int, around: str) -> None:
    redactor = Redactor()
    redactor.add("SOME_API_KEY", SECRET)
    text = f"{'word ' * (before // 5)}{'x' * (before % 5)} {around}{SECRET}{around} and more {'word ' * 100}"
    line = Entry(1.0, 1, "worker", "job", {"job_id": "", "status": "", "error": text}, 0).line()
    kept = protocol.clip("word " * 360 + text)
    for shown in (redactor.text(line), redactor.text(kept)):
        assert SECRET[:3] not in shown
        assert "..." in shown
        assert shown.count("word") > 30


def test_rules_for_kinds_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="sends no question"):
        protocol.check_kinds("worker", ["question"])
    with pytest.raises(ValueError, match="neither"):
        protocol.check_kinds("client", [])


@given(st.binary(max_size=300))
def test_http_parser_never_raises(data: bytes) -> None:
    http.parse(data)
    http.parse(b"GET /" + data + b"\r\n\r\n")
    http.without(data, b"x")
    http.with_host(data, b"h")
    http.status(data)


def test_http_changes_touch_one_header() -> None:
    head = b"GET /agent?x=1 HTTP/1.1\r\nhost:  a:1\r\nSEC-WebSocket-extensions : permessage-deflate\r\nX-Host: b\r\n\r\n"
    assert http.without(head, b"sec-websocket-extensions") == b"GET /agent?x=1 HTTP/1.1\r\nhost:  a:1\r\nX-Host: b\r\n\r\n"
    assert b"\r\nhost:  srv\r\n" in http.with_host(head, b"srv")
    assert b"X-Host: b" in http.with_host(head, b"srv")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x16\x03\x01", False),
        (b"GE", None),
        (b"GET /agent HTTP/1.1\r\nHost: x\r\n", None),
        (b"hello\r\n", False),
        (b"GET / HTTP/2.0\r\n", False),
        (b"GET /" + b"a" * 20_000, False),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000, False),
    ],
)
def test_what_is_no_request(data: bytes, expected: bool | None) -> None:
    assert http.parse(data) is expected


# One direction of a connection


def made_flow(rules: RuleBook[Any], written: list[bytes], entries: list[Entry], bound: int = BOUND) -> Flow:
    host = Host(
        connection=1,
        write=written.append,
        add=lambda entry, passed: entries.append(entry),
        passed=lambda entry, at: None,
        swallow=lambda kind, data: False,
        kept=lambda size: None,
    )
    return Flow("worker", host, rules, bound)


@settings(max_examples=300)
@given(streams, cuts, st.lists(st.booleans(), max_size=30))
def test_nothing_is_lost_or_moved_when_rules_come_and_go(data: bytes, sizes: list[int], active: list[bool]) -> None:
    rules: RuleBook[Any] = RuleBook()
    never: Rule[Any] = Rule(HOLD, "worker", frozenset(["simulate"]))
    written: list[bytes] = []
    flow = made_flow(rules, written, [])
    for chunk, on in itertools.zip_longest(chunks(data, sizes), active, fillvalue=False):
        rules.remove(never)
        if on:
            rules.add(never)
        if chunk:
            flow.feed(chunk)
            assert data.startswith(output(written, data))
    rules.remove(never)
    # What is still gathered is at most one message.
    assert len(data) - len(b"".join(written)) <= 2 * BOUND + 40 * LONGEST_HEADER


def output(written: list[bytes], data: bytes) -> bytes:
    """What was written. Control frames may overtake a gathered message, so they are compared by length only."""
    out = b"".join(written)
    return out if data.startswith(out) or not _has_control(data) else data[: len(out)]


def _has_control(data: bytes) -> bool:
    return any(frame.control for frame in ws.Splitter(BOUND).feed(data))


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.binary(max_size=60), min_size=1, max_size=4), max_size=8),
    cuts,
    st.sets(st.integers(0, 60), max_size=10),
)
def test_what_is_inserted_is_between_messages(parts: list[list[bytes]], sizes: list[int], at: set[int]) -> None:
    stream = b""
    for fragments in parts:
        for index, fragment in enumerate(fragments):
            stream += ws.build(fragment, 0 if index else 2, fin=index == len(fragments) - 1, masked=True)
    written: list[bytes] = []
    flow = made_flow(RuleBook(), written, [])
    mark = ws.build(b"inserted", ws.TEXT)
    pieces = chunks(stream, sizes)
    for index, chunk in enumerate(pieces):
        if index in at:
            flow.insert(mark)
        flow.feed(chunk)
    found = ws.Splitter().feed(b"".join(written))
    inserted = [frame for frame in found if frame.raw == mark]
    assert len(inserted) == len([index for index in at if index < len(pieces)])
    assert b"".join(frame.raw for frame in found if frame.raw != mark) == stream
    open_message = False
    for frame in found:
        if frame.raw == mark:
            assert not open_message
        else:
            open_message = not frame.fin


def test_control_frames_pass_between_the_fragments_of_a_gathered_message() -> None:
    rules: RuleBook[Any] = RuleBook()
    rules.add(Rule(HOLD, "worker", frozenset(["answer"])))
    written: list[bytes] = []
    entries: list[Entry] = []
    flow = made_flow(rules, written, entries)
    payload = agent.WorkerMessage(ping=agent.WorkerPing(timestamp=1)).SerializeToString()
    first, ping, last = ws.build(payload[:1], 2, fin=False), ws.build(b"?", 9), ws.build(payload[1:], 0)
    flow.feed(first + ping)
    assert written == [ping]
    flow.feed(last)
    assert b"".join(written) == ping + first + last
    assert [entry.kind for entry in entries] == ["ping"]


def test_a_message_over_the_bound_is_streamed_past_rules() -> None:
    rules: RuleBook[Any] = RuleBook()
    rules.add(Rule(HOLD, "worker", frozenset()))
    written: list[bytes] = []
    entries: list[Entry] = []
    flow = made_flow(rules, written, entries)
    fragments = [ws.build(b"x" * 200, 2 if not index else 0, fin=index == 4) for index in range(5)]
    flow.feed(fragments[0])
    assert written == []
    for fragment in fragments[1:]:
        flow.feed(fragment)
    assert b"".join(written) == b"".join(fragments)
    assert [(entry.kind, entry.size) for entry in entries] == [("oversized", 1000)]


@pytest.mark.parametrize(
    ("line", "issuer"),
    [
        (b"Authorization: Bearer " + jwt.encode({"iss": "APIx"}, "s" * 32).encode(), "APIx"),
        (b"Authorization: Bearer " + jwt.encode({"sub": "x"}, "s" * 32).encode(), ""),
        (b"Authorization: Bearer e30." + base64.urlsafe_b64encode(b'{"iss": null}') + b".c", ""),
        (b"Authorization: Bearer a.!.c", ""),
        (b"Authorization: Bearer a." + base64.urlsafe_b64encode(b"[" * 40_000) + b".c", ""),
        (b"Authorization: Bearer", ""),
        (b"Host: here", ""),
    ],
)
def test_whom_a_request_names_as_its_issuer(line: bytes, issuer: str) -> None:
    assert http.issuer(b"GET /agent HTTP/1.1\r\n" + line + b"\r\n\r\n") == issuer


@pytest.mark.parametrize(
    ("query", "line", "issuer"),
    [
        (b"?access_token=TOKEN", b"Host: a", "APIx"),
        (b"?protocol=1&access_token=TOKEN&sdk=none", b"Host: a", "APIx"),
        (b"?access_token=TOKEN", b"Authorization: Bearer a.b.c", ""),  # which the server looks at first
        (b"?token=TOKEN", b"Host: a", ""),
        (b"?access_token=\xff%zz", b"Host: a", ""),
        (b"?access_token", b"Host: a", ""),
        (b"", b"Host: a", ""),
    ],
)
def test_a_token_in_the_query_names_an_issuer_too(query: bytes, line: bytes, issuer: str) -> None:
    token = jwt.encode({"iss": "APIx"}, "s" * 32).encode()
    head = b"GET /agent" + query.replace(b"TOKEN", token) + b" HTTP/1.1\r\n" + line + b"\r\n\r\n"
    assert http.issuer(head) == issuer


@pytest.mark.parametrize(
    ("claims", "room"),
    [
        ({"video": {"room": "r", "roomJoin": True}}, "r"),
        ({"video": {"roomAdmin": True}}, ""),
        ({"video": ["r"]}, ""),
        ({"iss": "APIx"}, ""),
    ],
)
def test_which_room_the_token_of_a_request_opens(claims: dict, room: str) -> None:
    token = jwt.encode(claims, "s" * 32).encode()
    assert http.room(b"GET /rtc/v1?access_token=" + token + b" HTTP/1.1\r\nHost: a\r\n\r\n") == room
