"""The two transports: each sends calls to one server and carries out flows, blocking or on an event loop."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError
from copy import copy
from dataclasses import dataclass
from threading import Event
from typing import Any, Self, TypeVar

import httpx

from rootstock.adapters.client.errors import ClientError, Misused, refusal, unreachable
from rootstock.adapters.client.exchange import ClientFlow, HttpCall, Pause, RetryPolicy

T = TypeVar("T")
C = TypeVar("C", bound="BlockingTransport | AsyncTransport")

DEFAULT_URL = "http://127.0.0.1:3000"
URL_VARIABLE = "ROOTSTOCK_URL"
REQUEST_KEY = "X-Request-Key"
# The admin key allows every call.
KEY_VARIABLES = ("ROOTSTOCK_ADMIN_KEY", "ROOTSTOCK_API_KEY")


@dataclass(frozen=True)
class Endpoint:
    """A server's address without a slash at its end, and httpx's options for a client of it."""

    url: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, url: str | None, key: str | None, timeout: float) -> Endpoint:
        """Return the endpoint at `url` with `key` as bearer token; None means the environment's value.

        Raise Misused if the address or the key cannot be used.
        """
        if url is None:
            url = os.environ.get(URL_VARIABLE) or DEFAULT_URL
        key = _checked("the key", key) if key is not None else _key_of_environment()
        address = _address(url)
        options = {
            "base_url": address,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": timeout,
            # A proxy from the environment cannot reach a server on this machine.
            "trust_env": not _is_loopback(address.host),
        }
        return cls(str(address).rstrip("/"), options)


class BlockingTransport:
    """A connection pool to one server. Use it as a context manager, or close it; several threads may share it."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        timeout: float = 60,
        retries: int = 3,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Use the server at `url`, else that of ROOTSTOCK_URL, else the one on this machine.

        `api_key` is sent as bearer token; by default it is that of ROOTSTOCK_ADMIN_KEY, else ROOTSTOCK_API_KEY.
        `timeout` is in seconds. It limits each wait for the network, and all tries of a call together: no try
        begins later. `retries` is the number of further tries.
        """
        self._policy = RetryPolicy(retries, timeout, clock)
        endpoint = Endpoint.of(url, api_key, timeout)
        self._url = endpoint.url
        self._headers: dict[str, str] = {}
        self._http = httpx.Client(**endpoint.options, transport=transport)
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def with_request_key(self, key: str) -> Self:
        """Return a client on the same connections whose requests have this key, such as a user's id.

        Requests with equal keys get equal versions under an alias with a split. Close only one of the clients.
        """
        return _keyed(self, key)

    def _ask(self, call: HttpCall[T]) -> T:
        return self._run(self._policy.ask(call))

    def _run(self, flow: ClientFlow[T], ended: Event | None = None) -> T:
        """Carry out a flow. Raise CancelledError before its next step once `ended` is set."""
        try:
            step = flow.send(None)
            while True:
                if ended is not None and ended.is_set():
                    raise CancelledError
                try:
                    result = self._take(step)
                except ClientError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            value: T = end.value
            return value

    def _take(self, step: HttpCall[Any] | Pause) -> Any:
        if isinstance(step, Pause):
            return self._sleep(step.seconds)
        timeout = self._policy.timeout
        request = _request(self._http, step, timeout, self._headers)
        with unreachable(self._url, timeout):
            response = self._http.send(request, stream=step.streams)
            if not response.is_success:
                response.read()
        if response.is_success:
            return step.read(response)
        raise refusal(f"{self._url}{step.path}", response)


class AsyncTransport:
    """A connection pool to one server for one event loop. Use it as a context manager, or close it."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        timeout: float = 60,
        retries: int = 3,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Use a server as BlockingTransport does."""
        self._policy = RetryPolicy(retries, timeout, clock)
        endpoint = Endpoint.of(url, api_key, timeout)
        self._url = endpoint.url
        self._headers: dict[str, str] = {}
        self._http = httpx.AsyncClient(**endpoint.options, transport=transport)
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def with_request_key(self, key: str) -> Self:
        """Return a client on the same connections whose requests have this key, as BlockingTransport does."""
        return _keyed(self, key)

    async def _ask(self, call: HttpCall[T]) -> T:
        return await self._run(self._policy.ask(call))

    async def _run(self, flow: ClientFlow[T]) -> T:
        try:
            step = flow.send(None)
            while True:
                try:
                    result = await self._take(step)
                except ClientError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            value: T = end.value
            return value

    async def _take(self, step: HttpCall[Any] | Pause) -> Any:
        if isinstance(step, Pause):
            return await self._sleep(step.seconds)
        timeout = self._policy.timeout
        request = _request(self._http, step, timeout, self._headers)
        with unreachable(self._url, timeout):
            response = await self._http.send(request, stream=step.streams)
            if not response.is_success:
                await response.aread()
        if response.is_success:
            return step.read(response)
        raise refusal(f"{self._url}{step.path}", response)


def _keyed(client: C, key: str) -> C:
    keyed = copy(client)
    keyed._headers = {REQUEST_KEY: _checked("the request key", key)}
    return keyed


def _request(
    http: httpx.Client | httpx.AsyncClient, call: HttpCall[Any], timeout: float, headers: Mapping[str, str]
) -> httpx.Request:
    seconds = call.timeout or timeout
    try:
        return http.build_request(call.method, call.path, timeout=seconds, headers=headers, **call.content)
    except (TypeError, ValueError) as error:
        raise Misused(
            f"the request cannot be written as JSON ({error}); give texts, numbers, lists and dictionaries"
        ) from None


def _key_of_environment() -> str | None:
    for variable in KEY_VARIABLES:
        if key := os.environ.get(variable):
            return _checked(f"the key in {variable}", key)
    return None


def _checked(subject: str, key: str) -> str:
    # httpx would show a key that it cannot send.
    if not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise Misused(f"{subject} is not one line of printable ASCII without spaces or line ends around it")
    return key


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
        # The look-up of a host encodes its name so, and refuses an empty or long part of it.
        address.raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Misused(f"{url!r} is not an address ({error}); give one like {DEFAULT_URL}") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise Misused(f"{url!r} is not an http address; give one like {DEFAULT_URL}")
    if address.userinfo or address.query or address.fragment:
        raise Misused(
            f"an address may not hold a user, query or fragment; give one like {DEFAULT_URL}, and the key apart"
        )
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
