"""What the tests of the benchmark's rows share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides are timed at once: no test looks at a timing."""
    monkeypatch.setattr("rootstock.loadtest.measure.pairs.SETTLE_S", 0.0)


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    """An empty home, whose export cache is warm, for a module's benchmarks."""
    return new_home()
