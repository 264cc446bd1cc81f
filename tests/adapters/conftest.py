"""Registries and stores of both kinds, in a home and shared; registries also as a tenant sees them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.store.folder import FolderStore
from rootstock.adapters.store.object_store import ObjectStore
from rootstock.adapters.store.port import Store
from tests.adapters.registries import address, among_neighbours
from tests.object_storage import ObjectStorage
from tests.postgres_process import PostgresProcess


@pytest.fixture(params=["sqlite", "postgresql"])
def registry_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a new database: a file, or a database on a PostgreSQL server."""
    if request.param == "sqlite":
        return address(tmp_path)
    server: PostgresProcess = request.getfixturevalue("postgres")
    return server.new_schema()


@pytest.fixture(params=["whole", "acme"])
def registry(request: pytest.FixtureRequest, registry_url: str) -> Iterator[Registry]:
    """Yield an empty registry; for a tenant, one whose other tenants have adapters of the same names."""
    with closing(SqlRegistry(registry_url)) as opened:
        yield opened if request.param == "whole" else among_neighbours(opened, request.param)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return an empty store: a folder, or a prefix in a bucket."""
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    server: ObjectStorage = request.getfixturevalue("s3")
    return ObjectStore(f"s3://{server.new_bucket()}/some/prefix")
