"""What the tests of the benchmark's rows share."""

from __future__ import annotations

import pytest


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides are timed at once: no test looks at a timing."""
    monkeypatch.setattr("loadtest.pairs.SETTLE_S", 0.0)
