"""A container that owns the network namespace in which a worker (or a server) runs.

It exists before the worker, so that a firewall is in force from the worker's first packet, and it outlives it, so that
its address stays the same. Nothing is needed in the user's image.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_lkagents.checks import NotJudgeable, StageError
from pytest_lkagents.inside import read_in, run_in
from pytest_lkagents.probe.answers import Answer, location
from pytest_lkagents.session import Session

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

# nft's JSON names a protocol by name or by number, depending on the release.
PROTOCOLS = {6: "tcp", 17: "udp", 1: "icmp"}

_building = threading.Lock()

# Every new outbound connection is written into a set (address, port, protocol). The packets of the engine's own
# name server (127.0.0.11) and of loopback are not outbound.
RECORDER = """
table inet lkagents {
  set contacted { type ipv4_addr . inet_proto . inet_service; flags dynamic; size 4096; }
  counter inbound { }
  chain output {
    type filter hook output priority 0; policy accept;
    oifname != "lo" ct state new add @contacted { ip daddr . meta l4proto . th dport }
  }
  chain input { type filter hook input priority 0; policy accept; }
}
"""

DROP_INBOUND = """
flush chain inet lkagents input
add rule inet lkagents input iifname "lo" accept
add rule inet lkagents input ct state established,related accept
add rule inet lkagents input counter name inbound drop
"""


# Disturbances have tables of their own, so that taking one away restores what was there before, exactly.
#
# Packets are lost at the device, as on a cable that was cut: dropped any earlier, the kernel would tell the program
# that sends them (EPERM). The engine's name server seems to be behind loopback, but asks others on the worker's behalf.
# ARP passes, since a partition between two routers does not keep a host from seeing its own.
PARTITION = "lkagents_partition"
PARTITION_RULES = """
add table inet {table}
add chain inet {table} names {{ type filter hook output priority -300; }}
add rule inet {table} names ip daddr 127.0.0.11 drop
add table netdev {table}
add counter netdev {table} lost
"""
PARTITION_DEVICE = """
add chain netdev {table} in_{device} {{ type filter hook ingress device "{device}" priority -300; }}
add chain netdev {table} out_{device} {{ type filter hook egress device "{device}" priority -300; }}
add rule netdev {table} in_{device} meta protocol != arp counter name lost drop
add rule netdev {table} out_{device} meta protocol != arp counter name lost drop
"""

# Refused, not lost: a lookup fails at once. Before the engine's own rules (-100), which give its name server's port
# another number. 853 is the port of lookups over TLS.
NAMELESS = "lkagents_nameless"
NAMELESS_RULES = """
add table inet {table}
add counter inet {table} lost
add chain inet {table} names {{ type filter hook output priority -300; }}
add rule inet {table} names ip daddr 127.0.0.11 counter name lost reject
add rule inet {table} names meta l4proto {{ tcp, udp }} th dport {{ 53, 853 }} counter name lost reject
"""


@dataclass(frozen=True)
class Listener:
    """A socket that others could talk to. ``protocol`` is tcp or udp."""

    protocol: str
    address: str
    port: int
    process: str = ""

    @property
    def loopback(self) -> bool:
        bare = self.address.strip("[]").partition("%")
        return bare[0].startswith(("127.", "::ffff:127.")) or bare[0] == "::1" or bare[2] == "lo"

    def __str__(self) -> str:
        return f"{self.protocol} {self.address}:{self.port}" + (f" ({self.process})" if self.process else "")


def ensure_image(client: DockerClient, name: str) -> None:
    """Build the side container's image if it is not here. Raises StageError with the remedy."""
    from docker.errors import APIError, BuildError, ImageNotFound

    with _building:
        try:
            client.images.get(name)
            return
        except ImageNotFound:
            pass
        try:
            client.images.build(path=str(Path(__file__).parent), tag=name, rm=True, forcerm=True)
        except (APIError, BuildError) as error:
            raise StageError(
                f"the side container's image {name} is not here and cannot be built ({_short(error)}): build it from "
                "pytest_lkagents/probe/Dockerfile where its base can be pulled, or name one as lk_probe_image"
            ) from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


