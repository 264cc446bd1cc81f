"""Serving from the export cache imports no torch, from a reference to its answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.masked_lm import home_of, make_filling, pipeline_of

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, sys
from pathlib import Path

from rootstock.adapters.home.bulk_import import ImportedBundle, import_bundles
from rootstock.adapters.bundle import Limits
from rootstock.adapters.registry import SqlRegistry
from rootstock.adapters.store.folder import FolderStore
from rootstock.service.composition.demo_adapters import DEMO
from rootstock.service.registry_catalog import RegistryCatalog
from rootstock.service.engine.encode.engine import Engine
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.telemetry.metrics import Metrics
import rootstock.service.api.predict, rootstock.service.publishing

folder, home = Path(sys.argv[1]), Path(sys.argv[2])
runner = OnnxRunner(folder, 4, 1)
outcomes = list(import_bundles(sorted(DEMO.glob("*.zip")), home, runner.spec, Limits()))
assert all(isinstance(outcome, ImportedBundle) for outcome in outcomes), outcomes
registry = SqlRegistry(f"sqlite:///{home / 'registry.db'}")
catalog = RegistryCatalog(registry, FolderStore(home / "store"), runner.spec, Limits())
engine = Engine(runner.spec, runner, Tokenizer(folder / "tokenizer.json"), catalog, Metrics())

async def answers():
    for name, text in (
        ("review-sentiment", "Wonderful, I would buy it again."),
        ("entities", "Amina flew to Lisbon on Monday."),
        ("foundation", "Where is my parcel?"),
    ):
        answer = await engine.predict(name, [text], {})
        print(name, answer.predictions[0])

engine.start()
asyncio.run(answers())
engine.stop()
registry.close()
heavy = {"torch", "transformers", "peft", "onnx"} & set(sys.modules)
assert not heavy, heavy
"""

PARENT = """
import sys

import rootstock.service.bento

heavy = {"fastapi", "sqlalchemy", "onnxruntime", "rootstock.service.app"} & set(sys.modules)
assert not heavy, heavy
"""

LEAN = """
import sys

from rootstock.service.lean_imports import lean_imports

with lean_imports():
    import rootstock.service.app

assert "rich" not in sys.modules
import rich.console
"""

FILLING = """
import asyncio, sys
from pathlib import Path

from rootstock.adapters.foundation.location import locate
from rootstock.service.engine.encode.engine import Engine
from rootstock.service.engine.runners.onnx.runner import OnnxRunner
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.exports.cache import is_whole, path_of
from rootstock.service.telemetry.metrics import Metrics

folder = path_of(locate(sys.argv[1]), Path(sys.argv[2]))
assert is_whole(folder), folder
runner = OnnxRunner(folder, 4, 1)
tokenizer = Tokenizer(folder / "tokenizer.json", runner.spec.masked_lm.mask_id)
engine = Engine(runner.spec, runner, tokenizer, None, Metrics())

async def answers():
    answer = await engine.predict("foundation", ["Where is my [MASK]?"], {"top_k": 3}, task="fill-mask")
    print(*(one["token"] for one in answer.predictions[0]))

engine.start()
asyncio.run(answers())
engine.stop()
heavy = {"torch", "transformers", "peft", "onnx"} & set(sys.modules)
assert not heavy, heavy
"""


def test_serving_from_the_export_cache_imports_no_torch(export_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(export_folder), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sentiment, entities, embedding = done.stdout.splitlines()
    assert "'label': 'positive'" in sentiment
    assert "LOC" in entities
    assert embedding.count(",") == 383


@pytest.mark.slow
def test_filling_masks_from_the_export_cache_imports_no_torch(tmp_path: Path) -> None:
    tiny = make_filling(tmp_path / "model")
    home_of(tiny, tmp_path / "home")
    command = [sys.executable, "-c", FILLING, str(tiny.folder), str(tmp_path / "home")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = pipeline_of(tiny.folder)("Where is my [MASK]?", top_k=3)
    assert done.stdout.split() == [str(one["token"]) for one in wanted]


def test_bentomls_parent_process_imports_no_app() -> None:
    subprocess.run([sys.executable, "-c", PARENT], check=True, cwd=ROOT)


def test_a_server_s_imports_leave_out_rich_and_a_later_import_finds_it() -> None:
    subprocess.run([sys.executable, "-c", LEAN], check=True, cwd=ROOT)
