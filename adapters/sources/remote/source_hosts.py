"""The hosts and buckets from which a server may fetch adapters, and the address to connect to."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Self

import httpx

from rootstock.adapters.reference import shown
from rootstock.adapters.sources.remote.errors import SourceNotAllowed
from rootstock.adapters.sources.remote.public_address import NotPublic, resolve_public
from rootstock.adapters.sources.remote.source_reference import BucketSource

SETTING = "ROOTSTOCK_SOURCE_HOSTS"
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]+\]?", re.ASCII)
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\x21-\x2b\x2d-\x7e]*)?")
_HTTPS = 443


class SourceHosts:
    """The names of allowed hosts, and the addresses of allowed buckets. Without any, nothing may be fetched.

    A host is called by https on its usual port, and only at a public address. `trusted` holds authorities, each
    `host:port`, that are called as they are: the hub that the operator's HF_ENDPOINT names, or a test's server.
    """

    def __init__(
        self, hosts: Collection[str] = (), buckets: Collection[str] = (), trusted: Collection[str] = ()
    ) -> None:
        self._hosts = frozenset(host.lower().rstrip(".").strip("[]") for host in hosts)
        # With the slash, `s3://models` does not allow `s3://models-of-others`.
        self._buckets = tuple(bucket if bucket.count("/") > 2 else f"{bucket}/" for bucket in buckets)
        self._trusted = frozenset(trusted)

    @classmethod
    def parse(cls, text: str, trusted: Collection[str] = ()) -> Self:
        """Return the hosts in a list that commas separate. Raise ValueError for an entry that is neither form."""
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        for entry in entries:
            if not (_BUCKET if entry.startswith("s3://") else _HOST).fullmatch(entry):
                raise ValueError(
                    f"{entry!r} is neither a host name nor a bucket; give names such as models.example.com "
                    "without a scheme, a port or a path, or s3://bucket or s3://bucket/prefix/"
                )
        buckets = [entry for entry in entries if entry.startswith("s3://")]
        return cls([entry for entry in entries if entry not in buckets], buckets, trusted)

    def check_bucket(self, source: BucketSource) -> None:
        """Raise SourceNotAllowed unless the object's bucket, or a prefix of its key, is allowed."""
        self._check_any()
        address = f"s3://{source.bucket}/{source.key}"
        if not any(address.startswith(bucket) for bucket in self._buckets):
            raise SourceNotAllowed(
                f"s3://{source.bucket} with this key is not in {SETTING}; let the operator name the bucket there"
            )

    async def target(self, url: httpx.URL) -> httpx.URL:
        """Return the address to connect to, in the place of the host's name.

        Raise SourceNotAllowed for a host that is not allowed, for another scheme or port, and for a name with any
        address that is not public. Raise OSError for a name without an address.
        """
        self._check_any()
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        if f"{url.host}:{url.port or {'http': 80}.get(url.scheme, _HTTPS)}" in self._trusted:
            return url
        if host not in self._hosts:
            raise SourceNotAllowed(f"the host {shown(host)} is not in {SETTING}; let the operator name it there")
        if url.scheme != "https" or url.port not in (None, _HTTPS):
            raise SourceNotAllowed(
                f"{shown(host)} is called by https on port {_HTTPS} alone; correct the address"
            )
        try:
            return url.copy_with(host=await resolve_public(host, _HTTPS))
        except NotPublic:
            raise SourceNotAllowed(
                f"{shown(host)} has an address that is not public; push the adapter itself"
            ) from None

    def _check_any(self) -> None:
        if not self._hosts and not self._buckets and not self._trusted:
            raise SourceNotAllowed(
                "this server fetches no adapters; push the adapter itself, or let the operator name the host in "
                f"{SETTING}"
            )
