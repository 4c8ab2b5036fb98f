"""The looping speech that a caller says, and how loud what it hears is."""

from __future__ import annotations

import wave
from array import array
from collections.abc import Iterator
from pathlib import Path

from pytest_lkagents.checks import StageError

# 100 ms instead of the usual 10 ms: a tenth of the Python work per caller, and the SDK cuts it into packets anyway.
FRAME_SECONDS = 0.1

# Root mean square of 16-bit samples. Concealed and silent frames are near zero; a quiet voice is above 300.
AUDIBLE = 150


def speech_file() -> Path:
    """The packaged sample (wheel), or the repository's (checkout). Raises StageError."""
    here = Path(__file__).resolve().parent.parent
    for folder in (here / "audio", here.parent / "fixtures" / "audio"):
        if (folder / "speech.wav").is_file():
            return folder / "speech.wav"
    raise StageError("speech.wav is missing from the installation: install pytest-lkagents again")


def frames(path: Path) -> tuple[int, list[bytes]]:
    """Sample rate (Hz) and 100 ms frames of a mono 16-bit WAV file."""
    with wave.open(str(path)) as sound:
        if sound.getnchannels() != 1 or sound.getsampwidth() != 2:
            raise StageError(f"{path.name} is not mono 16-bit")
        rate = sound.getframerate()
        data = sound.readframes(sound.getnframes())
    size = int(rate * FRAME_SECONDS) * 2
    return rate, [data[start : start + size] for start in range(0, len(data) - size + 1, size)]


def loop(pieces: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from pieces


def loudness(data: memoryview | bytes) -> float:
    """Root mean square of every eighth sample: enough for loud or silent."""
    samples = array("h", bytes(data))[::8]
    if not samples:
        return 0.0
    return float((sum(sample * sample for sample in samples) / len(samples)) ** 0.5)
