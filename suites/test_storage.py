"""Section "Storage"."""

from __future__ import annotations

from pytest_lkagents.checks import SHOULD, Evidence, check
from pytest_lkagents.stage import Stage

TYPICAL_BYTES = 1_000_000_000


@check(
    "storage.image-size",
    SHOULD,
    profile="smoke",
    section="Storage",
    why="A node pulls the image before it can take calls; large images make scaling slow.",
    remedy="build in stages, leave caches and unused models out",
)
def test_image_size(lk_stage: Stage, lk_evidence: Evidence) -> None:
    """The image is smaller than 1 GB."""
    size = int(lk_stage.image_attrs["Size"])
    lk_evidence["size_bytes"], lk_evidence["limit_bytes"] = size, TYPICAL_BYTES
    assert size < TYPICAL_BYTES, f"the image has {size / 1e9:.2f} GB, typical are less than 1 GB"
    lk_evidence.summary = f"{size / 1e6:.0f} MB"
