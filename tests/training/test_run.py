"""Whole training runs on a random tiny BERT: what comes out, twice, and what is left when one fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from typer.testing import CliRunner

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.training import export
from rootstock.training.cli.app import app
from rootstock.training.errors import MissingExtra, RecipeError
from rootstock.training.recipe import extras
from rootstock.training.recipe.recipe_file import load_recipe
from rootstock.training.run import run

# peft 0.21 reads an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PeftOutputs = Callable[[Path, Path, str, int, Sequence[str]], list[Any]]


@pytest.mark.usefixtures("rows", "sentences")
@pytest.mark.parametrize(
    ("changes", "task", "labels"),
    [
        ({}, "text-classification", ("negative", "positive")),
        ({"save_dtype": "float16"}, "text-classification", ("negative", "positive")),
        (
            {
                "task_type": "TOKEN_CLS",
                "data": {"path": "sentences.conll"},
                "peft": {"target_modules": "all-linear"},
            },
            "token-classification",
            ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"),
        ),
    ],
    ids=["texts", "half precision", "tokens"],
)
def test_a_run_leaves_a_bundle_that_serves_and_whose_golden_outputs_are_pefts_own(
    write_recipe: Callable[..., Path],
    tmp_path: Path,
    tiny_bert: Path,
    peft_outputs: PeftOutputs,
    changes: dict[str, Any],
    task: str,
    labels: tuple[str, ...],
) -> None:
    outcome = run(load_recipe(write_recipe(**changes)), tmp_path / "out", force=True)
    spec = describe(locate(str(tiny_bert)))
    bundle = open_bundle((tmp_path / "out" / "tiny.zip").read_bytes(), Limits(), spec)
    adapter = bundle.adapter(spec, 64)
    assert (adapter.task, adapter.labels, adapter.digest) == (task, labels, outcome.digest)
    assert adapter.preprocessing.max_length == 32
    # A tagger has no calibration: its task has no parameter for it.
    temperature = adapter.calibration.temperature if adapter.calibration else None
    assert temperature == (outcome.metrics["calibration"]["temperature"] if len(labels) == 2 else None)
    assert any(pair.b.any() for pair in adapter.weights.sites.values())
    saved = load_file(tmp_path / "out" / "bundle" / "adapter_model.safetensors")
    assert {str(tensor.dtype) for tensor in saved.values()} == {changes.get("save_dtype", "float32")}
    golden = bundle.golden()
    assert golden is not None
    assert 8 <= len(golden.inputs) <= 16
    texts = [text for text in golden.inputs if isinstance(text, str)]
    for ours, peft in zip(
        golden.outputs,
        peft_outputs(tiny_bert, tmp_path / "out" / "bundle", task, len(labels), texts),
        strict=True,
    ):
        np.testing.assert_allclose(ours, peft, rtol=1e-5, atol=1e-5)
    members = {path.name: path.read_bytes() for path in (tmp_path / "out" / "bundle").iterdir()}
    assert members.pop("bundle.json") == bundle.manifest.to_bytes()
    assert members == bundle.files


def test_the_same_recipe_gives_the_same_digest_in_another_process_and_folder(
    write_recipe: Callable[..., Path], rows: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(peft={"target_modules": ["value", "query", "key"]})
    here = run(load_recipe(recipe), tmp_path / "first", force=True)
    # Another hash seed orders sets differently; a card or a config must not show it.
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "rootstock.adapters.cli.console",
            "train",
            "run",
            str(recipe),
            "--output-dir",
            "second",
            "--force",
            "--json",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
    )
    summary = json.loads(ran.stdout)
    assert summary["digest"] == here.digest
    assert summary["publish"] == "rootstock adapters push second/tiny.zip --name tiny"
    assert (tmp_path / "second/tiny.zip").read_bytes() == here.results.zip.read_bytes()
    assert "Traceback" not in ran.stderr
    assert "Warning" not in ran.stderr


def test_a_bundle_names_no_folder_of_the_machine_and_its_card_states_figures_beside_baselines(
    write_recipe: Callable[..., Path], rows: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    outcome = run(load_recipe(write_recipe()), tmp_path / "out", force=True)
    files = {path.name: path.read_bytes() for path in outcome.results.bundle.iterdir()}
    for content in files.values():
        for folder in (tmp_path, tiny_bert, Path.cwd()):
            assert str(folder).encode() not in content
    config = json.loads(files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "tiny-bert"
    _, front, text = files["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(front)["base_model"] == "tiny-bert"
    assert yaml.safe_load(front)["license"] == "cc-by-4.0"
    test = outcome.metrics["test"]
    assert f"| this adapter | {test['adapter']['accuracy']:.3f} | {test['adapter']['macro_f1']:.3f} |" in text
    assert f"| most frequent label | {test['baselines']['majority']['accuracy']:.3f} |" in text
    assert "head alone on the frozen foundation" in text
    assert outcome.digest not in files["README.md"].decode()
    manifest = json.loads(files["bundle.json"])
    assert manifest["provenance"]["rows"] == {"train": 20, "validation": 10, "test": 10, "duplicates": 0}
    assert manifest["provenance"]["seeds"] == {"split": 1, "training": [0]}


def test_a_run_that_chooses_by_cross_validation_trains_on_the_validation_rows_and_says_so(
    write_recipe: Callable[..., Path], rows: Path, tmp_path: Path
) -> None:
    splits = {"test_size": 0.25, "val_size": 0.25, "seed": 1, "choose_by": "cross_validation"}
    source = load_recipe(write_recipe(data={"splits": splits}, peft={"method": "auto", "choose_strength": True}))
    outcome = run(source, tmp_path / "out")
    assert outcome.metrics["rows"] == {"train": 30, "validation": 0, "test": 10}
    lora = outcome.metrics["choice"]["candidates"][1]
    assert lora["strength"] in (0.25, 0.5, 0.75, 1.0)
    assert lora["wins"] + lora["losses"] <= 30
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Compared on training rows, by cross-validation" in report
    assert "Fitted on training rows, by cross-validation" in report


def test_the_figures_compare_the_adapter_with_the_head_alone_on_the_test_rows(
    write_recipe: Callable[..., Path], rows: Path, tmp_path: Path
) -> None:
    test = run(load_recipe(write_recipe()), tmp_path / "out", force=True).metrics["test"]
    gain = test["adapter"]["accuracy"] - test["baselines"]["head_only"]["accuracy"]
    paired = test["comparison"]["head_only"]
    assert paired["wins"] - paired["losses"] == round(gain * test["adapter"]["rows"])


def test_the_report_lists_the_misclassified_rows_and_the_losses_also_of_an_adapter_that_was_not_kept(
    write_recipe: Callable[..., Path], rows: Path, tmp_path: Path
) -> None:
    source = load_recipe(write_recipe(peft={"method": "auto"}, training={"learning_rate": 1e-9}))
    metrics = run(source, tmp_path / "out").metrics
    assert (metrics["method"], metrics["epochs_of"]) == ("head_only", "lora")
    assert [set(epoch) for epoch in metrics["epochs"]] == [
        {"number", "loss", "validation_loss", "validation_f1"}
    ] * 2
    mistakes = metrics["mistakes"]
    assert mistakes["count"] == round(10 * (1 - metrics["test"]["adapter"]["accuracy"]))
    texts = rows.read_text(encoding="utf-8").split("\n")
    for one in mistakes["rows"]:
        assert texts[one["line"] - 1] == f"{one['text']},{one['true']}"
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "These are the epochs of lora, which was not kept." in report
    assert ("## Misclassified rows" in report) == bool(mistakes["count"])


@pytest.mark.parametrize(
    ("package", "changes"),
    [
        ("matplotlib", {}),
        ("fairlearn", {"data": {"path": "rows.csv", "group_column": "source"}}),
        ("mlflow", {"tracking": {"mlflow_tracking_uri": "http://127.0.0.1:9"}}),
    ],
)
def test_a_package_that_is_missing_is_told_before_anything_is_trained(
    write_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    changes: dict[str, Any],
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == package else object())
    # There are no rows to read: the package is asked for ahead of them.
    with pytest.raises(MissingExtra, match=f"need {package}: pip install 'rootstock\\[train\\]'"):
        run(load_recipe(write_recipe(**changes)), tmp_path / "out")


def test_an_interrupted_training_leaves_no_bundle(
    write_recipe: Callable[..., Path], rows: Path, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int, note: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(load_recipe(write_recipe()), tmp_path / "out", interrupt, force=True)
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_could_not_be_served_leaves_no_bundle_and_exit_code_1(
    write_recipe: Callable[..., Path], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_MAX_RANK", 3)
    result = CliRunner().invoke(
        app, ["run", str(write_recipe()), "--force", "--output-dir", str(tmp_path / "out")]
    )
    assert result.exit_code == 1
    assert "could not be served: rank: " in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".resume"]


def test_a_failure_while_the_results_are_written_leaves_the_earlier_ones_whole(
    write_recipe: Callable[..., Path], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(load_recipe(write_recipe()), out, force=True)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    real = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "golden.json":
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        run(load_recipe(write_recipe(training={"seed": 5})), out, force=True)
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {path: content for path, content in after.items() if ".resume" not in path.parts} == before


def test_a_second_run_replaces_the_results_of_the_first_and_touches_no_other_file(
    write_recipe: Callable[..., Path], rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = run(load_recipe(write_recipe()), out, force=True)
    (out / "notes.txt").write_text("mine")
    second = run(load_recipe(write_recipe(training={"seed": 5})), out, force=True)
    assert first.digest != second.digest
    assert json.loads((out / "metrics.json").read_text())["digest"] == second.digest
    assert sorted(path.name for path in out.iterdir()) == [
        "bundle",
        "log.jsonl",
        "metrics.json",
        "notes.txt",
        "plots",
        "recipe.yaml",
        "report.html",
        "report.md",
        "tiny.zip",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"max_length": 41}}, r"training\.max_length: 41; tiny-bert takes 40 tokens"),
        ({"peft": {"target_modules": ["q_proj"]}}, r"peft\.target_modules: 'q_proj' matches no linear module"),
        (
            {"peft": {"target_modules": ["classifier"]}},
            r"peft\.target_modules: 'classifier' matches .* of the head",
        ),
    ],
)
def test_what_the_foundation_cannot_do_is_refused_before_training_with_the_key(
    write_recipe: Callable[..., Path], rows: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        run(load_recipe(write_recipe(**changes)), tmp_path / "out", force=True)


def test_a_base_model_that_is_nowhere_is_one_line_and_exit_code_2(
    write_recipe: Callable[..., Path], rows: Path
) -> None:
    result = CliRunner().invoke(app, ["run", str(write_recipe(base_model="no/such"))])
    assert result.exit_code == 2
    assert "foundation 'no/such' is no folder" in result.stderr
