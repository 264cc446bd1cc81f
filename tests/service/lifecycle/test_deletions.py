"""When a deletion removes bytes, what can come back, and what retention deletes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rootstock.adapters.errors import UnknownVersion, VersionInUse
from rootstock.adapters.home.home import Home
from rootstock.adapters.home.journal import BundleJournal
from rootstock.adapters.registry import SqlRegistry, TenantRegistry
from rootstock.service.lifecycle.deletions import Deletions
from tests.adapters.stored_homes import bundle, checked, publish

NOTHING: Any = SimpleNamespace(forget=lambda name: None)


class Requests:
    """The foundations of a server: they note which adapters were given up, after the last request for each."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    async def forget(self, digest: str) -> None:
        self.forgotten.append(digest)


class OneVersion:
    """A registry that had one version, whose digest another server may publish again."""

    def __init__(self) -> None:
        self.again = False

    def version(self, name: str, version: int) -> SimpleNamespace:
        return SimpleNamespace(digest="digest")

    def deleted(self, name: str) -> list[Any]:
        return []

    def delete_version(self, name: str, version: int, *, force: bool, restorable: bool) -> str:
        return "digest"

    def is_published(self, digest: str) -> bool:
        return False

    def digest_in_use(self, digest: str) -> bool:
        return False

    def remove_unused(self, digest: str, remove: Callable[[str], object]) -> bool:
        if not self.again:
            remove(digest)
        return not self.again


def deleting(marks: Path, delay: float) -> tuple[Deletions, OneVersion, set[str]]:
    registry, kept = OneVersion(), {"digest"}
    opened: Any = registry
    store: Any = SimpleNamespace(delete=kept.remove)
    requests: Any = Requests()
    journal = BundleJournal(marks, opened, store)
    return Deletions(requests, opened, opened, journal, NOTHING, removal_delay=delay), registry, kept


def test_without_other_servers_the_bytes_of_a_deleted_version_are_gone_at_once(tmp_path: Path) -> None:
    deletions, _, kept = deleting(tmp_path, 0.0)
    asyncio.run(deletions.delete("name", 1, False))
    assert kept == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("again", [False, True])
def test_beside_other_servers_the_bytes_stay_for_a_time_and_for_good_if_a_version_uses_them_again(
    again: bool, tmp_path: Path
) -> None:
    deletions, registry, kept = deleting(tmp_path, 0.01)

    async def body() -> None:
        await deletions.delete("name", 1, False)
        assert kept == {"digest"}
        registry.again = again
        await asyncio.gather(*deletions._tasks)
        assert kept == ({"digest"} if again else set())

    asyncio.run(body())


def test_a_server_that_stops_leaves_the_removals_that_are_not_due_to_its_next_start(tmp_path: Path) -> None:
    deletions, _, kept = deleting(tmp_path, 3600.0)

    async def body() -> None:
        await deletions.delete("name", 1, False)
        await deletions.close()

    asyncio.run(body())
    assert kept == {"digest"}
    assert [mark.name for mark in tmp_path.iterdir()] == ["digest"]


@pytest.mark.parametrize("version", [None, 1])
def test_a_deletion_that_is_killed_after_its_row_leaves_a_mark_for_the_next_start(
    tmp_path: Path, version: int | None
) -> None:
    home = Home(tmp_path)
    digest = publish(home, "mood", 1)
    with closing(home.open_registry()) as registry:
        journal = home.journal(registry, home.open_store())

        async def killed(digest: str) -> None:
            raise RuntimeError("killed")

        foundations: Any = SimpleNamespace(forget=killed)
        deletions = Deletions(foundations, registry, registry, journal, NOTHING)
        with pytest.raises(RuntimeError, match="killed"):
            asyncio.run(deletions.delete("mood", version, force=True))
        assert not registry.digest_in_use(digest)
        assert journal.settle() == 1
    assert list(home.open_store().digests()) == []


def test_a_deletion_marks_the_bundle_before_the_row_and_a_refused_one_leaves_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    publish(home, "mood", 1)
    with closing(home.open_registry()) as registry:
        journal = home.journal(registry, home.open_store())
        deletions = Deletions(NOTHING, registry, registry, journal, NOTHING)
        with pytest.raises(VersionInUse):
            asyncio.run(deletions.delete("mood", 1, force=False))
        assert list(home.pending_folder.iterdir()) == []
        marked: list[int] = []

        def delete(name: str, *, restorable: bool) -> list[str]:
            marked.append(len(list(home.pending_folder.iterdir())))
            raise RuntimeError("killed before the row is gone")

        monkeypatch.setattr(registry, "delete_adapter", delete)
        with pytest.raises(RuntimeError, match="before the row"):
            asyncio.run(deletions.delete("mood", None, force=True))
        assert marked == [1]
        assert journal.settle() == 0
    assert len(list(home.open_store().digests())) == 1


