"""Keys and quotas in the registry: only hashes are kept, rows stay, and every write is a new revision."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rootstock.adapters.errors import EndedKey, InvalidKey, UnknownKey
from rootstock.adapters.registry import SqlRegistry, TenantRegistry
from rootstock.adapters.registry.bearer_key import BearerKey
from rootstock.adapters.registry.key_issue import issue_key, rotate_key
from rootstock.adapters.registry.key_records import NewKey, Quota
from tests.adapters.registries import address, digest

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqlRegistry]:
    opened = SqlRegistry(address(tmp_path))
    yield opened
    opened.close()


def test_a_key_has_256_random_bits_of_secret_in_a_form_that_a_scanner_finds() -> None:
    keys = [BearerKey.new() for _ in range(100)]
    assert len({key.secret for key in keys}) == len({key.id for key in keys}) == 100
    for key in keys:
        assert re.fullmatch(r"rsk_[0-9a-f]{16}_[0-9a-f]{64}", key.text)
        assert len(bytes.fromhex(key.secret)) * 8 == 256
        assert BearerKey.parse(key.text) == key


@pytest.mark.parametrize(
    "text",
    ["", "rsk_", "rsk_0123456789abcdef_", "RSK_{id}_{secret}", "rsk_{id}_{secret}\n", " rsk_{id}_{secret}",
     "rsk_{id}_{secret}0", "rsk_{id}{secret}", "rsk_٠123456789abcdef_{secret}"],
)  # fmt: skip
def test_any_other_text_is_no_key(text: str) -> None:
    assert BearerKey.parse(text.format(id="0" * 16, secret="0" * 64)) is None


def test_the_database_holds_the_sha256_of_the_secret_and_nothing_else_of_it(
    registry: SqlRegistry, tmp_path: Path
) -> None:
    issued = issue_key(registry.keys, "acme", "publish", NOW, label="web shop")
    secret = issued.text.rpartition("_")[2]
    with sqlite3.connect(tmp_path / "registry.db") as database:
        (row,) = database.execute("SELECT id, tenant, role, hash, label FROM keys").fetchall()
    database.close()
    assert row == (
        issued.record.id,
        "acme",
        "publish",
        hashlib.sha256(secret.encode()).hexdigest(),
        "web shop",
    )
    registry.close()
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()


def test_neither_a_key_nor_its_hash_is_in_the_text_of_an_object(registry: SqlRegistry) -> None:
    issued = issue_key(registry.keys, "acme", "predict", NOW)
    key = BearerKey.parse(issued.text)
    assert key is not None
    for shown in map(repr, (issued, key, issued.record, registry.keys.snapshot())):
        assert key.secret not in shown
        assert key.hash not in shown


def test_each_write_of_a_key_or_a_quota_is_a_new_revision(registry: SqlRegistry) -> None:
    seen = [registry.keys.revision()]
    issued = issue_key(registry.keys, "acme", "predict", NOW)
    seen.append(registry.keys.revision())
    rotate_key(registry.keys, issued.record, NOW)
    seen.append(registry.keys.revision())
    registry.keys.revoke(issued.record.id, NOW)
    seen.append(registry.keys.revision())
    registry.keys.set_tenant_quota("acme", Quota(requests_per_minute=5))
    seen.append(registry.keys.revision())
    assert seen == sorted(set(seen))
    assert registry.keys.snapshot().revision == seen[-1]


def test_a_write_of_a_key_keeps_what_the_registry_has_resolved(
    registry: SqlRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.publish("mood", digest(1), task="text-classification", verification={}, size=1)
    registry.resolve("mood")
    issue_key(registry.keys, "acme", "predict", NOW)

    def fail(*_: Any) -> None:
        raise AssertionError("the database was asked again")

    monkeypatch.setattr("rootstock.adapters.registry.sql.registry.find_target", fail)
    assert registry.resolve("mood").digest == digest(1)


def test_a_rotated_key_keeps_its_properties_and_the_old_one_ends_after_the_overlap(registry: SqlRegistry) -> None:
    quota = Quota(requests_per_minute=5, tokens_per_minute=6, stored_mb=7)
    old = issue_key(registry.keys, "acme", "publish", NOW, label="web shop", quota=quota).record
    new = rotate_key(registry.keys, old, NOW, 2 * HOUR).record
    assert (new.tenant, new.role, new.label, new.quota) == ("acme", "publish", "web shop", quota)
    assert new.id != old.id
    assert new.expires_at is None
    ended = registry.keys.find(old.id)
    assert ended.expires_at == NOW + 2 * HOUR
    assert ended.ended(NOW + 2 * HOUR - timedelta(seconds=1)) is None
    assert ended.ended(NOW + 2 * HOUR) == "expired"


def test_an_overlap_never_prolongs_a_key(registry: SqlRegistry) -> None:
    old = issue_key(registry.keys, "acme", "predict", NOW, expires_at=NOW + HOUR).record
    rotate_key(registry.keys, old, NOW, 5 * HOUR)
    assert registry.keys.find(old.id).expires_at == NOW + HOUR


def test_the_key_after_one_that_expires_has_the_same_time_to_live(registry: SqlRegistry) -> None:
    old = issue_key(registry.keys, "acme", "predict", NOW, expires_at=NOW + HOUR).record
    life = old.expires_at - old.created_at if old.expires_at else None
    new = rotate_key(registry.keys, old, NOW + HOUR / 2).record
    assert life is not None
    assert new.expires_at == NOW + HOUR / 2 + life


def test_a_revoked_key_stays_keeps_its_time_and_cannot_be_rotated(registry: SqlRegistry) -> None:
    key = issue_key(registry.keys, "acme", "predict", NOW).record
    assert registry.keys.revoke(key.id, NOW).revoked_at == NOW
    assert registry.keys.revoke(key.id, NOW + HOUR).revoked_at == NOW
    assert registry.keys.snapshot().keys[key.id].ended(NOW) == "revoked"
    with pytest.raises(EndedKey, match="revoked"):
        rotate_key(registry.keys, registry.keys.find(key.id), NOW)
    with pytest.raises(EndedKey, match="revoked"):
        # Another program revoked it after the caller had read it.
        registry.keys.replace(key.id, NewKey("0" * 16, "0" * 64, "acme", "predict"), NOW)


@pytest.mark.parametrize("id", ["0" * 16, "", "../x", "0" * 15, "\x00", "é" * 16])
def test_an_id_that_no_key_has_is_an_unknown_key(registry: SqlRegistry, id: str) -> None:
    for call in (registry.keys.find, lambda one: registry.keys.revoke(one, NOW)):
        with pytest.raises(UnknownKey, match="there is no key"):
            call(id)


@pytest.mark.parametrize(
    "properties",
    [
        {"tenant": "Acme"}, {"tenant": ""}, {"tenant": "-a"}, {"tenant": "a" * 33}, {"tenant": "a/b"},
        {"tenant": "acme\n"}, {"role": "root"}, {"role": ""}, {"label": "x" * 201}, {"label": "two\nlines"},
        {"label": "\x00"}, {"expires_at": NOW}, {"expires_at": NOW - HOUR},
        {"expires_at": NOW + timedelta(days=40_000)},
    ],
)  # fmt: skip
def test_a_property_that_no_key_can_have_is_refused_and_nothing_is_stored(
    registry: SqlRegistry, properties: dict[str, Any]
) -> None:
    given: dict[str, Any] = {"tenant": "acme", "role": "predict", **properties}
    with pytest.raises(InvalidKey):
        issue_key(registry.keys, now=NOW, **given)
    assert registry.keys.snapshot().keys == {}


@pytest.mark.parametrize("limit", [0, -1, 10**12 + 1])
def test_a_limit_below_one_or_beyond_use_is_refused(limit: int) -> None:
    with pytest.raises(InvalidKey, match="requests_per_minute is"):
        Quota(requests_per_minute=limit)


def test_a_tenant_s_quota_replaces_the_one_before(registry: SqlRegistry) -> None:
    assert registry.keys.tenant_quota("acme") == Quota()
    registry.keys.set_tenant_quota("acme", Quota(requests_per_minute=5, stored_mb=1))
    registry.keys.set_tenant_quota("acme", Quota(tokens_per_minute=9))
    assert registry.keys.tenant_quota("acme") == Quota(tokens_per_minute=9)
    assert registry.keys.snapshot().quotas == {"acme": Quota(tokens_per_minute=9)}


def test_a_tenant_stores_each_digest_once_and_only_its_own(registry: SqlRegistry) -> None:
    sizes = {"one": 10, "two": 200}
    for name, content in (("mood", "one"), ("copy", "one"), ("tags", "two")):
        registry.publish(name, digest(content), task="text-classification", verification={}, size=sizes[content])
    acme = TenantRegistry(registry, "acme")
    acme.publish("mood", digest("two"), task="text-classification", verification={}, size=3000)
    assert registry.keys.stored_bytes("default") == 210
    assert registry.keys.stored_bytes("default", besides=digest("two")) == 10
    assert registry.keys.stored_bytes("acme") == 3000
    assert registry.keys.stored_bytes("acm") == registry.keys.stored_bytes("a%") == 0
