"""What is no HTTP, or HTTP that two programs read differently: refused with a 4xx in the one shape."""

from __future__ import annotations

import json

import pytest

from tests.attacks.http.wire import HOST, PREDICT, connect, exchange, posted, predicting, read_answer
from tests.live_server import RunningServer

BODY = json.dumps(PREDICT).encode()
POST = b"POST /v1/predict HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
MALFORMED = {
    "a greeting": b"hello\r\n\r\n",
    "a hello of TLS": bytes.fromhex("16030100c8010000c40303") + bytes(64) + b"\r\n\r\n",
    "a preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another protocol": b"RTSP/1.0 200 OK\r\n\r\n",
    "no version": b"GET /livez\r\n" + HOST + b"\r\n",
    "another version": b"GET /livez HTTP/3.7\r\n" + HOST + b"\r\n",
    "no path": b"GET  HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method of nobody": b"FETCH /livez HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tunnel": b"CONNECT example.com:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a signed length": POST + b"Content-Length: +5\r\n\r\n",
    "a length in hex": POST + b"Content-Length: 0x5\r\n\r\n",
    "no length": POST + b"Content-Length: \r\n\r\n",
    "a length with a word": POST + b"Content-Length: 5 five\r\n\r\n",
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\n",
    "a length of 5,000 digits": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "two equal lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n",
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a coding behind chunks": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a coding that looks like chunks": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a chunk of a negative size": CHUNKED + b"-1\r\nx\r\n0\r\n\r\n",
    "a chunk of no size": CHUNKED + b"\r\nx\r\n0\r\n\r\n",
    "a chunk of another alphabet": CHUNKED + b"g\r\nx\r\n0\r\n\r\n",
    "a chunk of a size beyond 64 bits": CHUNKED + b"f" * 20 + b"\r\nx\r\n0\r\n\r\n",
    "a chunk without an end": CHUNKED + b"1\r\nxx\r\n0\r\n\r\n",
    "a space before a colon": POST + b"Content-Length : 5\r\n\r\n",
    "a header without a colon": POST + b"Content-Length 5\r\n\r\n",
    "a header without a name": POST + b": 5\r\n\r\n",
    "a header with a space in its name": POST + b"Content Length: 5\r\n\r\n",
    "a header beyond ASCII": POST + "Contént-Length: 5\r\n\r\n".encode(),
    "a header of two lines": POST + b"X-Filler: a\r\n b\r\n\r\n",
    "a NUL in a header": POST + b"X-Filler: a\x00b\r\n\r\n",
    "a bare carriage return in a header": POST + b"X-Filler: a\rX-Other: b\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_http_is_400_in_the_one_shape_and_its_connection_closes(
    attacked: RunningServer, name: str
) -> None:
    with connect(attacked.url) as connection:
        connection.sendall(MALFORMED[name])
        answer = read_answer(connection)
        assert answer is not None
        assert (answer.status, answer.error["code"]) == (400, "invalid_http")
        assert answer.headers["connection"] == "close"
        assert connection.recv(1) == b""


def test_what_follows_a_request_that_waits_for_its_answer_is_not_answered_in_its_place(
    attacked: RunningServer,
) -> None:
    with connect(attacked.url) as connection:
        connection.sendall(predicting() + b"hello\r\n\r\n")
        answer = read_answer(connection)
    assert answer is None or answer.status == 200


ZEROS = b"0" * 5000


