"""A body of any size is refused by one error; requests and answers are bounded on every route."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from rootstock.service.api.adapters.aliases import AliasBody
from rootstock.service.api.connection.protocol import MAX_HEAD_BYTES
from rootstock.service.api.openai.embeddings import EmbeddingsBody
from rootstock.service.api.predict import PredictBody
from rootstock.service.api.rerank import RerankBody
from rootstock.service.api.strict import MAX_ITEMS
from rootstock.service.engine.core.errors import EngineError
from rootstock.service.engine.encode.modalities.text_input import MAX_CHARACTERS
from tests.live_server import RunningServer

MANY = 10_000
WRONG = [1, None, [], {}, True, 1.5, ["x"], {"text": 1, "text_pair": 1}, {"question": "x"}]
KEYS = {f"key {i}": i for i in range(MANY)}
FORMS: dict[str, tuple[type, dict[str, Any]]] = {
    "predict": (PredictBody, {"model": "m", "inputs": "x"}),
    "embeddings": (EmbeddingsBody, {"model": "m", "input": "x"}),
    "rerank": (RerankBody, {"model": "m", "query": "x", "documents": ["x"]}),
    "alias": (AliasBody, {"version": 1}),
}
# A union has at most one error for each of its forms, and for each of an object's two keys. `input` has the most.
FORMS_OF_A_FIELD = 6
LISTS = [("predict", "inputs"), ("predict", "models"), ("embeddings", "input"), ("rerank", "documents")]


def errors(form: str, **fields: Any) -> int:
    """How many errors a body has, with these fields."""
    kind, body = FORMS[form]
    with pytest.raises((ValidationError, EngineError)) as refused:
        kind(**{**body, **fields})
    error = refused.value
    return error.error_count() if isinstance(error, ValidationError) else 1


@pytest.mark.parametrize(("form", "field"), LISTS)
@pytest.mark.parametrize("item", WRONG, ids=repr)
def test_a_list_of_wrong_items_has_as_many_errors_as_a_list_of_one(form: str, field: str, item: Any) -> None:
    lists = [["x", *[item] * MANY]]
    if not (field == "input" and type(item) is int):  # Such a list is the token ids of one text.
        lists.append([item] * MANY)
        if not (field == "inputs" and isinstance(item, dict)):
            assert errors(form, **{field: [item] * MANY}) == errors(form, **{field: [item]})
    assert all(errors(form, **{field: given}) <= FORMS_OF_A_FIELD for given in lists)


@pytest.mark.parametrize("form", FORMS)
def test_a_body_of_unknown_keys_has_one_error(form: str) -> None:
    assert errors(form, **KEYS) == 1


@pytest.mark.parametrize(
    "keys", [{"text": "x", "text_pair": "x"}, {"question": "x", "context": "x"}, {}], ids=list
)
def test_an_input_of_unknown_keys_has_one_error(keys: dict[str, str]) -> None:
    for inputs in ({**keys, **KEYS}, [{**keys, **KEYS}]):
        assert errors("predict", inputs=inputs) <= 2


@pytest.mark.parametrize(("form", "field"), LISTS)
@pytest.mark.parametrize("item", ["x", 1, {"text": "x", "text_pair": "y"}], ids=repr)
def test_a_list_that_no_server_takes_is_refused_before_its_items_are_looked_at(
    form: str, field: str, item: Any
) -> None:
    kind, body = FORMS[form]
    with pytest.raises(EngineError, match=rf"{field} has {MAX_ITEMS + 1} items; the limit of any list is"):
        kind(**{**body, field: [item] * (MAX_ITEMS + 1)})


LONG = "x" * (MAX_CHARACTERS + 1)


@pytest.mark.parametrize(
    ("route", "body", "status", "param"),
    [
        ("/v1/predict", {"model": "foundation", "inputs": [1] * 100_000}, 413, "inputs"),
        ("/v1/predict", {"model": "foundation", "inputs": [1] * 10_000}, 422, "inputs"),
        ("/v1/predict", {"model": "foundation", "inputs": "x", **KEYS}, 422, None),
        ("/v1/predict", {"model": "foundation", "inputs": {"text": "x", **KEYS}}, 422, None),
        ("/v1/predict", {"model": "foundation", "inputs": LONG}, 413, "inputs[0]"),
        ("/v1/predict", {"models": ["foundation"], "inputs": ["x", LONG]}, 413, "inputs[1]"),
        (
            "/v1/predict",
            {"model": "foundation", "inputs": "x", "parameters": {"a": [0] * 5000}},
            413,
            "parameters.a",
        ),
        ("/v1/predict", {"models": ["foundation"] * 20_000, "inputs": "x"}, 413, "models"),
        ("/v1/predict", {"model": "x" * 10**6, "inputs": "x"}, 422, None),
        ("/v1/embeddings", {"model": "foundation", "input": LONG}, 413, None),
        ("/v1/embeddings", {"model": "foundation", "input": [1] * 10_000}, 422, "input"),
        ("/v1/rerank", {"model": "foundation", "query": LONG, "documents": ["x"] * 256}, 413, "documents[0]"),
        ("/v1/rerank", {"model": "foundation", "query": "x", "documents": [1] * 10_000}, 422, "documents.0"),
    ],
)
def test_what_is_too_large_is_refused_by_name_and_the_answer_is_short(
    client: httpx.Client, route: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    answer = client.post(route, json=body)
    error = answer.json()["error"]
    assert answer.status_code == status, error
    if param is not None:
        assert error["param"] == param
    assert len(answer.content) < 2000
    assert client.post("/v1/predict", json={"model": "foundation", "inputs": "still here"}).status_code == 200


def test_the_limits_name_the_characters_of_an_input(client: httpx.Client) -> None:
    assert client.get("/v1/limits").json()["max_characters"] == MAX_CHARACTERS


REQUEST = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
FILL = b"x" * 2**14
HEADS = {
    "a header without end": (REQUEST + b"X-Filler: ", FILL),
    "headers without end": (REQUEST, b"X-Filler: " + FILL + b"\r\n"),
    "a path without end": (b"GET /", FILL),
    "a method without end": (b"", b"GET"),
    "a trailer without end": (REQUEST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX-Filler: ", FILL),
    "a chunk's extension without end": (REQUEST + b"Transfer-Encoding: chunked\r\n\r\n1;x=", FILL),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_without_end_is_refused_and_its_connection_closed(
    server: RunningServer, client: httpx.Client, head: str
) -> None:
    begin, more = HEADS[head]
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=30) as connection:
        connection.sendall(begin)
        sent = 0
        try:
            while sent < 64 * MAX_HEAD_BYTES:
                connection.sendall(more)
                sent += len(more)
            answer = b"it took all"
        except OSError:
            answer = b""
    assert answer == b"", "the server closes while more is sent"
    assert client.post("/v1/predict", json={"model": "foundation", "inputs": "still here"}).status_code == 200


def test_a_head_that_is_too_large_is_answered_in_the_one_shape_and_the_largest_is_taken(
    server: RunningServer, client: httpx.Client
) -> None:
    assert client.get("/livez", headers={"X-Filler": "x" * (MAX_HEAD_BYTES - 1000)}).status_code == 200
    answer = client.get("/livez", headers={"X-Filler": "x" * MAX_HEAD_BYTES})
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")
    large = "x" * (2 * MAX_HEAD_BYTES)
    for _ in range(3):
        body = {"model": "foundation", "inputs": [large], "parameters": {"truncation": True}}
        assert client.post("/v1/predict", json=body).status_code == 200
