"""A publication is whole or leaves nothing: first the bytes, then the row. A start ends what was killed."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rootstock.adapters.errors import RegistryLost, RegistryUnavailable
from rootstock.adapters.home.home import Home, check_not_lost
from tests.adapters.stored_homes import bundle, checked, kinds, publish, record

OLD = datetime.now(UTC) + timedelta(hours=2)

# Publishes a bundle, and ends at the given step as kill -9 ends a program.
KILLED = """
import os, sys
from contextlib import closing
from pathlib import Path
from rootstock.adapters.home.home import Home
from rootstock.adapters.store import folder
from tests.adapters.stored_homes import bundle, record

home, step = Home(Path(sys.argv[1])), sys.argv[2]
digest, data = bundle(1)
registry, store = home.open_registry(), home.open_store()

def die(*arguments):
    os._exit(9)

put = store.put
if step == "bytes written":
    os.fsync = die
if step == "file named":
    folder.settle = die
if step == "bytes stored":
    store.put = lambda *bytes: (put(*bytes), die())

def publish():
    version = record(registry, "mood", digest)
    if step == "row written":
        die()
    return version

print(home.journal(registry, store).publish(digest, data, publish), flush=True)
"""


@pytest.mark.parametrize(
    ("step", "left"),
    [("bytes written", []), ("file named", ["orphan"]), ("bytes stored", ["orphan"]), ("row written", [])],
)
def test_a_program_that_is_killed_at_a_step_leaves_a_home_that_the_next_start_makes_whole(
    tmp_path: Path, step: str, left: list[str]
) -> None:
    home = Home(tmp_path)
    publish(home, "other", 2)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, step], capture_output=True, text=True, check=False
    )
    assert (killed.returncode, killed.stdout) == (9, ""), killed.stderr
    assert [kind for kind in kinds(checked(home, now=OLD)) if kind != "left-over"] == left
    with closing(home.open_registry()) as registry:
        store = home.open_store()
        assert home.journal(registry, store).settle() == len(left)
        check_not_lost(registry, store)
        assert registry.digest_in_use(bundle(1)[0]) is (step == "row written")
    assert checked(home, now=OLD).findings == []
    assert list(home.pending_folder.iterdir()) == []


def test_the_bytes_are_stored_before_the_version_is_published(tmp_path: Path) -> None:
    home, (digest, data) = Home(tmp_path), bundle(1)
    with closing(home.open_registry()) as registry:
        store = home.open_store()

        def publish_now() -> int:
            assert store.get(digest) == data
            return record(registry, "mood", digest)

        assert home.journal(registry, store).publish(digest, data, publish_now) == 1
    assert list(home.pending_folder.iterdir()) == []


def test_a_publication_that_fails_leaves_no_bytes_but_those_of_other_versions(tmp_path: Path) -> None:
    home = Home(tmp_path)
    publish(home, "mood", 1)
    with closing(home.open_registry()) as registry:
        store = home.open_store()

        def refuse() -> int:
            raise RuntimeError("refused")

        for number in (1, 2):
            with pytest.raises(RuntimeError, match="refused"):
                home.journal(registry, store).publish(*bundle(number), refuse)
        assert list(store.digests()) == [bundle(1)[0]]
    assert list(home.pending_folder.iterdir()) == []


def test_while_the_registry_is_away_nothing_is_removed_and_the_next_start_decides(tmp_path: Path) -> None:
    home = Home(tmp_path)
    publish(home, "mood", 1)
    with closing(home.open_registry()) as registry:
        store = home.open_store()

        def lose() -> int:
            registry.close()
            raise RegistryUnavailable("away")

        with pytest.raises(RegistryUnavailable, match="away"):
            home.journal(registry, store).publish(*bundle(2), lose)
    assert len(list(store.digests())) == 2
    with closing(home.open_registry()) as registry:
        assert home.journal(registry, store).settle() == 1
    assert list(store.digests()) == [bundle(1)[0]]


# Removes the bytes of the bundle if no version has them, and prints what it did.
REMOVING = """
import sys
from pathlib import Path
from rootstock.adapters.home.home import Home
from tests.adapters.stored_homes import bundle

home, (digest, _) = Home(Path(sys.argv[1])), bundle(1)
registry, store = home.registry_to_check(), home.store_to_check()
print("ready", flush=True)
sys.stdin.readline()
print(registry.remove_unused(digest, store.delete), flush=True)
"""


def test_another_program_removes_no_bytes_between_their_storage_and_their_row(tmp_path: Path) -> None:
    home, (digest, data) = Home(tmp_path), bundle(1)
    with closing(home.open_registry()) as registry:
        command = [sys.executable, "-c", REMOVING, tmp_path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"

            def publish_late() -> int:
                other.stdin.write("\n")
                other.stdin.flush()
                # Without the guard the other program is done in a moment.
                with pytest.raises(subprocess.TimeoutExpired):
                    other.wait(0.5)
                return record(registry, "mood", digest)

            home.journal(registry, home.open_store()).publish(digest, data, publish_late)
            assert other.stdout.readline() == "False\n"
    assert checked(home).findings == []


def test_a_mark_stays_until_the_last_of_several_threads_is_done_with_the_digest(tmp_path: Path) -> None:
    home, (digest, _) = Home(tmp_path), bundle(1)
    with closing(home.open_registry()) as registry:
        journal = home.journal(registry, home.open_store())
        for _ in range(2):
            journal.mark(digest)
        journal.unmark(digest)
        assert len(list(home.pending_folder.iterdir())) == 1
        journal.unmark(digest)
    assert list(home.pending_folder.iterdir()) == []


def test_a_check_waits_for_a_first_publication_that_another_server_is_at(tmp_path: Path) -> None:
    home, (digest, data) = Home(tmp_path), bundle(1)
    store = home.open_store()
    with (
        closing(home.open_registry()) as registry,
        closing(home.open_registry()) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        checking: list[Future[None]] = []

        def publish_late() -> int:
            checking.append(pool.submit(check_not_lost, other, store))
            with pytest.raises(TimeoutError):
                checking[0].result(0.2)
            return record(registry, "mood", digest)

        home.journal(registry, store).publish(digest, data, publish_late)
        checking[0].result()


def test_a_file_that_is_no_mark_is_left_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    publish(home, "mood", 1)
    (home.pending_folder / "notes").write_text("x")
    with closing(home.open_registry()) as registry:
        assert home.journal(registry, home.open_store()).settle() == 0
    assert (home.pending_folder / "notes").exists()


def test_a_registry_that_was_never_used_beside_a_full_store_is_lost(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with closing(home.open_registry()) as registry:
        check_not_lost(registry, home.open_store())
        publish(home, "mood", 1)
        check_not_lost(registry, home.open_store())
        registry.delete_adapter("mood")
        check_not_lost(registry, home.open_store())
    home.registry_file.unlink()
    with closing(home.open_registry()) as registry, pytest.raises(RegistryLost, match="restore it"):
        check_not_lost(registry, home.open_store())