def test_what_a_killed_server_has_deleted_stays_for_the_requests_of_others_before_its_bytes_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that replaces it finds the mark within a second, while others may still load the version."""

    async def nothing_to_purge() -> None:
        pass

    deletions, _, kept = deleting(tmp_path, 0.01)
    monkeypatch.setattr(deletions, "_purge_in_time", nothing_to_purge)
    (tmp_path / "digest").touch()

    async def body() -> None:
        deletions.start(["digest"])
        await asyncio.gather(*deletions._tasks)
        assert kept == {"digest"}
        await asyncio.gather(*deletions._tasks)
        assert kept == set()

    asyncio.run(body())
    assert list(tmp_path.iterdir()) == []


class Bin:
    """A home with `mood` in three versions, whose deletions can come back for seven days by its own clock."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.digests = [publish(self.home, "mood", number) for number in (1, 2, 3)]
        self.registry = self.home.open_registry()
        self.store = self.home.open_store()
        self.requests = Requests()
        self.later = timedelta()

    def deletions(self, **options: Any) -> Deletions:
        """Return the deletions of one more server on this home's registry and store."""
        requests: Any = self.requests
        given = {"undelete_days": 7.0, "clock": lambda: datetime.now(UTC) + self.later, **options}
        journal = self.home.journal(self.registry, self.store)
        return Deletions(requests, self.registry, self.registry, journal, NOTHING, **given)

    @property
    def stored(self) -> list[int]:
        """Return the numbers of the versions of `mood` whose bytes are stored."""
        kept = set(self.store.digests())
        return [number for number, digest in enumerate(self.digests, 1) if digest in kept]

    def events(self, what: str) -> list[tuple[str, int | None, str | None]]:
        """Return name, version and principal of the events of a kind, newest first."""
        return [(one.name, one.version, one.who) for one in self.registry.events() if one.what == what]


@pytest.fixture
def trash(tmp_path: Path) -> Iterator[Bin]:
    made = Bin(tmp_path)
    with closing(made.registry):
        yield made


def test_a_deleted_version_leaves_memory_at_once_and_its_bytes_stay_for_the_grace_time(trash: Bin) -> None:
    deletions = trash.deletions()

    async def body() -> None:
        await deletions.delete("mood", 1, False)
        assert trash.requests.forgotten == [trash.digests[0]]
        assert [one.version for one in deletions.deleted("mood")] == [1]
        trash.later = timedelta(days=6.9)
        assert await deletions.purge_expired() == 0
        assert trash.stored == [1, 2, 3]
        trash.later = timedelta(days=7.1)
        assert await deletions.purge_expired() == 1
        assert trash.stored == [2, 3]
        with pytest.raises(UnknownVersion):
            await deletions.undelete("mood", 1)

    asyncio.run(body())
    assert trash.events("version_purged") == [("mood", 1, "retention")]
    assert checked(trash.home, grace=timedelta()).findings == []
    assert list(trash.home.pending_folder.iterdir()) == []


def test_a_check_takes_no_bytes_of_a_deleted_version_for_an_orphan_and_finds_that_they_are_missing(
    trash: Bin,
) -> None:
    asyncio.run(trash.deletions().delete("mood", 1, False))
    check = checked(trash.home, grace=timedelta(), repair=True)
    assert (check.findings, check.versions, check.deleted) == ([], 2, 1)
    trash.store.delete(trash.digests[0])
    (found,) = checked(trash.home, grace=timedelta(), repair=True).findings
    assert (found.kind, found.versions) == ("missing", ("mood@1 (deleted)",))
    assert trash.registry.undelete("mood", 1).versions == [1]
    assert trash.registry.version("mood", 1).status == "damaged"


def test_bytes_that_a_deleted_version_shares_with_another_stay_until_both_are_gone(trash: Bin) -> None:
    publish(trash.home, "copy", 1)
    deletions = trash.deletions()

    async def body() -> None:
        await deletions.delete("mood", 1, False)
        assert trash.requests.forgotten == [], "requests for the other one go on"
        trash.later = timedelta(days=8)
        await deletions.purge_expired()
        assert trash.stored == [1, 2, 3]
        await deletions.delete("copy", None, True, purge=True)
        assert trash.stored == [2, 3]

    asyncio.run(body())


