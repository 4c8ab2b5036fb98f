"""The container engine: one client, its images and networks."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from pytest_lkagents.checks import StageError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image
    from docker.models.networks import Network

# What the doctor itself does not say.
TELLS_MORE = " (pytest --lk-doctor tells more)"
# So much is shown of what an engine says.
REASON = 160
# What the processors of an architecture run beside it without an emulation, in the engine's terms.
ALSO_RUNS = {"amd64": ("386",), "arm64": ("arm",)}


def connect(timeout: int | None = 120) -> DockerClient:
    """A client for the engine that DOCKER_HOST names, or the default one, which waits so many seconds for an answer (None: for
    ever). Raises StageError with the remedy."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=timeout)  # type: ignore[arg-type]  # None is requests' own word for no limit
        _ask_variables_once(client)
        client.ping()
    except (DockerException, OSError, ValueError) as error:  # the last one of what is no address
        where = _where()
        # Where there is more to it than an engine that is not there.
        special = os.environ.get("DOCKER_TLS_VERIFY") or where.startswith("ssh:")
        reason = f" ({' '.join(str(error).split())[:REASON]})" if special else ""
        raise StageError(
            f"no container engine answers at {where}{reason}: start Docker, or set DOCKER_HOST{TELLS_MORE}"
        ) from error
    return client


def _ask_variables_once(client: DockerClient) -> None:
    """The engine is asked from many threads, and the HTTP client would read the variables of proxies at each question, while
    pytest changes others (see machine.environment): what they say of this engine is read here."""
    from requests.utils import get_environ_proxies

    http = client.api
    http.proxies.update(get_environ_proxies(http.base_url, http.proxies.get("no_proxy")))
    if http.verify is True:
        http.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    http.trust_env = False


def _where() -> str:
    """Which engine is asked, without a password."""
    return re.sub(r"//[^/@]*@", "//", os.environ.get("DOCKER_HOST") or "its default socket")


def find_image(client: DockerClient, name: str) -> Image:
    """The image, pulled if it is not here. Raises StageError with the remedy, also if it is made for other machines."""
    from docker.errors import DockerException

    try:
        image = client.images.get(name)
    except (DockerException, UnicodeError):
        try:
            image = client.images.pull(name) if ":" in name or "@" in name else client.images.pull(name, tag="latest")
        except (DockerException, UnicodeError) as error:
            reason = " ".join(str(getattr(error, "explanation", None) or error).split())[:REASON]
            # The SDK does not follow the context that is chosen for Docker's command line.
            more = "" if os.environ.get("DOCKER_HOST") else " (set DOCKER_HOST for one that `docker context` chose)"
            raise StageError(
                f"image {name!r} is neither here nor can it be pulled: build it or log in ({reason}); asked was the engine at "
                f"{_where()}{more}"
            ) from error
    if (foreign := made_for_others(client, image)) is not None:
        raise StageError(f"image {name!r} {foreign}")
    return image


def made_for_others(client: DockerClient, image: Image) -> str | None:
    """What to do about an image that this engine could run under an emulation at best, which is slow, so that nothing it
    does would mean anything; None: it is made for this machine, or does not say for which."""
    engine = client.version()
    system, machine = engine.get("Os"), engine.get("Arch")
    wanted_system, wanted = image.attrs.get("Os"), image.attrs.get("Architecture")
    if not (system and machine and wanted_system and wanted):
        return None
    if wanted_system == system and wanted in {machine, *ALSO_RUNS.get(machine, ())}:
        return None
    return (
        f"is made for {wanted_system}/{wanted} and this engine is {system}/{machine}: judge it on such a machine, or build it "
        f"for this one (docker build --platform {system}/{machine})"
    )


def too_few_cores(client: DockerClient, wanted: float | None, origin: str = "--lk-cpus") -> str | None:
    """What to do about a limit that this engine refuses for every worker; None: it has so many cores, or does not say.
    ``origin``: how the limit was given."""
    cores = client.info().get("NCPU") if wanted is not None else None
    if wanted is None or not cores or wanted <= cores:
        return None
    return f"{origin} {wanted:g}: this engine has {cores} cores, so give {cores} at most"


ELSEWHERE = (
    "the container engine's networks are not on this machine, which the callers and the tap need: run pytest on the "
    "engine's own host, with Docker, neither rootless nor in a machine of its own (DOCKER_HOST, Docker Desktop); Podman "
    "makes a network's bridge with its first container only, and is taken for an engine elsewhere"
)
# Their networks are in a namespace or a machine of their own.
ROOTLESS, DESKTOP = "name=rootless", "Docker Desktop"


def is_here(network: Network) -> bool:
    """Whether this machine has the bridge of a network."""
    address = gateway_of(network)
    return any(known.address == address for found in psutil.net_if_addrs().values() for known in found)


def gateway_of(network: Network) -> str:
    """This machine's address there, as containers see it: that of IPv4, wherever it stands, if an engine is set to give IPv6 to
    every network."""
    configs: list[dict[str, Any]] = network.attrs["IPAM"]["Config"]
    config = next((found for found in configs if ":" not in found["Subnet"]), configs[0])
    return str(config.get("Gateway") or config["Subnet"].rpartition(".")[0] + ".1")


def is_elsewhere(client: DockerClient) -> bool:
    """Whether the engine's networks are certainly on another machine, or in a namespace of their own, judged by what it says
    of itself and by the one that engines have by themselves: of a rootful one beside it the address may be the same."""
    from docker.errors import APIError

    try:
        about = client.info()
        if ROOTLESS in (about.get("SecurityOptions") or ()) or about.get("OperatingSystem") == DESKTOP:
            return True
        return not is_here(client.networks.get("bridge"))
    except (APIError, LookupError, TypeError):
        return False


@contextmanager
def answering() -> Iterator[None]:
    """A context, or a decorator, for what asks the engine for something. Raises StageError if it does not answer at all."""
    from requests import RequestException

    try:
        yield
    except RequestException as error:
        raise StageError(
            f"the container engine does not answer ({type(error).__name__}): restart it; the next run removes what is left"
        ) from None


def describe(client: DockerClient) -> str:
    """Engine and version, such as ``docker 20.10.24 (linux, cgroup v1)``; Podman has the same interface."""
    info, parts = client.info(), client.version().get("Components") or ()
    name = "podman" if any("podman" in str(part.get("Name")).lower() for part in parts) else "docker"
    return f"{name} {info.get('ServerVersion')} ({platform.system().lower()}, cgroup v{info.get('CgroupVersion', '1')})"
