"""The download of an image or a recording from a host that the settings allow, within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import httpx

from rootstock.adapters.media import MediaModality, modality_of_type
from rootstock.adapters.sources.remote.public_address import NotPublic, resolve_public
from rootstock.service.engine.core.errors import InvalidInput, TooLarge

SETTING = "ROOTSTOCK_MEDIA_HOSTS"
_MOST_URL = 2048
_PORTS = {"http": 80, "https": 443}


class RemoteFiles:
    """The files on allowed hosts. Without any host, every address is refused.

    A request goes to the address that was checked, so that a second lookup of the name cannot lead elsewhere. It
    follows no redirect, uses no proxy of the environment and accepts no compressed answer.
    """

    def __init__(
        self, hosts: Collection[str] = (), trusted: Collection[str] = (), seconds: float = 10.0, at_once: int = 8
    ) -> None:
        """Allow `hosts`, which are names or addresses.

        `trusted` holds authorities, each `host:port`, whose addresses are not checked, such as that of a test's
        own server. All downloads of a request have `seconds`. At most `at_once` run for all requests.
        """
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._trusted = frozenset(trusted)
        self.seconds = seconds
        self._turns = asyncio.Semaphore(at_once)

    async def fetch(self, text: str, modality: MediaModality, where: str, most: int, ends: float) -> bytes:
        """Return the bytes of the file at an address, before the time `ends` of the event loop.

        Raise InvalidInput for an address that is not allowed or does not lead to a file, TooLarge for more than
        `most` bytes.
        """
        url = self._allowed(text, where)
        try:
            async with asyncio.timeout_at(ends), self._turns:
                return await self._download(url, modality, where, most)
        except TimeoutError:
            raise InvalidInput(
                f"{where}: the downloads of this request took more than {self.seconds:g} seconds; send the files "
                "themselves",
                where,
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError):
            raise InvalidInput(
                f"{where}: {url.host} gave no complete answer; check the address, or send the file itself", where
            ) from None

    def _allowed(self, text: str, where: str) -> httpx.URL:
        """Return the address if it is plain and its host is allowed; else raise InvalidInput."""
        if not self._hosts and not self._trusted:
            raise InvalidInput(
                f"{where} is an address, and this server downloads nothing; send the file as base64 or as a data "
                f"URL, or let the operator name the host in {SETTING}",
                where,
            )
        try:
            url = httpx.URL(text) if len(text) <= _MOST_URL else None
        except (httpx.InvalidURL, UnicodeError, ValueError):
            url = None
        if url is None or url.scheme not in _PORTS or not url.host:
            raise InvalidInput(
                f"{where} is no address of the form https://host/path with at most {_MOST_URL} characters; "
                "correct it",
                where,
            )
        if url.userinfo:
            raise InvalidInput(f"{where} holds a name or a password; leave it out of the address", where)
        if self._is_trusted(url):
            return url
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        if host not in self._hosts:
            raise InvalidInput(
                f"{where}: {host[:64]!r} is not among the hosts in {SETTING}; name it there", where
            )
        if url.port not in (None, _PORTS[url.scheme]):
            raise InvalidInput(
                f"{where} names port {url.port}; only the port of {url.scheme}, {_PORTS[url.scheme]}, is allowed",
                where,
            )
        return url

    def _is_trusted(self, url: httpx.URL) -> bool:
        return f"{url.host}:{url.port or _PORTS[url.scheme]}" in self._trusted

    async def _download(self, url: httpx.URL, modality: MediaModality, where: str, most: int) -> bytes:
        target, name = url, url.raw_host.decode("ascii")
        if not self._is_trusted(url):
            try:
                target = url.copy_with(host=await resolve_public(name, _PORTS[url.scheme]))
            except NotPublic:
                raise InvalidInput(
                    f"{where}: {url.host} has an address that is not public; send the file itself", where
                ) from None
        headers = {"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity", "Accept": f"{modality}/*"}
        # The certificate is that of the name, not of the address.
        extensions = {"sni_hostname": name}
        async with (
            httpx.AsyncClient(trust_env=False, timeout=self.seconds) as client,
            client.stream("GET", target, headers=headers, extensions=extensions) as response,
        ):
            _check(response, modality, where, most)
            parts, size = [], 0
            async for part in response.aiter_raw():
                size += len(part)
                _check_size(size, most, where)
                parts.append(part)
            return b"".join(parts)


def _check(response: httpx.Response, modality: MediaModality, where: str, most: int) -> None:
    """Raise InvalidInput or TooLarge for an answer whose head is not that of a file of the modality."""
    if response.status_code != 200:
        redirect = " (redirects are not followed)" if response.is_redirect else ""
        raise InvalidInput(
            f"{where}: the host answered {response.status_code}{redirect}; give the address of the file", where
        )
    declared = response.headers.get("content-type", "")
    if modality_of_type(declared) != modality:
        raise InvalidInput(
            f"{where}: the host sent {declared[:64]!r}; the Content-Type has to be {modality}/…", where
        )
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise InvalidInput(f"{where}: the host sent a compressed answer, which is not read", where)
    length = response.headers.get("content-length", "")
    if length.isdecimal():
        # A length of thousands of digits is no int, and is too much in any case.
        _check_size(int(length) if len(length) < 19 else most + 1, most, where)


def _check_size(size: int, most: int, where: str) -> None:
    if size > most:
        raise TooLarge(
            f"{where} leads to more than the {most} bytes that ROOTSTOCK_MAX_BODY_MB leaves for it; send a "
            "smaller file",
            where,
        )
