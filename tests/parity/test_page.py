"""docs/compatibility.md says what the matrix says."""

from __future__ import annotations

from tests.parity.__main__ import PAGE
from tests.parity.page import render


def test_the_page_is_what_make_compatibility_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: make compatibility"
