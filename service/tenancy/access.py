"""The check of bearer tokens: keys of the settings, keys of the registry, and tokens of an identity provider."""

from __future__ import annotations

import hmac
from typing import Protocol

from rootstock.adapters.registry.bearer_key import BearerKey
from rootstock.adapters.registry.key_records import ROLES, Role
from rootstock.service.tenancy.errors import MissingKey, WrongKey
from rootstock.service.tenancy.key_ring import KeyRing
from rootstock.service.tenancy.principal import Principal

# The rights of a call without a key, on a server with keys.
ANONYMOUS = Principal(role="predict")
# The `key` of a principal whose key is one of the settings.
API_KEY, ADMIN_KEY = "api-key", "admin-key"


class TokenIssuer(Protocol):
    """An identity provider whose tokens this server takes."""

    async def principal(self, token: str) -> Principal:
        """Return whom a token stands for. Raise InvalidToken or IssuerUnavailable."""


class Access:
    """Who may call the server: the keys of the settings and of the registry, and an issuer of tokens.

    `api_key` allows inference and reading, `admin_key` everything, both for the default tenant.
    """

    def __init__(
        self,
        ring: KeyRing,
        api_key: str | None = None,
        admin_key: str | None = None,
        issuer: TokenIssuer | None = None,
    ) -> None:
        self.ring = ring
        self.has_admin_key = admin_key is not None
        self._fixed: list[tuple[str, Principal]] = []
        if api_key is not None:
            self._fixed.append((api_key, Principal(role="predict", key=API_KEY)))
        if admin_key is not None:
            self._fixed.append((admin_key, Principal(role="admin", key=ADMIN_KEY)))
        self._infers = api_key is not None
        self._issuer = issuer

    @property
    def none(self) -> bool:
        """Tell whether the server has no keys, so that no call needs one."""
        return not self._fixed and self._issuer is None and self.ring.empty

    @property
    def required(self) -> bool:
        """Tell whether inference and reading need a key too: with more than an admin key in the settings."""
        return self._infers or self._issuer is not None or not self.ring.empty

    async def principal(self, header: str | None) -> Principal:
        """Return whom the value of an Authorization header stands for.

        Raise MissingKey if it holds no token, or another AccessError if the token is not good.
        """
        scheme, _, token = (header or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise MissingKey("the request has no key and this call needs one; send Authorization: Bearer <key>")
        # Compare every key in constant time, so that the time of a refusal tells nothing about any of them.
        matches = [
            principal for key, principal in self._fixed if hmac.compare_digest(token.encode(), key.encode())
        ]
        if matches:
            # The same key may be both; then it allows everything.
            return matches[-1]
        key = BearerKey.parse(token)
        if key is not None:
            record = self.ring.check(key)
            return Principal(record.tenant, record.role, record.id)
        if self._issuer is not None and token.count(".") == 2:
            return await self._issuer.principal(token)
        raise WrongKey("this key does not allow this call; there is no such key on this server")


def allows(role: Role, needed: Role) -> bool:
    """Tell whether a role may do what another one is needed for."""
    return ROLES.index(role) >= ROLES.index(needed)
