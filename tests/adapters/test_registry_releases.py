"""Servers of two releases on one database: the older one goes on with what the newer one added."""

from __future__ import annotations

import re
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import Script, ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from rootstock.adapters import errors
from rootstock.adapters.registry import SqlRegistry, sql
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.registry.sql.database import HEAD
from tests.adapters.registries import digest, publish

ADDS = re.compile(
    r"CREATE TABLE .*"
    r"|CREATE INDEX .*"
    r"|INSERT INTO .*"
    r"|ALTER TABLE \w+ ADD COLUMN (?!.*NOT NULL)(?!.*REFERENCES).*"
    r"|ALTER TABLE \w+ ADD COLUMN .* DEFAULT .*"
    # A longer text costs PostgreSQL no rewrite, and an older program writes shorter ones.
    r'|ALTER TABLE \w+ ALTER COLUMN \w+ TYPE VARCHAR\(\d+\)( COLLATE "C")?',
    re.DOTALL,
)


def steps() -> list[Script]:
    config = Config()
    config.set_main_option("script_location", str(Path(sql.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return list(ScriptDirectory.from_config(config).walk_revisions())


def statements(step: Script) -> list[str]:
    """Return what a step runs on PostgreSQL."""
    written = StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": written}
    )
    with Operations.context(context):
        step.module.upgrade()
    return [" ".join(part.split()) for part in written.getvalue().split(";") if part.strip()]


def upgraded(url: str, step: str) -> None:
    """Do to a database what a newer program of another release does."""
    changes = ["ALTER TABLE versions ADD COLUMN later VARCHAR(20)", "CREATE TABLE later (id INTEGER PRIMARY KEY)"]
    if url.startswith("postgresql"):
        changes.append('ALTER TABLE adapters ALTER COLUMN name TYPE VARCHAR(200) COLLATE "C"')
    changes.append(f"UPDATE alembic_version SET version_num = '{step}'")
    with create_engine(url, poolclass=NullPool).begin() as connection:
        for change in changes:
            connection.execute(text(change))


def test_an_older_program_that_runs_goes_on_after_a_newer_one_has_upgraded_the_database(
    registry: Registry, registry_url: str
) -> None:
    # The driver would prepare statements that are repeated without a rollback. A new type breaks prepared ones.
    for content in range(10):
        publish(registry, "spam", content)
    upgraded(registry_url, "0999")
    for content in range(10, 20):
        assert publish(registry, "spam", content).version == content + 1
        assert [adapter.name for adapter in registry.list(10).adapters] == ["spam"]
        assert registry.show("spam").versions[0].digest == digest(0)
    registry.set_alias("spam", "live", 1)
    assert registry.resolve("spam").version == 1
    registry.delete_version("spam", 2)
    registry.ping()


def test_an_older_program_starts_on_a_database_that_a_newer_one_has_upgraded(registry_url: str) -> None:
    with closing(SqlRegistry(registry_url)) as older:
        publish(older, "spam", "a")
    upgraded(registry_url, "0999")
    with closing(SqlRegistry(registry_url)) as again:
        assert publish(again, "spam", "b").version == 2


def test_a_database_of_the_next_generation_is_refused_at_the_start(registry_url: str) -> None:
    SqlRegistry(registry_url).close()
    upgraded(registry_url, "1000")
    with pytest.raises(errors.UnsafeRegistry, match="1000"):
        SqlRegistry(registry_url)


@pytest.mark.parametrize("step", steps(), ids=lambda step: step.revision)
def test_a_step_only_adds_unless_it_begins_a_generation(step: Script) -> None:
    assert re.fullmatch(r"\d{4}", step.revision)
    assert step.revision <= HEAD
    if step.revision.endswith("000"):
        return
    wrong = [statement for statement in statements(step) if not ADDS.fullmatch(statement)]
    assert wrong == []


@pytest.mark.parametrize(
    ("statement", "adds"),
    [
        ("ALTER TABLE versions ADD COLUMN later VARCHAR(20)", True),
        ("ALTER TABLE versions ADD COLUMN shared BOOLEAN DEFAULT false NOT NULL", True),
        ("ALTER TABLE versions ADD COLUMN later VARCHAR(20) NOT NULL", False),
        ("ALTER TABLE versions DROP COLUMN task", False),
        ("ALTER TABLE versions RENAME task TO kind", False),
        ("ALTER TABLE versions ALTER COLUMN task SET NOT NULL", False),
        ("CREATE UNIQUE INDEX one ON versions (task)", False),
        ("DROP TABLE events", False),
        ("UPDATE versions SET task = ''", False),
    ],
)
def test_what_takes_something_from_an_older_program_is_no_addition(statement: str, adds: bool) -> None:
    assert bool(ADDS.fullmatch(statement)) is adds
