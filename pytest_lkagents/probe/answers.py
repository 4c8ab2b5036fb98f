"""What a worker's HTTP server answers, and where its redirects lead: followed as the kubelet follows them.

Its prober (https://github.com/kubernetes/kubernetes/blob/master/pkg/probe/http/http.go) goes where a redirect leads as long as
that is the same host name, on whatever port, and gives up after ten requests; with one to another host it is content.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

# Those that a client follows; 300 and 304 are none.
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REQUESTS = 10
BODY_BYTES = 65536


@dataclass(frozen=True)
class Answer:
    """``status`` is None when nothing answers at ``url``; ``location``: where the server says to go on, absolute;
    ``first``: the redirect that led here, None where there was none."""

    url: str
    status: int | None = None
    body: str = ""
    location: str = ""
    first: int | None = None

    @property
    def leads_elsewhere(self) -> bool:
        """To another host: whatever is there says nothing of this one."""
        return bool(self.location) and urlsplit(self.location).hostname != urlsplit(self.url).hostname

    def __str__(self) -> str:
        if self.leads_elsewhere:
            return f"{self.status} (to {shown(self.location)})"
        said = str(self.status or "nothing")
        if self.first is None:
            return said
        if self.location:
            return f"{said} again and again"
        return f"{said} at {urlsplit(self.url).path or '/'}, to which a {self.first} leads"


# An URL and seconds to what one request of it is answered.
Ask = Callable[[str, float], Answer]


def shown(url: str) -> str:
    """Without what may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def shown_from(port: int, url: str) -> str:
    """The path alone where that is on the plain HTTP of this port."""
    parts = urlsplit(url)
    return parts.path or "/" if (parts.scheme, parts.port) == ("http", port) else shown(url)


def ask(url: str, seconds: float) -> Answer:
    """One GET from this machine, without a proxy. As the kubelet does it, no certificate is checked."""
    connection: http.client.HTTPConnection | None = None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            unchecked = ssl._create_unverified_context()  # noqa: S323
            connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=unchecked)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=seconds)
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        body = answer.read(BODY_BYTES).decode("utf-8", "replace")
        return Answer(url, answer.status, body, location(url, answer.status, answer.getheader("Location")))
    except (OSError, ValueError, http.client.HTTPException):
        return Answer(url)
    finally:
        if connection is not None:
            connection.close()


def location(url: str, status: int | None, header: str | None) -> str:
    """Where the answer leads, absolute; empty where it does not lead to what can be asked."""
    if status not in REDIRECTS or not header:
        return ""
    try:
        leads_to = urljoin(url, header.strip()).partition("#")[0]
        urlsplit(leads_to).port  # noqa: B018 - raises ValueError
    except ValueError:
        return ""
    return leads_to if leads_to.startswith(("http://", "https://")) else ""


def follow(one: Ask, url: str, seconds: float) -> Answer:
    """The answer at the end of its redirects, within ``seconds`` altogether; a redirect itself where it leads to another host,
    or where there is no end."""
    end = time.monotonic() + seconds
    answer = one(url, seconds)
    first = answer.status
    for _ in range(MOST_REQUESTS - 1):
        if not answer.location or answer.leads_elsewhere:
            break
        left = end - time.monotonic()
        answer = replace(one(answer.location, left) if left > 0 else Answer(answer.location), first=first)
    return answer
