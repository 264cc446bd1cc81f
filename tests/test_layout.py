"""What holds of the tree as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import adapters
from service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]


def test_adapters_is_our_package_and_not_adapterhub_s() -> None:
    assert Path(adapters.__file__).parent == ROOT / "adapters"


def test_every_setting_is_documented_with_its_default_and_nothing_else_is() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith(f"| `{PREFIX}")]
    documented = {row[1].strip().strip("`"): row[2].strip().strip("`") for row in rows}
    expected = {}
    for name, field in Settings.model_fields.items():
        expected[PREFIX + name.upper()] = "" if field.default is None else str(field.default).lower()
    assert {k: v.lower() for k, v in documented.items()} == expected


def test_serving_from_the_export_cache_imports_no_torch(export_folder: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from service.engine.batch import pad
from service.engine.catalog import foundation_adapter
from service.engine.runners.onnx_runner import OnnxRunner
from service.engine.tokenizer import Tokenizer
import service.app, service.api.predict, service.publishing, service.catalog
folder = Path({str(export_folder)!r})
runner = OnnxRunner(folder, 3, 1)
bare = foundation_adapter(runner.spec)
runner.place(0, runner.stage(bare))
tokenizer = Tokenizer(folder / "tokenizer.json")
runner.run(pad([tokenizer.encode("x", bare.preprocessing, False)], [0], tokenizer.pad_id))
heavy = {{"torch", "transformers", "peft", "onnx"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
