"""The protection of a server without keys against requests that a foreign web page makes a browser send."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

# A name, an IPv4 address or a bracketed IPv6 one, with or without a port.
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:/?#@\[\]\\]+))(?::[0-9]*)?", re.ASCII)
_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
_OUR_FETCHES = ("same-origin", "same-site", "none")
_MAX_QUOTED = 100


class Sites:
    """The sites that a server without keys accepts: loopback names and addresses, `names`, and `origins`.

    A page of another site can send a request but not read the answer, so it could publish and compute. A page
    whose host name resolves to this server (DNS rebinding) could read as well. Its requests carry that name as
    Host.
    """

    def __init__(self, names: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origins)
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._knows = lru_cache(maxsize=256)(self._look)

    def refusal(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, str, str] | None:
        """Return status, code and message if these headers belong to a foreign page's request, else None.

        Programs send no Origin. A request without Host passes: HTTP/1.0 allows it, and browsers always send one.
        """
        listed = False
        fetch: str | None = None
        for name, raw in headers:
            value = raw.decode("latin-1")
            if name == b"host" and not self._knows(value):
                return (
                    403,
                    "unknown_host",
                    f"the Host {value[:_MAX_QUOTED]!r} is not allowed on a server without keys; use 127.0.0.1 or "
                    "localhost, or add the name to ROOTSTOCK_ALLOWED_HOSTS",
                )
            if method in _SAFE:
                continue
            if name == b"origin":
                listed = value.lower() in self._origins
                if not listed and not self._knows(_authority_of(value)):
                    return _foreign(f"Origin {value[:_MAX_QUOTED]!r}")
            if name == b"sec-fetch-site" and value not in _OUR_FETCHES:
                fetch = value
        if fetch is not None and not listed:
            return _foreign(f"Sec-Fetch-Site {fetch[:_MAX_QUOTED]!r}")
        return None

    def _look(self, authority: str) -> bool:
        parts = _AUTHORITY.fullmatch(authority.lower())
        if parts is None:
            return False
        name = (parts[1] or parts[2]).rstrip(".")
        return name in self._names or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Tell whether a host is a loopback name or address: localhost, a name under it, 127.0.0.0/8 or ::1."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _foreign(sign: str) -> tuple[int, str, str]:
    return (
        403,
        "foreign_site",
        f"a web page of another site sent this request ({sign}), and a server without keys refuses it; use the "
        "server's own address, add the page's host to ROOTSTOCK_ALLOWED_HOSTS or its origin to "
        "ROOTSTOCK_CORS_ORIGINS, or set ROOTSTOCK_ADMIN_KEY and ROOTSTOCK_API_KEY",
    )


def _authority_of(origin: str) -> str:
    """Return the host and port of an Origin; empty for `null` and for any scheme but http and https."""
    scheme, _, authority = origin.partition("://")
    return authority if scheme.lower() in ("http", "https") else ""
