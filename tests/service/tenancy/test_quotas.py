"""Quotas of keys and tenants: what is counted, when it is refused, and what the headers say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.registry.key_issue import issue_key
from rootstock.adapters.registry.key_records import Quota
from rootstock.service.tenancy.errors import QuotaExceeded, StoredQuotaExceeded
from rootstock.service.tenancy.key_ring import KeyRing
from rootstock.service.tenancy.principal import Principal
from rootstock.service.tenancy.quotas import Quotas
from tests.adapters.registries import address, digest

NOW = datetime(2030, 1, 1, tzinfo=UTC)
MIB = 2**20


class Clock:
    """The time module of the library's window and of the quotas; it stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 60.0 * 10**7

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("limits.storage.memory", "limits.strategies", "rootstock.service.tenancy.quotas"):
        monkeypatch.setattr(f"{module}.time", clock)
    return clock


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[KeyRing]:
    registry = SqlRegistry(address(tmp_path))
    yield KeyRing(registry.keys)
    registry.close()


def holder(ring: KeyRing, tenant: str = "acme", **limits: int) -> Principal:
    key = issue_key(ring.registry, tenant, "predict", NOW, quota=Quota(**limits)).record
    ring.refresh()
    return Principal(tenant, "predict", key.id)


def refused(quotas: Quotas, principal: Principal) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        quotas.admit(principal)
    return caught.value


def tried(quotas: Quotas, principal: Principal) -> QuotaExceeded | None:
    """Try a request; return the refusal, or None if it was let in."""
    try:
        quotas.admit(principal)
    except QuotaExceeded as error:
        return error
    return None


def states(headers: Any) -> dict[str, dict[str, int]]:
    """Return the parameters of each policy in a RateLimit header."""
    found = {}
    for part in headers["RateLimit"].split(", "):
        name, *parameters = part.split(";")
        found[name.strip('"')] = {key: int(value) for key, _, value in (one.partition("=") for one in parameters)}
    return found


def test_a_key_without_quotas_has_no_headers_and_no_limit(ring: KeyRing, clock: Clock) -> None:
    quotas, principal = Quotas(ring), holder(ring)
    assert [quotas.admit(principal) for _ in range(100)] == [{}] * 100


def test_requests_are_counted_in_a_window_that_moves(ring: KeyRing, clock: Clock) -> None:
    quotas, principal = Quotas(ring), holder(ring, requests_per_minute=3)
    remaining = []
    for _ in range(3):
        remaining.append(states(quotas.admit(principal))["key-requests"]["r"])
        clock.now += 10
    assert remaining == [2, 1, 0]
    error = refused(quotas, principal)
    # The first request leaves the window 60 s after it came; a fixed minute would have ended at another time.
    assert error.retry_after == 30
    clock.now += 29.9
    refused(quotas, principal)
    clock.now += 0.2
    quotas.admit(principal)
    assert refused(quotas, principal).retry_after == 10


def test_a_request_that_is_refused_is_not_counted(ring: KeyRing, clock: Clock) -> None:
    quotas, principal = Quotas(ring), holder(ring, requests_per_minute=1)
    quotas.admit(principal)
    for _ in range(50):
        clock.now += 1
        refused(quotas, principal)
    clock.now += 10.1
    quotas.admit(principal)


def test_the_keys_of_a_tenant_share_its_quota_and_another_tenant_has_its_own(ring: KeyRing, clock: Clock) -> None:
    quotas = Quotas(ring)
    first, second, stranger = holder(ring), holder(ring, requests_per_minute=9), holder(ring, "other")
    ring.registry.set_tenant_quota("acme", Quota(requests_per_minute=2))
    ring.refresh()
    quotas.admit(first)
    assert states(quotas.admit(second)) == {
        "key-requests": {"r": 8, "t": 60},
        "tenant-requests": {"r": 0, "t": 60},
    }
    error = refused(quotas, second)
    assert "the quota of 2 requests a minute of this tenant is used up" in str(error)
    # The refusal took nothing from the key's own quota.
    assert states(error.headers)["key-requests"]["r"] == 8
    assert quotas.admit(stranger) == {}


