"""`rootstock adapters fsck`: what it finds in a home, what it repairs, and what it leaves alone."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.home.fsck import fsck
from rootstock.adapters.home.home import Home
from rootstock.adapters.registry.records import Event, IndexedVersion
from tests.adapters.stored_homes import bundle, checked, filled_home, kinds, publish, record

OLD = datetime.now(UTC) + timedelta(hours=2)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return filled_home(tmp_path / "home")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["fsck", *map(str, words)])


def statuses(home: Home, name: str) -> list[str]:
    with closing(home.open_registry()) as registry:
        return [version.status for version in registry.show(name).versions]


def test_a_whole_home_has_no_finding(home: Home) -> None:
    check = checked(home)
    assert (check.findings, check.versions, check.bundles, check.recent) == ([], 3, 3, 0)
    told = run("--home", home.folder)
    assert (told.exit_code, told.stdout) == (0, "3 versions, 3 bundles: no fault\n")


def test_bytes_that_no_version_has_are_an_orphan_once_they_are_older_than_an_upload_takes(home: Home) -> None:
    digest, data = bundle(4)
    home.open_store().put(digest, data)
    young = checked(home)
    assert (young.findings, young.recent) == ([], 1)
    (found,) = checked(home, now=OLD).findings
    assert (found.kind, found.digest, found.done) == ("orphan", digest, "")
    assert run("--home", home.folder, "--grace", 0).exit_code == 1
    (repaired,) = checked(home, now=OLD, repair=True).findings
    assert repaired.done == "removed"
    assert digest not in set(home.open_store().digests())
    assert checked(home, now=OLD).findings == []


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _other(path: Path) -> None:
    path.write_bytes(bundle(9)[1])


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (Path.unlink, "missing"),
        (lambda path: (path.unlink(), path.mkdir()), "missing"),
        (lambda path: path.write_bytes(b""), "wrong"),
        (_cut, "wrong"),
        (_flip, "wrong"),
        (_other, "wrong"),
    ],
)
def test_missing_and_wrong_bytes_are_found_marked_and_ready_again_once_they_are_back(
    home: Home, damage: Callable[[Path], object], kind: str
) -> None:
    digest, data = bundle(2)
    path = home.open_store().path(digest)
    damage(path)
    (found,) = checked(home).findings
    assert (found.kind, found.digest, found.versions, found.done) == (kind, digest, ("mood@2",), "")
    assert statuses(home, "mood") == ["ready", "ready"], "without --repair nothing changes"
    (repaired,) = checked(home, repair=True).findings
    assert repaired.done.startswith("marked damaged; publish the bundle again")
    assert statuses(home, "mood") == ["ready", "damaged"]
    with closing(home.open_registry()) as registry:
        assert (registry.events()[0].what, registry.events()[0].version) == ("marked_damaged", 2)
    if path.is_dir():
        path.rmdir()
    path.write_bytes(data)
    assert kinds(checked(home)) == ["mark"]
    assert checked(home, repair=True).findings[0].done == "marked ready"
    assert statuses(home, "mood") == ["ready", "ready"]
    assert checked(home).findings == []


def test_a_damaged_version_is_ready_again_once_its_bundle_is_published_again(home: Home) -> None:
    home.open_store().delete(bundle(2)[0])
    checked(home, repair=True)
    publish(home, "mood", 2)
    assert statuses(home, "mood") == ["ready", "ready"]
    assert checked(home).findings == []


def test_a_left_over_file_is_found_and_one_that_is_being_written_is_not(home: Home) -> None:
    left = home.open_store().path(bundle(1)[0]).with_name(".writing-1")
    left.write_bytes(b"part")
    with left.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert checked(home).findings == []
    assert kinds(checked(home)) == ["left-over"]
    assert left.exists()
    assert kinds(checked(home, repair=True)) == ["left-over"]
    assert not left.exists()


def test_an_empty_registry_beside_a_full_store_is_a_finding_and_a_repair_removes_nothing(home: Home) -> None:
    before = list(home.open_store().digests())
    home.registry_file.unlink()
    home.open_registry().close()
    for repair in (False, True):
        assert kinds(checked(home, now=OLD, repair=repair)) == ["empty-registry"]
    assert list(home.open_store().digests()) == before


def test_a_registry_that_is_absent_is_refused_and_not_made(home: Home) -> None:
    home.registry_file.unlink()
    told = run("--home", home.folder)
    assert (told.exit_code, told.stdout) == (1, "")
    assert "the registry's file is missing; restore a backup" in told.stderr
    assert str(home.registry_file) in told.stderr, "who runs the command may see the path"
    assert not home.registry_file.exists()
    assert run("--home", home.folder / "nowhere").exit_code == 2


def test_the_command_runs_beside_a_program_that_holds_the_home_and_prints_one_document(home: Home) -> None:
    home.open_store().delete(bundle(3)[0])
    with home.hold("a server"), closing(home.open_registry()):
        told = run("--home", home.folder, "--json")
    assert told.exit_code == 1
    document = json.loads(told.stdout)
    assert (document["versions"], document["bundles"], document["recent"]) == (3, 2, 0)
    (found,) = document["findings"]
    assert (found["kind"], found["digest"], found["versions"]) == ("missing", bundle(3)[0], ["intents@1"])


def test_versions_that_come_and_go_during_a_check_are_no_findings(home: Home) -> None:
    """Each change comes at its worst moment: after the store is listed, and while bundles are read."""
    store = home.open_store()
    with closing(home.open_registry()) as registry:
        changed = iter([lambda: publish(home, "new", 5), lambda: registry.delete_adapter("mood")])

        class Changing:
            """The registry, which changes before it is listed, and again after it was."""

            def index(self) -> Iterator[IndexedVersion]:
                next(changed)()
                listed = list(registry.index())
                next(changed)()
                for digest in (bundle(1)[0], bundle(2)[0]):
                    assert registry.remove_unused(digest, store.delete)
                yield from listed

            def mark(self, digest: str, status: str) -> int:
                raise AssertionError(f"{digest} was marked {status}")

            def digest_in_use(self, digest: str) -> bool:
                return registry.digest_in_use(digest)

            def remove_unused(self, digest: str, remove: Callable[[str], object]) -> bool:
                return registry.remove_unused(digest, remove)

            def events(self, name: str | None = None, limit: int = 100, before: int | None = None) -> list[Event]:
                return registry.events(name, limit, before)

        check = fsck(Changing(), store, grace=timedelta(), repair=True)
    assert check.findings == []


def test_an_orphan_that_is_published_in_the_moment_of_its_removal_keeps_its_bytes(home: Home) -> None:
    digest, data = bundle(6)
    home.open_store().put(digest, data)
    with closing(home.open_registry()) as registry:

        class Late:
            """The registry, in which a version gets the bytes after the check found none."""

            index, mark, events = registry.index, registry.mark, registry.events

            def digest_in_use(self, digest: str) -> bool:
                used = registry.digest_in_use(digest)
                publish(home, "late", 6)
                return used

            def remove_unused(self, digest: str, remove: Callable[[str], object]) -> bool:
                return registry.remove_unused(digest, remove)

        (found,) = fsck(Late(), home.open_store(), grace=timedelta(), repair=True).findings
    assert (found.kind, found.done) == ("orphan", "")
    assert home.open_store().get(digest) == data


def test_more_versions_than_a_page_holds_are_all_listed_in_order(tmp_path: Path) -> None:
    with closing(Home(tmp_path).open_registry()) as registry:
        for number in range(1100):
            record(registry, f"a{number % 7}", f"sha256:{number:064x}")
        listed = [(one.name, one.version) for one in registry.index()]
    assert listed == sorted(listed)
    assert len(listed) == len(set(listed)) == 1100


def test_the_registry_of_an_older_program_is_read_and_not_changed(home: Home) -> None:
    import sqlite3

    with closing(sqlite3.connect(home.registry_file)) as older:
        older.execute("UPDATE alembic_version SET version_num = '0001'")
        older.commit()
    home.open_store().delete(bundle(3)[0])
    assert kinds(checked(home)) == ["missing"]
    told = run("--home", home.folder, "--repair")
    assert told.exit_code == 1
    assert "start the server once" in told.stderr
    with closing(sqlite3.connect(home.registry_file)) as older:
        assert older.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)


def test_what_a_home_holds_is_for_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        home = Home(tmp_path / "new" / "home")
        with home.hold("this test"):
            publish(home, "mood", 1)
            with closing(home.open_registry()):
                home.journal(home.open_registry(), home.open_store()).mark(bundle(1)[0])
                seen = {path: path.stat().st_mode & 0o777 for path in [home.folder, *home.folder.rglob("*")]}
    finally:
        os.umask(before)
    assert {mode for path, mode in seen.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in seen.items() if path.is_file()} == {0o600}
    assert {"registry.db", "registry.db-wal", "registry.db-shm", "lock"} <= {path.name for path in seen}
    assert not home.is_open_to_others
    home.folder.chmod(0o755)
    assert home.is_open_to_others
