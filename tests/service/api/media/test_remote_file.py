"""A file at an address is downloaded from an allowed host alone, and nothing leads the download elsewhere."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
from typing import Any

import anyio
import httpcore
import pytest

from rootstock.adapters.sources.remote.public_address import is_public
from rootstock.service.api.media.remote_file import RemoteFiles
from rootstock.service.engine.core.errors import InvalidInput, TooLarge
from tests.bounds import HANG
from tests.raw_server import Answer, endless, plain, raw_server, slow

PNG = b"\x89PNG\r\n\x1a\nrest"


def fetch(
    answer: Answer, address: str = "http://{}/a.png", most: int = 2**20, seconds: float = HANG
) -> tuple[bytes, list[str]]:
    """Download from a server that gives one answer. Return the file, and the heads that the server has read."""

    async def run() -> tuple[bytes, list[str]]:
        async with raw_server(lambda path: answer) as (port, heads):
            authority = f"127.0.0.1:{port}"
            files = RemoteFiles(trusted=[authority], seconds=seconds)
            ends = asyncio.get_running_loop().time() + seconds
            return await files.fetch(address.format(authority), "image", "inputs[0].image", most, ends), heads

    return asyncio.run(run())


def refused(address: str, *hosts: str) -> str:
    """Return the message that refuses an address on a server that allows these hosts."""
    with pytest.raises(InvalidInput) as found:
        asyncio.run(RemoteFiles(hosts).fetch(address, "image", "inputs[0].image", 2**20, float("inf")))
    assert found.value.param == "inputs[0].image"
    assert len(str(found.value)) < 300
    return str(found.value)


def test_a_file_is_downloaded_as_it_is() -> None:
    data, (head,) = fetch(plain(PNG))
    assert data == PNG
    assert "accept-encoding: identity\r\n" in head.lower()
    assert "authorization" not in head.lower()
    assert "cookie" not in head.lower()
    chunked = (
        b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(chunked)

    assert fetch(send)[0] == b"abc"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (plain(b"", "302 Found", more="Location: http://127.0.0.1/\r\n"), "answered 302 (redirects are not"),
        (plain(b"", "301 Moved", more="Location: https://example.com/\r\n"), "answered 301"),
        (plain(PNG, "404 Not Found"), "answered 404"),
        (plain(PNG, "206 Partial Content"), "answered 206"),
        (plain(PNG, kind="text/html"), "sent 'text/html'; the Content-Type has to be image/…"),
        (plain(PNG, kind="audio/wav"), "sent 'audio/wav'"),
        (plain(PNG, kind=""), "the Content-Type has to be image/…"),
        (plain(gzip.compress(b"0" * 2**24), more="Content-Encoding: gzip\r\n"), "compressed"),
        (plain(PNG, length="99"), "no complete answer"),
        (plain(PNG, length="x"), "no complete answer"),
        (plain(PNG, more="X: " + "y" * 2**20 + "\r\n"), "no complete answer"),
    ],
)
def test_an_answer_that_is_no_file_of_the_modality_is_refused(answer: Answer, words: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(words)):
        fetch(answer)


@pytest.mark.parametrize("answer", [endless, plain(PNG, length="2000000"), plain(PNG, length="9" * 18)])
def test_no_more_than_the_limit_is_read(answer: Answer) -> None:
    with pytest.raises(TooLarge, match="more than the 1048576 bytes that ROOTSTOCK_MAX_BODY_MB"):
        fetch(answer)


def test_a_slow_answer_ends_at_the_time_limit() -> None:
    with pytest.raises(InvalidInput, match=re.escape("took more than 0.2 seconds")):
        fetch(slow, seconds=0.2)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://images.example/a.png", "this server downloads nothing"),
        ("http://127.0.0.1/", "ROOTSTOCK_MEDIA_HOSTS"),
    ],
)
def test_without_an_allowed_host_every_address_is_refused(address: str, words: str) -> None:
    assert words in refused(address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://other.example/a.png", "'other.example' is not among the hosts in ROOTSTOCK_MEDIA_HOSTS"),
        ("https://images.example.other.example/", "is not among the hosts"),
        ("https://images.example@other.example/", "holds a name or a password"),
        ("https://user:secret@images.example/", "holds a name or a password"),
        ("https://images.example:8443/a.png", "names port 8443; only the port of https, 443"),
        ("http://images.example:443/a.png", "names port 443"),
        ("http://images.example:0/a.png", "names port 0"),
        ("ftp://images.example/a.png", "no address of the form"),
        ("file:///etc/passwd", "no address of the form"),
        ("https:///a.png", "no address of the form"),
        ("https://images.example/" + "a" * 2048, "no address of the form"),
        ("https://images.example/\n", "no address of the form"),
        ("https://[images.example/", "is not among the hosts"),
        ("http://2130706433/", "is not among the hosts"),
        ("http://0x7f000001/", "is not among the hosts"),
        ("http://0177.0.0.1/", "no address of the form"),
        ("http://127.1/", "is not among the hosts"),
        ("http://[::ffff:127.0.0.1]/", "is not among the hosts"),
        ("http://localhost/", "is not among the hosts"),
    ],
)
def test_an_address_of_another_host_or_form_is_refused(address: str, words: str) -> None:
    assert words in refused(address, "images.example")


def test_a_secret_in_an_address_is_not_repeated() -> None:
    assert "secret" not in refused("https://user:secret@images.example/", "images.example")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "10.1.2.3", "169.254.169.254", "::ffff:127.0.0.1", "localhost", "0.0.0.0"]
)
def test_an_allowed_host_is_refused_if_its_address_is_not_public(host: str) -> None:
    address = f"http://[{host}]/" if ":" in host else f"http://{host}/"
    assert "has an address that is not public" in refused(address, host)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::1", False),
        ("2002:7f00:1::", False),
        ("2001:0:0:0:0:0:80ff:fffe", False),
        ("name", False),
        ("", False),
    ],
)
def test_an_address_is_public_only_if_the_address_inside_it_is(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_a_name_is_looked_up_once_and_the_connection_goes_to_the_address_that_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name's second lookup would give a loopback address, as in DNS rebinding."""
    lookups: list[str] = []
    connected: list[Any] = []

    def look_up(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        lookups.append(host)
        address = "93.184.216.34" if len(lookups) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async def connect(remote_host: str, remote_port: int, **options: Any) -> None:
        connected.append((remote_host, remote_port))
        raise OSError("no network in a test")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(anyio, "connect_tcp", connect)
    assert "no complete answer" in refused("https://images.example/a.png", "images.example")
    assert lookups == ["images.example"]
    assert connected == [("93.184.216.34", 443)]


def test_the_certificate_and_the_request_are_those_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpcore.Request] = []

    async def handle(self: Any, request: httpcore.Request) -> Any:
        sent.append(request)
        raise httpcore.ConnectError

    def look_up(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2606:2800:220:1::1", port, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(httpcore.AsyncConnectionPool, "handle_async_request", handle)
    refused("https://images.example/a.png?b=c", "images.example")
    (request,) = sent
    assert request.url.host == b"2606:2800:220:1::1"
    assert request.url.target == b"/a.png?b=c"
    assert dict(request.headers)[b"Host"] == b"images.example"
    assert request.extensions["sni_hostname"] == "images.example"


def test_a_name_with_a_private_address_beside_a_public_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert "has an address that is not public" in refused("https://images.example/", "images.example")
