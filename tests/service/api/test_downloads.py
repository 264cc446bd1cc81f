"""Downloads of bundles: whole, checked, and a piece at a time."""

from __future__ import annotations

import asyncio
import io
import tracemalloc
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect

from rootstock.service.api.adapters.versions import BundleResponse
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter

PATH = "/v1/adapters/mood/versions/1/bundle"


def test_a_download_states_its_size_and_its_digest_and_head_gets_these_alone(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    digest = upload(client, "mood", peft_saved["first"].zip()).json()["digest"]
    got, head = client.get(PATH), client.head(PATH)
    assert (got.status_code, head.status_code, head.content) == (200, 200, b"")
    for answer in (got, head):
        assert answer.headers["etag"] == f'"{digest}"'
        assert answer.headers["content-type"] == "application/zip"
        assert answer.headers["content-disposition"] == 'attachment; filename="mood-1.zip"'
        assert answer.headers["content-length"] == str(len(got.content))
    again = client.get(PATH, headers={"If-None-Match": got.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", got.headers["etag"])
    assert client.head("/v1/adapters/mood/versions/2/bundle").status_code == 404


def test_a_bundle_with_one_wrong_byte_is_not_handed_out(
    serve: Callable[..., RunningServer], peft_saved: dict[str, PeftAdapter]
) -> None:
    running = serve()
    with running.client() as client:
        digest = upload(client, "mood", peft_saved["first"].zip()).json()["digest"]
        path = running.app.state.server.foundations.first.catalog.store.path(digest)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        for answer in (client.get(PATH), client.head(PATH)):
            assert answer.status_code == 500
        assert client.get(PATH).json()["error"]["code"] == "corrupt_bundle"
        assert digest in client.get(PATH).json()["error"]["message"]


class _Zeros(io.RawIOBase):
    """A file of a hundred million zeros that takes no memory."""

    size = 100_000_000

    def __init__(self) -> None:
        self.at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = self.size + offset if whence == 2 else offset
        return self.at

    def read(self, size: int = -1) -> bytes:
        piece = bytes(min(size, self.size - self.at))
        self.at += len(piece)
        return piece


def _answer(file: Any, send: Callable[[dict[str, Any]], Any], keep: int, tail: bytes = b"") -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    scope = {"type": "http", "method": "GET", "asgi": {"spec_version": "2.4"}}
    asyncio.run(BundleResponse(file, {}, keep, tail)(scope, receive, send))  # type: ignore[arg-type]


def test_a_download_holds_a_piece_of_its_bundle_and_not_the_whole() -> None:
    sent = 0

    async def send(message: dict[str, Any]) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))

    file = _Zeros()
    tracemalloc.start()
    try:
        _answer(file, send, _Zeros.size)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent == _Zeros.size
    assert most < 4_000_000
    assert file.closed


def test_a_client_that_leaves_before_the_first_piece_leaves_no_file_open() -> None:
    async def send(message: dict[str, Any]) -> None:
        raise OSError("the client left")

    file = io.BytesIO(b"bytes")
    # Starlette has its own error for a client that has left.
    with pytest.raises(ClientDisconnect):
        _answer(file, send, 5)
    assert file.closed


def test_a_tail_takes_the_place_of_what_follows_the_bytes_that_a_download_keeps() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    _answer(io.BytesIO(b"entries and directory"), send, 7, b" and another directory")
    assert b"".join(message.get("body", b"") for message in sent) == b"entries and another directory"
    assert (b"content-length", b"29") in sent[0]["headers"]
