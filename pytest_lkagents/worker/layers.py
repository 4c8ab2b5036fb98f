"""What an image's layers hold: credentials that anybody who pulls it can read, and a CA bundle."""

from __future__ import annotations

import io
import json
import lzma
import posixpath
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

from pytest_lkagents.checks import StageError
from pytest_lkagents.worker.credentials import LIBRARIES, findings_in, findings_in_version
from pytest_lkagents.worker.git_objects import LARGEST_PACK, PACK, file_versions

if TYPE_CHECKING:
    from docker.models.images import Image

# Above this size a file is no hand-written configuration.
LARGEST_READ = 256 * 1024

# A bundle of one certificate authority is larger than this.
SMALLEST_BUNDLE = 1000

CA_BUNDLES = (
    "etc/ssl/certs/ca-certificates.crt",
    "etc/ssl/cert.pem",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/ca-bundle.pem",
)

# The package itself; of what others bring along (pip/_vendor/certifi) only they make use.
CERTIFI = re.compile(r"(^|/)(?<!_vendor/)certifi/cacert\.pem$")


@dataclass
class ImageScan:
    """``secrets`` names what was found and where, never the value; ``files`` counts what was read for them; ``ca_bundles`` are
    paths in the final file system, as far as its layers could be read; ``unread`` says why some could not (empty: all were);
    ``file_bytes`` are those of the files in all layers, also of what a later one deletes."""

    secrets: list[str] = field(default_factory=list)
    ca_bundles: list[str] = field(default_factory=list)
    layers: int = 0
    files: int = 0
    unread: str = ""
    file_bytes: int = 0

    def raise_if_unread(self) -> None:
        """Raises StageError unless all layers were read."""
        if self.unread:
            raise StageError(f"the image's layers cannot be read: {self.unread}")


class _Stream(io.RawIOBase):
    """The engine's chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


@dataclass
class _Layer:
    present: set[str] = field(default_factory=set)
    gone: list[str] = field(default_factory=list)
    file_bytes: int = 0


@dataclass
class _Search:
    """What is looked for in each layer, and what came of it so far. ``planted`` are values that must not be in the image,
    ``bundles`` paths of CA bundles, ``own`` the folders whose repositories are the worker's own."""

    planted: Sequence[str]
    bundles: Collection[str]
    own: Collection[str]
    result: ImageScan = field(default_factory=ImageScan)

    def read_layer(self, content: IO[bytes]) -> _Layer | None:
        """None if it is none that can be read to its end: blobs are layers or small JSON documents."""
        try:
            return self._scan_layer(content)
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError):
            return None

    def _scan_layer(self, content: IO[bytes]) -> _Layer:
        found = _Layer()
        with tarfile.open(fileobj=content, mode="r|*") as layer:
            for member in layer:
                path = member.name.removeprefix("./").lstrip("/")
                folder, _, base = path.rpartition("/")
                if base.startswith(".wh."):
                    found.gone.append(folder if base == ".wh..wh..opq" else f"{folder}/{base[4:]}".lstrip("/"))
                    continue
                if path in self.bundles or CERTIFI.search(path):
                    if member.issym() or member.islnk() or member.size > SMALLEST_BUNDLE:
                        found.present.add(path)
                    else:
                        found.gone.append(path)
                # As a classic image store counts: a link has the length of the path in it.
                found.file_bytes += len(member.linkname.encode()) if member.issym() else member.size
                if not member.isfile():
                    continue
                largest = LARGEST_PACK if PACK.search(path) else LARGEST_READ
                if not 0 < member.size <= largest or (not self.planted and LIBRARIES.search(path)):
                    continue
                piece = layer.extractfile(member)
                if piece is not None:
                    self.result.files += 1
                    self.result.secrets += [f"/{path}: {what}" for what in self._findings(path, piece.read())]
        return found

    def _findings(self, path: str, data: bytes) -> Iterator[str]:
        if not PACK.search(path):
            yield from findings_in(path, data, self.planted)
        repository = path.partition(".git/objects/")[0].rstrip("/")
        for version in file_versions(path, data, LARGEST_READ):
            for what in findings_in_version(version, self.planted, own=repository in self.own):
                yield f"{what}, in a version of a file"


def scan(image: Image, planted: Sequence[str]) -> ImageScan:
    """Read every layer once, as ``docker save`` streams them, deleted files of earlier layers included.

    ``planted`` are values that must not be in the image. Raises the engine's and tarfile's errors.
    """
    chunks = image.save(chunk_size=1024 * 1024)
    search = _Search(planted, {*CA_BUNDLES, *_named_bundles(image)}, _work_folders(image))
    layers: dict[str, _Layer | None] = {}
    links: dict[str, str] = {}
    order: list[str] = []
    reader = io.BufferedReader(_Stream(iter(chunks)), 1024 * 1024)
    with tarfile.open(fileobj=reader, mode="r|") as outer:
        for member in outer:
            if member.issym():
                # Engines without blobs save a layer that occurs twice as a link.
                links[member.name] = posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))
            content = outer.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if member.name == "manifest.json":
                # The archive's own order is by name; only the manifest knows which layer lies over which.
                order = [str(name) for name in json.load(content)[0]["Layers"]]
            elif member.name.endswith(".tar") or member.name.startswith("blobs/"):
                layers[member.name] = search.read_layer(content)
    result = search.result
    read = [layers.get(links.get(name, name)) for name in order]
    whole = [layer for layer in read if layer is not None]
    if len(whole) < len(read):
        result.unread = f"{len(read) - len(whole)} of {len(read)} are damaged, or compressed in an unknown way (zstd)"
    result.ca_bundles = sorted(_bundles_left(whole))
    result.secrets = sorted(set(result.secrets))
    result.layers, result.file_bytes = len(order), sum(layer.file_bytes for layer in whole)
    return result


def _named_bundles(image: Image) -> set[str]:
    """Where its own variables lead OpenSSL, as images do that are built without a distribution's paths."""
    variables = image.attrs.get("Config", {}).get("Env") or []
    return {value.lstrip("/") for name, _, value in (line.partition("=") for line in variables) if name == "SSL_CERT_FILE"}


def _bundles_left(layers: Sequence[_Layer]) -> set[str]:
    left: set[str] = set()
    for layer in layers:
        left = {path for path in left if not any(path == gone or path.startswith(f"{gone}/") for gone in layer.gone)}
        left |= layer.present
    return left


def _work_folders(image: Image) -> list[str]:
    """The folder in which the worker runs, and those above it: whose repository it is that lies there."""
    folder = PurePosixPath(posixpath.normpath("/" + str(image.attrs.get("Config", {}).get("WorkingDir") or "")))
    return [str(found).strip("/") for found in (folder, *folder.parents)]
