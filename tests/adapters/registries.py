"""What the registry's tests share: contents named by anything, databases of any step, and busy neighbours."""

from __future__ import annotations

import hashlib
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from rootstock.adapters.registry import Published, SqlRegistry, TenantRegistry, sql
from rootstock.adapters.registry.port import Registry


def digest(content: object) -> str:
    return "sha256:" + hashlib.sha256(str(content).encode()).hexdigest()


def publish(registry: Registry, name: str, content: object, *, activate: bool = True) -> Published:
    return registry.publish(
        name, digest(content), task="text-classification", verification={}, size=1, activate=activate
    )


def address(folder: Path) -> str:
    return f"sqlite:///{folder / 'registry.db'}"


def steps() -> Config:
    """Return the configuration with which Alembic finds the registry's steps."""
    config = Config()
    config.set_main_option("script_location", str(Path(sql.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def make_at_step(url: str, step: str) -> None:
    """Create a database as the program made it whose newest step was `step`."""
    config = steps()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, step)


def among_neighbours(registry: SqlRegistry, tenant: str) -> TenantRegistry:
    """Return a tenant's registry, after other tenants have used all names of the tests for other contents."""
    for neighbour in {"default", "acme", "beta"} - {tenant}:
        for name in ("spam", "ham", "eggs", "sentimant", "a2", "old", "new"):
            publish(TenantRegistry(registry, neighbour), name, (neighbour, name))
    return TenantRegistry(registry, tenant)
