"""What is stored in Kubernetes' Secrets and ConfigMaps, as far as it is secret."""

from __future__ import annotations

from pytest_lkagents.manifests.model import StoredSecret
from pytest_lkagents.manifests.readers.kubernetes_workloads import kind_of
from pytest_lkagents.manifests.readers.secret_entries import is_stored, secrets_in
from pytest_lkagents.manifests.tree import Node


def stored(document: Node) -> list[StoredSecret]:
    """Values in a Secret, and in a ConfigMap those that are named like a secret, also in a file that is kept in it."""
    if kind_of(document) == "ConfigMap":
        return [found for name, value in document.entries("data") for found in secrets_in(name, value)]
    if kind_of(document) != "Secret":
        return []
    return [
        StoredSecret(name, value.place)
        for part in ("data", "stringData")
        for name, value in document.entries(part)
        if _is_value(part, name, value.text() or "")
    ]


def _is_value(part: str, name: str, text: str) -> bool:
    """Whether a Secret's entry is a secret's value. Base64 is decoded to see."""
    import base64
    import binascii

    if part == "data":
        try:
            # A block of several lines is one value.
            text = base64.b64decode("".join(text.split()), validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return False
    return is_stored(name, text)
