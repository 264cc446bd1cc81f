"""The keys of the registry in memory, so that a request is checked without the database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from rootstock.adapters.errors import RegistryUnavailable
from rootstock.adapters.registry.bearer_key import BearerKey
from rootstock.adapters.registry.key_port import KeyRegistry
from rootstock.adapters.registry.key_records import KeyRecord, KeySnapshot, Quota
from rootstock.service.tenancy.errors import ExpiredKey, RevokedKey, WrongKey

# Seconds between two looks at the registry. A change reaches every replica within this time and one query.
LOOK_EVERY = 0.5
# Seconds that a stop waits for a look. A database that hangs must not hold it up.
_PATIENCE = 5.0
# A key that nobody has. It is compared when an id is unknown, so that both refusals take the same time.
_NOBODY = BearerKey.new().hash


def utc_now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class KeyRing:
    """The keys and quotas of the registry, as they were at the last look.

    A thread looks every LOOK_EVERY seconds, and `refresh` looks at once. While the registry cannot be read, the
    keys of the last look stay good: the operator of a database that is away can revoke nothing there either.
    """

    def __init__(self, registry: KeyRegistry, clock: Callable[[], datetime] = utc_now) -> None:
        """Read the keys. Raise RegistryUnavailable if they cannot be read."""
        self.registry = registry
        self._clock = clock
        self._snapshot: KeySnapshot = registry.snapshot()
        self._looking = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="keys", daemon=True)

    def start(self) -> None:
        """Begin to look at the registry for changes."""
        self._thread.start()

    def close(self) -> None:
        """End the looks. It waits a moment for one that is under way."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)

    def refresh(self) -> None:
        """Read the keys again if the registry has changed. Call it after a change, before its answer."""
        with self._looking:
            if self.registry.revision() != self._snapshot.revision:
                self._snapshot = self.registry.snapshot()

    @property
    def empty(self) -> bool:
        """Tell whether nobody has ever made a key. Keys that have ended count, because they stay."""
        return not self._snapshot.keys

    @property
    def has_quotas(self) -> bool:
        """Tell whether some key or tenant has a quota of requests or tokens."""
        quotas = [*self._snapshot.quotas.values(), *(key.quota for key in self._snapshot.keys.values())]
        return any(quota.requests_per_minute or quota.tokens_per_minute for quota in quotas)

    def records(self) -> list[KeyRecord]:
        """Return all keys, oldest first."""
        return list(self._snapshot.keys.values())

    def quota(self, key: str) -> Quota:
        """Return the quota of a key; one without limits if the registry has no key with this id."""
        record = self._snapshot.keys.get(key)
        return Quota() if record is None else record.quota

    def tenant_quota(self, tenant: str) -> Quota:
        """Return the quota of a tenant, which is without limits if none was set."""
        return self._snapshot.quotas.get(tenant, Quota())

    def check(self, key: BearerKey) -> KeyRecord:
        """Return the record of a key. Raise WrongKey, ExpiredKey or RevokedKey if it allows nothing."""
        record = self._snapshot.keys.get(key.id)
        matches = key.matches(_NOBODY if record is None else record.hash)
        if record is None or not matches:
            raise WrongKey("there is no such key on this server; check it, or ask for a new one")
        # Only the holder of the secret learns that the key has ended.
        ended = record.ended(self._clock())
        if ended == "revoked":
            raise RevokedKey(f"the key {record.id} is revoked; ask for a new one")
        if ended == "expired":
            raise ExpiredKey(f"the key {record.id} has expired; ask for a new one")
        return record

    def _look(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            try:
                self.refresh()
            except RegistryUnavailable:
                pass  # /readyz says so.
            except Exception:
                # Whatever it is: a thread that ended would leave every later revocation without effect here.
                structlog.get_logger().exception("the keys cannot be read; the last ones stay good")
