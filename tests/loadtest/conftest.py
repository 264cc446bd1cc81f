"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.loadtest.fixtures.setup import BenchmarkSetup


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides are timed at once: no test looks at a timing."""
    monkeypatch.setattr("rootstock.loadtest.measure.pairs.SETTLE_S", 0.0)


@pytest.fixture
def setup(foundation: FoundationFiles, export_folder: Path) -> BenchmarkSetup:
    """One pair on one thread."""
    return BenchmarkSetup(foundation.folder, export_folder, 1, say=lambda _: None, quick=True, pairs=1)


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    """An empty home, whose export cache is warm, for a module's benchmarks."""
    return new_home()