def test_a_length_of_thousands_of_zeros_is_the_number_that_it_states(attacked: RunningServer) -> None:
    head = POST + b"Content-Length: " + ZEROS
    answer = exchange(attacked.url, head + str(len(BODY)).encode() + b"\r\n\r\n" + BODY)
    assert answer.status == 200
    answer = exchange(attacked.url, head + b"9" * 18 + b"\r\n\r\n")
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("length", ["9" * 19, str(2**64 - 1), str(2**63), str(2**20 + 1)])
def test_a_length_over_the_limit_is_413_before_its_body(attacked: RunningServer, length: str) -> None:
    for more in (b"", b"Expect: 100-continue\r\n"):
        answer = exchange(attacked.url, POST + b"Content-Length: " + length.encode() + b"\r\n" + more + b"\r\n")
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Host", ("localhost", "localhost")),
        ("Host", ("localhost", "evil.example")),
        ("Authorization", ("Bearer a", "Bearer b")),
        ("Content-Type", ("application/json", "multipart/form-data")),
        ("Content-Type", ("application/json", "application/json")),
        ("Content-Encoding", ("identity", "gzip")),
        ("Origin", ("http://localhost", "http://localhost")),
        ("Transfer-Encoding", ("chunked", "chunked")),
    ],
)
def test_a_header_that_decides_may_come_once(attacked: RunningServer, name: str, values: tuple[str, str]) -> None:
    lines = [f"{name}: {value}" for value in values]
    host = [] if name == "Host" else ["Host: localhost"]
    size = [] if name == "Transfer-Encoding" else [f"Content-Length: {len(BODY)}"]
    request = "\r\n".join(["POST /v1/predict HTTP/1.1", *host, *lines, *size, "", ""]).encode()
    body = BODY if size else b"0\r\n\r\n"
    answer = exchange(attacked.url, request + body)
    assert answer.status == 400
    assert answer.error["code"] in ("duplicate_header", "invalid_http")
    if answer.error["code"] == "duplicate_header":
        assert f"the header {name} twice" in answer.error["message"]


def test_a_websocket_is_refused_with_the_reason(attacked: RunningServer) -> None:
    head = b"Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    for path in (b"/v1/chat/completions", b"/nowhere", b"/livez"):
        answer = exchange(attacked.url, b"GET " + path + b" HTTP/1.1\r\n" + HOST + head + key)
        assert (answer.status, answer.error["code"]) == (400, "no_upgrade")


OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")


def test_an_offer_of_http_2_is_no_attack_and_is_answered(attacked: RunningServer) -> None:
    with connect(attacked.url) as connection:
        for _ in range(2):
            connection.sendall("\r\n".join(("GET /livez HTTP/1.1", "Host: localhost", *OFFER, "", "")).encode())
            answer = read_answer(connection)
            assert answer is not None
            assert answer.status == 200


def test_the_body_of_an_offer_is_never_read_as_a_request(attacked: RunningServer) -> None:
    inside = b"DELETE /v1/adapters/review-sentiment HTTP/1.1\r\n" + HOST + b"\r\n"
    head, _, _ = posted("/v1/predict", inside, *OFFER).partition(inside)
    for parts in ((head + inside,), (head, inside)):
        with connect(attacked.url) as connection:
            for part in parts:
                connection.sendall(part)
            answer = read_answer(connection)
            assert answer is not None
            assert (answer.status, answer.error["code"]) == (400, "no_upgrade")
            assert read_answer(connection) is None


@pytest.mark.parametrize(
    ("coding", "status"), [("gzip, chunked", 400), ("identity, chunked", 400), ("deflate", 400)]
)
def test_a_coding_of_the_transfer_besides_chunks_is_not_decoded(
    attacked: RunningServer, coding: str, status: int
) -> None:
    chunk = b"4\r\n\x1f\x8b\x08\x00\r\n0\r\n\r\n"
    answer = exchange(attacked.url, POST + f"Transfer-Encoding: {coding}\r\n\r\n".encode() + chunk)
    assert answer.status == status
    assert answer.error["code"] in ("invalid_http", "invalid_json")


def test_a_request_inside_the_body_of_another_is_read_as_a_body(attacked: RunningServer) -> None:
    inside = b"DELETE /v1/adapters/review-sentiment HTTP/1.1\r\n" + HOST + b"\r\n"
    with connect(attacked.url) as connection:
        connection.sendall(posted("/v1/predict", inside))
        answer = read_answer(connection)
        assert answer is not None
        assert (answer.status, answer.error["code"]) == (400, "invalid_json")
        connection.sendall(predicting())
        following = read_answer(connection)
        assert following is not None
        assert following.status == 200
