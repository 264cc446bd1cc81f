"""Processes that serve one home: each has its marks, and those of one that was killed are found again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from rootstock.adapters.errors import HomeInUse, RegistryLost
from rootstock.adapters.home.home import Home, check_not_lost
from rootstock.service.composition.process_parts import open_place, take_marks
from rootstock.service.settings import Settings

DIGESTS = [f"sha256:{number:064}" for number in range(4)]


def several(home: Path) -> Settings:
    """Return the settings of a server with two processes, on a machine that may have one core."""
    return Settings(home=home).model_copy(update={"processes": 2})


def mark(folder: Path, digest: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest.removeprefix("sha256:")).touch()


@contextmanager
def started(home: Home, settings: Settings) -> Iterator[tuple[Home, list[str]]]:
    """Start a process; yield its place and the marks that it finds."""
    with (
        open_place(settings, home) as place,
        closing(home.open_registry()) as registry,
    ):
        journal = place.journal(registry, home.open_store())
        take_marks(home, place, journal)
        yield place, journal.left()


def test_each_process_has_a_place_and_a_new_one_takes_that_of_one_that_ended(tmp_path: Path) -> None:
    home, settings = Home(tmp_path), several(tmp_path)
    with open_place(settings, home) as first:
        with open_place(settings, home) as second:
            assert [place.folder.name for place in (first, second)] == ["0", "1"]
            with pytest.raises(HomeInUse), second.hold("another program"):
                pass
        with open_place(settings, home) as third:
            assert third.folder == second.folder
    with open_place(Settings(home=tmp_path), home) as only:
        assert only is home


def test_marks_of_ended_processes_and_of_a_server_with_one_are_taken_over_and_those_of_others_stay(
    tmp_path: Path,
) -> None:
    home, settings = Home(tmp_path), several(tmp_path)
    with started(home, settings) as (running, found):
        assert found == []
        mark(running.pending_folder, DIGESTS[0])
        mark(home.process(1) / "pending", DIGESTS[1])
        # There were more processes once, and only one before.
        mark(home.process(7) / "pending", DIGESTS[2])
        mark(home.pending_folder, DIGESTS[3])
        with started(home, settings) as (_, found):
            assert found == DIGESTS[1:]
        assert len(list(running.pending_folder.iterdir())) == 1
    with started(home, Settings(home=tmp_path)) as (_, found):
        assert found == DIGESTS


def test_foreign_files_beside_the_homes_of_processes_stop_no_start(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = home.process(0).parent
    folder.mkdir(parents=True)
    (folder / "7").write_text("a file")
    (folder / "8").symlink_to(tmp_path / "nowhere")
    for settings in (several(tmp_path), Settings(home=tmp_path)):
        with started(home, settings) as (_, found):
            assert found == []


def test_bytes_that_another_process_is_about_to_publish_are_no_sign_of_a_lost_registry(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with closing(home.open_registry()) as registry:
        store = home.open_store()
        store.put(DIGESTS[0], b"bytes")
        mark(home.process(1) / "pending", DIGESTS[0])
        check_not_lost(registry, store, home.marked())
        with pytest.raises(RegistryLost):
            check_not_lost(registry, store)


def test_a_registry_that_is_opened_twice_keeps_its_journal_from_other_processes(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with closing(home.open_registry()) as registry:
        with closing(home.open_registry()):
            pass
        assert registry.count() == 0
        # SQLite removes the journal with the last connection that any process has.
        read = f"import sqlite3; sqlite3.connect({str(home.registry_file)!r}).execute('SELECT * FROM revision')"
        subprocess.run([sys.executable, "-c", read], check=True)
        assert home.registry_file.with_name(f"{home.registry_file.name}-wal").exists()
