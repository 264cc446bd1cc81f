"""Pages of other sites, and addresses that lead the server to its neighbours."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.attacks.http.conftest import MEDIA_HOSTS
from tests.attacks.http.wire import HOST, exchange
from tests.live_server import RunningServer

FOREIGN = {
    "a page": {"Origin": "https://evil.example"},
    "a page whose name begins like ours": {"Origin": "http://localhost.evil.example"},
    "a page with a user's name": {"Origin": "http://localhost@evil.example"},
    "a page at a port in its name": {"Origin": "http://localhost:80@evil.example"},
    "a page of a number": {"Origin": "http://3232235777"},
    "a page behind a backslash": {"Origin": "http://localhost\\.evil.example"},
    "a page of a space": {"Origin": "http://localhost evil.example"},
    "two pages": {"Origin": "http://localhost http://evil.example"},
    "a page of nothing": {"Origin": "http://"},
    "a page without a name": {"Origin": "null"},
    "another scheme": {"Origin": "javascript://localhost"},
    "a form": {"Sec-Fetch-Site": "cross-site", "Content-Type": "text/plain"},
    "a name that was rebound": {"Host": "evil.example:3000"},
    "a name like ours": {"Host": "localhost.evil.example"},
    "an address of the network": {"Host": "192.168.1.7"},
    "any address": {"Host": "0.0.0.0"},
    "a number": {"Host": "2130706433"},
    "an octal address": {"Host": "0177.0.0.1"},
    "a mapped address": {"Host": "[::ffff:10.0.0.1]"},
    "a name of letters beyond ASCII": {"Host": "lоcalhost".encode().decode("latin-1")},
    "a name with a path": {"Host": "localhost/evil"},
    "a name with a user": {"Host": "a@localhost"},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_request_of_another_site_is_403(attacker: httpx.Client, name: str) -> None:
    headers = {key: value.encode("latin-1") for key, value in FOREIGN[name].items()}
    for method, path in (("POST", "/v1/predict"), ("DELETE", "/v1/adapters/review-sentiment"), ("PUT", "/v1/x")):
        answer = attacker.request(method, path, headers=headers, content=b"{}")
        assert answer.status_code == 403, answer.text
        assert answer.json()["error"]["code"] in ("foreign_site", "unknown_host")
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/adapters"), ("GET", "/livez"), ("GET", "/metrics"), ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("POST", "/v1/predict"), ("PATCH", "/v1/predict"), ("GET", "/v2/models/nobody"), ("GET", "/docs"),
        ("GET", "/redoc"), ("GET", "/console"), ("GET", "/docs/swagger-ui.js"), ("HEAD", "/"),
        ("OPTIONS", "/v1/models"),
    ],
)  # fmt: skip
def test_every_answer_tells_a_browser_what_it_may_do_with_it(
    attacker: httpx.Client, method: str, path: str
) -> None:
    headers = attacker.request(method, path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    page = path in ("/docs", "/redoc", "/console", "/docs/swagger-ui.js")
    assert headers["cache-control"] == ("no-cache" if page else "no-store")
    for name in headers:
        assert len(headers.get_list(name)) == 1, name


@pytest.mark.parametrize("name", ["X-Request-Id", "traceparent", "X-Request-Key", "Accept", "If-None-Match"])
@pytest.mark.parametrize("value", [b"a\tb", b"\xff\xfe", b"a%0d%0aSet-Cookie: b=1", b"\xe2\x80\xa8", b"<script>"])
def test_no_header_of_a_request_becomes_one_of_the_answer(
    attacked: RunningServer, name: str, value: bytes
) -> None:
    head = b"GET /v1/models HTTP/1.1\r\n" + HOST + name.encode() + b": " + value + b"\r\n\r\n"
    answer = exchange(attacked.url, head)
    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-request-id"].isascii()
    assert answer.headers["x-request-id"].isprintable()


def addresses() -> list[str]:
    named = [f"[{host}]" if ":" in host else host for host in MEDIA_HOSTS]
    return [
        *(f"http://{host}/a.png" for host in named),
        "http://user:password@127.0.0.1/a.png", "http://127.0.0.1:22/a.png", "http://127.0.0.1#@evil.example/",
        "http://evil.example/a.png", "http://127.0.0.1.evil.example/a.png", "https://169.254.169.254/latest/",
        "http://①②⑦.⓪.⓪.①/a.png", "http://127。0。0。1/a.png", "http://[::ffff:7f00:1%25eth0]/a.png",
        "http:///a.png", "http:127.0.0.1/a.png", "http:\\\\127.0.0.1\\a.png", "http://127.0.0.1\r\nX: y/a.png",
        "http://127.0.0.1\x00.evil.example/", "//127.0.0.1/a.png", "file:///etc/passwd", "ftp://127.0.0.1/a.png",
        "HTTP://LOCALHOST/a.png", "http://localhost./a.png", "http://LOCALHOST%2e/a.png", "http://" + "a" * 5000,
        "gopher://127.0.0.1/", "data:text/html,<script>", "jar:http://127.0.0.1!/", "http://[::]:80/", "http://[",
    ]  # fmt: skip


@pytest.mark.parametrize("address", addresses())
def test_an_address_that_is_not_public_is_refused_even_if_the_operator_names_its_host(
    attacker: httpx.Client, address: str
) -> None:
    bodies: dict[str, Any] = {
        "/v1/predict": {"model": "foundation", "inputs": {"image": address}},
        "/v1/embeddings": {"model": "foundation", "input": [{"image": address}]},
    }
    for path, body in bodies.items():
        answer = attacker.post(path, json=body)
        assert answer.status_code in (413, 422), answer.text
        error = answer.json()["error"]
        assert error["param"] is not None
        assert error["param"].startswith("input"), error
        # A name that no lookup finds has no address to refuse.
        unknown = ("evil", "⓪", "localhost.")
        assert "no complete answer" not in error["message"] or any(part in address for part in unknown), error
