"""Restarts, threads, other processes, memory, and databases that fail."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from rootstock.adapters import errors
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.registry.port import Registry
from tests.adapters.registries import address, publish


def test_everything_is_there_after_a_restart(registry_url: str) -> None:
    with closing(SqlRegistry(registry_url)) as first:
        for content in "abc":
            publish(first, "spam", content)
        first.set_alias("spam", "prod", 1)
        first.delete_version("spam", 3, force=True)
        shown, events = first.show("spam"), first.events()
    with closing(SqlRegistry(registry_url)) as second:
        assert (second.show("spam"), second.events()) == (shown, events)
        assert second.rollback("spam").version == 2
        assert publish(second, "spam", "d").version == 4


def test_threads_may_open_new_registries_at_once(tmp_path: Path) -> None:
    def open_and_publish(number: int) -> int:
        with closing(SqlRegistry(address(tmp_path / str(number % 3)))) as opened:
            return publish(opened, "spam", number).version

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(open_and_publish, range(6))) == [1, 1, 1, 2, 2, 2]


def test_threads_may_open_one_new_registry_at_once(registry_url: str) -> None:
    def open_and_publish(number: int) -> int:
        with closing(SqlRegistry(registry_url)) as opened:
            return publish(opened, "spam", number).version

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(open_and_publish, range(6))) == [1, 2, 3, 4, 5, 6]


def test_threads_that_publish_at_once_get_every_number_once(registry: Registry) -> None:
    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(lambda content: publish(registry, "spam", content % 30), range(60)))
    assert sorted({result.version for result in published}) == list(range(1, 31))
    assert sum(result.created for result in published) == 30
    assert len({(result.version, result.digest) for result in published}) == 30
    assert registry.resolve("spam").version == registry.show("spam").live


def test_processes_that_open_and_publish_at_once_get_every_number_once(registry_url: str) -> None:
    script = (
        "import sys\n"
        "from rootstock.adapters.registry import SqlRegistry\n"
        "registry = SqlRegistry(sys.argv[1])\n"
        "for number in range(10):\n"
        "    digest = f'sha256:{int(sys.argv[2]) * 100 + number:064x}'\n"
        "    registry.publish('spam', digest, task='t', verification={}, size=1)\n"
        "registry.close()\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, registry_url]
    processes = [subprocess.Popen([*command, str(number)]) for number in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with closing(SqlRegistry(registry_url)) as registry:
        assert registry.list(1).adapters[0].versions == list(range(1, 31))


def test_a_look_up_after_a_change_never_sees_what_was_before(registry: Registry) -> None:
    publish(registry, "spam", 1)
    publish(registry, "spam", 2)

    def read(_: int) -> None:
        registry.resolve("spam")

    with ThreadPoolExecutor(4) as pool:
        for turn in range(60):
            readers = [pool.submit(read, turn) for _ in range(8)]
            registry.set_alias("spam", "live", turn % 2 + 1)
            for reader in readers:
                reader.result()
            assert registry.resolve("spam").version == turn % 2 + 1


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_change_by_another_process_is_seen_within_a_second(tmp_path: Path) -> None:
    clock = Clock()
    with (
        closing(SqlRegistry(address(tmp_path), clock=clock)) as server,
        closing(SqlRegistry(address(tmp_path))) as other,
    ):
        publish(other, "spam", "a")
        assert server.resolve("spam").version == 1
        publish(other, "spam", "b")
        clock.now = 0.99
        assert server.resolve("spam").version == 1, "kept in memory: no query was made"
        clock.now = 1.0
        assert server.resolve("spam").version == 2


def test_a_reference_not_in_memory_brings_the_others_up_to_date(tmp_path: Path) -> None:
    with (
        closing(SqlRegistry(address(tmp_path), clock=Clock())) as server,
        closing(SqlRegistry(address(tmp_path))) as other,
    ):
        publish(other, "spam", "a")
        assert server.resolve("spam").version == 1
        publish(other, "spam", "b")
        assert server.resolve("spam@2").version == 2
        assert server.resolve("spam").version == 2


def test_memory_holds_no_more_references_than_it_may(tmp_path: Path) -> None:
    clock = Clock()
    with closing(SqlRegistry(address(tmp_path), cache_size=2, clock=clock)) as server:
        for name in "abc":
            publish(server, name, name)
        for name in ("a", "b", "a", "c"):
            server.resolve(name)
        with closing(SqlRegistry(address(tmp_path))) as other:
            for name in "abc":
                publish(other, name, name + "2")
        assert [server.resolve(name).version for name in "ac"] == [1, 1]
        assert server.resolve("b").version == 2, "the least recently used was dropped, so the database was asked"


def test_references_in_memory_resolve_while_the_database_cannot_be_read(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "registry.db"
    with closing(SqlRegistry(address(tmp_path), clock=clock)) as server:
        publish(server, "spam", "a")
        server.resolve("spam")
        with closing(sqlite3.connect(file)) as vandal:
            vandal.execute("ALTER TABLE revision RENAME TO lost")
        clock.now = 5.0
        assert server.resolve("spam").version == 1
        for use in (server.ping, lambda: server.resolve("spam@1"), lambda: publish(server, "spam", "b")):
            with pytest.raises(errors.RegistryUnavailable):
                use()


@pytest.mark.parametrize("lose", [Path.unlink, lambda file: (file.rename(f"{file}.old"), file.touch())])
def test_a_ping_tells_that_the_file_is_gone_or_another(tmp_path: Path, lose: Callable[[Path], object]) -> None:
    with closing(SqlRegistry(address(tmp_path))) as registry:
        registry.ping()
        lose(tmp_path / "registry.db")
        with pytest.raises(errors.RegistryUnavailable, match=r"registry\.db"):
            registry.ping()


def test_a_closed_registry_says_so_and_may_be_closed_again(tmp_path: Path) -> None:
    registry = SqlRegistry(address(tmp_path))
    publish(registry, "spam", "a")
    registry.resolve("spam")
    registry.close()
    registry.close()
    assert not (tmp_path / "registry.db-wal").exists(), "the last connection was closed"
    for use in (registry.ping, lambda: registry.resolve("spam"), lambda: publish(registry, "spam", "b")):
        with pytest.raises(errors.RegistryUnavailable, match="closed"):
            use()


def test_a_database_that_stays_locked_is_unavailable_and_then_works_again(tmp_path: Path) -> None:
    with closing(SqlRegistry(address(tmp_path), busy_timeout=0.05)) as registry:
        with closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(errors.RegistryUnavailable, match="locked"):
                publish(registry, "spam", "a")
        assert publish(registry, "spam", "a").version == 1


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "registry.db"
    file.write_bytes(b"something else entirely" * 100)
    with pytest.raises(errors.RegistryUnavailable, match="not a database"):
        SqlRegistry(address(tmp_path))
    assert file.read_bytes() == b"something else entirely" * 100


def test_a_database_from_a_newer_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    SqlRegistry(address(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "registry.db")) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
        newer.commit()
    with pytest.raises(errors.UnsafeRegistry, match="9999"):
        SqlRegistry(address(tmp_path))
    with closing(sqlite3.connect(tmp_path / "registry.db")) as newer:
        assert newer.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


def test_a_registry_needs_a_file() -> None:
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(ValueError, match="names no file"):
            SqlRegistry(url)
