"""The errors of keys, tokens and quotas, each with a stable code."""

from __future__ import annotations

from collections.abc import Mapping

from rootstock.adapters.errors import AdapterError


class AccessError(AdapterError):
    """A request that its key does not allow. `challenge` is the value of WWW-Authenticate, if it has one."""

    challenge: str | None = None


class MissingKey(AccessError):
    """The call needs a key, and the request has none."""

    code = "missing_key"
    challenge = "Bearer"


class WrongKey(AccessError):
    """The key does not allow this call."""

    code = "wrong_key"


class ExpiredKey(AccessError):
    """The key has expired."""

    code = "expired_key"
    challenge = 'Bearer error="invalid_token"'


class RevokedKey(AccessError):
    """The key is revoked."""

    code = "revoked_key"
    challenge = 'Bearer error="invalid_token"'


class InvalidToken(AccessError):
    """The token of the identity provider is not valid here."""

    code = "invalid_token"
    challenge = 'Bearer error="invalid_token"'


class IssuerUnavailable(AccessError):
    """The keys of the identity provider cannot be read, so its tokens cannot be checked."""

    code = "issuer_unavailable"


class ForeignTenant(AccessError):
    """The key administers another tenant than the one that the request names."""

    code = "foreign_tenant"


class FirstKey(AccessError):
    """The first key of a server would lock out everyone who could make the next one."""

    code = "first_key"


class QuotaExceeded(AdapterError):
    """A quota of the key or its tenant is used up for now.

    `retry_after` is in seconds. `headers` describe the quotas, for the answer.
    """

    code = "quota_exceeded"

    def __init__(self, message: str, retry_after: int, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.headers = headers


class StoredQuotaExceeded(AdapterError):
    """The tenant would store more than a quota allows."""

    code = "stored_quota_exceeded"
