"""A server without keys refuses what another site's page can send, on every route; one with keys does not."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from rootstock.service.api.middleware.keys import OPEN_PATHS
from rootstock.service.settings import Settings
from tests.live_server import OWNER, READER, RunningServer, upload
from tests.peft_adapters import PeftAdapter

PREDICT = {"model": "foundation", "inputs": "x"}
FOREIGN = {
    "a page": {"Origin": "https://evil.example"},
    "a page that forged nothing but its scheme": {"Origin": "https://localhost.evil.example:3000"},
    "a page whose name begins like ours": {"Origin": "http://127.0.0.1.evil.example"},
    "a page with a user's name": {"Origin": "http://localhost@evil.example"},
    "a sandboxed frame or a file": {"Origin": "null"},
    "an extension": {"Origin": "chrome-extension://localhost"},
    "an empty origin": {"Origin": ""},
    "a form without an origin": {"Sec-Fetch-Site": "cross-site"},
    "a word of tomorrow": {"Sec-Fetch-Site": "cross-planet"},
    "our origin, another site": {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
}
REBOUND = [
    "evil.example",
    "evil.example:3000",
    "127.0.0.1.evil.example",
    "0.0.0.0",
    "10.0.0.8:80",
    "[::2]",
    "a b",
    "",
]
OURS: list[dict[str, str]] = [
    {},
    {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://localhost:5173", "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://[::1]:3000", "Sec-Fetch-Site": "none"},
    *(
        {"Host": host}
        for host in ("localhost", "LOCALHOST:3000", "a.localhost", "localhost.", "127.8.9.1", "[::1]:80")
    ),
]


def calls(client: httpx.Client) -> list[tuple[str, str]]:
    paths = client.get("/openapi.json").json()["paths"]
    listed = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    return [
        (m, path.format(name="mood", alias="prod", version=1, task="fill-mask", id="0" * 16, tenant="acme"))
        for m, path in listed
        if path not in OPEN_PATHS
    ]


# Words of the message of each refusal.
WORDS = {"unknown_host": "ROOTSTOCK_ALLOWED_HOSTS", "foreign_site": "a web page of another site"}


def refused(answer: httpx.Response, code: str) -> bool:
    error = answer.json()["error"]
    # The Open Inference Protocol's errors are a message alone.
    says_so = WORDS[code] in error if isinstance(error, str) else error["code"] == code
    return answer.status_code == 403 and says_so


def test_no_page_of_another_site_changes_or_computes_anything(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    assert upload(client, "mood", peft_saved["first"].zip()).status_code == 201
    before = client.get("/v1/adapters").json()
    unsafe = [call for call in calls(client) if call[0] != "GET"]
    assert {method for method, _ in unsafe} == {"POST", "PUT", "DELETE"}
    for who, headers in FOREIGN.items():
        for method, path in [*unsafe, ("PATCH", "/v1/adapters/mood"), ("POST", "/nowhere")]:
            answer = client.request(method, path, headers=headers, json=PREDICT)
            assert refused(answer, "foreign_site"), (who, method, path, answer.text)
        files = {"bundle": ("x.zip", peft_saved["second"].zip(), "application/zip")}
        answer = client.post("/v1/adapters", headers=headers, data={"name": "mood"}, files=files)
        assert refused(answer, "foreign_site"), who
    assert client.get("/v1/adapters").json() == before


@pytest.mark.parametrize("host", REBOUND)
def test_a_name_that_was_made_to_point_here_reads_and_changes_nothing(client: httpx.Client, host: str) -> None:
    for method, path in [*calls(client), ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/nowhere")]:
        answer = client.request(method, path, headers={"Host": host}, json=PREDICT)
        assert refused(answer, "unknown_host"), (method, path, answer.text)
        assert "ROOTSTOCK_ALLOWED_HOSTS" in answer.text


@pytest.mark.parametrize("headers", OURS)
def test_programs_and_our_own_pages_are_served(client: httpx.Client, headers: dict[str, str]) -> None:
    assert client.post("/v1/predict", headers=headers, json=PREDICT).status_code == 200
    assert client.delete("/v1/adapters/nobody", headers=headers).status_code == 404


@pytest.mark.parametrize("path", OPEN_PATHS)
def test_probes_and_scrapers_come_by_any_name(client: httpx.Client, path: str) -> None:
    assert client.get(path, headers={"Host": "rootstock.monitoring:3000"}).status_code == 200


def test_a_link_on_another_site_opens(client: httpx.Client) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_a_request_without_a_host_is_no_browser_s(server: RunningServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert b" 200 " in connection.recv(100)


@pytest.mark.parametrize("keys", [{"api_key": READER, "admin_key": OWNER}, {"admin_key": OWNER}])
def test_a_server_with_keys_takes_a_key_by_any_name_and_from_any_page(
    serve: Callable[..., RunningServer], keys: dict[str, Any]
) -> None:
    with serve(**keys).client(OWNER) as client:
        for headers in [*FOREIGN.values(), *({"Host": host} for host in REBOUND)]:
            assert client.post("/v1/predict", headers=headers, json=PREDICT).status_code == 200
            assert client.delete("/v1/adapters/nobody", headers=headers).status_code == 404


def test_listed_hosts_are_served_and_their_pages_too(serve: Callable[..., RunningServer]) -> None:
    with serve(allowed_hosts="Models.example.com, 10.0.0.8, [fd00::1]").client() as client:
        for host in (
            "models.example.com",
            "models.example.com:8443",
            "10.0.0.8:80",
            "[fd00::1]:3000",
            "localhost",
        ):
            headers = {"Host": host, "Origin": f"https://{host}", "Sec-Fetch-Site": "same-origin"}
            assert client.post("/v1/predict", headers=headers, json=PREDICT).status_code == 200
        for host in ("example.com", "a.models.example.com", "10.0.0.9", "[fd00::2]"):
            assert client.post("/v1/predict", headers={"Host": host}, json=PREDICT).status_code == 403


@pytest.mark.parametrize("hosts", ["https://a.example", "a.example:80", "a.example/x", "*", "a b"])
def test_a_setting_that_names_no_host_is_refused_at_start(hosts: str) -> None:
    with pytest.raises(ValidationError, match="not a host name"):
        Settings(allowed_hosts=hosts)
