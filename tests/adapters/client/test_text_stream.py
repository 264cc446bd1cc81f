"""Generated texts come whole or in pieces, and a stream that ends early says why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from transformers import AutoTokenizer

from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import Misused, NotFound, ServerFault, Unreachable, Unreadable
from tests.live_server import RunningServer
from tests.loopback_server import run_loopback
from tests.peft_adapters import PeftAdapter
from tests.service.engine.generate.families import TinyDecoder

MESSAGES = [{"role": "user", "content": "Where is my parcel?"}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 10, "ignore_eos": True}


@pytest.fixture
def client(generating: RunningServer, open_client: Callable[[str], Any]) -> Any:
    return open_client(generating.url)


def test_a_chat_is_answered_as_by_peft_whole_and_in_pieces(
    client: Any, decoder: TinyDecoder, decoder_saved: PeftAdapter
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(decoder.folder)
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    expected = tokenizer.decode(decoder.greedy(decoder_saved, ids, 10), skip_special_tokens=True).rstrip("\ufffd")
    answer = client.chat("a0", MESSAGES, **GREEDY)
    assert answer.text.rstrip("\ufffd") == expected
    assert (answer.finish_reason, answer.version) == ("length", 1)
    assert answer.digest == client.show("a0").versions[0].digest
    assert client.chat("a0", MESSAGES[0]["content"], **GREEDY).text == answer.text
    pieces = list(client.chat("a0", MESSAGES, stream=True, **GREEDY))
    assert len(pieces) > 1
    assert "".join(pieces) == answer.text


def test_a_text_is_continued_whole_and_in_pieces(client: Any) -> None:
    answer = client.complete("a0", "Once upon", **GREEDY)
    assert answer.finish_reason == "length"
    assert "".join(client.complete("a0", "Once upon", stream=True, **GREEDY)) == answer.text


def test_a_stream_of_an_unknown_model_is_refused_before_it_begins(client: Any) -> None:
    with pytest.raises(NotFound, match="nobody"):
        client.chat("nobody", MESSAGES, stream=True)


def test_a_stream_states_what_answers_and_may_be_closed_early(generating: RunningServer) -> None:
    with Client(generating.url) as client:
        stream = client.chat("a0", MESSAGES, stream=True, **GREEDY)
        assert (stream.digest, stream.finish_reason) == (None, None)
        pieces = iter(stream)
        next(pieces)
        assert stream.digest == client.show("a0").versions[0].digest
        stream.close()
        whole = client.chat("a0", MESSAGES, stream=True, **GREEDY)
        assert list(whole)
        assert whole.finish_reason == "length"


def events(*told: Any) -> bytes:
    lines = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in told]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def chunk(text: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"digest": "sha256:d", "version": 1, "choices": [choice]}


@contextmanager
def streaming(*parts: bytes) -> Iterator[str]:
    """Yield the URL of a server that answers every POST with these bytes, and then closes the connection."""

    class Streaming(BaseHTTPRequestHandler):
        """Writes each part apart from the others."""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for part in parts:
                self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            pass

    with run_loopback(Streaming) as url:
        yield url


LATE = {"message": "it took too long", "type": "server_error", "param": None, "code": "deadline_exceeded"}


@pytest.mark.parametrize(
    ("told", "kind", "said"),
    [
        ((chunk("a"), {"error": LATE}, "[DONE]"), ServerFault, "it took too long"),
        ((chunk("a"),), Unreachable, "broke off before the text was complete"),
        ((chunk("a"), "{"), Unreadable, "streams another answer"),
        ((chunk("a"), {"choices": 3}), Unreadable, "streams another answer"),
        ((chunk("a"), "[" * 200_000), Unreadable, "streams another answer"),
    ],
)
def test_a_stream_that_ends_early_gives_its_text_and_then_the_reason(
    told: Sequence[Any], kind: type[Exception], said: str, open_client: Callable[[str], Any]
) -> None:
    with streaming(events(*told)) as url:
        with Client(url) as client:
            pieces = iter(client.chat("a", "hello", stream=True))
            assert next(pieces) == "a"
            with pytest.raises(kind, match=said) as caught:
                next(pieces)
        if isinstance(caught.value, ServerFault):
            assert (caught.value.status, caught.value.code) == (504, "deadline_exceeded")
        with pytest.raises(kind, match=said):
            list(open_client(url).chat("a", "hello", stream=True))


def test_a_text_may_hold_every_character_that_ends_a_line_elsewhere(open_client: Callable[[str], Any]) -> None:
    texts = ["a\u2028b", "\u2029", "\x85", "\x0b\x0c\x1c\x1d\x1e", "\r\n", "é"]
    told = events(*map(chunk, texts), "[DONE]")
    for parts in ([told], [told.replace(b"\n", b"\r\n")], [told[i : i + 1] for i in range(len(told))]):
        with streaming(*parts) as url:
            assert list(open_client(url).chat("a", "hello", stream=True)) == texts


def test_a_text_is_read_once(generating: RunningServer) -> None:
    with Client(generating.url) as client:
        stream = client.chat("a0", MESSAGES, stream=True, **GREEDY)
        assert list(stream)
        with pytest.raises(Misused, match="read or closed before"):
            list(stream)
        closed = client.chat("a0", MESSAGES, stream=True, **GREEDY)
        closed.close()
        with pytest.raises(Misused, match="read or closed before"):
            list(closed)


def test_a_second_reader_of_a_text_leaves_the_first_one_its_pieces() -> None:
    with streaming(events(*map(chunk, "abc"), "[DONE]")) as url, Client(url) as client:
        stream = client.chat("a", "hello", stream=True)
        first = iter(stream)
        assert next(first) == "a"
        with pytest.raises(Misused):
            next(iter(stream))
        assert list(first) == ["b", "c"]
