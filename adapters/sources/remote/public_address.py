"""The address to connect to for a host name: a public one, which the caller uses without a second lookup."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# Networks whose addresses hold an IPv4 address that a gateway connects to: NAT64 of RFC 6052 and RFC 8215.
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))


class NotPublic(Exception):
    """A host name with an address that is not public, such as a private or a loopback one."""


async def resolve_public(host: str, port: int) -> str:
    """Return a public address of a host.

    Raise NotPublic if any of its addresses is not public, because a name of a private host may also have a public
    one. Raise OSError for a name without an address.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(one[4][0]) for one in found]
    if not addresses:
        raise OSError("the name has no address")
    if not all(map(is_public, addresses)):
        raise NotPublic
    return addresses[0]


def is_public(text: str) -> bool:
    """Tell whether an address is one of the public internet, also if it is an IPv4 address inside an IPv6 one."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _TRANSLATED):
            return False
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return is_public(str(inner))
    return address.is_global and not address.is_multicast
