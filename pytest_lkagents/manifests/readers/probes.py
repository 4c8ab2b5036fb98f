"""Probes: those of a pod's containers, and what a command asks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pytest_lkagents.manifests.commands import split
from pytest_lkagents.manifests.model import Given, Probe
from pytest_lkagents.manifests.readers.common import from_outside
from pytest_lkagents.manifests.tree import Node, Place

# One address of the container itself, as curl, wget, a script in a line (``urlopen('http://localhost:8081/')``) or nc take it.
OWN = re.compile(
    r"(?:(?P<scheme>https?)://)?\b(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?![\w.-])"
    r"(?:(?::|\s+)(?P<port>\d{2,5})\b)?(?P<path>/[\w/.-]*)?(?P<more>\S?)"
)
# What goes on after the port or path with this is not in the file, or not understood.
OPEN = set("$:{?%")
SCHEME_PORTS = {"http": 80, "https": 443}


def of_command(kind: str, words: Sequence[str], place: Place, *, failures: int | None = None, ends: bool = False) -> Probe:
    """With port and path where the command asks just one address of the container itself, and the file says which."""
    asked = {(found["scheme"], found["port"], found["path"], found["more"] in OPEN) for found in OWN.finditer(" ".join(words))}
    scheme, port, path, open_ = asked.pop() if len(asked) == 1 else (None, None, None, True)
    number = int(port) if port else SCHEME_PORTS.get(scheme or "")
    if open_ or number is None:
        return Probe(kind, place, failures=failures, ends=ends)
    http = path is not None or scheme is not None
    over = (scheme or "http") if http else "tcp"
    if http and _takes_any_answer(words):
        return Probe(kind, place, number, None, failures, ends, over, any_answer=True)
    return Probe(kind, place, number, (path or "/") if http else None, failures, ends, over)


# Of curl: what makes a failure of a status such as 404, also among other letters that stand for options without a value.
FAILS = re.compile(r"--fail(-with-body)?|-[#0-46aBgGiIjJklLMnNOpqRsSvVZ]*f\S*")


def _takes_any_answer(words: Sequence[str]) -> bool:
    """Whether this is curl, which by default succeeds whatever the status, and nothing looks at what it prints."""
    parts = [part.rpartition("/")[2] for word in words for part in split(word)]
    piped = re.search(r"(?<!\|)\|(?!\|)", " ".join(words))
    return "curl" in parts and "wget" not in parts and not any(map(FAILS.fullmatch, parts)) and not piped


def of_container(container: Node) -> list[Probe]:
    """A container's probes as Kubernetes and Cloud Run write them; a port by name is resolved."""
    ports = container.items("ports")
    named = {entry.text("name") or f"port {number}": entry.number("containerPort") for number, entry in enumerate(ports)}
    found = [(kind, container.get(f"{kind}Probe")) for kind in ("liveness", "readiness", "startup")]
    return [_of_pod(kind, probe, named) for kind, probe in found if probe is not None]


def of_list(container: Node) -> list[Probe]:
    """The same as Azure Container Apps write them, each with its kind as ``type``."""
    return [_of_pod((probe.text("type") or "").lower(), probe, {}) for probe in container.items("probes")]


def _of_pod(kind: str, probe: Node, named: Mapping[str, float | None]) -> Probe:
    grace = probe.number("terminationGracePeriodSeconds")
    made = replace(_asked(kind, probe, named), failures_at=probe.at("failureThreshold"))
    return made if grace is None else replace(made, grace_s=Given(grace, probe.at("terminationGracePeriodSeconds")))


def _asked(kind: str, probe: Node, named: Mapping[str, float | None]) -> Probe:
    failures, ends = probe.number("failureThreshold"), kind == "liveness"
    times = int(failures) if failures is not None else None
    words = probe.words("exec", "command")
    if words is not None:
        return of_command(kind, words, probe.at("exec", "command"), failures=times, ends=ends)
    action = next((name for name in ("httpGet", "tcpSocket", "grpc") if probe.get(name) is not None), None)
    if action is None or probe.text(action, "host") is not None:
        return Probe(kind, probe.place, failures=times, ends=ends)  # another host's, which this does not tell
    port, name = probe.number(action, "port"), probe.text(action, "port")
    if port is None:
        port = named.get(name or "")
    # The kubelet looks for it among the ports of this container alone.
    nowhere = name if port is None and name not in named and not from_outside(name) else None
    path = (probe.text(action, "path") or "/") if action == "httpGet" else None
    over = {"httpGet": (probe.text(action, "scheme") or "http").lower(), "tcpSocket": "tcp", "grpc": "grpc"}[action]
    return Probe(
        kind,
        probe.at(action, "port"),
        int(port) if port else None,
        path,
        times,
        ends,
        over,
        nowhere=nowhere,
    )
