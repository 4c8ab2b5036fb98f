"""What a git repository within an image keeps: every version of every file, compressed, also of files that were removed since.

The formats are those of git's documentation: gitformat-pack(5), and "Git Internals - Git Objects".
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

# An object of its own, by its hash; many of them in a pack.
OBJECT = re.compile(r"(^|/)\.git/objects/[0-9a-f]{2}/[0-9a-f]{38,62}$")
PACK = re.compile(r"(^|/)\.git/objects/pack/pack-[0-9a-f]+\.pack$")
# To inflate and search this much takes some seconds.
LARGEST_PACK = 32 * 1024 * 1024
HEADER_BYTES = 12
BLOB, BY_OFFSET, BY_HASH = 3, 6, 7
HASH_BYTES = 20
# What zlib adds to a text that cannot be made smaller, rounded up.
ZLIB_BYTES = 128
STEP_BYTES = 64 * 1024


def file_versions(path: str, data: bytes, largest: int) -> Iterator[bytes]:
    """The contents of files that an object or a pack of a repository holds, up to ``largest`` bytes each; of one that is kept
    as the difference to another, what it adds. Ends where the data is damaged."""
    try:
        if OBJECT.search(path):
            kind, _, text = _inflate(data, 0, STEP_BYTES, largest)[0].partition(b"\0")
            if kind.startswith(b"blob "):
                yield text
        elif PACK.search(path) and data.startswith(b"PACK"):
            yield from _packed(data, largest)
    except (zlib.error, IndexError):
        return


def _packed(data: bytes, largest: int) -> Iterator[bytes]:
    at = HEADER_BYTES
    for _ in range(int.from_bytes(data[8:HEADER_BYTES], "big")):
        first, at = data[at], at + 1
        kind, size, shift, more = first >> 4 & 7, first & 15, 4, first & 0x80
        while more:
            size, shift, more, at = size | (data[at] & 0x7F) << shift, shift + 7, data[at] & 0x80, at + 1
        if kind == BY_HASH:
            at += HASH_BYTES
        elif kind == BY_OFFSET:
            while data[at] & 0x80:
                at += 1
            at += 1
        text, at = _inflate(data, at, size, largest)
        if kind == BLOB and text:
            yield text
        elif kind in (BY_OFFSET, BY_HASH) and text:
            yield _added(text)


def _inflate(data: bytes, at: int, size: int, largest: int) -> tuple[bytes, int]:
    """What begins there (empty if that is more than ``largest`` bytes), and where it ends; ``size`` in bytes is what is
    expected of it. Raises zlib.error."""
    stream, total, step = zlib.decompressobj(), 0, min(size + ZLIB_BYTES, STEP_BYTES)
    kept: list[bytes] = []
    while not stream.eof:
        piece = stream.unconsumed_tail
        if not piece:
            piece = data[at : at + step]
            at += len(piece)
        if not piece:
            raise zlib.error("it ends too early")
        text = stream.decompress(piece, STEP_BYTES)
        total += len(text)
        kept = [*kept, text] if total <= largest else []
    return b"".join(kept), at - len(stream.unused_data)


def _added(delta: bytes) -> bytes:
    """The lines that a difference adds, without those that it copies."""
    at = 0
    for _ in ("source", "target"):
        while delta[at] & 0x80:
            at += 1
        at += 1
    pieces = []
    while at < len(delta):
        order, at = delta[at], at + 1
        if order & 0x80:
            at += (order & 0x7F).bit_count()
        else:
            pieces.append(delta[at : at + order])
            at += order
    return b"\n".join(pieces)
