"""The download of a file over HTTP from an allowed host, within limits of size and of redirects."""

from __future__ import annotations

import httpx

from rootstock.adapters.sources.remote.errors import SourceUnavailable
from rootstock.adapters.sources.remote.source_hosts import SourceHosts
from rootstock.adapters.spec import Rejected

_MOST_REDIRECTS = 3
_PIECE_SECONDS = 30.0


async def download(url: httpx.URL, hosts: SourceHosts, most: int, secret: str | None = None) -> bytes:
    """Return the bytes at an address.

    Each redirect is checked like the first address. `secret` is a bearer token for the first host alone. Raise
    SourceNotAllowed as `SourceHosts.target` does, SourceUnavailable for an answer that is not a whole file, and
    Rejected (check "size") for more than `most` bytes.
    """
    first = url
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=_PIECE_SECONDS) as client:
            for _ in range(_MOST_REDIRECTS + 1):
                # The connection goes to the address that was checked, so a second lookup cannot lead elsewhere.
                target = await hosts.target(url)
                headers = {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"}
                if secret is not None and (url.scheme, url.netloc) == (first.scheme, first.netloc):
                    headers["Authorization"] = f"Bearer {secret}"
                extensions = {"sni_hostname": url.raw_host.decode("ascii")}
                async with client.stream("GET", target, headers=headers, extensions=extensions) as response:
                    if not response.has_redirect_location:
                        return await _body(response, url, most)
                    url = url.join(response.headers["location"])
    except Rejected:
        raise
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        raise SourceUnavailable(f"{url.host} gave no complete answer; check the address, or try again") from None
    raise SourceUnavailable(
        f"{first.host} redirects more than {_MOST_REDIRECTS} times; give the address of the file itself"
    )


async def _body(response: httpx.Response, url: httpx.URL, most: int) -> bytes:
    if response.status_code != 200:
        raise SourceUnavailable(
            f"{url.host} answered {response.status_code} for {url.path[:200]}; check the address, and that the "
            "server may read it"
        )
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise SourceUnavailable(
            f"{url.host} sent a compressed answer, which is not read; give the address of a zip"
        )
    length = response.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > most):
        raise _too_large(url, most)
    parts, size = [], 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > most:
            raise _too_large(url, most)
        parts.append(part)
    return b"".join(parts)


def _too_large(url: httpx.URL, most: int) -> Rejected:
    return Rejected(
        "size", "source", f"{url.host} sends more than {most} bytes, which is the limit; make it smaller"
    )
