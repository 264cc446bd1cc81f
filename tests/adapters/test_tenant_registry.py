"""What a tenant can see and change in the registry, and what it can never tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from rootstock.adapters import errors
from rootstock.adapters.reference import InvalidReference, Reference, split_path, split_stored, stored_name
from rootstock.adapters.registry import NewVersion, SqlRegistry, TenantRegistry
from tests.adapters.registries import address, digest, publish


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[SqlRegistry]:
    with closing(SqlRegistry(address(tmp_path), clock=lambda: 0.0)) as opened:
        yield opened


@pytest.fixture
def default(whole: SqlRegistry) -> TenantRegistry:
    return TenantRegistry(whole, "default")


@pytest.fixture
def acme(whole: SqlRegistry) -> TenantRegistry:
    return TenantRegistry(whole, "acme")


@pytest.fixture
def beta(whole: SqlRegistry) -> TenantRegistry:
    return TenantRegistry(whole, "beta")


def names(registry: TenantRegistry) -> list[str]:
    return [adapter.name for adapter in registry.list().adapters]


def message(call: Callable[[], object]) -> str:
    with pytest.raises(errors.UnknownAdapter) as unknown:
        call()
    return str(unknown.value)


def test_a_tenant_s_name_is_a_part_of_a_reference() -> None:
    for text, reference in {
        "acme/spam": Reference("spam", owner="acme"),
        "acme/spam@3": Reference("spam", version=3, owner="acme"),
        "a-1/spam@prod": Reference("spam", alias="prod", owner="a-1"),
        "default/spam@sha256:0123456789ab": Reference("spam", digest_prefix="0123456789ab", owner="default"),
    }.items():
        assert Reference.parse(text) == reference
        assert str(reference) == text
    for text in ("/spam", "acme/", "Acme/spam", "a/b/spam", "a.b/spam", f"{'a' * 33}/spam", "acme/foundation"):
        with pytest.raises(InvalidReference):
            Reference.parse(text)


@given(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True),
    st.from_regex(r"[a-z0-9._-]{1,128}", fullmatch=True),
)
def test_a_stored_name_gives_back_its_tenant_and_name(tenant: str, name: str) -> None:
    assert split_stored(stored_name(tenant, name)) == (tenant, name)
    assert stored_name(tenant, name).count("/") == (tenant != "default")


def test_each_tenant_has_its_own_adapter_of_a_name(
    whole: SqlRegistry, default: TenantRegistry, acme: TenantRegistry, beta: TenantRegistry
) -> None:
    for registry in (default, acme, beta):
        assert publish(registry, "spam", registry.tenant).version == 1
        assert publish(registry, "spam", "the same bytes").created, "another tenant's bytes are not told"
    for registry in (default, acme, beta):
        assert registry.resolve("spam@1").digest == digest(registry.tenant)
        assert registry.resolve(f"{registry.tenant}/spam@1").digest == digest(registry.tenant)
        assert names(registry) == ["spam"]
    assert [adapter.name for adapter in whole.list().adapters] == ["acme/spam", "beta/spam", "spam"]
    acme.delete_adapter("spam")
    assert acme.digest_in_use(digest("the same bytes"))
    assert not acme.digest_in_use(digest("acme"))
    assert default.resolve("spam").version == beta.resolve("spam").version == 2


def test_an_adapter_that_is_shared_can_be_used_by_all_and_one_that_is_not_does_not_exist(
    default: TenantRegistry, acme: TenantRegistry, beta: TenantRegistry
) -> None:
    publish(beta, "spam", "beta")
    publish(default, "ham", "default")
    assert names(acme) == []
    beta.share("spam", True)
    default.share("ham", True)
    assert [(one.name, one.shared) for one in acme.list().adapters] == [
        ("beta/spam", True),
        ("default/ham", True),
    ]
    assert acme.resolve("beta/spam").digest == acme.resolve("beta/spam@1").digest == digest("beta")
    assert acme.resolve("ham").digest == acme.resolve("default/ham@live").digest == digest("default")
    assert acme.resolve("ham").name == acme.show("ham").name == acme.version("ham", 1).name == "default/ham"
    assert default.resolve("beta/spam").name == "beta/spam"
    assert acme.count() == 2
    message(lambda: acme.resolve("spam"))
    beta.share("spam", False)
    default.share("ham", False)
    for reference in ("ham", "default/ham@live", "beta/spam", "beta/spam@1", "beta/spam@" + digest("beta")):
        message(lambda reference=reference: acme.resolve(reference))  # type: ignore[misc]
    assert (names(acme), acme.count()) == ([], 0)


def test_a_tenant_s_own_adapter_comes_before_one_that_is_shared(
    default: TenantRegistry, acme: TenantRegistry
) -> None:
    publish(default, "ham", "default")
    default.share("ham", True)
    default.set_alias("ham", "prod", 1)
    assert acme.resolve("ham").digest == acme.resolve("ham@prod").digest == digest("default")
    publish(acme, "ham", "acme")
    assert acme.resolve("ham").digest == digest("acme")
    assert acme.resolve("default/ham").digest == digest("default")
    for reference in ("ham@prod", "ham@2", "ham@" + digest("default")):
        with pytest.raises((errors.UnknownAlias, errors.UnknownVersion)):
            acme.resolve(reference)
    acme.delete_adapter("ham")
    assert acme.resolve("ham").digest == digest("default")
    default.delete_adapter("ham")
    message(lambda: acme.resolve("ham"))


def test_an_adapter_that_is_published_again_under_its_name_is_not_shared(
    default: TenantRegistry, acme: TenantRegistry
) -> None:
    publish(default, "ham", "a")
    default.share("ham", True)
    default.delete_adapter("ham")
    publish(default, "ham", "b")
    default.delete_adapter("ham")
    default.publish_all([NewVersion("ham", digest("c"), "t", {}, 1)])
    message(lambda: acme.resolve("ham"))


def test_only_an_adapter_s_own_tenant_changes_it(default: TenantRegistry, acme: TenantRegistry) -> None:
    publish(default, "ham", "a")
    before = default.show("ham")
    changes: list[Callable[[str], object]] = [
        acme.rollback,
        acme.delete_adapter,
        lambda name: acme.set_alias(name, "prod", 1),
        lambda name: acme.share(name, True),
        lambda name: acme.delete_version(name, 1, force=True),
    ]
    for change in changes:
        for name in ("ham", "default/ham"):
            message(lambda change=change, name=name: change(name))  # type: ignore[misc]
    default.share("ham", True)
    for change in changes:
        for name in ("ham", "default/ham"):
            with pytest.raises(errors.NotOwner, match="default"):
                change(name)
    with pytest.raises(errors.InvalidName):
        publish(acme, "default/ham", "b")
    default.share("ham", False)
    assert default.show("ham") == before


def test_a_private_adapter_is_told_as_a_name_that_nobody_has(
    whole: SqlRegistry, default: TenantRegistry, acme: TenantRegistry, beta: TenantRegistry
) -> None:
    publish(beta, "secret", "a")
    publish(default, "secret", "a")
    publish(acme, "mine", "a")
    asked: list[str] = []
    event.listen(whole._database._engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))

    def told(path: str, use: Callable[[str], object]) -> tuple[str, list[str]]:
        asked.clear()
        return message(lambda: use(path)).replace(path, "…"), list(asked)

    uses: list[Callable[[str], object]] = [
        acme.resolve,
        acme.show,
        acme.rollback,
        acme.delete_adapter,
        lambda name: acme.resolve(f"{name}@1"),
        lambda name: acme.resolve(f"{name}@{digest('a')}"),
        lambda name: acme.version(name, 1),
        lambda name: acme.share(name, True),
    ]
    for use in uses:
        for there, nowhere in (
            ("beta/secret", "beta/secreu"),
            ("secret", "secreu"),
            ("gone/secret", "gone/secreu"),
        ):
            # The statements are the same too, so the time tells nothing of note.
            assert told(there, use) == told(nowhere, use)
    assert acme.events("secret") == acme.events("beta/secret") == []


def test_hints_name_only_what_the_tenant_can_use(
    default: TenantRegistry, acme: TenantRegistry, beta: TenantRegistry
) -> None:
    publish(acme, "sentiment", "a")
    publish(default, "sentimental", "a")
    publish(default, "sentiments", "a")
    publish(beta, "sentient", "a")
    publish(beta, "sentinel", "a")
    default.share("sentiments", True)
    beta.share("sentient", True)
    assert message(lambda: acme.resolve("sentimen")).endswith("did you mean sentiment or default/sentiments?")
    assert message(lambda: acme.resolve("beta/sentien")).endswith("did you mean beta/sentient?")
    assert message(lambda: beta.resolve("sentimen")).endswith(
        "did you mean default/sentiments, sentient or sentinel?"
    )


def test_events_are_a_tenant_s_own_and_their_ids_count_no_others(
    whole: SqlRegistry, default: TenantRegistry, acme: TenantRegistry
) -> None:
    signed = TenantRegistry(whole, "acme", "acme/k1")
    publish(default, "spam", "a")
    publish(acme, "spam", "a")
    publish(default, "spam", "b")
    signed.share("spam", True)
    signed.share("spam", True)
    default.rollback("spam")
    signed.share("spam", False)
    signed.publish_all([NewVersion("ham", digest("c"), "t", {}, 1)])
    told = [(one.id, one.what, one.name, one.who) for one in acme.events()]
    assert told == [
        (6, "alias_set", "ham", "acme/k1"),
        (5, "published", "ham", "acme/k1"),
        (4, "unshared", "spam", "acme/k1"),
        (3, "shared", "spam", "acme/k1"),
        (2, "alias_set", "spam", "acme"),
        (1, "published", "spam", "acme"),
    ]
    assert [one.id for one in acme.events(limit=2, before=4)] == [3, 2]
    assert [one.id for one in default.events()] == [5, 4, 3, 2, 1]
    assert [one.name for one in whole.events(limit=3)] == ["acme/ham", "acme/ham", "acme/spam"]


def test_a_tenant_that_looks_up_a_shared_adapter_again_asks_the_database_nothing(
    whole: SqlRegistry, default: TenantRegistry, acme: TenantRegistry
) -> None:
    publish(default, "ham", "a")
    default.share("ham", True)
    references = ("ham", "ham@1", "default/ham@live")
    for reference in references:
        acme.resolve(reference)
    asked: list[str] = []
    event.listen(whole._database._engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
    for reference in references:
        assert acme.resolve(reference).digest == digest("a")
    assert asked == []


@given(
    st.lists(
        st.tuples(st.sampled_from(["default", "acme", "beta", "zeta"]), st.sampled_from("abcdef"), st.booleans()),
        max_size=20,
    ),
    st.integers(1, 4),
    st.sampled_from(["", "a", "e", "beta"]),
)
@settings(max_examples=25, deadline=None)
def test_pages_hold_each_adapter_that_the_tenant_can_use_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, adapters: list[tuple[str, str, bool]], limit: int, search: str
) -> None:
    with closing(SqlRegistry(address(tmp_path_factory.mktemp("pages")))) as whole:
        shared: dict[tuple[str, str], bool] = {}
        for tenant, name, share in adapters:
            registry = TenantRegistry(whole, tenant)
            publish(registry, name, (tenant, name))
            registry.share(name, share)
            shared[tenant, name] = share
        for viewer in ("default", "acme"):
            seen = {name if tenant == viewer else f"{tenant}/{name}" for (tenant, name), share in shared.items()
                    if share or tenant == viewer}  # fmt: skip
            registry, after, pages = TenantRegistry(whole, viewer), None, []
            while True:
                page = registry.list(limit, after, search)
                pages += [adapter.name for adapter in page.adapters]
                after = page.next
                if after is None:
                    break
            assert pages == sorted(name for name in seen if search in name)
            assert registry.count() == len(seen)
            for name in seen:
                tenant, bare = split_path(name) or (None, "")
                assert registry.resolve(name).digest == digest((tenant or viewer, bare))
