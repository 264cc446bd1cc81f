"""The OpenAPI document promises no request that the server refuses for its form, and no method that it lacks."""

from __future__ import annotations

import re
from typing import Any

import httpx
import jsonschema
import pytest

HELLO = {"role": "user", "content": "hello"}
CALL = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
# Bodies that are at fault in their form alone.
UNSOUND: list[tuple[str, Any]] = [
    ("/predict", {"inputs": []}),
    ("/predict", {"inputs": ["a"]}),
    ("/predict", {"inputs": [["a", "b", "c"]]}),
    ("/embed", {"inputs": []}),
    ("/v1/predict", {"inputs": "a"}),
    ("/v1/predict", {"inputs": "a", "model": None, "models": None}),
    ("/v1/predict", {"inputs": "a", "model": "foundation", "models": ["foundation"]}),
    ("/v1/rerank", {"model": "foundation", "query": "a", "documents": [{}]}),
    ("/v1/rerank", {"model": "foundation", "query": "a", "documents": [{"text": 1}]}),
    ("/v2/embed", {"texts": None, "inputs": None}),
    ("/v2/embed", {"texts": ["a"], "inputs": [{"content": [{"text": "a"}]}]}),
    ("/tokenize", {"model": "foundation", "prompt": "a", "messages": [HELLO]}),
    ("/invocations", {"instances": [], "params": {"model": "foundation"}}),
    ("/invocations", {"dataframe_records": [], "params": {"model": "foundation"}}),
    ("/v1/chat/completions", {"model": "foundation", "messages": [{"role": "user"}]}),
    ("/v1/chat/completions", {"model": "foundation", "messages": [{"role": "user", "content": None}]}),
    ("/v1/chat/completions", {"model": "foundation", "messages": [HELLO | {"tool_calls": [CALL]}]}),
]
# Bodies of the same routes that are not, whatever the model does with them.
SOUND: list[tuple[str, Any]] = [
    ("/predict", {"inputs": ["a", "b"]}),
    ("/predict", {"inputs": [["a"], ["a", "b"]]}),
    ("/v1/predict", {"inputs": "a", "models": ["foundation"]}),
    ("/v1/rerank", {"model": "foundation", "query": "a", "documents": ["a", {"text": "b", "page": 1}]}),
    ("/v2/embed", {"inputs": [{"content": [{"text": "a"}]}], "texts": None}),
    ("/tokenize", {"model": "foundation", "messages": [HELLO], "prompt": None}),
    ("/v1/chat/completions", {"model": "foundation", "messages": [{"role": "assistant", "tool_calls": [CALL]}]}),
]


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def allows(document: dict[str, Any], path: str, body: Any, method: str = "post") -> bool:
    """Tell whether the document allows a JSON body."""
    schema = document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": document["components"]}
    return bool(jsonschema.Draft202012Validator(whole).is_valid(body))


@pytest.mark.parametrize(("path", "body"), UNSOUND, ids=str)
def test_a_body_that_the_server_refuses_for_its_form_is_refused_by_the_document_too(
    client: httpx.Client, document: dict[str, Any], path: str, body: Any
) -> None:
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert not allows(document, path, body)


@pytest.mark.parametrize(("path", "body"), SOUND, ids=str)
def test_a_body_of_a_sound_form_is_allowed_by_the_document_and_not_refused_for_its_form(
    client: httpx.Client, document: dict[str, Any], path: str, body: Any
) -> None:
    answer = client.post(path, json=body)
    assert answer.is_success or answer.json()["error"]["code"] != "invalid_request"
    assert allows(document, path, body)


@pytest.mark.parametrize(
    ("part", "body", "allowed"),
    [
        ("rollback-rule", {}, False),
        ("rollback-rule", {"max_error_rate": None}, False),
        ("rollback-rule", {"max_error_rate": 0.1, "max_p95_ratio": None}, True),
        ("aliases/{alias}/split", {"candidates": {}}, False),
        ("aliases/{alias}/split", {"candidates": {"04": 10}}, False),
        ("aliases/{alias}/split", {"candidates": {"4": 10}}, True),
    ],
    ids=str,
)
def test_the_document_allows_a_rule_with_a_limit_and_a_split_with_the_numbers_of_versions(
    document: dict[str, Any], part: str, body: Any, allowed: bool
) -> None:
    assert allows(document, f"/v1/adapters/{{name}}/{part}", body, "put") == allowed


def test_no_parameter_and_no_form_field_may_be_null(document: dict[str, Any]) -> None:
    schemas = []
    for methods in document["paths"].values():
        for spec in methods.values():
            schemas += [parameter["schema"] for parameter in spec.get("parameters", ())]
            form = spec.get("requestBody", {}).get("content", {}).get("multipart/form-data", {}).get("schema", {})
            if "$ref" in form:
                form = document["components"]["schemas"][form["$ref"].rpartition("/")[2]]
            schemas += form.get("properties", {}).values()
    assert len(schemas) > 100
    assert [schema for schema in schemas if {"type": "null"} in schema.get("anyOf", ())] == []


def test_a_method_that_a_path_does_not_have_is_405_with_the_methods_that_it_has(
    client: httpx.Client, document: dict[str, Any]
) -> None:
    for path, methods in document["paths"].items():
        for method in ("PATCH", "OPTIONS"):
            answer = client.request(method, re.sub(r"\{[^}]*\}", "1", path))
            assert answer.status_code == 405, path
            assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == {name.upper() for name in methods}, path
            assert "/docs lists the methods" in answer.text


def test_a_wrong_method_and_a_missing_route_have_the_form_of_the_open_inference_protocol_under_its_paths(
    client: httpx.Client,
) -> None:
    assert client.get("/v2/repository/index").json() == {
        "error": "/v2/repository/index does not support GET; /docs lists the methods that it supports"
    }
    assert client.get("/v2/models/mood/stats").json() == {
        "error": "there is no route GET /v2/models/mood/stats; /docs lists the routes"
    }


def test_a_foundation_whose_name_has_a_slash_is_called_by_the_form_of_kserve_too(client: httpx.Client) -> None:
    name = client.get("/v1/models").json()["data"][0]["root"]
    assert "/" in name
    for spelt in (name, name.replace("/", "%2F")):
        answer = client.post(f"/v1/models/{spelt}:predict", json={"instances": ["a"]})
        assert answer.status_code == 200, answer.text
        assert client.get(f"/v1/models/{spelt}").json()["root"] == name
