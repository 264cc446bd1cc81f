"""Tokens of an identity provider: the valid one is taken, and no forged, stale or foreign one is."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import hypothesis
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import strategies

from rootstock.service.tenancy.errors import InvalidToken, IssuerUnavailable, WrongKey
from rootstock.service.tenancy.oidc import LIFETIME, PAUSE, OidcIssuer
from rootstock.service.tenancy.principal import Principal
from tests.bounds import HANG
from tests.service.tenancy.issuer import AUDIENCE, LocalIssuer, run_issuer


@pytest.fixture(scope="module")
def shared() -> Iterator[LocalIssuer]:
    with run_issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with run_issuer() as issuer:
        yield issuer


def checked(issuer: LocalIssuer, token: str, **options: Any) -> Principal:
    return asyncio.run(OidcIssuer(issuer.url, AUDIENCE, **options).principal(token))


@pytest.mark.parametrize("kid", ["r", "e", "d"])
def test_a_token_that_the_issuer_signed_stands_for_its_tenant_and_role(shared: LocalIssuer, kid: str) -> None:
    token = shared.token(kid, tenant="acme", role="publish", sub="ada@example.com")
    assert checked(shared, token) == Principal("acme", "publish", "oidc:ada@example.com")


def test_of_several_roles_the_most_powerful_counts_and_others_are_ignored(shared: LocalIssuer) -> None:
    roles = ["viewer", "publish", "predict", {"admin": 1}, 3]
    assert checked(shared, shared.token(role=roles)).role == "publish"


@pytest.mark.parametrize(
    "claims",
    [{"realm": {"team": "acme", "roles": ["admin"]}}, {"realm.team": "acme", "realm.roles": "admin"}],
)
def test_a_claim_may_be_nested_or_have_dots_in_its_name(shared: LocalIssuer, claims: dict[str, Any]) -> None:
    token = shared.token(tenant=None, role=None, **claims)
    found = checked(shared, token, tenant_claim="realm.team", role_claim="realm.roles")
    assert (found.tenant, found.role) == ("acme", "admin")


def test_without_a_claim_for_it_every_token_is_of_the_default_tenant(shared: LocalIssuer) -> None:
    assert checked(shared, shared.token(tenant="acme"), tenant_claim="").tenant == "default"


@pytest.mark.parametrize(
    "claims",
    [{"tenant": None}, {"tenant": "Acme!"}, {"tenant": {}}, {"tenant": 3}, {"role": None}, {"role": "root"},
     {"role": []}, {"role": "ADMIN"}],
)  # fmt: skip
def test_a_token_without_a_tenant_or_a_role_allows_nothing(shared: LocalIssuer, claims: dict[str, Any]) -> None:
    with pytest.raises(WrongKey, match="claim"):
        checked(shared, shared.token(**claims))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "lacks"),
        ({"aud": "another"}, "another audience"),
        ({"aud": None}, "lacks"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "lacks"),
        ({"nbf": 2**33}, "not valid yet"),
        ({"iat": 2**33}, "not valid yet"),
        ({"exp": "soon"}, "not a valid token"),
        ({"exp": 1e400}, "not a valid token"),
    ],
)
def test_a_stale_or_foreign_token_is_refused_with_the_reason(
    shared: LocalIssuer, claims: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidToken, match=reason):
        checked(shared, shared.token(**claims))


def segment(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_a_public_key_is_no_secret_to_sign_with(shared: LocalIssuer) -> None:
    public = shared.rsa.public_key()
    secrets = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(shared.jwks()["keys"][0]).encode(),
        b"secret",
        b"",
    ]
    for kid in ("r", "secret", None):
        for algorithm, function in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
            head = {"alg": algorithm, "typ": "JWT"} | ({} if kid is None else {"kid": kid})
            signed = f"{segment(head)}.{segment(shared.claims(role='admin'))}"
            for secret in secrets:
                signature = segment(hmac.new(secret, signed.encode(), function).digest())
                with pytest.raises(InvalidToken, match="its algorithm is none of"):
                    checked(shared, f"{signed}.{signature}")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 1, ["RS256"]])
def test_a_token_that_nobody_signed_is_refused(shared: LocalIssuer, algorithm: Any) -> None:
    for signature in ("", "AA", segment(b"x" * 256)):
        head = segment({"alg": algorithm, "kid": "r"})
        with pytest.raises(InvalidToken):
            checked(shared, f"{head}.{segment(shared.claims(role='admin'))}.{signature}")


def test_a_key_verifies_only_the_algorithm_that_it_is_for(shared: LocalIssuer) -> None:
    for kid, key, algorithm in (
        ("e", shared.rsa, "RS256"),
        ("r", shared.ec, "ES256"),
        ("r", shared.rsa, "PS256"),
        ("r", shared.rsa, "RS512"),
        ("encrypts", shared.rsa, "RS256"),
        ("nobody", shared.rsa, "RS256"),
    ):
        token = jwt.encode(shared.claims(), key, algorithm=algorithm, headers={"kid": kid})
        with pytest.raises(InvalidToken, match="a key that its issuer does not have"):
            checked(shared, token)


def test_a_key_in_the_token_itself_is_not_believed(shared: LocalIssuer) -> None:
    forger = rsa.generate_private_key(65537, 2048)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(forger.public_key()))
    for header in ({"jwk": jwk}, {"jku": "http://127.0.0.1:9/jwks"}, {"x5u": "http://127.0.0.1:9/x"}):
        token = jwt.encode(shared.claims(role="admin"), forger, algorithm="RS256", headers={"kid": "r", **header})
        with pytest.raises(InvalidToken, match="its signature"):
            checked(shared, token)


def test_a_changed_claim_breaks_the_signature(shared: LocalIssuer) -> None:
    head, _, signature = shared.token().split(".")
    with pytest.raises(InvalidToken, match="its signature"):
        checked(shared, f"{head}.{segment(shared.claims(role='admin'))}.{signature}")


@hypothesis.settings(max_examples=300, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(
    strategies.one_of(
        strategies.text(max_size=80),
        strategies.tuples(*[strategies.binary(max_size=40).map(segment)] * 3).map(".".join),
        strategies.tuples(
            strategies.dictionaries(
                strategies.sampled_from(["alg", "kid", "typ", "crit", "b64"]),
                strategies.sampled_from(["RS256", "r", "JWT", None, 1, ["b64"], {}, True, "é"]),
            ).map(segment),
            strategies.recursive(strategies.none() | strategies.integers(), strategies.lists, max_leaves=5).map(
                segment
            ),
            strategies.binary(max_size=300).map(segment),
        ).map(".".join),
    )
)
def test_no_text_is_anything_but_an_invalid_token(shared: LocalIssuer, text: str) -> None:
    with pytest.raises(InvalidToken):
        checked(shared, text)


def test_a_header_nested_without_end_is_an_invalid_token(shared: LocalIssuer) -> None:
    with pytest.raises(InvalidToken):
        checked(shared, f"{segment(b'[' * 45_000)}.e30.AA")


def test_new_keys_of_the_issuer_are_found_and_unknown_ones_are_looked_for_once_in_a_while(
    issuer: LocalIssuer,
) -> None:
    now = [0.0]

    async def scenario() -> None:
        opened = OidcIssuer(issuer.url, AUDIENCE, clock=lambda: now[0])
        issuer.listed = ["r"]
        await opened.principal(issuer.token("r"))
        for _ in range(20):
            with pytest.raises(InvalidToken):
                await opened.principal(issuer.token("e"))
        assert issuer.reads == 1
        issuer.listed = ["e"]
        now[0] += PAUSE
        assert (await opened.principal(issuer.token("e"))).tenant == "acme"
        assert issuer.reads == 2
        # The old key is gone with the list that held it.
        with pytest.raises(InvalidToken):
            await opened.principal(issuer.token("r"))

    asyncio.run(scenario())


def test_keys_are_read_again_when_they_are_old_and_no_token_waits_for_it(issuer: LocalIssuer) -> None:
    now = [0.0]

    async def scenario() -> None:
        opened = OidcIssuer(issuer.url, AUDIENCE, clock=lambda: now[0])
        await opened.principal(issuer.token())
        now[0] += LIFETIME
        issuer.open.clear()
        # The issuer does not answer now, and the token is checked all the same.
        await opened.principal(issuer.token())
        issuer.open.set()
        ends = time.monotonic() + HANG
        while issuer.reads < 2:
            assert time.monotonic() < ends
            await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_other_requests_go_on_while_the_issuer_is_slow(issuer: LocalIssuer) -> None:
    async def scenario() -> None:
        opened = OidcIssuer(issuer.url, AUDIENCE)
        issuer.open.clear()
        asked = [asyncio.create_task(opened.principal(issuer.token())) for _ in range(5)]
        await asyncio.sleep(0)
        # The loop runs this although the reading waits; and one that leaves takes the reading from nobody.
        asked[0].cancel()
        await asyncio.sleep(0)
        issuer.open.set()
        assert [one.tenant for one in await asyncio.gather(*asked[1:])] == ["acme"] * 4
        assert issuer.reads == 1

    asyncio.run(asyncio.wait_for(scenario(), HANG))


def test_an_issuer_that_is_away_is_no_fault_of_the_token_and_the_keys_at_hand_stay_good(
    issuer: LocalIssuer,
) -> None:
    now = [0.0]

    async def scenario() -> None:
        opened = OidcIssuer(issuer.url, AUDIENCE, clock=lambda: now[0])
        issuer.status = 500
        with pytest.raises(IssuerUnavailable):
            await opened.principal(issuer.token())
        issuer.status = 200
        now[0] += PAUSE
        await opened.principal(issuer.token())
        issuer.status = 500
        now[0] += LIFETIME
        await opened.principal(issuer.token())
        await opened.principal(issuer.token())

    asyncio.run(scenario())


def test_documents_of_another_issuer_are_not_believed(issuer: LocalIssuer) -> None:
    issuer.claimed = "https://evil.example"
    with pytest.raises(IssuerUnavailable):
        checked(issuer, issuer.token())
