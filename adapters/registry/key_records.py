"""The records of keys and quotas that a registry takes and returns."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, get_args

from rootstock.adapters.errors import InvalidKey, UnknownKey
from rootstock.adapters.reference import TENANT_RULE, is_tenant, shown

Role = Literal["predict", "publish", "admin"]
# From the least to the most; a role may do what the roles before it may.
ROLES: tuple[Role, ...] = get_args(Role)

_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
MAX_LABEL = 200
# Beyond any use, and below what a column of 64 bits holds.
MAX_QUOTA = 10**12


def is_key_id(text: str) -> bool:
    """Return whether `text` has the form of a key's id."""
    return _ID.fullmatch(text) is not None


def unknown_key(id: str) -> UnknownKey:
    """Return the error for an id that no key has, or none that the caller may see."""
    return UnknownKey(f"there is no key {shown(id)}; `rootstock keys list` shows the ids", param="id")


def check_tenant(text: str) -> str:
    """Return `text` if it can name a tenant; else raise InvalidKey."""
    if not is_tenant(text):
        raise InvalidKey(f"{shown(text)} cannot name a tenant; use {TENANT_RULE}", param="tenant")
    return text


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that one key or one tenant may use; None is no limit.

    `stored_mb` limits the bundles that the tenant stores, in MiB. Raise InvalidKey for a limit below 1.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    stored_mb: int | None = None

    def __post_init__(self) -> None:
        for name, limit in asdict(self).items():
            if limit is not None and not 1 <= limit <= MAX_QUOTA:
                raise InvalidKey(
                    f"{name} is {shown(limit)}; give a whole number from 1 to {MAX_QUOTA}, or leave it out for "
                    "no limit",
                    param=name,
                )

    @property
    def unlimited(self) -> bool:
        """Tell whether it limits nothing."""
        return all(getattr(self, one.name) is None for one in fields(self))


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to add: `hash` is the sha256 of its secret. Raise InvalidKey for a property that no key can have."""

    id: str
    hash: str = field(repr=False)
    tenant: str
    role: Role
    label: str = ""
    expires_at: datetime | None = None
    quota: Quota = Quota()

    def __post_init__(self) -> None:
        check_tenant(self.tenant)
        if self.role not in ROLES:
            raise InvalidKey(f"{shown(self.role)} is no role; give one of {', '.join(ROLES)}", param="role")
        if len(self.label) > MAX_LABEL or not self.label.isprintable():
            raise InvalidKey(
                f"the label has {len(self.label)} characters or a line end; give one line of at most {MAX_LABEL}",
                param="label",
            )


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is stored, without its secret; times are UTC, and None is never."""

    id: str
    tenant: str
    role: Role
    hash: str = field(repr=False)
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    quota: Quota = Quota()

    def ended(self, now: datetime) -> Literal["revoked", "expired"] | None:
        """Return why the key allows nothing at this time; None if it is good."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else None


@dataclass(frozen=True, slots=True)
class KeySnapshot:
    """All keys by id and all quotas of tenants by name, as they were at a revision of the registry."""

    revision: int
    keys: dict[str, KeyRecord]
    quotas: dict[str, Quota]


def key_fields(record: KeyRecord, now: datetime) -> dict[str, Any]:
    """Return what may be shown of a key, with its state: `good`, `expired` or `revoked`."""
    return {
        "id": record.id,
        "tenant": record.tenant,
        "role": record.role,
        "label": record.label,
        "state": record.ended(now) or "good",
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        **asdict(record.quota),
    }
