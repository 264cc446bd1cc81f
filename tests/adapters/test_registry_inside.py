"""Inside the registry: its schema, its transactions and what it keeps in memory."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, inspect, text
from sqlalchemy.pool import NullPool

from rootstock.adapters.errors import RegistryUnavailable
from rootstock.adapters.registry import Resolution, SqlRegistry, TenantRegistry
from rootstock.adapters.registry.sql.database import HEAD
from rootstock.adapters.registry.sql.resolutions import Resolutions
from rootstock.adapters.registry.sql.tables import Base
from tests.adapters.registries import digest, make_at_step, publish, steps


@pytest.mark.parametrize("by_steps", [False, True], ids=["at once", "by steps"])
def test_a_new_schema_has_the_tables_that_the_program_uses(registry_url: str, by_steps: bool) -> None:
    _open_new(registry_url, by_steps)
    with create_engine(registry_url, poolclass=NullPool).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_made_at_once_equals_one_made_by_the_steps(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    schemas = []
    for by_steps in (False, True):
        if kind == "sqlite":
            url = f"sqlite:///{tmp_path / f'{by_steps}.db'}"
        else:
            url = request.getfixturevalue("postgres").new_schema()
        _open_new(url, by_steps)
        with create_engine(url, poolclass=NullPool).connect() as connection:
            reader = inspect(connection)
            rows = [
                connection.execute(text(f"SELECT * FROM {table}")).fetchall()
                for table in ("alembic_version", "revision")
            ]
            parts = (
                reader.get_multi_columns(),
                reader.get_multi_pk_constraint(),
                reader.get_multi_foreign_keys(),
                reader.get_multi_unique_constraints(),
                reader.get_multi_indexes(),
            )
            schemas.append((rows, [_plain(part) for part in parts]))
    assert schemas[0] == schemas[1]


def _open_new(url: str, by_steps: bool) -> None:
    if by_steps:
        # A table that is not the registry's makes the database one that is not new.
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE other (id INTEGER)"))
        SqlRegistry(url).close()
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE other"))
    else:
        SqlRegistry(url).close()


def _plain(part: Mapping[Any, Any]) -> str:
    """Return a part of a schema as text in which the order of columns and constraints does not count."""
    tables = {key[1]: value for key, value in part.items()}
    return repr(
        {
            name: sorted(map(repr, value)) if isinstance(value, list) else value
            for name, value in sorted(tables.items())
        }
    )


def test_the_newest_step_is_the_one_the_program_expects() -> None:
    assert ScriptDirectory.from_config(steps()).get_heads() == [HEAD]


# The statements with which the programs of the first two schemas publish a live version and note it.
_OLD_PUBLICATION = (
    "INSERT INTO adapters (name, next_version, created_at) VALUES ('spam', 2, '2026-01-01 00:00:00')",
    "INSERT INTO versions (adapter, number, digest, task, status, size, verification, created_at) "
    f"VALUES ('spam', 1, 'sha256:{'0' * 64}', 't', 'ready', 1, '{{}}', '2026-01-01 00:00:00')",
    "INSERT INTO aliases (adapter, alias, version) VALUES ('spam', 'live', 1)",
    "INSERT INTO live_history (adapter, version) VALUES ('spam', 1)",
    "INSERT INTO events (at, what, name, version, alias, detail) "
    "VALUES ('2026-01-01 00:00:00', 'published', 'spam', 1, NULL, '{}')",
    "UPDATE revision SET number = number + 1",
)


def _publish_as_before(url: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for statement in _OLD_PUBLICATION:
            connection.execute(text(statement))


@pytest.mark.parametrize(
    "upgraded_first", [False, True], ids=["then upgraded", "by an old server after the upgrade"]
)
def test_an_adapter_that_a_program_without_tenants_published_is_the_default_tenant_s(
    registry_url: str, upgraded_first: bool
) -> None:
    url = registry_url
    make_at_step(url, "0002")
    if upgraded_first:
        SqlRegistry(url).close()
    _publish_as_before(url)
    with closing(SqlRegistry(url)) as registry:
        default, acme = TenantRegistry(registry, "default"), TenantRegistry(registry, "acme", "acme/k1")
        assert default.resolve("spam") == Resolution("spam", 1, "sha256:" + "0" * 64)
        assert [(one.name, one.shared) for one in default.list().adapters] == [("spam", False)]
        assert (acme.list().adapters, acme.events(), acme.count()) == ([], [], 0)
        publish(acme, "spam", "a")
        publish(default, "spam", "b")
        assert [(event.id, event.what, event.who) for event in default.events("spam")] == [
            (3, "alias_set", "default"),
            (2, "published", "default"),
            (1, "published", None),
        ]
        assert [(event.id, event.who) for event in acme.events()] == [(2, "acme/k1"), (1, "acme/k1")]
        assert acme.resolve("spam").digest == digest("a")


def test_a_registry_of_the_first_schema_is_upgraded_and_keeps_what_it_held(registry_url: str) -> None:
    url = registry_url
    make_at_step(url, "0001")
    _publish_as_before(url)
    with closing(SqlRegistry(url)) as registry:
        assert registry.resolve("spam") == Resolution("spam", 1, "sha256:" + "0" * 64, None)
        registry.publish("eggs", "sha256:" + "1" * 64, task="t", verification={}, size=1, foundation="sha256:f")
        for reference in ("eggs", "eggs@1", "eggs@sha256:" + "1" * 12):
            assert registry.resolve(reference).foundation == "sha256:f"


def test_the_database_survives_a_power_cut_and_keeps_its_references_whole(tmp_path: Path) -> None:
    names = ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
    with (
        closing(SqlRegistry(f"sqlite:///{tmp_path / 'registry.db'}")) as registry,
        registry._database.reading() as session,
    ):
        pragmas = {name: session.execute(text(f"PRAGMA {name}")).scalar() for name in names}
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 10_000}


def test_a_write_waits_for_its_turn_before_it_reads_anything(tmp_path: Path) -> None:
    with closing(SqlRegistry(f"sqlite:///{tmp_path / 'registry.db'}")) as registry:
        asked: list[str] = []
        event.listen(
            registry._database._engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2])
        )
        registry.publish("spam", "sha256:" + "0" * 64, task="t", verification={}, size=1)
    assert asked[0] == "BEGIN IMMEDIATE"
    assert asked[1].startswith("UPDATE revision")


@pytest.mark.timeout(20)
def test_a_write_gives_up_on_those_ahead_of_it_as_on_a_locked_database(tmp_path: Path) -> None:
    with closing(SqlRegistry(f"sqlite:///{tmp_path / 'registry.db'}", busy_timeout=0.01)) as registry:
        with registry._database.writing(), pytest.raises(RegistryUnavailable, match="the changes ahead of this"):
            registry.publish("spam", "sha256:" + "0" * 64, task="t", verification={}, size=1)
        assert registry.publish("spam", "sha256:" + "0" * 64, task="t", verification={}, size=1).version == 1


def test_what_was_read_before_a_change_is_not_kept_after_it() -> None:
    resolutions = Resolutions(10)
    resolutions.keep("spam", Resolution("spam", 1, "old"), revision=1)
    resolutions.renew(2)
    resolutions.keep("spam", Resolution("spam", 1, "old"), revision=1)
    assert resolutions.get("spam") is None
    resolutions.keep("spam", Resolution("spam", 2, "new"), revision=3)
    assert resolutions.get("spam") == Resolution("spam", 2, "new")


def test_a_look_up_in_memory_asks_the_database_nothing(tmp_path: Path) -> None:
    with closing(SqlRegistry(f"sqlite:///{tmp_path / 'registry.db'}", clock=lambda: 0.0)) as registry:
        registry.publish("spam", "sha256:" + "0" * 64, task="t", verification={}, size=1)
        registry.resolve("spam")
        asked: list[str] = []
        event.listen(
            registry._database._engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2])
        )
        for _ in range(1000):
            registry.resolve("spam")
        assert asked == []
        registry.resolve("spam@1")
        assert asked != []


def test_a_change_of_one_adapter_leaves_the_others_in_memory(tmp_path: Path) -> None:
    with closing(SqlRegistry(f"sqlite:///{tmp_path / 'registry.db'}", clock=lambda: 0.0)) as registry:
        for name in ("spam", "ham"):
            registry.publish(name, "sha256:" + "0" * 64, task="t", verification={}, size=1)
        for reference in ("spam", "ham", "ham@1", "ham@live"):
            registry.resolve(reference)
        registry.publish("ham", "sha256:" + "1" * 64, task="t", verification={}, size=1)
        asked: list[str] = []
        event.listen(
            registry._database._engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2])
        )
        registry.resolve("spam")
        assert asked == []
        assert [registry.resolve(r).version for r in ("ham", "ham@1", "ham@live")] == [2, 1, 2]


def test_a_change_beside_an_unseen_one_forgets_everything() -> None:
    resolutions = Resolutions(10)
    resolutions.keep("spam", Resolution("spam", 1, "old"), revision=1)
    resolutions.renew(3, "ham")
    assert resolutions.get("spam") is None


def test_a_look_up_that_is_not_in_memory_asks_one_question(tmp_path: Path) -> None:
    with closing(SqlRegistry(f"sqlite:///{tmp_path / 'registry.db'}", clock=lambda: 0.0)) as registry:
        registry.publish("spam", "sha256:" + "0" * 64, task="t", verification={}, size=1)
        asked: list[str] = []
        event.listen(
            registry._database._engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2])
        )
        for reference in ("spam", "spam@live", "spam@1"):
            registry.resolve(reference)
        assert [statement.split()[0] for statement in asked] == ["BEGIN", "SELECT"] * 3
