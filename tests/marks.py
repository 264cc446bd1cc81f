"""Parameters of which `make test` has some, and `make test-slow` the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(fast: Iterable[str], names: Iterable[str]) -> list[Any]:
    """Return the names as parameters of a test or fixture, with the mark `slow` on all but the fast ones."""
    fast = set(fast)
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]
