"""A registry on a real database file: the whole of it, and as a tenant sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.registry.port import Registry
from tests.adapters.registries import address, among_neighbours


@pytest.fixture(params=["whole", "default", "acme"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """Yield an empty registry; for a tenant, one whose other tenants have adapters of the same names."""
    with closing(SqlRegistry(address(tmp_path))) as opened:
        yield opened if request.param == "whole" else among_neighbours(opened, request.param)
