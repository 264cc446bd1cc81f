"""What publishing takes in at a time, and when a deletion removes bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.errors import VersionInUse
from rootstock.adapters.home.home import Home
from rootstock.adapters.home.journal import BundleJournal
from rootstock.service.publishing import UPLOADS_AT_ONCE, Publisher
from tests.adapters.stored_homes import publish


def test_of_many_uploads_few_are_read_into_memory_at_a_time() -> None:
    reading = 0

    async def read() -> bytes:
        nonlocal reading
        reading += 1
        await asyncio.Event().wait()
        return b""

    async def body() -> None:
        foundations: Any = SimpleNamespace(check_name=lambda name: None)
        parts: Any = [None] * 4
        publisher = Publisher(foundations, *parts)
        uploads = [
            asyncio.create_task(publisher.publish(read, f"a{i}", PlainFields(), True))
            for i in range(3 * UPLOADS_AT_ONCE)
        ]
        await asyncio.sleep(0)
        assert reading == UPLOADS_AT_ONCE
        uploads[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploads[0]
        await asyncio.sleep(0)
        assert reading == UPLOADS_AT_ONCE + 1, "the next one's turn comes"
        for upload in uploads:
            upload.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)

    asyncio.run(body())


class OneVersion:
    """A registry that had one version, whose digest another server may publish again."""

    def __init__(self) -> None:
        self.again = False

    def version(self, name: str, version: int) -> SimpleNamespace:
        return SimpleNamespace(digest="digest")

    def delete_version(self, name: str, version: int, *, force: bool) -> str:
        return "digest"

    def digest_in_use(self, digest: str) -> bool:
        return False

    def remove_unused(self, digest: str, remove: Callable[[str], object]) -> bool:
        if not self.again:
            remove(digest)
        return not self.again


def deleting(marks: Path, delay: float) -> tuple[Publisher, OneVersion, set[str]]:
    async def forget(digest: str) -> None:
        return None

    registry, kept = OneVersion(), {"digest"}
    opened: Any = registry
    store: Any = SimpleNamespace(delete=kept.remove)
    parts: Any = SimpleNamespace(forget=forget), registry, BundleJournal(marks, opened, store), None, None
    return Publisher(*parts, removal_delay=delay), registry, kept


def test_without_other_servers_the_bytes_of_a_deleted_version_are_gone_at_once(tmp_path: Path) -> None:
    publisher, _, kept = deleting(tmp_path, 0.0)
    asyncio.run(publisher.delete("name", 1, False))
    assert kept == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("again", [False, True])
def test_beside_other_servers_the_bytes_stay_for_a_time_and_for_good_if_a_version_uses_them_again(
    again: bool, tmp_path: Path
) -> None:
    publisher, registry, kept = deleting(tmp_path, 0.01)

    async def body() -> None:
        await publisher.delete("name", 1, False)
        assert kept == {"digest"}
        registry.again = again
        await asyncio.gather(*publisher._removals)
        assert kept == ({"digest"} if again else set())

    asyncio.run(body())


def test_a_server_that_stops_leaves_the_removals_that_are_not_due_to_its_next_start(tmp_path: Path) -> None:
    publisher, _, kept = deleting(tmp_path, 3600.0)

    async def body() -> None:
        await publisher.delete("name", 1, False)
        await publisher.close()

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
        nothing: Any = None
        publisher = Publisher(foundations, registry, journal, nothing, nothing)
        with pytest.raises(RuntimeError, match="killed"):
            asyncio.run(publisher.delete("mood", version, force=True))
        assert not registry.digest_in_use(digest)
        assert journal.settle() == 1
    assert list(home.open_store().digests()) == []


def test_a_deletion_marks_the_bundle_before_the_row_and_a_refused_one_leaves_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    publish(home, "mood", 1)
    with closing(home.open_registry()) as registry:
        nothing: Any = None
        journal = home.journal(registry, home.open_store())
        publisher = Publisher(nothing, registry, journal, nothing, nothing)
        with pytest.raises(VersionInUse):
            asyncio.run(publisher.delete("mood", 1, force=False))
        assert list(home.pending_folder.iterdir()) == []
        marked: list[int] = []

        def delete(name: str) -> list[str]:
            marked.append(len(list(home.pending_folder.iterdir())))
            raise RuntimeError("killed before the row is gone")

        monkeypatch.setattr(registry, "delete_adapter", delete)
        with pytest.raises(RuntimeError, match="before the row"):
            asyncio.run(publisher.delete("mood", None, force=True))
        assert marked == [1]
        assert journal.settle() == 0
    assert len(list(home.open_store().digests())) == 1
