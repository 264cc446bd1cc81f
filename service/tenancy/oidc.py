"""Bearer tokens of an OpenID Connect provider: JSON Web Tokens, checked with the provider's public keys."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import structlog

from rootstock.adapters.errors import InvalidKey
from rootstock.adapters.reference import DEFAULT_TENANT
from rootstock.adapters.registry.key_records import ROLES, check_tenant
from rootstock.service.tenancy.errors import InvalidToken, IssuerUnavailable, WrongKey
from rootstock.service.tenancy.principal import Principal

# Signatures with a private key alone. With HS256 a provider's public key would be a secret that everyone has.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
# Seconds until the keys are read again; between two reads for a key that is unknown; that a clock may differ.
LIFETIME = 300.0
PAUSE = 10.0
LEEWAY = 10
_TIMEOUT = 5.0
_MAX_BYTES = 2**20
_DISCOVERY = "/.well-known/openid-configuration"
# `who` of an event has 64 characters.
_MAX_SUBJECT = 59
_REASONS = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidIssuedAtError: "it is not valid yet",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is from another issuer",
    jwt.MissingRequiredClaimError: "it lacks one of the claims exp, iss and aud",
    jwt.InvalidSignatureError: "its signature is not that of its content",
}


class OidcIssuer:
    """The tokens of one issuer for one audience.

    `tenant_claim` and `role_claim` name the claims with the tenant and the role. Dots in a name lead into nested
    objects, unless a claim has the whole name. Without a tenant claim every token is of the default tenant.

    The issuer's keys are read in a thread: at the first token, every LIFETIME seconds while tokens come, and for
    an unknown key, at most every PAUSE seconds. While the issuer is away, the keys that were read stay good.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        tenant_claim: str = "tenant",
        role_claim: str = "role",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._tenant_claim = tenant_claim
        self._role_claim = role_claim
        self._clock = clock
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._tried: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def principal(self, token: str) -> Principal:
        """Return whom a token stands for.

        Raise InvalidToken if it is not valid, WrongKey if its claims name no tenant or role, and
        IssuerUnavailable if the issuer's keys could never be read.
        """
        claims = self._verified(token, await self._key(*_algorithm_and_key(token)))
        tenant = DEFAULT_TENANT
        if self._tenant_claim:
            tenant = _tenant(self._tenant_claim, next(_values(claims, self._tenant_claim), None))
        roles = [role for role in ROLES if role in _values(claims, self._role_claim)]
        if not roles:
            raise WrongKey(
                f"the token's claim {self._role_claim!r} names no role; the roles are {', '.join(ROLES)}"
            )
        return Principal(tenant, roles[-1], f"oidc:{_subject(claims)}")

    def _verified(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except (jwt.PyJWTError, ValueError, OverflowError, TypeError, RecursionError) as error:
            raise _refused(_REASONS.get(type(error), "it is not a valid token")) from None

    async def _key(self, algorithm: str, name: str | None) -> jwt.PyJWK:
        """Return the key of this name, which has to be one for this algorithm."""
        age = math.inf if self._tried is None else self._clock() - self._tried
        under_way = self._reading is not None and not self._reading.done()
        if name not in self._keys and (under_way or age >= PAUSE):
            await self._read()
        elif age >= LIFETIME:
            # Nobody has to wait for this, because the keys at hand are good.
            self._begin()
        if not self._keys:
            raise IssuerUnavailable("the keys of the identity provider cannot be read; try again, or use a key")
        key = self._keys.get(name)
        if key is None or key.algorithm_name != algorithm:
            raise _refused("it is signed with a key that its issuer does not have")
        return key

    def _begin(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._tried = self._clock()
            self._reading = asyncio.create_task(self._replace_keys())
        return self._reading

    async def _read(self) -> None:
        """Wait until the keys are read. All who need them wait for one reading, which goes on if one leaves."""
        await asyncio.shield(self._begin())

    async def _replace_keys(self) -> None:
        try:
            self._keys = await asyncio.to_thread(_read_keys, self._issuer)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, RecursionError) as error:
            structlog.get_logger().warning(
                "the keys of the identity provider cannot be read", issuer=self._issuer, reason=str(error)[:200]
            )


def _algorithm_and_key(token: str) -> tuple[str, str | None]:
    """Return the algorithm and the key's name in a token's header, which nobody has verified yet."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise _refused("it is not a valid token") from None
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise _refused(f"its algorithm is none of {', '.join(ALGORITHMS)}")
    return algorithm, header.get("kid")


def _refused(reason: str) -> InvalidToken:
    return InvalidToken(f"the token is refused: {reason}; get a new one from the identity provider")


def _tenant(claim: str, value: object) -> str:
    try:
        return check_tenant(value)  # type: ignore[arg-type]
    except InvalidKey:
        raise WrongKey(
            f"the token's claim {claim!r} names no tenant; a tenant has 1 to 32 characters of a-z 0-9 -"
        ) from None


def _values(claims: Mapping[str, Any], name: str) -> Iterator[object]:
    """Yield the value of a claim, or the items of a list."""
    value: Any = claims
    for part in [name] if name in claims else name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    yield from value if isinstance(value, list) else [value]


def _subject(claims: Mapping[str, Any]) -> str:
    subject = str(claims.get("sub", ""))[:_MAX_SUBJECT]
    return subject if subject.isascii() and subject.isprintable() else ""


def _read_keys(issuer: str) -> Mapping[str | None, jwt.PyJWK]:
    """Return an issuer's public keys by name. Raise ValueError or an error of httpx if they cannot be read."""
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
        described = _document(client, issuer.rstrip("/") + _DISCOVERY)
        if described["issuer"] != issuer:
            raise ValueError(f"the issuer calls itself {str(described['issuer'])[:100]!r}")
        if urlsplit(described["jwks_uri"]).scheme != urlsplit(issuer).scheme:
            raise ValueError("the address of the keys has another scheme than the issuer")
        listed = _document(client, described["jwks_uri"])["keys"]
    keys: dict[str | None, jwt.PyJWK] = {}
    for one in listed:
        if one.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(one)
        except jwt.PyJWTError:
            continue  # A kind of key that this version does not know.
        if key.algorithm_name in ALGORITHMS:
            keys[key.key_id] = key
    if len(keys) == 1:
        # A token may leave out the name of the only key.
        keys.setdefault(None, *keys.values())
    if not keys:
        raise ValueError("the issuer lists no key that signs")
    return keys


def _document(client: httpx.Client, address: str) -> dict[str, Any]:
    with client.stream("GET", address) as response:
        response.raise_for_status()
        content = b""
        for part in response.iter_bytes():
            content += part
            if len(content) > _MAX_BYTES:
                raise ValueError(f"{address} has more than {_MAX_BYTES} bytes")
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError(f"{address} holds no JSON object")
    return document
