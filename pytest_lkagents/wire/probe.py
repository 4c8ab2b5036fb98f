"""Questions about jobs that do not exist, put to a worker as its server would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pytest_lkagents.checks import StageError
from pytest_lkagents.wire import protocol, websocket
from pytest_lkagents.wire.link import Link
from pytest_lkagents.wire.model import Answer, Entry
from pytest_lkagents.wire.transcript import Transcript


async def ask(
    link: Link, transcript: Transcript, remember: Callable[[str], None], n: int, seconds: float, room: str | None, metadata: str
) -> list[Answer]:
    """Ask about ``n`` jobs with this metadata in one write and wait until each is answered, the connection ends, or
    ``seconds`` are over.

    Raises StageError if the questions cannot be written within that time (the line is busy with another message).
    """
    loop = asyncio.get_running_loop()
    speaks_text = link.flows[protocol.WORKER].text
    registration = transcript.register_of(link.number)
    written: asyncio.Future[float] = loop.create_future()
    frames: list[bytes] = []
    notes: list[tuple[str, bytes]] = []
    answers: dict[str, asyncio.Future[Entry | None]] = {}
    for _ in range(n):
        job_id, question = protocol.probe_question(registration, room, metadata)
        payload = protocol.encode(question, text=speaks_text)
        frames.append(websocket.build(payload, websocket.TEXT if speaks_text else websocket.BINARY))
        notes.append((job_id, payload))
        answers[job_id] = link.probes[job_id] = loop.create_future()
        remember(job_id)
    # From now on each message of the worker is looked at before it is forwarded: its answers are for us alone.
    link.flows[protocol.WORKER].probed = True

    def sent() -> None:
        at = time.monotonic()
        for _, payload in notes:
            _, data = protocol.decode(protocol.SERVER, payload, text=speaks_text)
            entry = Entry(at, link.number, protocol.TAP, "question", {**data, "probe": True}, len(payload))
            transcript.add(entry)
        if not written.done():
            written.set_result(at)

    link.flows[protocol.SERVER].insert(b"".join(frames), sent)
    try:
        waiting: list[asyncio.Future[Any]] = [written, *answers.values()]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not written.done() and link.alive:
            raise StageError(f"a probe could not be written within {seconds:g} s: another message is still on its way")
        at = written.result() if written.done() else time.monotonic()
        left = max(at + seconds - time.monotonic(), 0)
        await asyncio.wait(answers.values(), timeout=left)
        return [_answer(job_id, future, at) for job_id, future in answers.items()]
    finally:
        for job_id in answers:
            link.probes.pop(job_id, None)


def _answer(job_id: str, future: asyncio.Future[Entry | None], asked: float) -> Answer:
    entry = future.result() if future.done() else None
    if entry is None:
        return Answer(job_id, None, None)
    return Answer(job_id, bool(entry.data.get("available")), entry.at - asked)
