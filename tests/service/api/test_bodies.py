"""Every route, whatever a body is declared as and whatever it is: an answer or a clear refusal, never a 500."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jiter import from_json

from rootstock.service.api.body import MAX_DEPTH
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter
from tests.service.generating_server import CHAT, run_generating_server

PAIR = [{"name": name, "datatype": "BYTES", "shape": [1], "data": ["héllo"]} for name in ("text", "text_pair")]
GOOD: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/predict"): {"model": "foundation", "inputs": "héllo"},
    ("POST", "/v1/embeddings"): {"model": "foundation", "input": "héllo"},
    ("POST", "/v1/chat/completions"): CHAT,
    ("POST", "/v1/completions"): {"model": "tiny-chat", "prompt": "héllo", "max_tokens": 2},
    ("POST", "/tokenize"): {"model": "tiny-chat", "prompt": "héllo"},
    ("POST", "/detokenize"): {"model": "foundation", "tokens": [101, 102]},
    ("POST", "/v1/rerank"): {"model": "ranking", "query": "héllo", "documents": ["a", "b"]},
    ("POST", "/embed"): {"inputs": "héllo"},
    ("POST", "/predict"): {"inputs": "héllo"},
    ("POST", "/similarity"): {"inputs": {"source_sentence": "héllo", "sentences": ["a", "b"]}},
    ("POST", "/decode"): {"ids": [101, 102]},
    ("POST", "/rerank"): {"model": "ranking", "query": "héllo", "documents": ["a", "b"]},
    ("POST", "/embeddings"): {"input": ["héllo"]},
    ("POST", "/classify"): {"model": "mood", "input": ["héllo"]},
    ("POST", "/v1/embed"): {"texts": ["héllo"]},
    ("POST", "/v2/embed"): {"texts": ["héllo"]},
    ("POST", "/v2/rerank"): {"model": "ranking", "query": "héllo", "documents": ["a", "b"]},
    ("POST", "/v1/moderations"): {"model": "mood", "input": "héllo"},
    ("POST", "/"): {"inputs": "héllo"},
    ("POST", "/models/{name}"): {"inputs": {"text": "héllo", "text_pair": "a"}},
    ("POST", "/models/{name}/pipeline/{task}"): {"inputs": {"text": "héllo", "text_pair": "a"}},
    ("POST", "/models/{name}/v1/chat/completions"): CHAT,
    ("POST", "/models/{name}/v1/completions"): {"model": "tiny-chat", "prompt": "héllo", "max_tokens": 2},
    ("PUT", "/v1/adapters/{name}/aliases/{alias}"): {"version": 1},
    ("PUT", "/v1/adapters/{name}/sharing"): {"shared": True},
    ("PUT", "/v1/adapters/{name}/aliases/{alias}/split"): {"candidates": {"2": 10}},
    ("PUT", "/v1/adapters/{name}/shadow"): {"version": 2, "percent": 10},
    ("PUT", "/v1/adapters/{name}/rollback-rule"): {"max_disagreement": 0.1},
    ("POST", "/pooling"): {"model": "foundation", "input": "héllo"},
    ("POST", "/score"): {"model": "ranking", "text_1": "héllo", "text_2": ["a", "b"]},
    ("POST", "/v1/score"): {"model": "ranking", "text_1": "héllo", "text_2": ["a", "b"]},
    ("POST", "/v1/models/{name}:predict"): {"instances": [{"text": "héllo", "text_pair": "a"}]},
    ("POST", "/v2/models/{name}/infer"): {"inputs": PAIR},
    ("POST", "/v2/models/{name}/versions/{version}/infer"): {"inputs": PAIR},
    ("POST", "/invocations"): {"inputs": "héllo", "params": {"model": "foundation"}},
}
# These read a form with files too, and so look into one.
MEDIA = {"/v1/predict", "/", "/models/{name}", "/models/{name}/pipeline/{task}"}
# On this server, which allows no folder, no body gets 200 from these.
LORA = {("POST", "/v1/load_lora_adapter"), ("POST", "/v1/unload_lora_adapter")}
# The routes of keys, with the status of an object of nothing: no role, an unknown key, a quota without limits.
KEYS = {
    ("POST", "/v1/keys"): 422,
    ("POST", "/v1/keys/{id}/rotation"): 404,
    ("PUT", "/v1/tenants/{tenant}/quota"): 200,
}
# The models in paths that the adapter `ranking` cannot serve.
NAMES = dict.fromkeys(("/models/{name}/v1/chat/completions", "/models/{name}/v1/completions"), "tiny-chat")
FORMS = {("POST", "/v1/adapters")}
BODILESS = {
    ("POST", "/v1/adapters/{name}/rollback"): (409, "no_previous_version"),
    ("POST", "/v1/adapters/{name}/undelete"): (404, "unknown_version"),
    ("POST", "/v1/adapters/{name}/versions/{version}/undelete"): (404, "unknown_version"),
    ("POST", "/embed_all"): (422, "wrong_task"),
    ("POST", "/v2/repository/index"): (200, None),
}
# TEI's routes have no field for the model; those that the foundation does not serve need the parameter.
QUERY = {"/predict": {"model": "mood"}}
TYPES = [
    None,
    "application/json",
    "application/json; charset=utf-16",
    "application/problem+json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "application/octet-stream",
    ";;garbage/",
    "é",
]


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with run_generating_server(new_home(), tmp_path_factory.mktemp("llama")) as running:
        yield running


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


# Statuses that each shape may get on a route that reads JSON; a good body is dealt with apart.
SHAPES: dict[str, tuple[bytes, set[int]]] = {
    "empty": (b"", {400}),
    "blank": (b" \n", {400}),
    "null": (b"null", {422}),
    "array": (b"[]", {422}),
    "string": (b'"x"', {422}),
    "number": (b"1", {422}),
    "object of nothing": (b"{}", {422}),
    "form": (b"model=foundation&inputs=x", {400, 415}),
    "multipart": (
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nfoundation\r\n--x--\r\n',
        {400, 415},
    ),
    "cut off": (b'{"model": "foundation"', {400, 415}),
    "two documents": (b"{} {}", {400, 415}),
    "not UTF-8": (b'{"model": "\xff"}', {400, 415}),
    "binary": (bytes(range(256)), {400, 415}),
    "gzip": (gzip.compress(b'{"model": "foundation"}'), {400, 415}),
    "half a surrogate pair": (b'{"model": "\\ud800"}', {400, 415}),
    "a surrogate in bytes": (b'{"model": "\xed\xa0\x80"}', {400, 415}),
    "not a number": (b'{"timeout": NaN}', {400, 415}),
    "infinite": (b'{"timeout": 1e999, "version": 1e999}', {422}),
    "a number of 3,000 digits": (b'{"version": ' + b"9" * 3000 + b', "parameters": {"top_k": 1}}', {422}),
    "a number of 5,000 digits": (b"9" * 5000, {400, 415}),
    "150 deep": (deep(150), {422}),
    "150 deep within": (b'{"model": "foundation", "inputs": "x", "parameters": {"a": %s}}' % deep(150), {422}),
    "950 deep": (deep(950), {400, 415}),
    "950 deep within": (b'{"model": "foundation", "inputs": %s}' % deep(950), {400, 415}),
    "950 objects deep": (b'{"a":' * 950 + b"1" + b"}" * 950, {400, 415}),
    "100,000 deep": (deep(100_000), {400, 415}),
    "never closed": (b"[" * 100_000, {400, 415}),
}


@pytest.fixture(scope="module", autouse=True)
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    assert upload(client, "ranking", peft_saved["scalar"].zip(), task="text-ranking").status_code == 201
    second = {"task": "text-ranking", "max_length": "64", "activate": "false"}
    assert upload(client, "ranking", peft_saved["scalar"].zip(), **second).status_code == 201
    assert client.put("/v1/adapters/ranking/aliases/prod", json={"version": 1}).status_code == 200
    assert upload(client, "mood", peft_saved["first"].zip()).status_code == 201


def send(client: httpx.Client, method: str, path: str, kind: str | None, body: bytes) -> httpx.Response:
    headers = {} if kind is None else {"Content-Type": kind.encode()}
    name = NAMES.get(path, "ranking")
    url = path.format(name=name, alias="prod", version=1, task="text-ranking", id="0" * 16, tenant="acme")
    return client.request(method, url, params=QUERY.get(path), content=body, headers=headers)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    if answer.request.url.path.startswith("/v2/models"):
        error = {"message": error, "type": None, "param": None, "code": None}
    assert set(error) == {"message", "type", "param", "code"}
    assert 0 < len(error["message"]) < 1000
    return error


def test_these_tables_hold_every_route_that_takes_a_body(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    taking = {
        (m.upper(), path) for path, methods in paths.items() for m in methods if m in ("post", "put", "patch")
    }
    assert taking == {*GOOD, *LORA, *KEYS, *FORMS, *BODILESS}
    assert {
        (m.upper(), path) for path, methods in paths.items() for m, one in methods.items() if "requestBody" in one
    } == {*GOOD, *LORA, *KEYS, *FORMS}


@pytest.mark.parametrize(("method", "path"), GOOD)
def test_json_is_read_whatever_it_is_declared_as(client: httpx.Client, method: str, path: str) -> None:
    text = json.dumps(GOOD[method, path], ensure_ascii=False)
    sent = [(kind, "utf-8") for kind in TYPES]
    sent += [("text/plain", encoding) for encoding in ("utf-8-sig", "utf-16", "utf-32-be")]
    for kind, encoding in sent:
        answer = send(client, method, path, kind, text.encode(encoding))
        assert answer.status_code == 200, (kind, encoding, answer.text)


@pytest.mark.parametrize(("method", "path"), [*GOOD, *sorted(LORA), *KEYS])
def test_any_other_body_is_refused_with_the_remedy(client: httpx.Client, method: str, path: str) -> None:
    for shape, (body, statuses) in SHAPES.items():
        for kind in TYPES:
            answer = send(client, method, path, kind, body)
            is_form = path in MEDIA and kind is not None and kind.startswith("multipart/")
            wanted = statuses | {400, 422} if is_form else statuses
            if body == b"{}" and (method, path) in KEYS:
                assert answer.status_code == KEYS[method, path], (kind, answer.text)
                continue
            assert answer.status_code in wanted, (shape, kind, answer.text[:500])
            message = error_of(answer)["message"]
            if answer.status_code != 422 and not is_form:
                # Which of the two follows from what the body was declared as.
                json_declared = not kind or "json" in kind or not body.strip()
                assert answer.status_code == (400 if json_declared else 415) or kind in (";;garbage/", "é")
                assert "send" in message, (shape, kind, message)


@pytest.mark.parametrize(("method", "path"), sorted(FORMS))
def test_a_body_that_is_neither_a_whole_form_nor_json_is_refused_where_both_are_read(
    client: httpx.Client, method: str, path: str
) -> None:
    for shape in ("empty", "array", "form", "multipart", "cut off", "binary", "950 deep"):
        body, _ = SHAPES[shape]
        for kind in TYPES:
            answer = send(client, method, path, kind, body)
            wanted = {422} if shape == "array" else {400} if "json" in (kind or "") else {415}
            wanted = {400, 422} if kind and kind.startswith("multipart/") else wanted
            assert answer.status_code in wanted, (shape, kind, answer.text[:500])
            error_of(answer)
    assert "multipart/form-data" in error_of(client.post(path, content=b"PK"))["message"]
    assert "'name' and 'source' are missing" in error_of(client.post(path, json={}))["message"]


@pytest.mark.parametrize(("method", "path"), sorted(BODILESS))
def test_a_route_without_a_body_takes_no_notice_of_one(client: httpx.Client, method: str, path: str) -> None:
    for body in (b"", b"{}", b"\xff", deep(950)):
        for kind in TYPES:
            answer = send(client, method, path, kind, body)
            status, code = BODILESS[method, path]
            assert answer.status_code == status, (body[:9], kind)
            assert code is None or error_of(answer)["code"] == code, (body[:9], kind)


@pytest.mark.parametrize(("method", "path"), [*GOOD, *sorted(LORA), *KEYS, *FORMS])
def test_a_compressed_body_is_415(client: httpx.Client, method: str, path: str) -> None:
    body = gzip.compress(json.dumps(GOOD.get((method, path), {})).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    address = path.format(
        name="ranking", alias="prod", version=1, task="text-ranking", id="0" * 16, tenant="acme"
    )
    answer = client.request(method, address, content=body, headers=headers)
    assert answer.status_code == 415
    assert "uncompressed" in error_of(answer)["message"]


def test_the_parser_stops_at_the_depth_that_the_message_names() -> None:
    from_json(deep(MAX_DEPTH))
    with pytest.raises(ValueError, match="recursion"):
        from_json(deep(MAX_DEPTH + 1))


@pytest.mark.parametrize("number", ["9" * 19, "9" * 20, "9" * 3000, "-1", "0"])
def test_a_version_that_cannot_be_is_refused_or_unknown(client: httpx.Client, number: str) -> None:
    path = f"/v1/adapters/ranking/versions/{number}"
    answers = [client.get(path), client.get(f"{path}/bundle"), client.delete(path)]
    alias = client.put("/v1/adapters/ranking/aliases/prod", content=f'{{"version": {number}}}')
    answers += [alias, client.post("/v1/predict", json={"model": f"ranking@{number}", "inputs": "x"})]
    for answer in answers:
        assert answer.status_code in (404, 422), answer.text
        error_of(answer)


@pytest.mark.parametrize(
    ("path", "body", "param", "named"),
    [
        ("/v1/predict", {}, "model", ["'model' and 'inputs' are missing"]),
        ("/v1/predict", {"inputs": "x"}, "model", ["'model' is missing"]),
        ("/v1/predict", {"model": "foundation", "input": "x"}, "input", ["'input'; did you mean 'inputs'?"]),
        ("/v1/predict", {"input": "x"}, "input", ["did you mean 'inputs'?", "'model' is missing"]),
        ("/v1/predict", {"model": 3, "inputs": "x", "timeout": "y"}, "timeout", ["model: ", "timeout: "]),
        ("/v1/embeddings", {"inputs": "x"}, "inputs", ["did you mean 'input'?", "'model' is missing"]),
        ("/v1/embeddings", {}, "model", ["'model' and 'input' are missing"]),
        ("/v1/rerank", {}, "model", ["'model' and 'query' and 'documents' are missing"]),
        ("/v1/rerank", {"model": "ranking", "query": "x", "document": ["y"]}, "document", ["mean 'documents'?"]),
        ("/v1/rerank", {"model": "x", "query": "x", "documents": ["y"], "z": 1}, "z", ["known: ", "top_n"]),
        ("/rerank", {}, "query", ["'query' and 'documents' are missing"]),
        ("/rerank", {"texts": ["y"]}, "query", ["'query' is missing"]),
        ("/rerank", {"texts": ["y"], "query": "x", "z": 1}, "z", ["known: ", "return_text"]),
        ("/rerank", {"documents": ["y"], "query": 3, "z": 1}, "z", ["known: ", "return_documents", "query: "]),
        ("/tokenize", {}, "model", ["'model' and 'prompt' are missing"]),
        ("/tokenize", {"inputs": 3}, "inputs", ["a string or a list of at least one string"]),
        ("/v2/embed", {}, "texts", ["'texts' is missing"]),
    ],
)
def test_every_field_at_fault_is_named_at_once(
    client: httpx.Client, path: str, body: dict[str, Any], param: str, named: list[str]
) -> None:
    answer = client.post(path, json=body)
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (422, param)
    for part in named:
        assert part in error["message"], error["message"]
    assert "'inputs' is missing" not in error["message"]
    assert "'input' is missing" not in error["message"]


def test_a_form_s_missing_fields_are_named_at_once(client: httpx.Client) -> None:
    answer = client.post("/v1/adapters", files={"task": (None, "text-ranking")})
    assert answer.status_code == 422
    assert "'bundle' and 'name' are missing" in error_of(answer)["message"]


def test_a_message_stays_short_whatever_a_field_is_called(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", json={"x" * 100_000: 1, **{f"field{i}": 1 for i in range(60)}})
    assert answer.status_code == 422
    assert "more" in error_of(answer)["message"]


def test_a_client_that_leaves_before_its_body_is_whole_is_no_fault_of_the_server(server: RunningServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    left = 'rootstock_requests_total{route="/v1/predict",status="499"}'
    with server.client() as client:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                f"POST /v1/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n{{".encode()
            )
        while left not in client.get("/metrics").text:
            pass
        assert 'route="/v1/predict",status="500"' not in client.get("/metrics").text
