"""A server that takes the tokens of an identity provider, beside keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootstock.service.settings import Settings, SettingsError, read_settings
from tests.live_server import OWNER, RunningServer, run_server
from tests.service.tenancy.issuer import AUDIENCE, LocalIssuer, run_issuer

PREDICT = {"model": "foundation", "inputs": "x"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    with run_issuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], issuer: LocalIssuer) -> Iterator[RunningServer]:
    settings = Settings(
        home=new_home(),
        demo=False,
        log_level="error",
        admin_key=OWNER,
        oidc_issuer=issuer.url,
        oidc_audience=AUDIENCE,
    )
    with run_server(settings) as running:
        yield running


def test_a_token_has_the_rights_of_its_role_in_its_tenant(server: RunningServer, issuer: LocalIssuer) -> None:
    with server.client(issuer.token(role="predict")) as client:
        assert client.post("/v1/predict", json=PREDICT).status_code == 200
        assert client.delete("/v1/adapters/nobody").status_code == 403
    with server.client(issuer.token(role="admin", tenant="acme")) as client:
        made = client.post("/v1/keys", json={"role": "predict"})
        assert (made.status_code, made.json()["tenant"]) == (201, "acme")
        assert client.post("/v1/keys", json={"role": "predict", "tenant": "default"}).status_code == 403
    with server.client(made.json()["key"]) as client:
        assert client.post("/v1/predict", json=PREDICT).status_code == 200


def test_a_bad_token_is_401_with_a_challenge_and_no_token_is_401_too(
    server: RunningServer, issuer: LocalIssuer
) -> None:
    for token in (issuer.token(exp=1), issuer.token(aud="another"), issuer.token() + "x", "a.b.c"):
        with server.client(token) as client:
            answer = client.post("/v1/predict", json=PREDICT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_token")
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert token not in answer.text
    # An admin key alone would leave inference open, and an issuer closes it.
    with server.client() as stranger:
        assert stranger.post("/v1/predict", json=PREDICT).status_code == 401


def test_an_issuer_that_is_away_is_503_and_keys_go_on(serve: Callable[..., RunningServer]) -> None:
    with run_issuer() as gone:
        token = gone.token()
    running = serve(admin_key=OWNER, oidc_issuer=gone.url, oidc_audience=AUDIENCE, log_level="error")
    with running.client(token) as client:
        answer = client.post("/v1/predict", json=PREDICT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "issuer_unavailable")
    with running.client(OWNER) as client:
        assert client.post("/v1/predict", json=PREDICT).status_code == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"oidc_issuer": "https://login.example.com"}, "are set together"),
        ({"oidc_audience": "rootstock"}, "are set together"),
        *[
            ({"oidc_issuer": address, "oidc_audience": "rootstock"}, "is not an issuer")
            for address in (
                "http://login.example.com", "login.example.com", "ftp://a", "https://", "https://a?b=c", "https://a#b"
            )
        ],
        ({"oidc_role_claim": ""}, "OIDC_ROLE_CLAIM"),
    ],
)  # fmt: skip
def test_an_issuer_that_cannot_be_trusted_is_refused_at_start(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(**settings)
