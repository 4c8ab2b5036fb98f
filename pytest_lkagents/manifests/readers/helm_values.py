"""What Helm fills its templates with: files of values, and what names a chart has them within. Only secrets are looked for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_lkagents.manifests.model import StoredSecret
from pytest_lkagents.manifests.readers import gitops
from pytest_lkagents.manifests.readers.common import from_outside
from pytest_lkagents.manifests.readers.kubernetes_workloads import kind_of
from pytest_lkagents.manifests.readers.secret_entries import secrets_in
from pytest_lkagents.manifests.tree import Node
from pytest_lkagents.secrets import as_variable, holds_key, is_key, is_secret, url_passwords

# values.yaml, values-production.yaml, production.values.yml
FILES = re.compile(r"(.+[._-])?values([._-].+)?\.ya?ml")
# Of Flux, and of K3s.
CHARTS = ("HelmRelease", "HelmChart")
# Made of a secret, and none: a change of it has pods replaced; or what everybody may know of it.
MADE_OF_IT = re.compile(
    r"(^|_)(CHECKSUM|SHA_?\d*|DIGEST|FINGERPRINT|THUMBPRINT|REVISION|CERT|CERTIFICATE|CA|BUNDLE)$|SECRETS?_HASH$"
)
# What a Secret is called, perhaps with the ending that Kustomize gives it, or where it lies in a store. Keys have no words.
WORD = r"([a-z]{1,20}([A-Z][a-z]{1,20}){0,4}|[A-Z][a-z]{1,20}|[A-Z]{1,20}|\d{1,6}|[a-z]{1,3}\d{1,4}[a-z]?)"
OBJECT = re.compile(rf"(?=[A-Za-z]{{2}}){WORD}([-_./:#@]{WORD})*[-_./:#@]({WORD}|[a-z0-9]{{5,10}})")


def reads(document: Node) -> bool:
    return FILES.fullmatch(document.place.file.rpartition("/")[2]) is not None


def of_file(document: Node) -> list[StoredSecret]:
    return list(_secrets(document, ""))


def names_chart(document: Node) -> bool:
    """Argo CD deploys plain files, too."""
    if kind_of(document) in CHARTS:
        return True
    found = gitops.sources(document) if kind_of(document) in gitops.ARGO else []
    return any(source.get(name) is not None for source in found for name in ("chart", "helm"))


def of_chart(document: Node) -> list[StoredSecret]:
    """What is secret among the values of what names a chart."""
    own = [document.get("spec", name) for name in ("values", "valuesContent")]
    theirs = [source.get("helm", name) for source in gitops.sources(document) for name in ("values", "valuesObject")]
    found = [secret for values in [*own, *theirs] if values is not None for secret in _secrets(values, "values")]
    for source in gitops.sources(document):
        for parameter in source.items("helm", "parameters"):
            # Dots part the names that lead to it.
            value, name = parameter.get("value"), (parameter.text("name") or "").rpartition(".")[2]
            found += _secrets(value, name) if value is not None else []
    return found


def of_kustomization(document: Node) -> list[StoredSecret]:
    inline = [chart.get("valuesInline") for chart in document.items("helmCharts")]
    return [secret for values in inline if values is not None for secret in _secrets(values, "valuesInline")]


def _secrets(node: Node, name: str) -> Iterator[StoredSecret]:
    """Names of values are mostly those of Secrets, and of their keys: only what a generator made is one."""
    called = node.text("name")
    for below, entry in node.entries():
        # A variable, as containers have them.
        yield from _secrets(entry, called if below == "value" and called else below)
    for entry in node.items():
        yield from _secrets(entry, name)
    text = node.value
    if not isinstance(text, str) or from_outside(text):
        return
    if "\n" in text:
        yield from secrets_in(name, node)
    elif (is_secret(name, text) and _is_value(name, text)) or holds_key(text) or url_passwords(text):
        yield StoredSecret(name, node.place)


def _is_value(name: str, text: str) -> bool:
    """Not a Secret's name, nor what is made of it. Names with a slash are those of annotations (``checksum/secret``)."""
    made = MADE_OF_IT.search(as_variable(name).upper())
    return is_key(text) and not ("/" in name or made or OBJECT.fullmatch(text))
