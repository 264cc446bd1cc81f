"""Requests in sound HTTP that attack through their JSON, names, references, paths, queries and keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from rootstock.service.settings import Settings
from tests.attacks.http.wire import HOST, exchange
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter

PLACES = {
    "name": "review-sentiment", "version": "1", "alias": "prod", "task": "text-classification",
    "id": "0123456789abcdef", "tenant": "acme",
}  # fmt: skip


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the error in the one shape, or in the Open Inference Protocol's."""
    error = answer.json()["error"]
    if isinstance(error, str):
        return {"message": error, "code": None, "param": None}
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) < 1000
    found: dict[str, Any] = error
    return found


def json_routes(client: httpx.Client) -> list[tuple[str, str]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), path.format(**PLACES))
        for path, methods in paths.items()
        for method, one in methods.items()
        if "application/json" in one.get("requestBody", {}).get("content", {})
    ]


DOUBLED = {
    "the same value": (b'{"model": "foundation", "model": "foundation", "inputs": "x"}', "model"),
    "another value": (b'{"inputs": "x", "model": "foundation", "model": "review-sentiment"}', "model"),
    "spelled otherwise": (b'{"model": "foundation", "\\u006dodel": "x", "inputs": "x"}', "model"),
    "an unknown key": (b'{"a": 1, "b": {}, "a": 2}', "a"),
    "deep inside": (b'{"model": "foundation", "inputs": [{"text": "x", "text": "y"}]}', "text"),
    "in a list": (b'[{"k": 1}, {"k": 1, "k": null}]', "k"),
    "an empty key": (b'{"": 1, "": 2}', ""),
    "a key with quotes": (b'{"a\\"b": 1, "a\\"b": 2}', 'a"b'),
    "a key of many lines": (b'{"a\\nb": 1, "a\\nb": 2}', "a\nb"),
    "a key of another script": ('{"ключ": 1, "ключ": 2}'.encode(), "ключ"),
    "in another encoding": ('{"model": 1, "model": 2}'.encode("utf-16"), "model"),
    "a long key": (b'{"%s": 1, "%s": 2}' % (b"k" * 500, b"k" * 500), "k" * 64),
}


@pytest.mark.parametrize("name", DOUBLED)
def test_a_key_that_comes_twice_is_422_and_named_on_every_route(attacker: httpx.Client, name: str) -> None:
    body, key = DOUBLED[name]
    routes = json_routes(attacker)
    assert len(routes) > 25
    if name != "the same value":
        routes = routes[:2]
    for method, path in routes:
        answer = attacker.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, (path, answer.text)
        error = error_of(answer)
        assert repr(key) in error["message"], (path, error)
        assert error["code"] in ("duplicate_key", None)
        assert error["param"] in (key, None)


def test_a_key_that_comes_twice_in_the_parameters_of_a_form_or_a_query_is_refused(attacker: httpx.Client) -> None:
    parameters = '{"top_k": 1, "top_k": 2}'
    image = {"file": ("a.png", b"\x89PNG\r\n\x1a\n", "image/png")}
    form = attacker.post("/v1/predict", data={"model": "review-sentiment", "parameters": parameters}, files=image)
    query = attacker.post(
        "/v1/predict",
        params={"model": "review-sentiment", "parameters": parameters},
        content=b"\x89PNG\r\n\x1a\n",
        headers={"Content-Type": "image/png"},
    )
    for answer in (form, query):
        assert (answer.status_code, error_of(answer)["param"]) == (422, "parameters")
        assert "top_k" in error_of(answer)["message"]


