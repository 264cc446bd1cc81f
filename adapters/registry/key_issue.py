"""The issue of keys: a new one, or one that takes the place of another."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rootstock.adapters.errors import EndedKey, InvalidKey
from rootstock.adapters.registry.bearer_key import BearerKey
from rootstock.adapters.registry.key_port import KeyRegistry
from rootstock.adapters.registry.key_records import KeyRecord, NewKey, Quota, Role

# The time that an old key stays good after a rotation, if nobody states another.
DEFAULT_OVERLAP = timedelta(hours=1)
MAX_OVERLAP = timedelta(days=365)
MAX_LIFE = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key that was just made. `text` holds its secret and exists nowhere else: show it once."""

    record: KeyRecord
    text: str = field(repr=False)


def issue_key(
    registry: KeyRegistry,
    tenant: str,
    role: Role,
    now: datetime,
    *,
    label: str = "",
    expires_at: datetime | None = None,
    quota: Quota | None = None,
) -> IssuedKey:
    """Make a key and store its hash. Raise InvalidKey for a property that no key can have."""
    _check_expiry(expires_at, now)
    key = BearerKey.new()
    record = registry.add(NewKey(key.id, key.hash, tenant, role, label, expires_at, quota or Quota()))
    return IssuedKey(record, key.text)


def rotate_key(
    registry: KeyRegistry,
    old: KeyRecord,
    now: datetime,
    overlap: timedelta = DEFAULT_OVERLAP,
    expires_at: datetime | None = None,
) -> IssuedKey:
    """Make a key with the properties of an old one, which stays good for `overlap` longer at most.

    Without `expires_at`, a key that expires is followed by one with the same time to live. Raise EndedKey if the
    old one has ended.
    """
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise InvalidKey(f"the overlap is {overlap}; give 0 to {MAX_OVERLAP.days} days", param="overlap_seconds")
    if (why := old.ended(now)) is not None:
        raise EndedKey(f"the key {old.id} is {why}, so it cannot be rotated; create a new one instead")
    _check_expiry(expires_at, now)
    if expires_at is None and old.expires_at is not None:
        expires_at = now + (old.expires_at - old.created_at)
    key = BearerKey.new()
    new = NewKey(key.id, key.hash, old.tenant, old.role, old.label, expires_at, old.quota)
    return IssuedKey(registry.replace(old.id, new, now + overlap), key.text)


def _check_expiry(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at > now + MAX_LIFE:
        raise InvalidKey(
            f"the key would expire at {expires_at:%Y-%m-%d} UTC; give one within {MAX_LIFE.days} days, or none",
            param="expires_at",
        )
    if expires_at is not None and expires_at <= now:
        raise InvalidKey(
            f"the key would expire at {expires_at:%Y-%m-%d %H:%M} UTC, which is past; give a later time, or none",
            param="expires_at",
        )