def test_tokens_beyond_the_quota_are_a_debt_that_later_minutes_pay(ring: KeyRing, clock: Clock) -> None:
    quotas, principal = Quotas(ring), holder(ring, tokens_per_minute=100)
    assert states(quotas.admit(principal))["key-tokens"]["r"] == 100
    quotas.spend(principal, 40)
    assert states(quotas.admit(principal))["key-tokens"]["r"] == 60
    # One long answer is more than the rest of the quota, and nothing of it is forgotten.
    quotas.spend(principal, 360)
    refusals = []
    while (error := tried(quotas, principal)) is not None:
        refusals.append(error)
        clock.now += 5
    waited = 5 * len(refusals)
    assert {states(error.headers)["key-tokens"]["r"] for error in refusals} == {0}
    assert all(1 <= error.retry_after <= 300 for error in refusals)
    # 400 tokens at 100 a minute are four minutes; the first hundred was free at once.
    assert 150 <= waited <= 270


def test_a_holder_that_waits_as_long_as_it_is_told_gets_in_at_last(ring: KeyRing, clock: Clock) -> None:
    quotas, principal = Quotas(ring), holder(ring, tokens_per_minute=100)
    quotas.spend(principal, 5000)
    tries = 0
    while (error := tried(quotas, principal)) is not None:
        clock.now += error.retry_after
        tries += 1
        assert tries < 200
    assert clock.now - 60.0 * 10**7 >= 48 * 60


def test_many_holders_spend_as_much_as_their_quotas_and_no_more(ring: KeyRing, clock: Clock) -> None:
    quotas, principal = Quotas(ring), holder(ring, tokens_per_minute=600)
    spent = 0
    for _ in range(600):
        clock.now += 1
        if tried(quotas, principal) is None:
            quotas.spend(principal, 37)
            spent += 37
    # Ten minutes, and the minute's worth that may come at once.
    assert 0.85 * 6000 <= spent <= 6600 + 37


def test_the_headers_have_the_form_of_the_draft(ring: KeyRing, clock: Clock) -> None:
    quotas, principal = Quotas(ring), holder(ring, requests_per_minute=60, tokens_per_minute=1000)
    headers = quotas.admit(principal)
    assert headers["RateLimit-Policy"] == '"key-requests";q=60;w=60, "key-tokens";q=1000;w=60;qu="tokens"'
    item = r'"[a-z-]+";r=\d+;t=\d+'
    assert re.fullmatch(f"{item}(, {item})*", headers["RateLimit"])
    assert headers.keys() == {"RateLimit-Policy", "RateLimit"}


@pytest.mark.parametrize(("key", "tenant"), [(1, None), (None, 1), (1, 5), (5, 1)])
def test_the_smaller_limit_of_stored_bytes_holds_and_known_content_takes_no_room(
    ring: KeyRing, tmp_path: Path, key: int | None, tenant: int | None
) -> None:
    quotas = Quotas(ring)
    principal = holder(ring, "default", **({} if key is None else {"stored_mb": key}))
    ring.registry.set_tenant_quota("default", Quota(stored_mb=tenant))
    ring.refresh()
    registry = SqlRegistry(address(tmp_path))
    registry.publish("a", digest(1), task="text-classification", verification={}, size=MIB - 10)
    registry.close()
    quotas.check_stored(principal, 10, digest(2))
    quotas.check_stored(principal, MIB, digest(1))
    with pytest.raises(StoredQuotaExceeded, match="its quota is 1 MiB"):
        quotas.check_stored(principal, 11, digest(2))
    quotas.check_stored(Principal("other", "publish", "nobody"), 10 * MIB, digest(2))