def test_a_purge_removes_the_bytes_at_once_also_of_what_was_deleted_before(trash: Bin) -> None:
    deletions = trash.deletions()

    async def body() -> None:
        await deletions.delete("mood", 1, False)
        await deletions.delete("mood", 1, False, purge=True)
        assert trash.stored == [2, 3]
        await deletions.delete("mood", 2, False, purge=True)
        assert trash.stored == [3]
        await deletions.delete("mood", None, True)
        assert trash.stored == [3]
        await deletions.delete("mood", None, True, purge=True)
        assert trash.stored == []

    asyncio.run(body())
    assert list(trash.home.pending_folder.iterdir()) == []


def test_of_two_servers_that_purge_at_once_one_removes_and_one_records(trash: Bin) -> None:
    async def body() -> None:
        first, second = trash.deletions(), trash.deletions()
        for number in (1, 2):
            await first.delete("mood", number, False)
        trash.later = timedelta(days=8)
        assert sum(await asyncio.gather(first.purge_expired(), second.purge_expired())) == 2

    asyncio.run(body())
    assert trash.stored == [3]
    assert sorted(trash.events("version_purged")) == [("mood", 1, "retention"), ("mood", 2, "retention")]


def test_a_purge_that_is_killed_after_its_row_leaves_a_mark_for_the_next_start(
    trash: Bin, monkeypatch: pytest.MonkeyPatch
) -> None:
    deletions = trash.deletions()
    asyncio.run(deletions.delete("mood", 1, False))
    trash.later = timedelta(days=8)

    async def killed(digest: str) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(trash.requests, "forget", killed)
    with pytest.raises(RuntimeError, match="killed"):
        asyncio.run(deletions.purge_expired())
    assert trash.stored == [1, 2, 3]
    assert trash.home.journal(trash.registry, trash.store).settle() == 1
    assert trash.stored == [2, 3]


def test_after_a_start_with_a_shorter_grace_time_what_was_deleted_before_goes_too(trash: Bin) -> None:
    async def body() -> None:
        await trash.deletions().delete("mood", 1, False)
        restarted = trash.deletions(undelete_days=0.0)
        restarted.start()
        while trash.stored != [2, 3]:  # noqa: ASYNC110 - a task of the server removes them
            await asyncio.sleep(0.01)
        await restarted.close()

    asyncio.run(asyncio.wait_for(body(), 60))


def test_retention_deletes_all_but_the_newest_versions_and_those_that_aliases_and_a_rollback_need(
    trash: Bin,
) -> None:
    for number in (4, 5, 6):
        publish(trash.home, "mood", number)
    trash.registry.set_alias("mood", "prod", 2)
    trash.registry.set_alias("mood", "live", 1)
    trash.registry.set_alias("mood", "live", 6)

    async def body() -> None:
        deletions = trash.deletions(keep_versions=2)
        deletions.published("mood")
        await asyncio.gather(*deletions._tasks)
        assert [one.version for one in deletions.deleted("mood")] == [3, 4]

    asyncio.run(body())
    assert [one.version for one in trash.registry.show("mood").versions] == [1, 2, 5, 6]
    assert trash.registry.rollback("mood").version == 1
    assert trash.events("version_deleted") == [("mood", 4, "retention"), ("mood", 3, "retention")]
    assert trash.requests.forgotten == [bundle(3)[0], bundle(4)[0]]


def test_retention_without_a_grace_time_removes_the_bytes_too(trash: Bin) -> None:
    async def body() -> None:
        deletions = trash.deletions(keep_versions=1, undelete_days=0.0)
        deletions.published("mood")
        await asyncio.gather(*deletions._tasks)

    asyncio.run(body())
    assert trash.stored == [2, 3], "a rollback needs version 2"
    assert list(trash.home.pending_folder.iterdir()) == []


def test_retention_of_one_tenant_leaves_the_adapters_of_others(trash: Bin) -> None:
    registry: SqlRegistry = trash.registry
    acme = TenantRegistry(registry, "acme", "acme/key")
    for number in (7, 8, 9):
        acme.publish("mood", bundle(number)[0], task="t", verification={}, size=1)

    async def body() -> None:
        deletions = trash.deletions(keep_versions=1).seen_by(acme)
        deletions.published("mood")
        await asyncio.gather(*deletions._tasks)

    asyncio.run(body())
    assert [one.version for one in acme.show("mood").versions] == [2, 3]
    assert [one.version for one in registry.show("mood").versions] == [1, 2, 3]
    assert [(one.what, one.who) for one in acme.events(limit=1)] == [("version_deleted", "retention")]
