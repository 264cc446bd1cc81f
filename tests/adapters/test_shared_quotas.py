"""Quotas of several servers on one registry: what one lets someone spend counts in the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from rootstock.adapters.errors import RegistryUnavailable, StoreFull
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.registry.key_issue import issue_key
from rootstock.adapters.registry.key_records import Quota
from rootstock.adapters.registry.quota_port import Use
from rootstock.service.tenancy.errors import QuotaExceeded
from rootstock.service.tenancy.key_ring import KeyRing
from rootstock.service.tenancy.principal import Principal
from rootstock.service.tenancy.quotas import Quotas
from rootstock.service.tenancy.shared_use import SharedUse

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class OneServer:
    """The keys and quotas of one server. `clock` is the time by which it tells others its use."""

    def __init__(self, registry: SqlRegistry) -> None:
        self.now = 60.0 * 10**7
        self.registry = registry
        self.ring = KeyRing(registry.keys)
        self.shared = SharedUse(registry.quota_uses, lambda: self.now)
        self.quotas = Quotas(self.ring, self.shared.note)

    def exchange(self) -> None:
        for use, amount in self.shared.exchange().items():
            self.quotas.hear(use, amount)

    def admitted(self, principal: Principal) -> bool:
        try:
            self.quotas.admit(principal)
        except QuotaExceeded:
            return False
        return True


@pytest.fixture
def start(registry_url: str) -> Iterator[Callable[[], OneServer]]:
    with ExitStack() as stack:

        def opened() -> OneServer:
            registry = SqlRegistry(registry_url)
            stack.callback(registry.close)
            return OneServer(registry)

        yield opened


def holder(servers: list[OneServer], **limits: int) -> Principal:
    key = issue_key(servers[0].registry.keys, "acme", "predict", NOW, quota=Quota(**limits)).record
    for server in servers:
        server.ring.refresh()
    return Principal("acme", "predict", key.id)


def test_requests_that_one_server_admits_count_in_another_once(start: Callable[[], OneServer]) -> None:
    first, second = servers = [start(), start()]
    principal = holder(servers, requests_per_minute=10)
    assert first.ring.has_quotas
    assert all(first.admitted(principal) for _ in range(6))
    for _ in range(3):
        first.exchange()
        second.exchange()
    assert [second.admitted(principal) for _ in range(5)] == [True] * 4 + [False]
    second.exchange()
    first.exchange()
    assert not first.admitted(principal)


def test_requests_that_both_admitted_beyond_the_limit_are_no_debt_and_tokens_are(
    start: Callable[[], OneServer],
) -> None:
    first, second = servers = [start(), start()]
    principal = holder(servers, requests_per_minute=5, tokens_per_minute=100)
    for server in servers:
        assert all(server.admitted(principal) for _ in range(5))
        server.quotas.spend(principal, 150)
    first.exchange()
    second.exchange()
    holds = f"key/{principal.key}"
    assert second.quotas._debts[holds] == 200


def test_a_server_that_starts_counts_what_others_let_someone_spend(start: Callable[[], OneServer]) -> None:
    first = start()
    principal = holder([first], requests_per_minute=3)
    assert all(first.admitted(principal) for _ in range(3))
    first.exchange()
    late = start()
    late.now += 60
    late.exchange()
    assert not late.admitted(principal)
    much_later = start()
    much_later.now += 120
    much_later.exchange()
    assert much_later.admitted(principal)


def test_use_that_could_not_be_told_is_told_the_next_time(
    start: Callable[[], OneServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = servers = [start(), start()]
    principal = holder(servers, requests_per_minute=3)

    def away(spent: object, minute: int) -> dict[tuple[Use, int], int]:
        raise RegistryUnavailable("the registry is away")

    assert all(first.admitted(principal) for _ in range(2))
    with monkeypatch.context() as patch:
        patch.setattr(first.registry.quota_uses, "add", away)
        with pytest.raises(RegistryUnavailable):
            first.exchange()
    assert first.admitted(principal)
    first.exchange()
    second.exchange()
    assert not second.admitted(principal)


def test_a_server_that_starts_counts_of_the_minute_before_what_the_last_60_s_hold(
    start: Callable[[], OneServer],
) -> None:
    first = start()
    principal = holder([first], requests_per_minute=60)
    assert all(first.admitted(principal) for _ in range(40))
    first.exchange()
    for seconds, counted in ((60, 40), (75, 30), (105, 10), (119.9, 0)):
        late = start()
        late.now += seconds
        assert sum(late.shared.exchange().values()) == counted
        # Others tell only new use later.
        assert late.shared.exchange() == {}


@pytest.mark.parametrize("error", [StoreFull("the disk is full"), RuntimeError("anything")])
def test_no_error_loses_use(start: Callable[[], OneServer], error: Exception) -> None:
    first, second = start(), start()

    def refuse(spent: object, minute: int) -> dict[tuple[Use, int], int]:
        raise error

    use = Use("tenant/acme", "requests")
    first.shared.note(use, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first.registry.quota_uses, "add", refuse)
        with pytest.raises(type(error)):
            first.shared.exchange()
    first.shared.exchange()
    assert second.shared.exchange() == {use: 3}
