"""The two static keys: who may infer, who may publish, what stays open."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import SecretStr, ValidationError

from rootstock.service.settings import Settings, SettingsError, read_settings
from tests.live_server import OWNER, READER, RunningServer, upload
from tests.peft_adapters import PeftAdapter

PREDICT = {"model": "foundation", "inputs": "x"}


@pytest.mark.parametrize(
    ("key", "infer", "publish"),
    [(None, 401, 401), ("wrong", 403, 403), (READER, 200, 403), (OWNER, 200, 201)],
)
def test_each_key_may_do_what_it_is_for(
    serve: Callable[..., RunningServer],
    peft_saved: dict[str, PeftAdapter],
    key: str | None,
    infer: int,
    publish: int,
) -> None:
    running = serve(api_key=READER, admin_key=OWNER)
    with running.client(key) as client:
        assert client.post("/v1/predict", json=PREDICT).status_code == infer
        assert client.get("/v1/adapters").status_code == infer
        for path in ("/embed", "/models/foundation/embed"):
            assert client.post(path, json={"inputs": "x"}).status_code == infer
        assert upload(client, "mood", peft_saved["first"].zip()).status_code == publish
        assert client.delete("/v1/adapters/mood").status_code == (204 if publish == 201 else publish)
        for path in ("/livez", "/readyz", "/health", "/metrics"):
            assert client.get(path).status_code == 200


def test_a_browser_reads_the_reference_without_a_key_and_nothing_else(
    serve: Callable[..., RunningServer],
) -> None:
    with serve(api_key=READER, admin_key=OWNER).client() as client:
        for path in ("/docs", "/redoc", "/openapi.json", "/docs/swagger-ui.js", "/docs/redoc.js"):
            assert client.get(path).status_code == 200
        assert client.get("/docs/other.js").status_code == 404
        for path in ("/docs2", "/docsv1", "/openapi.json/", "/v1/adapters", "/v1/events", "/docs/../v1/adapters"):
            assert client.get(path).status_code == 401


def test_a_refusal_is_in_the_one_shape_and_comes_before_the_body_is_read(
    serve: Callable[..., RunningServer],
) -> None:
    with serve(api_key=READER, admin_key=OWNER).client() as client:
        answer = client.post("/v1/predict", content=b"{")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["type"] == "authentication_error"


def test_an_admin_key_alone_leaves_inference_open(serve: Callable[..., RunningServer]) -> None:
    with serve(admin_key=OWNER).client() as client:
        assert client.post("/v1/predict", json=PREDICT).status_code == 200
        assert client.delete("/v1/adapters/mood").status_code == 401


def test_an_api_key_alone_lets_nobody_publish(serve: Callable[..., RunningServer]) -> None:
    with serve(api_key=READER).client(READER) as client:
        assert client.post("/v1/predict", json=PREDICT).status_code == 200
        assert client.delete("/v1/adapters/mood").status_code == 403


@pytest.mark.parametrize("key", ["", "clé", "two words", "line\n"])
def test_a_key_that_no_header_can_carry_is_refused_at_start(key: str) -> None:
    with pytest.raises(ValidationError, match="api_key"):
        Settings(api_key=SecretStr(key))


@pytest.mark.parametrize("setting", ["api_key", "admin_key"])
@pytest.mark.parametrize("key", ["x", "0123456789abcde"])
def test_a_key_that_can_be_guessed_is_refused_at_start_with_the_remedy_and_not_shown(
    setting: str, key: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(**{setting: key})
    assert str(refused.value) == (
        f"ROOTSTOCK_{setting.upper()}: the key has {len(key)} characters, and one under 16 can be guessed; make "
        "one: openssl rand -hex 32"
    )
    assert read_settings(**{setting: "0123456789abcdef"}).check_openness(stored_keys=False) is None