NAMES = {
    "nothing": "",
    "spaces": "   ",
    "a path": "../../etc/passwd",
    "a path of Windows": "..\\..\\windows",
    "a hidden file": ".ssh",
    "a slash": "a/b",
    "an encoded slash": "a%2fb",
    "a NUL": "a\x00b",
    "a line end": "a\nb",
    "a header": "a\r\nSet-Cookie: b",
    "an escape of a terminal": "a\x1b[31m",
    "capitals": "Mood",
    "Cyrillic letters": "ѕupport",
    "full-width letters": "ｍｏｏｄ",
    "a combining mark": "mood\u0301",
    "a zero-width joiner": "mo\u200dod",
    "a change of direction": "mood\u202egpj.exe",
    "an emoji": "🦊",
    "letters that shrink": "\ufb01ne",
    "a letter that grows": "İstanbul",
    "a private letter": "\ue000",
    "a reference": "mood@3",
    "a digest": "sha256:0123456789ab",
    "an expression": "${jndi:ldap://a}",
    "a query": "a' OR '1'='1",
    "a script": "<script>alert(1)</script>",
    "a template": "{{7*7}}",
    "the foundation's": "foundation",
    "129 letters": "a" * 129,
    "10,000 letters": "a" * 10_000,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_cannot_be_one_is_refused_wherever_it_stands(
    attacker: httpx.Client, peft_saved: dict[str, PeftAdapter], name: str
) -> None:
    value = NAMES[name]
    before = attacker.get("/v1/adapters").json()
    answer = upload(attacker, value, peft_saved["first"].zip())
    if answer.status_code == 201:  # capitals mean small letters
        assert name == "capitals"
        attacker.delete("/v1/adapters/mood")
    else:
        assert answer.status_code in (400, 422), answer.text
        assert error_of(answer)["message"].isprintable()
    references = [attacker.post("/v1/predict", json={"model": value, "inputs": "x"})]
    if value.strip():
        place = quote(value, safe="")
        references += [
            attacker.get(f"/v1/adapters/{place}"),
            attacker.delete(f"/v1/adapters/{place}"),
            attacker.put(f"/v1/adapters/review-sentiment/aliases/{place}", json={"version": 99}),
            attacker.delete(f"/v1/adapters/review-sentiment/aliases/{place}"),
        ]
    for found in references:
        if name == "the foundation's" and found.request.method == "POST":
            assert found.status_code == 200
            continue
        assert 400 <= found.status_code < 500, (found.request.method, found.request.url, found.text)
        assert "set-cookie" not in found.headers
        error_of(found)
    assert attacker.get("/v1/adapters").json() == before


REFERENCES = [
    "nobody@", "@", "@live", "nobody@@live", "nobody@0", "nobody@-1", "nobody@1.5", "nobody@1e3",
    "nobody@99999999999999999999", "nobody@sha256:", "nobody@sha256:zz", "nobody@sha256:" + "0" * 65,
    "nobody@md5:0123456789ab", "nobody@live@live", "nobody @live", "nobody@li ve", "review-sentiment@٣",
    "review-sentiment@²", "review-sentiment@１", "review-sentiment@\u0000", "foundation@1", "foundation@live",
    "sentence-transformers/../foundation", "http://127.0.0.1/a", "file:///etc/passwd", "nobody@" + "a" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_reference_that_leads_nowhere_is_404_or_422(attacker: httpx.Client, reference: str) -> None:
    for path, field in (("/v1/predict", "inputs"), ("/v1/embeddings", "input"), ("/classify", "input")):
        answer = attacker.post(path, json={"model": reference, field: "x"})
        assert answer.status_code in (404, 422), answer.text
        error_of(answer)
    many = attacker.post("/v1/predict", json={"models": [reference, "foundation"], "inputs": "x"})
    assert many.status_code in (200, 404, 422)
    if many.status_code == 200:
        assert many.json()["results"][0]["error"]["code"]


PATHS = [
    "/v1/adapters/..%2f..%2fetc%2fpasswd", "/v1/adapters/%2e%2e/%2e%2e/etc/passwd", "/docs/..%2f..%2fcore.py",
    "/console/assets/..%2f..%2fcard.py", "/console/assets/%2e%2e%2fcard.py", "/console/assets//etc/passwd",
    "/v1/adapters/%00", "/v1/adapters/%ff%fe", "/v1/adapters/%c0%ae%c0%ae", "/v1/adapters/%u002e",
    "/v1/adapters/a%0d%0aSet-Cookie:%20b=1", "//v1//adapters", "/v1/adapters/review-sentiment/versions/1e3",
    "/v1/adapters/review-sentiment/versions/٣", "/v1/adapters/review-sentiment/versions/99999999999999999999",
    "/v1/adapters/review-sentiment/versions/-1/bundle", "/v1/adapters/review-sentiment;x=1",
    "/" + "a/" * 5000, "/models/" + "a" * 20_000 + "/embed", "/v1/models/a:predict:predict", "/.env",
    "/.git/config", "/wp-login.php", "/v1/adapters/%F0%9F%A6%8A", "/server-status", "/models/%0a/embed",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_leads_nowhere_is_a_4xx_in_the_one_shape(attacked: RunningServer, path: str) -> None:
    request = f"GET {quote(path, safe='/%:;=')} HTTP/1.1\r\n".encode() + HOST + b"\r\n"
    answer = exchange(attacked.url, request)
    assert 400 <= answer.status < 500
    assert answer.error["code"]
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1", "limit=0", "limit=1e9", "limit=99999999999999999999", "limit=NaN", "limit=", "limit=x",
        "limit=1&limit=x", "limit=%00", "limit=%D9%A3x",
    ],
)  # fmt: skip
def test_a_query_of_a_wrong_value_is_422(attacker: httpx.Client, query: str) -> None:
    for path in ("/v1/adapters", "/v1/events", "/v1/adapters/review-sentiment/events"):
        answer = attacker.get(f"{path}?{query}")
        assert answer.status_code == 422, (path, answer.text[:300])
        assert error_of(answer)["param"] == "limit"


@pytest.mark.parametrize(
    "text", ["\x00", "%", "_", "'; DROP TABLE adapters; --", "é" * 5000, "\ud7ff", "\\", "%%%"]
)
def test_a_search_is_for_a_part_of_a_name_and_no_program(attacker: httpx.Client, text: str) -> None:
    for field in ("search", "after"):
        answer = attacker.get("/v1/adapters", params={field: text})
        assert answer.status_code in (200, 422), answer.text
        if answer.status_code == 200 and field == "search":
            assert answer.json()["adapters"] == []
    assert len(attacker.get("/v1/adapters").json()["adapters"]) == 3


LABELS = {
    "no JSON": "[",
    "no list": '{"a": 1}',
    "numbers": "[1, 2, 3]",
    "too few": '["a"]',
    "the same twice": '["a", "a", "b"]',
    "half a character": '["\\ud800", "b", "c"]',
    "deep": "[" * 500 + "]" * 500,
    "empty ones": '["", "", ""]',
    "a label of a million letters": json.dumps(["a" * 500_000, "b", "c"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_cannot_be_are_refused(
    attacker: httpx.Client, peft_saved: dict[str, PeftAdapter], name: str
) -> None:
    answer = upload(attacker, "labelled", peft_saved["first"].zip(), labels=LABELS[name])
    assert 400 <= answer.status_code < 500, answer.text
    assert len(error_of(answer)["message"]) < 1000
    assert attacker.get("/v1/adapters/labelled").status_code == 404


@pytest.fixture(scope="module")
def guarded(new_home: Callable[[], Path]) -> Iterator[RunningServer]:
    settings = Settings(home=new_home(), demo=False, log_level="error", api_key="r" * 40, admin_key="o" * 40)
    with run_server(settings) as running:
        yield running


CREDENTIALS: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 401),
    "a scheme alone": (b"Bearer", 401),
    "spaces": (b"Bearer    ", 401),
    "another scheme": (b"Basic cjpy", 401),
    "a key without a scheme": (b"r" * 40, 401),
    "a beginning of the key": (b"Bearer " + b"r" * 39, 403),
    "the key and more": (b"Bearer " + b"r" * 41, 403),
    "two keys": (b"Bearer " + b"r" * 40 + b" " + b"o" * 40, 403),
    "a list of keys": (b"Bearer " + b"r" * 40 + b"," + b"o" * 40, 403),
    "capitals": (b"Bearer " + b"R" * 40, 403),
    "letters beyond ASCII": (b"Bearer \xff\xfe\xc3\xa9", 403),
    "full-width letters": (("Bearer " + "ｒ" * 40).encode(), 403),
    "60,000 letters": (b"Bearer " + b"r" * 60_000, 403),
    "a format": (b"Bearer %s%n{0}", 403),
    "a bearer's bearer": (b"Bearer Bearer " + b"r" * 40, 403),
}


@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_key_that_is_none_opens_nothing(guarded: RunningServer, name: str) -> None:
    value, status = CREDENTIALS[name]
    for path in ("/v1/models", "/v1/adapters", "/v1/limits", "/", "/nowhere"):
        head = f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"Authorization: " + value + b"\r\n\r\n"
        answer = exchange(guarded.url, head)
        assert answer.status == status, path
        assert answer.error["type"] in ("authentication_error", "permission_error")
        assert b"r" * 40 not in answer.body


@pytest.mark.parametrize("place", ["query", "cookie", "x-api-key", "form"])
def test_a_key_in_another_place_is_none(guarded: RunningServer, place: str) -> None:
    key = "o" * 40
    with guarded.client() as client:
        answer = client.post(
            "/v1/predict",
            params={"api_key": key, "Authorization": f"Bearer {key}"} if place == "query" else None,
            headers={"Cookie": f"key={key}"}
            if place == "cookie"
            else {"X-Api-Key": key}
            if place[0] == "x"
            else {},
            data={"key": key} if place == "form" else None,
        )
    assert (answer.status_code, error_of(answer)["code"]) == (401, "missing_key")
