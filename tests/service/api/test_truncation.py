"""An input that is too long is cut as transformers does, by every name for it, on every route that computes."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from transformers import AutoTokenizer

from rootstock.adapters.foundation.location import FoundationFiles
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter

LIMIT = 16
LONG = (
    "one parcel two parcels three parcels four parcels five parcels six parcels seven parcels eight parcels nine"
)
# What each wish leaves of a text: how many tokens, special ones included, and the side that is cut.
WISHES: list[tuple[dict[str, Any], int, str]] = [
    ({"truncation": True}, LIMIT, "right"),
    ({"truncate": True}, LIMIT, "right"),
    ({"truncate": "END"}, LIMIT, "right"),
    ({"truncate": "START"}, LIMIT, "left"),
    ({"truncate_prompt_tokens": -1}, LIMIT, "right"),
    ({"truncate_prompt_tokens": LIMIT}, LIMIT, "right"),
    ({"truncate_prompt_tokens": 7}, 7, "right"),
]
REFUSED: list[dict[str, Any]] = [{}, {"truncation": False}, {"truncate": False}, {"truncate": "NONE"}]
WRONG = [
    ({"truncation": True, "truncate": True}, "truncate"),
    ({"truncate": "MIDDLE"}, "truncate"),
    ({"truncate_prompt_tokens": LIMIT + 1}, "truncate_prompt_tokens"),
    ({"truncate_prompt_tokens": 2}, "truncate_prompt_tokens"),
    ({"truncate_prompt_tokens": "8"}, "truncate_prompt_tokens"),
]
ROUTES = ["predict", "embeddings", "rerank"]


@pytest.fixture(scope="module", autouse=True)
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    short = {"max_length": str(LIMIT)}
    assert upload(client, "embedder", peft_saved["embedder"].zip(), **short).status_code == 201
    assert upload(client, "ranking", peft_saved["scalar"].zip(), task="text-ranking", **short).status_code == 201


def send(client: httpx.Client, route: str, text: str, wish: dict[str, Any]) -> httpx.Response:
    bodies: dict[str, dict[str, Any]] = {
        "predict": {"model": "embedder", "inputs": text, "parameters": wish},
        "embeddings": {"model": "embedder", "input": text, **wish},
        "rerank": {"model": "ranking", "query": "six?", "documents": [text], **wish},
    }
    return client.post(f"/v1/{route}", json=bodies[route])


def output(route: str, answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    if route == "rerank":
        return np.array([body["results"][0]["relevance_score"]])
    return np.array(body["predictions"][0] if route == "predict" else body["data"][0]["embedding"])


@pytest.mark.parametrize(("wish", "tokens", "side"), WISHES)
@pytest.mark.parametrize("route", ROUTES)
def test_what_is_left_is_what_transformers_tokenizer_leaves(
    client: httpx.Client, foundation: FoundationFiles, route: str, wish: dict[str, Any], tokens: int, side: str
) -> None:
    theirs: Any = AutoTokenizer.from_pretrained(foundation.folder, truncation_side=side)
    first = ("six?", LONG) if route == "rerank" else (LONG,)
    ids = theirs(*first, truncation="longest_first", max_length=tokens)["input_ids"]
    document = ids[ids.index(theirs.sep_token_id) + 1 : -1] if route == "rerank" else ids[1:-1]
    left = theirs.decode(document)
    answer = send(client, route, LONG, wish)
    assert answer.json()["usage"]["prompt_tokens"] == len(ids) == tokens
    assert output(route, answer) == pytest.approx(output(route, send(client, route, left, {})), abs=1e-5)


@pytest.mark.parametrize("wish", REFUSED)
@pytest.mark.parametrize("route", ROUTES)
def test_without_a_wish_it_is_refused_and_the_remedy_is_that_route_s(
    client: httpx.Client, route: str, wish: dict[str, Any]
) -> None:
    answer = send(client, route, LONG, wish)
    error = answer.json()["error"]
    param = {"predict": "inputs", "embeddings": "input", "rerank": "documents"}[route]
    assert (answer.status_code, error["code"], error["param"]) == (422, "input_too_long", param)
    setting = "parameters.truncation" if route == "predict" else "truncation"
    assert f"; shorten it, or set {setting} to true" in error["message"]


@pytest.mark.parametrize(("wish", "param"), WRONG)
@pytest.mark.parametrize("route", ROUTES)
def test_a_wish_that_means_nothing_is_refused_by_that_route_s_name(
    client: httpx.Client, route: str, wish: dict[str, Any], param: str
) -> None:
    answer = send(client, route, "short", wish)
    assert answer.status_code == 422, answer.text
    named = f"parameters.{param}" if route == "predict" else param
    assert answer.json()["error"]["param"] == named
    assert param in answer.json()["error"]["message"]


def test_the_fields_are_where_the_reference_says(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for body in ("EmbeddingsBody", "RerankBody"):
        assert {"truncation", "truncate", "truncate_prompt_tokens"} <= set(schemas[body]["properties"])
