"""`python -m tests.parity` writes docs/compatibility.md."""

from __future__ import annotations

from pathlib import Path

from tests.parity.page import render

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"

if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
