"""Deployment files that are written for a test, and what is judged of them."""

from __future__ import annotations

from pathlib import Path

from pytest_lkagents.manifests.load import load
from pytest_lkagents.manifests.model import Files


def written(folder: Path, files: dict[str, str]) -> Files:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return load([str(folder)])


def judged(files: Files) -> set[str]:
    return {deployment.name for deployment in files.deployments}
