"""What holds of the tree as a whole."""

from __future__ import annotations

from pathlib import Path

import rootstock.adapters as adapters
from rootstock.service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]


def test_adapters_is_our_package_and_not_adapterhub_s() -> None:
    assert Path(adapters.__file__).resolve().parent == ROOT / "adapters"


def test_every_setting_is_documented_with_its_default_and_nothing_else_is() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith(f"| `{PREFIX}")]
    documented = {row[1].strip().strip("`"): row[2].strip().strip("`") for row in rows}
    expected = {}
    for name, field in Settings.model_fields.items():
        expected[PREFIX + name.upper()] = "" if field.default is None else str(field.default).lower()
    assert {k: v.lower() for k, v in documented.items()} == expected
