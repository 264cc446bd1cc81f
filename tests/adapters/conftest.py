"""A registry on a real database file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rootstock.adapters.registry import SqlRegistry
from tests.adapters.registries import address


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqlRegistry]:
    with closing(SqlRegistry(address(tmp_path))) as opened:
        yield opened
