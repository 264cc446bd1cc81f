"""A page of another site may call the server from a browser if, and only if, a setting lists its origin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rootstock.service.settings import SettingsError, read_settings
from tests.live_server import OWNER, READER, RunningServer

PREDICT = {"model": "foundation", "inputs": "x"}
PAGE = {"Origin": "https://app.example.com", "Sec-Fetch-Site": "cross-site"}
KEYS = {"api_key": READER, "admin_key": OWNER}


def asked(client: httpx.Client, origin: str) -> httpx.Response:
    """Ask as a browser does before it sends a page's request."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    return client.options("/v1/predict", headers=headers)


def test_by_default_no_page_of_another_site_is_let_in(serve: Callable[..., RunningServer]) -> None:
    with serve(**KEYS).client(READER) as client:
        assert "access-control-allow-origin" not in asked(client, PAGE["Origin"]).headers
        assert "access-control-allow-origin" not in client.post("/v1/predict", headers=PAGE, json=PREDICT).headers


@pytest.mark.parametrize("keys", [{}, KEYS])
def test_a_listed_page_calls_and_reads(serve: Callable[..., RunningServer], keys: dict[str, Any]) -> None:
    running = serve(cors_origins="https://app.example.com, http://localhost:5173", **keys)
    with running.client() as stranger:
        question = asked(stranger, PAGE["Origin"])
        assert question.status_code == 200
        assert question.headers["access-control-allow-origin"] == PAGE["Origin"]
        assert "authorization" in question.headers["access-control-allow-headers"].lower()
    with running.client(OWNER if keys else None) as client:
        answer = client.post("/v1/predict", headers=PAGE, json=PREDICT)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE["Origin"]
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
        # A page can read an error too.
        wrong = client.post("/v1/predict", headers=PAGE, json={})
        assert (wrong.status_code, wrong.headers["access-control-allow-origin"]) == (422, PAGE["Origin"])


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://app.example.com", "https://app.example.com:1"]
)
def test_a_page_that_is_not_listed_stays_out(serve: Callable[..., RunningServer], origin: str) -> None:
    with serve(cors_origins="https://app.example.com").client() as client:
        assert asked(client, origin).status_code == 400
        answer = client.post("/v1/predict", headers={**PAGE, "Origin": origin}, json=PREDICT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_site")
        assert "access-control-allow-origin" not in answer.headers
        unnamed = client.post("/v1/predict", headers={"Sec-Fetch-Site": "cross-site"}, json=PREDICT)
        assert unnamed.status_code == 403


def test_every_page_may_call_a_server_with_keys(serve: Callable[..., RunningServer]) -> None:
    with serve(cors_origins="*", **KEYS).client() as client:
        assert asked(client, "https://any.example").headers["access-control-allow-origin"] == "*"
        answer = client.post("/v1/predict", headers=PAGE, json=PREDICT)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "*")


@pytest.mark.parametrize("keys", [{}, {"api_key": READER}, {"admin_key": OWNER}])
def test_every_page_is_refused_at_start_where_a_call_needs_no_key(keys: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="would work from every web page"):
        read_settings(cors_origins="*", **keys).check_openness(stored_keys=False)


@pytest.mark.parametrize(
    "origins", ["app.example.com", "https://a.example/x", "https://*.example", "null", "ftp://a"]
)
def test_a_setting_that_names_no_origin_is_refused_at_start(origins: str) -> None:
    with pytest.raises(SettingsError, match="not an origin"):
        read_settings(cors_origins=origins)
