"""Backups of a home in use, and what a restoration takes and refuses."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.errors import HomeInUse, UnusableBackup
from rootstock.adapters.home.backup import back_up, restore
from rootstock.adapters.home.home import Home
from tests.adapters.stored_homes import bundle, checked, filled_home, kinds, publish


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return filled_home(tmp_path / "home")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def versions(home: Home) -> list[tuple[str, int, str]]:
    with closing(home.registry_to_check()) as registry:
        return [(one.name, one.version, one.digest) for one in registry.index()]


def test_a_backup_gives_back_every_version_alias_and_event(home: Home, tmp_path: Path) -> None:
    with closing(home.open_registry()) as registry:
        registry.set_alias("mood", "prod", 1)
        shown, events = registry.show("mood"), registry.events()
    done = back_up(home, tmp_path / "backup")
    assert (done.copied, done.check.findings) == (3, [])
    assert not list((tmp_path / "backup").glob("registry.db-*")), "the registry is one file"
    shutil.rmtree(home.folder)
    again = restore(tmp_path / "backup", home)
    assert (again.copied, again.check.findings) == (3, [])
    with closing(home.open_registry()) as registry:
        assert (registry.show("mood"), registry.events()) == (shown, events)
    publish(home, "mood", 4)
    assert checked(home).findings == []


def test_a_backup_made_while_versions_are_published_and_deleted_is_one_whole_state(
    home: Home, tmp_path: Path
) -> None:
    done, backups = threading.Event(), 0

    def churn() -> None:
        with closing(home.open_registry()) as registry:
            journal = home.journal(registry, home.open_store())
            for number in range(10, 200):
                publish(home, f"churned-{number}", number)
                if number % 2:
                    for digest in registry.delete_adapter(f"churned-{number - 1}"):
                        journal.discard(digest)
                if done.is_set():
                    return

    churning = threading.Thread(target=churn)
    with home.hold("a server"):
        churning.start()
        try:
            while backups < 3:
                copy = Home(tmp_path / f"backup-{backups}")
                assert back_up(home, copy.folder).check.findings == []
                stored = set(copy.store_to_check().digests())
                assert {digest for _, _, digest in versions(copy)} == stored
                assert {("mood", 1), ("mood", 2), ("intents", 1)} <= {one[:2] for one in versions(copy)}
                backups += 1
        finally:
            done.set()
            churning.join()


def test_a_deleted_version_that_can_come_back_is_in_a_backup_and_comes_back_from_it(
    home: Home, tmp_path: Path
) -> None:
    with closing(home.open_registry()) as registry:
        registry.delete_version("mood", 1, restorable=True)
        registry.delete_adapter("intents", restorable=True)
    assert back_up(home, tmp_path / "backup").copied == 3
    shutil.rmtree(home.folder)
    check = restore(tmp_path / "backup", home).check
    assert (check.findings, check.versions, check.deleted) == ([], 1, 2)
    with closing(home.open_registry()) as registry:
        assert registry.undelete("mood", 1).versions == [1]
        assert registry.undelete("intents").aliases == {"live": 1}
    assert checked(home).findings == []


def test_a_second_backup_copies_what_is_new_and_drops_what_was_deleted(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    back_up(home, target)
    publish(home, "new", 4)
    with closing(home.open_registry()) as registry:
        registry.delete_adapter("intents")
    told = run("backup", target, "--home", home.folder, "--json")
    assert told.exit_code == 0
    assert json.loads(told.stdout)["copied"] == 1
    assert set(Home(target).store_to_check().digests()) == {bundle(number)[0] for number in (1, 2, 4)}
    assert versions(Home(target)) == versions(home)


def test_a_backup_goes_into_no_folder_with_other_content(home: Home, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    told = run("backup", tmp_path / "full", "--home", home.folder)
    assert told.exit_code == 1
    assert "is not empty and holds no earlier backup" in told.stderr
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter"]
    with pytest.raises(UnusableBackup, match="is not empty"):
        back_up(home, home.folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UnusableBackup, match="no registry to back up"):
        back_up(Home(empty), tmp_path / "backup")
    assert list(empty.iterdir()) == []


def test_a_backup_of_a_damaged_home_is_made_and_says_what_it_lacks(home: Home, tmp_path: Path) -> None:
    home.open_store().delete(bundle(2)[0])
    path = home.open_store().path(bundle(3)[0])
    path.write_bytes(path.read_bytes()[:-5])
    told = run("backup", tmp_path / "backup", "--home", home.folder)
    assert told.exit_code == 1
    assert "mood@2" in told.stdout
    assert "intents@1" in told.stdout
    target = Home(tmp_path / "target")
    with pytest.raises(UnusableBackup, match="2 bundles of the backup are missing or damaged"):
        restore(tmp_path / "backup", target)
    assert not target.registry_file.exists()
    assert list(target.open_store().digests()) == []
    forced = restore(tmp_path / "backup", target, force=True)
    assert kinds(forced.check) == ["missing", "wrong"]
    assert versions(target) == versions(home)


def test_a_home_in_use_is_never_restored_and_one_that_was_used_only_by_force(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "backup")
    publish(home, "later", 4)
    with home.hold("a server"):
        for force in (False, True):
            with pytest.raises(HomeInUse, match="in use by a server"):
                restore(tmp_path / "backup", home, force=force)
    told = run("restore", tmp_path / "backup", "--home", home.folder)
    assert told.exit_code == 1
    assert "give --force" in told.stderr
    assert ("later", 1, bundle(4)[0]) in versions(home)
    told = run("restore", tmp_path / "backup", "--home", home.folder, "--force")
    assert told.exit_code == 0, told.output
    assert versions(home) == versions(Home(tmp_path / "backup"))
    assert bundle(4)[0] in set(home.open_store().digests()), "what is there stays, for fsck to name"


def test_the_changes_beside_an_old_database_do_not_reach_the_restored_one(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "backup")
    # A program that was killed leaves its last changes beside the database.
    killed = sqlite3.connect(home.registry_file)
    killed.execute("DELETE FROM aliases")
    killed.commit()
    for ending in ("-wal", "-shm"):
        shutil.copy(f"{home.registry_file}{ending}", tmp_path / f"kept{ending}")
    killed.close()
    for ending in ("-wal", "-shm"):
        shutil.copy(tmp_path / f"kept{ending}", f"{home.registry_file}{ending}")
    restore(tmp_path / "backup", home, force=True)
    with closing(home.open_registry()) as registry:
        assert registry.resolve("mood").version == 2


def test_a_folder_that_is_no_backup_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    target = Home(tmp_path / "target")
    with pytest.raises(UnusableBackup, match="no registry"):
        restore(tmp_path / "letters", target)
    (tmp_path / "letters" / "registry.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(UnusableBackup, match="cannot be copied"):
        restore(tmp_path / "letters", target)
    assert [path.name for path in target.folder.iterdir()] == ["lock"]
