"""The adapters at addresses that a server may fetch."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from rootstock.adapters.bundle import Limits
from rootstock.adapters.sources.remote.bucket_object import fetch_object
from rootstock.adapters.sources.remote.download import download
from rootstock.adapters.sources.remote.errors import SourceUnavailable
from rootstock.adapters.sources.remote.hub_repository import fetch_repository
from rootstock.adapters.sources.remote.source_hosts import SourceHosts
from rootstock.adapters.sources.remote.source_reference import (
    BucketSource,
    HubSource,
    SourceReference,
)

_HUB = "https://huggingface.co"


class RemoteSources:
    """The sources that a server may fetch, one after the other in full, within a limit of time."""

    def __init__(
        self,
        hosts: SourceHosts,
        limits: Limits,
        seconds: float = 60.0,
        at_once: int = 2,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Fetch from `hosts`, at most `at_once` sources at a time, each within `seconds`.

        `environment` holds HF_ENDPOINT and HF_TOKEN, as the hub's own client reads them.
        """
        self._hosts = hosts
        self._limits = limits
        self._seconds = seconds
        self._hub = environment.get("HF_ENDPOINT") or _HUB
        self._token = environment.get("HF_TOKEN") or None
        self._turns = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def fetched(self, source: SourceReference) -> AsyncIterator[bytes]:
        """Yield the zip of a source; no further one is fetched into memory while many are in use.

        Raise SourceNotAllowed for a host that is not allowed, and SourceUnavailable if the host does not give the
        file in time or gives another one than the source's digest states. Raise Rejected (check "size") if it is
        too large.
        """
        async with self._turns:
            yield await self._fetch(source)

    async def _fetch(self, source: SourceReference) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._read(source)
        except TimeoutError:
            raise SourceUnavailable(
                f"{source} took more than {self._seconds:g} seconds; push the adapter itself"
            ) from None

    async def _read(self, source: SourceReference) -> bytes:
        if isinstance(source, HubSource):
            return await fetch_repository(source, self._hub, self._hosts, self._limits, self._token)
        if isinstance(source, BucketSource):
            self._hosts.check_bucket(source)
            data = await fetch_object(source, self._limits.max_bundle_bytes)
        else:
            data = await download(source.url, self._hosts, self._limits.max_bundle_bytes)
        if source.sha256 is not None:
            actual = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
            if actual != source.sha256:
                raise SourceUnavailable(f"{source} has the SHA-256 {actual}; correct the digest, or the address")
        return data


def trusted_hub(hosts: str, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the authority of the hub that the operator's HF_ENDPOINT names, if its host is among `hosts`.

    An operator may run a mirror of the hub in a private network, or by http.
    """
    endpoint = environment.get("HF_ENDPOINT", "")
    try:
        url = httpx.URL(endpoint) if endpoint else None
    except httpx.InvalidURL:
        return ()
    listed = {host.strip().strip("[]").lower() for host in hosts.split(",")}
    if url is None or url.scheme not in ("http", "https") or url.host.lower() not in listed:
        return ()
    return (f"{url.host}:{url.port or (80 if url.scheme == 'http' else 443)}",)