class Sidecar:
    """See the module. Methods raise StageError when the side container itself fails."""

    def __init__(self, session: Session, image: str, name: str) -> None:
        from docker.errors import APIError

        try:
            self.container: Container = session.client.containers.run(
                image,
                ["sleep", "infinity"],
                name=f"pytest-lkagents-{session.id}-{name}-net",
                labels=session.labels,
                network=session.network.name,
                cap_add=["NET_ADMIN"],
                init=True,
                detach=True,
            )
            self.container.reload()
        except APIError as error:
            raise StageError(f"the side container does not start: {_short(error)}") from error
        networks: dict[str, Any] = self.container.attrs["NetworkSettings"]["Networks"]
        self.address = str(networks[str(session.network.name)]["IPAddress"])
        self._nft(RECORDER)

    @property
    def pid(self) -> int:
        """Of its first process, by the engine's numbers."""
        return int(self.container.attrs["State"]["Pid"])

    def read(self, *command: str) -> str:
        """Standard output of a command in the side container that changes nothing there."""
        return self._read(*command)[1]

    def _read(self, *command: str) -> tuple[int, str]:
        """Its exit code, too."""
        from docker.errors import APIError

        try:
            return read_in(self.container, *command)
        except APIError as error:
            raise StageError(f"the side container does not answer: {_short(error)}") from error

    def _nft(self, rules: str) -> None:
        problem = self._refused(rules)
        if problem is not None:
            raise StageError(f"the firewall of the side container cannot be set: {problem}")

    def _refused(self, rules: str) -> str | None:
        """Set all of these rules, or none and say why."""
        from docker.errors import APIError

        try:
            code, output, errors = run_in(self.container, "sh", "-c", f"printf %s '{rules}' | nft -f -")
        except APIError as error:
            raise StageError(f"the side container does not answer: {_short(error)}") from error
        if code == 0:
            return None
        return " ".join((output + errors).decode("utf-8", "replace").split())[:120] or f"exit code {code}"

    def drop_inbound(self) -> None:
        """From now on every connection from outside is dropped; answers to the worker's own ones pass."""
        self._nft(DROP_INBOUND)

    def dropped_inbound(self) -> int:
        """Packets that ``drop_inbound`` dropped so far."""
        return self._count("inet", "lkagents", "inbound")

    def allow_only(self, *addresses: str) -> None:
        """From now on the worker reaches these addresses and nothing else; name lookups fail too."""
        self._nft(
            "flush chain inet lkagents output\n"
            'add rule inet lkagents output oifname "lo" ip daddr != 127.0.0.11 accept\n'
            'add rule inet lkagents output oifname "lo" meta nfproto ipv6 accept\n'
            "add rule inet lkagents output ct state new add @contacted { ip daddr . meta l4proto . th dport }\n"
            f"add rule inet lkagents output ip daddr {{ {', '.join(sorted(addresses))} }} accept\n"
            "add rule inet lkagents output ct state established,related accept\n"
            "add rule inet lkagents output reject\n"
        )

    def count_attempts(self, address: str, port: int) -> None:
        """Count the worker's connection attempts to a TCP port from now on."""
        self._nft(
            "add counter inet lkagents attempts\n"
            f"add rule inet lkagents output ip daddr {address} tcp dport {port} "
            "tcp flags & (syn | ack) == syn counter name attempts\n"
        )

    def attempts(self) -> int:
        """Connection attempts since ``count_attempts``."""
        return self._count("inet", "lkagents", "attempts")

    @contextmanager
    def partition(self) -> Iterator[Callable[[], int]]:
        """While inside, every packet from and to the worker is lost without a word, loopback excepted.

        Yields a function that counts the packets lost so far. Raises NotJudgeable where the kernel cannot do it.
        """
        rules = PARTITION_RULES.format(table=PARTITION)
        for device in parse_devices(self.read("cat", "/proc/net/dev")):
            rules += PARTITION_DEVICE.format(table=PARTITION, device=device)
        with self._disturbed(PARTITION, rules, ("inet", "netdev"), "lose packets as a cut cable does (Linux 5.16)") as lost:
            yield lost

    @contextmanager
    def without_names(self) -> Iterator[Callable[[], int]]:
        """While inside, every lookup of a host name by the worker is refused.

        Yields a function that counts the packets refused so far. Raises NotJudgeable where the kernel cannot do it.
        """
        rules = NAMELESS_RULES.format(table=NAMELESS)
        with self._disturbed(NAMELESS, rules, ("inet",), "refuse lookups") as refused:
            yield refused

    @contextmanager
    def _disturbed(self, table: str, rules: str, families: tuple[str, ...], what: str) -> Iterator[Callable[[], int]]:
        problem = self._refused(rules)
        if problem is not None:
            raise NotJudgeable(f"this machine's kernel cannot {what}: {problem}")
        try:
            yield lambda: self._count(families[-1], table, "lost")
        finally:
            self._nft("".join(f"delete table {family} {table}\n" for family in families))

    def _count(self, family: str, table: str, counter: str) -> int:
        return sum(int(entry["counter"]["packets"]) for entry in self._listed("counter", family, table, counter))

    def _listed(self, kind: str, family: str, table: str, name: str) -> list[dict[str, Any]]:
        """The entries of this kind. Raises StageError: that nothing could be read must not pass for nothing seen."""
        code, output = self._read("nft", "-j", "list", kind, family, table, name)
        with contextlib.suppress(ValueError):
            if code == 0:
                return [entry for entry in json.loads(output)["nftables"] if kind in entry]
        raise StageError(f"the firewall of the side container does not tell its {kind} {name!r} (exit code {code})")

    def contacted(self) -> list[str]:
        """Outbound destinations so far, as ``address:port/protocol``. Raises StageError, as do the counts."""
        found = []
        for entry in self._listed("set", "inet", "lkagents", "contacted"):
            for element in entry["set"].get("elem", []):
                parts = element.get("elem", {}).get("val", element) if isinstance(element, dict) else element
                address, protocol, port = parts["concat"]
                found.append(f"{address}:{port}/{PROTOCOLS.get(protocol, protocol)}")
        return sorted(found)

    def listeners(self) -> list[Listener]:
        """Sockets in the namespace that others could talk to, without the engine's name server."""
        output = self.read("ss", "-Hlntu")
        return [found for found in parse_listeners(output) if not found.address.startswith("127.0.0.11")]

    def get(self, url: str, seconds: float = 5) -> tuple[int | None, str]:
        """HTTP status and body as seen from inside the namespace; status None when nothing answers."""
        answer = self.ask(url, seconds)
        return answer.status, answer.body

    def ask(self, url: str, seconds: float) -> Answer:
        """One GET as seen from inside the namespace; as the kubelet does it, no certificate is checked."""
        written = "\n%{http_code} %{redirect_url}"
        # For curl 0 is no limit at all.
        limit = f"{max(seconds, 0.001):.3f}"
        output = self.read("curl", "-sSgk", "--noproxy", "*", "-m", limit, "-w", written, url)
        body, _, told = output.rpartition("\n")
        status, _, leads_to = told.partition(" ")
        code = int(status) or None if status.isdigit() else None
        return Answer(url, code, body, location(url, code, leads_to))

    def remove(self) -> None:
        from docker.errors import APIError

        with contextlib.suppress(APIError):
            self.container.remove(force=True, v=True)


def parse_listeners(output: str) -> list[Listener]:
    """From the output of ``ss -Hlntu`` (with or without ``-p``)."""
    found = []
    for line in output.splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[0] not in ("tcp", "udp"):
            continue
        address, _, port = fields[4].rpartition(":")
        if port.isdigit():
            found.append(Listener(fields[0], address, int(port), fields[6] if len(fields) > 6 else ""))
    return found


def parse_devices(output: str) -> list[str]:
    """The namespace's network devices but loopback, from ``/proc/net/dev``, whose first two lines are headings.
    ``/sys/class/net`` has files that are none, such as ``bonding_masters``."""
    names = (line.partition(":")[0].strip() for line in output.splitlines()[2:])
    return sorted(name for name in names if name and name != "lo")
