"""The sites that a server without keys answers to: what a foreign web page makes a browser send is refused."""

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
    """The host names under which a server is meant to be reached: loopback's own, and `names`.

    A page of another site can send a request but not read the answer, so it could publish and compute. A page
    whose own name was made to point here (DNS rebinding) could read as well; its requests bear that name as Host.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._knows = lru_cache(maxsize=256)(self._look)

    def refusal(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, str, str] | None:
        """Return status, code and message if these headers are of a foreign page's request.

        A program sends no Origin and a Host that it was given; HTTP/1.0 may leave the Host out, a browser never.
        """
        for name, raw in headers:
            value = raw.decode("latin-1")
            if name == b"host" and not self._knows(value):
                return (
                    403,
                    "unknown_host",
                    f"this server has no keys and is not known as {value[:_MAX_QUOTED]!r}; use 127.0.0.1 or "
                    "localhost, or list the name in ROOTSTOCK_ALLOWED_HOSTS",
                )
            if method in _SAFE:
                continue
            if name == b"origin" and not self._knows(_authority_of(value)):
                return _foreign(f"Origin {value[:_MAX_QUOTED]!r}")
            if name == b"sec-fetch-site" and value not in _OUR_FETCHES:
                return _foreign(f"Sec-Fetch-Site {value[:_MAX_QUOTED]!r}")
        return None

    def _look(self, authority: str) -> bool:
        parts = _AUTHORITY.fullmatch(authority.lower())
        if parts is None:
            return False
        name = (parts[1] or parts[2]).rstrip(".")
        return name in self._names or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address is this machine's own: localhost, 127.0.0.0/8 or ::1."""
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
        f"this server has no keys and refuses the web pages of other sites ({sign}); use its own address, list "
        "the page's host in ROOTSTOCK_ALLOWED_HOSTS, or set ROOTSTOCK_ADMIN_KEY and ROOTSTOCK_API_KEY",
    )


def _authority_of(origin: str) -> str:
    """Return what stands after the scheme of an Origin; of `null` or any other scheme nothing that is known."""
    scheme, _, authority = origin.partition("://")
    return authority if scheme.lower() in ("http", "https") else ""
