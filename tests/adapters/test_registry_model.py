"""Any series of changes leaves the registry where a plain-Python model of the rules says it should be."""

import itertools
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from rootstock.adapters import errors
from rootstock.adapters.registry import NewVersion, SqlRegistry
from rootstock.adapters.registry.port import Registry
from tests.adapters.registries import address, among_neighbours
from tests.postgres_process import PostgresProcess

NAMES = st.sampled_from(["spam", "ham"])
CONTENTS = st.integers(0, 5)
VERSIONS = st.integers(1, 8)
ALIASES = st.sampled_from(["live", "prod", "next"])
SHARES = st.dictionaries(VERSIONS, st.sampled_from([0.5, 10.0, 50.0]), min_size=1, max_size=2)


def digest(content: int) -> str:
    return f"sha256:{content:064x}"


class Model:
    """One adapter by the rules: numbers only grow, `past` is a stack, deleted versions vanish from it.

    A split lasts until its alias moves, or one of its versions is deleted. `bin` holds the deleted versions that
    can come back: their contents, their aliases, and the deletion of the whole adapter that they went with, if
    any.
    """

    def __init__(self) -> None:
        self.exists = False
        self.next = 1
        self.versions: dict[int, int] = {}
        self.aliases: dict[str, int] = {}
        self.past: list[int] = []
        self.bin: dict[int, tuple[int, list[str], int | None]] = {}
        self.ends = 0
        self.splits: dict[str, dict[int, float]] = {}

    def point(self, alias: str, version: int) -> None:
        if self.aliases.get(alias) != version:
            self.splits.pop(alias, None)
        self.aliases[alias] = version
        if alias == "live" and self.past[-1:] != [version]:
            self.past.append(version)

    def publish(self, content: int, activate: bool) -> tuple[int, bool]:
        self.exists = True
        numbers = [number for number, held in self.versions.items() if held == content]
        if not numbers:
            self.versions[self.next] = content
            self.next += 1
        number = numbers[0] if numbers else self.next - 1
        if activate:
            self.point("live", number)
        return number, not numbers

    def rollback(self) -> int:
        if not self.exists:
            raise errors.UnknownAdapter("")
        past = list(self.past)
        while past and past[-1] == self.aliases.get("live"):
            past.pop()
        if not past:
            raise errors.NoPreviousVersion("")
        self.past, self.aliases["live"] = past, past[-1]
        self.splits.pop("live", None)
        return past[-1]

    def find(self, version: int) -> int:
        if not self.exists:
            raise errors.UnknownAdapter("")
        if version not in self.versions:
            raise errors.UnknownVersion("")
        return self.versions[version]

    def pointers(self, version: int) -> list[str]:
        return sorted(alias for alias, number in self.aliases.items() if number == version)

    def check_known(self) -> None:
        if not self.exists and not self.bin:
            raise errors.UnknownAdapter("")

    def delete_version(self, version: int, force: bool, restorable: bool) -> str:
        if version in self.bin and not restorable:
            return digest(self.bin.pop(version)[0])
        content = self.find(version)
        aliases = self.pointers(version)
        used = {alias for alias, shares in self.splits.items() if version in {*shares, self.aliases[alias]}}
        if (used or aliases) and not force:
            raise errors.VersionInUse("")
        self.splits = {alias: shares for alias, shares in self.splits.items() if alias not in used}
        del self.versions[version]
        if restorable:
            self.bin[version] = content, aliases, None
        self.aliases = {alias: number for alias, number in self.aliases.items() if number != version}
        self.past = [number for number in self.past if number != version]
        return digest(content)

    def delete(self, restorable: bool) -> list[str]:
        gone: dict[int, int] = {}
        if not restorable:
            gone = {number: content for number, (content, _, _) in self.bin.items()}
        if not self.exists and not gone:
            raise errors.UnknownAdapter("")
        digests = [digest(content) for _, content in sorted({**self.versions, **gone}.items())]
        self.ends += 1
        if restorable:
            for number, content in self.versions.items():
                self.bin[number] = content, self.pointers(number), self.ends
        else:
            self.bin = {}
        self.exists, self.versions, self.aliases, self.past, self.splits = False, {}, {}, [], {}
        return digests

    def undelete(self, version: int | None) -> tuple[list[int], dict[str, int]]:
        self.check_known()
        if version is None:
            together = not self.exists and self.ends
            chosen = sorted(number for number, (_, _, end) in self.bin.items() if end and end == together)
        else:
            chosen = [version] if version in self.bin else []
        if not chosen:
            raise errors.UnknownVersion("")
        back: dict[str, int] = {}
        for number in chosen:
            content, aliases, _ = self.bin[number]
            if content in self.versions.values():
                raise errors.AlreadyPublished("")
            del self.bin[number]
            self.exists, self.versions[number] = True, content
            for alias in aliases:
                if alias not in self.aliases:
                    self.point(alias, number)
                    back[alias] = number
        return chosen, back

    def retire(self, newest: int, restorable: bool) -> list[str]:
        if not self.exists:
            raise errors.UnknownAdapter("")
        before = [number for number in self.past if number != self.aliases.get("live")]
        split = {version for shares in self.splits.values() for version in shares}
        needed = {*sorted(self.versions)[-newest:], *self.aliases.values(), *before[-1:], *split}
        return [self.delete_version(n, False, restorable) for n in sorted(self.versions) if n not in needed]

    def split(self, alias: str, shares: dict[int, float]) -> dict[int, float]:
        if not self.exists:
            raise errors.UnknownAdapter("")
        if alias not in self.aliases:
            raise errors.NoLiveVersion("") if alias == "live" else errors.UnknownAlias("")
        for version in sorted(shares):
            if version == self.aliases[alias]:
                raise errors.InvalidSplit("")
            self.find(version)
        self.splits[alias] = shares
        return shares


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except errors.AdapterError as error:
        return type(error)


