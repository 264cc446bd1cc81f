"""The keys in memory follow the registry: at once in this process, and by themselves after another's change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rootstock.adapters.errors import InvalidKey, RegistryUnavailable
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.registry.bearer_key import BearerKey
from rootstock.adapters.registry.key_issue import IssuedKey, issue_key
from rootstock.adapters.registry.key_records import Quota
from rootstock.service.tenancy.errors import AccessError, ExpiredKey, RevokedKey, WrongKey
from rootstock.service.tenancy.key_ring import LOOK_EVERY, KeyRing
from tests.adapters.registries import address
from tests.bounds import HANG

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OpenRing = Callable[[], KeyRing]


@pytest.fixture
def open_ring(tmp_path: Path) -> Iterator[OpenRing]:
    """Yield a function that opens the keys as one replica does."""
    with ExitStack() as stack:

        def opened() -> KeyRing:
            registry = SqlRegistry(address(tmp_path))
            stack.callback(registry.close)
            ring = KeyRing(registry.keys, clock=lambda: NOW)
            stack.callback(ring.close)
            return ring

        yield opened


def issued(ring: KeyRing, **properties: object) -> IssuedKey:
    key = issue_key(ring.registry, "acme", "predict", NOW, **properties)  # type: ignore[arg-type]
    ring.refresh()
    return key


def parsed(key: IssuedKey) -> BearerKey:
    found = BearerKey.parse(key.text)
    assert found is not None
    return found


def until_refused(ring: KeyRing, key: BearerKey) -> AccessError:
    ends = time.monotonic() + HANG
    while time.monotonic() < ends:
        try:
            ring.check(key)
        except AccessError as error:
            return error
        time.sleep(0.01)
    raise AssertionError("the key is still good")


def test_a_key_is_found_by_its_id_and_checked_by_its_secret(open_ring: OpenRing) -> None:
    ring = open_ring()
    one, other = parsed(issued(ring)), parsed(issued(ring))
    assert ring.check(one).id == one.id
    for wrong in (BearerKey(one.id, other.secret), BearerKey("0" * 16, one.secret), BearerKey.new()):
        with pytest.raises(WrongKey, match="there is no such key"):
            ring.check(wrong)


def test_only_the_holder_of_the_secret_learns_that_a_key_has_ended(open_ring: OpenRing) -> None:
    ring = open_ring()
    revoked = issued(ring)
    expired = issued(ring, expires_at=NOW + timedelta(seconds=1))
    ring.registry.revoke(revoked.record.id, NOW)
    ring.refresh()
    ring._clock = lambda: NOW + timedelta(seconds=1)
    for key, error in ((revoked, RevokedKey), (expired, ExpiredKey)):
        with pytest.raises(error):
            ring.check(parsed(key))
        with pytest.raises(WrongKey):
            ring.check(BearerKey(key.record.id, "0" * 64))


def test_a_key_is_compared_with_a_hash_also_if_no_key_has_its_id(
    open_ring: OpenRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = open_ring()
    compared = []
    matches = BearerKey.matches

    def note(key: BearerKey, stored: str) -> bool:
        compared.append(len(stored))
        return matches(key, stored)

    monkeypatch.setattr(BearerKey, "matches", note)
    with pytest.raises(WrongKey):
        ring.check(BearerKey.new())
    assert compared == [64]


def test_another_replica_follows_a_revocation_a_quota_and_a_new_key_by_itself(open_ring: OpenRing) -> None:
    here, there = open_ring(), open_ring()
    there.start()
    key = issued(here)
    ends = time.monotonic() + HANG
    while there.empty and time.monotonic() < ends:
        time.sleep(0.01)
    assert there.check(parsed(key)).tenant == "acme"
    here.registry.set_tenant_quota("acme", Quota(requests_per_minute=3))
    here.registry.revoke(key.record.id, NOW)
    here.refresh()
    with pytest.raises(RevokedKey):
        here.check(parsed(key))
    assert isinstance(until_refused(there, parsed(key)), RevokedKey)
    assert there.tenant_quota("acme") == Quota(requests_per_minute=3)


def test_a_replica_looks_often_enough_for_the_promise_of_one_second() -> None:
    assert LOOK_EVERY <= 0.5


@pytest.mark.parametrize("fault", [RegistryUnavailable("away"), InvalidKey("a row that nobody can read")])
def test_keys_of_the_last_look_stay_good_while_the_registry_cannot_be_read_and_looks_go_on(
    open_ring: OpenRing, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    ring = open_ring()
    key = issued(ring)
    asked = threading.Semaphore(0)
    answer = ring.registry.revision

    def away() -> int:
        asked.release()
        raise fault

    monkeypatch.setattr(ring.registry, "revision", away)
    ring.start()
    for _ in range(2):
        assert asked.acquire(timeout=HANG)
    assert ring.check(parsed(key)).id == key.record.id
    ring.registry.revoke(key.record.id, NOW)
    monkeypatch.setattr(ring.registry, "revision", answer)
    assert isinstance(until_refused(ring, parsed(key)), RevokedKey)


def test_a_registry_whose_keys_have_all_ended_is_not_empty(open_ring: OpenRing) -> None:
    ring = open_ring()
    assert ring.empty
    key = issued(ring)
    ring.registry.revoke(key.record.id, NOW)
    ring.refresh()
    assert not ring.empty
    assert not open_ring().empty
