"""The image itself, beside what runs of it: the engine's words about it, and its layers."""

from __future__ import annotations

import concurrent.futures
import functools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pytest_lkagents.checks import StageError
from pytest_lkagents.worker.layers import ImageScan
from pytest_lkagents.worker.scanner import Scanner

if TYPE_CHECKING:
    from docker.models.images import Image


# Reading an image of the usual size takes seconds; a large one on a slow disk, whose engine writes it all out before, as many
# as it has 20 megabytes; nobody waits longer than for 12 gigabytes.
READ_SECONDS = 240
READ_BYTES_PER_SECOND = 20_000_000
MOST_READ_SECONDS = 840


class ImageContents:
    """Its layers are read once, in the background, for every check that looks at them. ``planted`` are secrets that no
    layer may hold. ``close`` ends a reading that is under way."""

    def __init__(self, image: Image, planted: Sequence[str]) -> None:
        self._image = image
        self.planted = list(planted)
        self._scanner = Scanner()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lk-scan")
        self._reading: Future[ImageScan] | None = None
        self._began = 0.0
        self._lock = threading.Lock()

    @property
    def attrs(self) -> dict[str, Any]:
        """What the engine says about the image (``docker image inspect``)."""
        attrs: dict[str, Any] = self._image.attrs
        return attrs

    @functools.cached_property
    def _steps(self) -> list[dict[str, Any]]:
        return list(self._image.history())

    def history(self) -> list[str]:
        """The commands that made the image, as the engine keeps them."""
        return [str(step.get("CreatedBy") or "") for step in self._steps]

    def unpacked_bytes(self) -> int:
        """The bytes of the files in its layers, as they lie unpacked on a node: the same figure whatever engine has the image.

        That is ``Size`` of an inspection, and the sum of the history, with the classic image store only. With containerd's
        the one is what lies compressed in the store, and from 2026 on both together (moby/moby, pull request 53426), the
        other counts blocks of its disk: for these the layers are read. Raises StageError, as ``scan`` does.
        """
        told = self._told_bytes()
        if told == int(self.attrs["Size"]) and self._has_history:
            return told
        scanned = self.scan()
        return told if scanned.unread else scanned.file_bytes

    @property
    def _has_history(self) -> bool:
        """Whether it says of all layers how they were made: an image may come without a history, or with a part of one."""
        layers = (self.attrs.get("RootFS") or {}).get("Layers") or []
        return len(self._steps) >= len(layers) and any(step.get("Size") for step in self._steps)

    def _told_bytes(self) -> int:
        """As the engine knows them best."""
        return sum(int(step.get("Size") or 0) for step in self._steps) if self._has_history else int(self.attrs["Size"])

    def stated_bytes(self) -> int:
        """The same, as far as it is known without reading the layers, which may not have begun."""
        from docker.errors import DockerException
        from requests import RequestException

        reading = self._reading
        try:
            if reading is not None and reading.done() and reading.exception() is None:
                return self.unpacked_bytes()
            return self._told_bytes()
        except (DockerException, RequestException, concurrent.futures.CancelledError):
            return int(self.attrs["Size"])

    def read(self) -> Future[ImageScan]:
        """Begin to read the layers, if that has not begun yet."""
        with self._lock:
            if self._reading is None:
                self._began = time.monotonic()
                self._reading = self._thread.submit(self._scanner.scan, str(self._image.id), self.planted)
            return self._reading

    def scan(self) -> ImageScan:
        """What the layers hold. Raises StageError if they cannot be read, or not within a time that is the same for all who
        wait."""
        reading = self.read()
        limit = min(READ_SECONDS + int(self.attrs["Size"]) / READ_BYTES_PER_SECOND, MOST_READ_SECONDS)
        try:
            return reading.result(max(self._began + limit - time.monotonic(), 0))
        except concurrent.futures.TimeoutError:
            raise StageError(f"the image's layers are not read after {limit:.0f} s") from None

    def under_way(self) -> list[Future[ImageScan]]:
        """The reading, if it has begun."""
        return [self._reading] if self._reading is not None else []

    def close(self) -> None:
        self._scanner.close()
        self._thread.shutdown(wait=True, cancel_futures=True)