class RegistryAgainstModel(RuleBasedStateMachine):
    def __init__(self, new_url: Callable[[], str]) -> None:
        super().__init__()
        self.new_url = new_url

    @initialize()
    def start(self) -> None:
        self.url = self.new_url()
        self.registry = self.opened()
        self.models = {"spam": Model(), "ham": Model()}

    @rule(name=NAMES, content=CONTENTS, activate=st.booleans())
    def publish(self, name: str, content: int, activate: bool) -> None:
        published = self.registry.publish(
            name, digest(content), task="t", verification={}, size=1, activate=activate
        )
        model = self.models[name]
        assert (published.version, published.created) == model.publish(content, activate)
        assert published.live == model.aliases.get("live")

    @rule(contents=st.lists(st.tuples(NAMES, CONTENTS), max_size=5))
    def publish_all(self, contents: list[tuple[str, int]]) -> None:
        versions = [NewVersion(name, digest(content), "t", {}, 1) for name, content in contents]
        done = self.registry.publish_all(versions)
        for (name, content), published in zip(contents, done, strict=True):
            model = self.models[name]
            held = content in model.versions.values()
            number, created = model.publish(content, activate=not held)
            assert (published.name, published.digest) == (name, digest(content))
            assert (published.version, published.created) == (number, created)
            assert published.live == model.aliases.get("live")

    @rule(name=NAMES, alias=ALIASES, version=VERSIONS)
    def set_alias(self, name: str, alias: str, version: int) -> None:
        model = self.models[name]
        expected = outcome(lambda: digest(model.find(version)))
        assert outcome(lambda: self.registry.set_alias(name, alias, version).digest) == expected
        if isinstance(expected, str):
            model.point(alias, version)

    @rule(name=NAMES)
    def rollback(self, name: str) -> None:
        expected = outcome(self.models[name].rollback)
        assert outcome(lambda: self.registry.rollback(name).version) == expected

    @rule(name=NAMES, alias=ALIASES, shares=SHARES)
    def set_split(self, name: str, alias: str, shares: dict[int, float]) -> None:
        expected = outcome(lambda: self.models[name].split(alias, shares))
        assert outcome(lambda: self.registry.set_split(name, alias, shares).candidates) == expected

    @rule(name=NAMES, version=VERSIONS, force=st.booleans(), restorable=st.booleans())
    def delete_version(self, name: str, version: int, force: bool, restorable: bool) -> None:
        expected = outcome(lambda: self.models[name].delete_version(version, force, restorable))
        given = {"force": force, "restorable": restorable}
        assert outcome(lambda: self.registry.delete_version(name, version, **given)) == expected

    @rule(name=NAMES, restorable=st.booleans())
    def delete_adapter(self, name: str, restorable: bool) -> None:
        expected = outcome(lambda: self.models[name].delete(restorable))
        assert outcome(lambda: self.registry.delete_adapter(name, restorable=restorable)) == expected

    @rule(name=NAMES, version=st.none() | VERSIONS)
    def undelete(self, name: str, version: int | None) -> None:
        def done() -> tuple[list[int], dict[str, int]]:
            back = self.registry.undelete(name, version)
            return back.versions, back.aliases

        expected = outcome(lambda: self.models[name].undelete(version))
        assert outcome(done) == expected

    @rule(name=NAMES, newest=st.integers(1, 3), restorable=st.booleans())
    def retire(self, name: str, newest: int, restorable: bool) -> None:
        expected = outcome(lambda: self.models[name].retire(newest, restorable))
        if isinstance(expected, list):
            assert self.registry.surplus(name, newest) == expected
        assert outcome(lambda: self.registry.retire(name, newest, restorable=restorable)) == expected

    @rule(name=NAMES, content=CONTENTS)
    def purge(self, name: str, content: int) -> None:
        model = self.models[name]
        gone = [number for number, (held, _, _) in model.bin.items() if held == content]
        for number in gone:
            assert self.registry.delete_version(name, number) == digest(content)
            del model.bin[number]

    def opened(self) -> Registry:
        return SqlRegistry(self.url)

    @rule()
    def restart(self) -> None:
        self.registry.close()
        self.registry = self.opened()

    @invariant()
    def the_registry_says_what_the_model_says(self) -> None:
        listed = {adapter.name: adapter for adapter in self.registry.list(10).adapters}
        assert set(listed) == {name for name, model in self.models.items() if model.exists}
        for name, adapter in listed.items():
            model = self.models[name]
            assert adapter.versions == sorted(model.versions)
            assert adapter.aliases == model.aliases
            assert adapter.live == model.aliases.get("live")
            for alias, version in model.aliases.items():
                resolved = self.registry.resolve(f"{name}@{alias}")
                assert (resolved.version, resolved.digest) == (version, digest(model.versions[version]))
                shares = {one.version: one.percent for one in resolved.candidates}
                assert shares == model.splits.get(alias, {})
                assert [one.digest for one in resolved.candidates] == [digest(model.versions[n]) for n in shares]
            bare = outcome(lambda name=name: self.registry.resolve(name).version)  # type: ignore[misc]
            assert bare == model.aliases.get("live", errors.NoLiveVersion)
        for name, model in self.models.items():
            if not model.exists and not model.bin:
                continue
            gone = [(one.version, one.digest, one.aliases) for one in self.registry.deleted(name)]
            assert gone == [
                (number, digest(content), aliases) for number, (content, aliases, _) in sorted(model.bin.items())
            ]
        held = {content for model in self.models.values() for content in model.versions.values()}
        assert {content for content in range(6) if self.registry.is_published(digest(content))} == held
        held |= {content for model in self.models.values() for content, _, _ in model.bin.values()}
        assert {content for content in range(6) if self.registry.digest_in_use(digest(content))} == held

    def teardown(self) -> None:
        self.registry.close()


class TenantAgainstModel(RegistryAgainstModel):
    """The same for a tenant, while other tenants have adapters of the same names."""

    def opened(self) -> Registry:
        return among_neighbours(SqlRegistry(self.url), "acme")


def run(machine: type[RegistryAgainstModel], new_url: Callable[[], str], examples: int) -> None:
    run_state_machine_as_test(
        lambda: machine(new_url),
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_a_registry_in_a_file_follows_the_model(tmp_path: Path) -> None:
    numbers = itertools.count()
    run(RegistryAgainstModel, lambda: address(tmp_path / str(next(numbers))), 12)


def test_the_registry_of_a_tenant_in_a_file_follows_the_model(tmp_path: Path) -> None:
    numbers = itertools.count()
    run(TenantAgainstModel, lambda: address(tmp_path / str(next(numbers))), 8)


def test_a_registry_on_postgresql_follows_the_model(postgres: PostgresProcess) -> None:
    run(RegistryAgainstModel, postgres.new_schema, 3)


def test_the_registry_of_a_tenant_on_postgresql_follows_the_model(postgres: PostgresProcess) -> None:
    run(TenantAgainstModel, postgres.new_schema, 3)
