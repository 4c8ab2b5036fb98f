"""Amounts as the formats write them. Each returns None for what is no such amount."""

from __future__ import annotations

import math
import re

MEGABYTE = 1024 * 1024
UNITS = {
    "": 1,
    "b": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 1024,
    "mi": 1024**2,
    "gi": 1024**3,
    "ti": 1024**4,
}
DURATION = re.compile(
    r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)


# Of Kubernetes: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)|[eE]([+-]?\d{1,3}))?")
FACTORS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, **{unit: 1000.0**power for power, unit in enumerate("kMGTPE", 1)}}


def quantity(text: str | None) -> float | None:
    """An amount as Kubernetes writes it: ``500m``, ``2``, ``8Gi``, ``1e3``; capitals count."""
    matched = QUANTITY.fullmatch((text or "").strip())
    if matched is None:
        return None
    number, unit, exponent = matched.groups()
    if unit is not None and unit.endswith("i"):
        factor = 1024.0 ** ("KMGTPE".index(unit[0]) + 1)
    else:
        factor = float(f"1e{exponent}") if exponent else FACTORS[unit or ""]
    amount = float(number) * factor
    return amount if math.isfinite(amount) else None


def cores(text: str | None) -> float | None:
    """``500m``, ``2``, ``1.5``, ``.5`` as cores."""
    matched = re.fullmatch(r"(\d+\.?\d*|\.\d+)(m?)", (text or "").strip())
    return float(matched[1]) / (1000 if matched[2] else 1) if matched else None


def size(text: str | None, *, binary: bool = False) -> int | None:
    """``512Mi``, ``8G``, ``512mb`` as bytes; ``binary``: a plain k, m or g counts in 1024, as Docker has it."""
    matched = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([kmgt]?i?)b?", (text or "").strip().lower())
    if not matched:
        return None
    unit = matched[2]
    factor = UNITS[f"{unit}i"] if binary and unit in ("k", "m", "g", "t") else UNITS.get(unit)
    return None if factor is None else int(float(matched[1]) * factor)


def seconds(text: str | None) -> float | None:
    """``1m30s``, ``300s``, ``10m``, ``90`` as seconds; Go's units, which have no capitals."""
    cleaned = (text or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", cleaned):
        return float(cleaned)
    matched = DURATION.fullmatch(cleaned)
    if not matched or not cleaned:
        return None
    weeks, days, hours, minutes, rest, thousandths = (float(part or 0) for part in matched.groups())
    return (weeks * 7 + days) * 86400 + hours * 3600 + minutes * 60 + rest + thousandths / 1000


def portion(text: str | None) -> tuple[int, bool] | None:
    """``25%`` or ``1`` as number, and whether it is per cent."""
    matched = re.fullmatch(r"(\d+)(%?)", (text or "").strip())
    return (int(matched[1]), bool(matched[2])) if matched else None
