"""A registry on PostgreSQL whose disk is full: a change is refused as such, and everything else goes on."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from rootstock.adapters.errors import StoreFull
from rootstock.adapters.registry import SqlRegistry
from tests.adapters.registries import digest, publish
from tests.postgres_process import PostgresProcess

# Bytes of the small disk. The registry's empty tables and their indexes take a tenth of it.
DISK = 8 * 2**20
# More versions than fit into the pages that are begun.
MOST_VERSIONS = 2000


@pytest.fixture
def url(postgres: PostgresProcess) -> str:
    return postgres.new_schema()


def direct(url: str) -> str:
    """Return the URL for psycopg itself."""
    return url.replace("+psycopg", "")


@pytest.fixture
def on_small_disk(postgres: PostgresProcess, url: str) -> Iterator[str]:
    """Yield the URL of a registry whose tables lie on a small disk. Skip the test where none can be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="rootstock-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("a small disk needs the right to mount one")
        try:
            shutil.chown(folder, "nobody")
            folder.chmod(0o700)
            with psycopg.connect(postgres.address, autocommit=True) as connection:
                connection.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")
            yield f"{url}%20-cdefault_tablespace%3Dsmall"
            with psycopg.connect(direct(url), autocommit=True) as connection:
                connection.execute("DO $$ BEGIN EXECUTE 'DROP SCHEMA ' || current_schema() || ' CASCADE'; END $$")
                connection.execute("DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        folder.rmdir()


def fill(connection: psycopg.Connection) -> None:
    """Take all the room on the disk, until PostgreSQL finds no more."""
    connection.execute("CREATE TABLE filler (bytes text)")
    for _ in range(DISK // 2**13):
        connection.execute("INSERT INTO filler SELECT repeat('x', 2000) FROM generate_series(1, 4)")


def publish_many(registry: SqlRegistry, acknowledged: list[int]) -> None:
    """Publish versions of `spam`, and note the numbers of those that are acknowledged."""
    for content in range(MOST_VERSIONS):
        done = publish(registry, "spam", content)
        acknowledged.append(done.version)


def test_a_full_disk_refuses_changes_and_nothing_else_and_more_room_ends_it(on_small_disk: str) -> None:
    with (
        closing(SqlRegistry(on_small_disk)) as registry,
        psycopg.connect(direct(on_small_disk), autocommit=True) as connection,
    ):
        acknowledged = [publish(registry, "spam", "first").version]
        with pytest.raises(psycopg.errors.DiskFull):
            fill(connection)
        with pytest.raises(StoreFull) as refused:
            publish_many(registry, acknowledged)
        assert refused.value.code == "store_full"
        assert str(refused.value) == "the disk of the registry's database is full; free some space"
        registry.ping()
        assert registry.resolve("spam").version == acknowledged[-1]
        listed = [version.version for version in registry.show("spam").versions]
        assert listed == acknowledged, "the refused version is not there in part"
        connection.execute("DROP TABLE filler")
        assert publish(registry, "spam", "last").version == acknowledged[-1] + 1


def test_postgresql_s_word_that_its_disk_is_full_is_a_full_store(url: str) -> None:
    """The server itself raises the error, in a trigger; a machine needs no small disk for that."""
    with closing(SqlRegistry(url)) as registry, psycopg.connect(direct(url), autocommit=True) as connection:
        for content in "ab":
            publish(registry, "spam", content)
        connection.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
        )
        for table in ("versions", "aliases"):
            change = "BEFORE INSERT OR UPDATE OR DELETE"
            connection.execute(f"CREATE TRIGGER full_disk {change} ON {table} EXECUTE FUNCTION full_disk()")
        for attempt in (
            lambda: publish(registry, "spam", "c"),
            lambda: registry.set_alias("spam", "live", 1),
            lambda: registry.delete_adapter("spam"),
        ):
            with pytest.raises(StoreFull, match="the disk of the registry's database is full"):
                attempt()
        assert registry.resolve("spam").digest == digest("b")
        connection.execute("DROP FUNCTION full_disk CASCADE")
        assert publish(registry, "spam", "c").version == 3
