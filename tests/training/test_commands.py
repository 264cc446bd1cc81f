"""The commands around a run, on a tiny foundation: what they print is what somebody else's program computes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from rootstock.training.cli.app import app
from rootstock.training.recipe.recipe_file import load_recipe
from rootstock.training.run import run
from rootstock.training.study.cross_validation import cross_validate

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("rows"),
]


def call(*arguments: object) -> Any:
    """What a command prints with --json."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr or result.output
    return json.loads(result.stdout)


@pytest.fixture
def bundle(write_recipe: Callable[..., Path], tmp_path: Path) -> Path:
    """A trained bundle's zip."""
    settings = {"num_train_epochs": 3, "learning_rate": 0.01}
    return run(load_recipe(write_recipe(training=settings)), tmp_path / "out", force=True).results.zip


def test_evaluate_gives_scikit_learns_accuracy_of_what_peft_predicts(
    bundle: Path, rows: Path, tiny_bert: Path, peft_outputs: Callable[..., list[Any]]
) -> None:
    import csv

    from sklearn.metrics import accuracy_score, f1_score

    figures = call("evaluate", bundle, rows, "--foundation", tiny_bert)
    with rows.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    texts = [row["text"] for row in table]
    logits = peft_outputs(tiny_bert, bundle.parent / "bundle", "text-classification", 2, texts)
    predicted = [("negative", "positive")[int(np.argmax(row))] for row in logits]
    truth = [row["label"] for row in table]
    assert figures["accuracy"] == round(accuracy_score(truth, predicted), 4)
    assert figures["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-4)
    low, high = figures["intervals"]["accuracy"]
    assert low < figures["accuracy"] <= high


def test_an_adapter_compared_with_itself_wins_and_loses_nothing(
    bundle: Path, rows: Path, tiny_bert: Path
) -> None:
    comparison = call("compare", bundle, bundle.parent / "bundle", rows, "--foundation", tiny_bert)
    assert comparison["first"] == comparison["second"]
    assert (comparison["paired"]["wins"], comparison["paired"]["losses"], comparison["paired"]["p_value"]) == (
        0,
        0,
        1.0,
    )


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_a_missing_column_is_told_before_the_foundation_is_looked_at_with_the_options_that_name_it(
    bundle: Path, rows: Path, command: str
) -> None:
    rows.write_text(rows.read_text(encoding="utf-8").replace("text,label", "message,team", 1), encoding="utf-8")
    bundles = [str(bundle)] * (2 if command == "compare" else 1)
    refused = CliRunner().invoke(app, [command, *bundles, str(rows), "--foundation", "nowhere"])
    assert refused.exit_code == 2
    assert (
        "needs a column 'text'; found: 'message', 'team'; name the columns with --text-column" in refused.stderr
    )
    named = ["--text-column", "message", "--label-column", "team"]
    found = CliRunner().invoke(app, [command, *bundles, str(rows), *named, "--foundation", "nowhere"])
    assert "foundation 'nowhere' is no folder" in found.stderr


def test_what_tokens_add_sums_to_what_the_text_adds(bundle: Path, tiny_bert: Path) -> None:
    attribution = call("explain", bundle, "it was good Ann", "--foundation", tiny_bert)
    assert [token["token"] for token in attribution["tokens"]] == ["it", "was", "good", "ann"]
    assert abs(attribution["missing"]) < 0.05 * (1 + sum(abs(t["contribution"]) for t in attribution["tokens"]))
    refused = CliRunner().invoke(
        app, ["explain", str(bundle), "x", "--label", "no", "--foundation", str(tiny_bert)]
    )
    assert refused.exit_code == 2
    assert "has no label 'no'; its labels: negative, positive" in refused.stderr


def test_an_exported_model_gives_the_golden_outputs_in_onnx_runtime(
    bundle: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    import onnxruntime
    from tokenizers import Tokenizer

    export = call("export", bundle, tmp_path / "m.onnx", "--foundation", tiny_bert)
    assert export["max_difference"] < 1e-4
    golden = json.loads((bundle.parent / "bundle" / "golden.json").read_text())
    tokenizer = Tokenizer.from_file(str(tiny_bert / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    encoded = tokenizer.encode(golden["inputs"][0])
    given = {
        "input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids,
    }  # fmt: skip
    (logits,) = session.run(None, {i.name: np.array([given[i.name]], np.int64) for i in session.get_inputs()})
    np.testing.assert_allclose(logits[0], golden["outputs"][0], atol=1e-4)


def test_suggested_texts_are_from_the_file_and_each_is_there_once(
    bundle: Path, rows: Path, tiny_bert: Path
) -> None:
    suggestions = call("suggest", bundle, rows, "--count", 7, "--foundation", tiny_bert)["suggested"]
    assert len({row["row"] for row in suggestions}) == 7
    lines = rows.read_text(encoding="utf-8").splitlines()[1:]
    assert all(lines[row["row"] - 1].startswith(row["text"]) for row in suggestions)


@pytest.mark.usefixtures("rows")
def test_cross_validation_counts_the_steps_of_all_folds_as_one_run(write_recipe: Callable[..., Path]) -> None:
    told: list[tuple[int, int]] = []
    source = load_recipe(write_recipe(training={"num_train_epochs": 3}))
    cross_validate(source, 3, lambda done, total, note, rate=0.0: told.append((done, total)))
    # Thirty rows without the ten of the test; each fold trains on two thirds of them, eight a step.
    assert told == [(step, 27) for step in range(1, 28)]


def test_cross_validation_scores_each_method_over_the_folds(write_recipe: Callable[..., Path]) -> None:
    scores_by_method = call("cv", write_recipe(), "--folds", 3)
    assert set(scores_by_method["methods"]) == {"head_only", "lora"}
    scores = scores_by_method["methods"]["head_only"]["scores"]
    assert len(scores) == 3
    assert scores_by_method["methods"]["head_only"]["mean"] == pytest.approx(np.mean(scores), abs=1e-4)
    assert scores_by_method["methods"]["head_only"]["sd"] == pytest.approx(np.std(scores, ddof=1), abs=1e-4)


def test_a_sweep_tries_its_space_and_writes_the_best_recipe(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    space = {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "peft.r": {"choices": [2, 4]}}
    search = call("sweep", write_recipe(hpo={"trials": 3, "space": space}), "--out", tmp_path / "best.yaml")
    assert len(search["trials"]) == 3
    assert search["best"]["score"] == max(trial["score"] for trial in search["trials"])
    best = load_recipe(tmp_path / "best.yaml").recipe
    assert best.peft.r == search["best"]["values"]["peft.r"]
    empty = CliRunner().invoke(app, ["sweep", str(write_recipe())])
    assert empty.exit_code == 2
    assert "hpo.space: empty" in empty.stderr
    wrong = write_recipe(hpo={"space": {"training.rate": {"choices": [1]}}})
    refused = CliRunner().invoke(app, ["sweep", str(wrong)])
    assert refused.exit_code == 2
    assert "training.rate: unknown key" in refused.stderr


def test_clients_train_one_adapter_between_them(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    arguments = ("--clients", 2, "--rounds", 2, "--output-dir", tmp_path / "fed")
    summary = call("federate", write_recipe(), *arguments)
    assert [one["number"] for one in summary["rounds"]] == [1, 2]
    assert Path(summary["zip"]).is_file()
    assert "2 clients trained" in (tmp_path / "fed" / "bundle" / "README.md").read_text()


def test_both_trainers_pass_over_the_same_rows_and_only_the_figures_are_printed(
    write_recipe: Callable[..., Path],
) -> None:
    splits = {"test_size": 0.25, "val_size": 0.25, "choose_by": "cross_validation"}
    recipe = write_recipe(data={"splits": splits}, training={"num_train_epochs": 2})
    comparison = call("bench", recipe, "--pairs", 1)
    assert comparison["examples"] == 2 * 20
    # One pair gives no interval.
    assert comparison["interval"] == [comparison["ratio"], comparison["ratio"]]
    assert comparison["coverage"] == 0
    for side in ("ours", "trainer"):
        assert len(comparison[side]["seconds"]) == 1
        assert 0 <= comparison[side]["score"] <= 1
    few = CliRunner().invoke(app, ["bench", str(write_recipe(data={"splits": {"k_shot": 4}}))])
    assert few.exit_code == 2
    assert "data.splits.k_shot: both sides are scored on validation rows" in few.stderr


def test_bases_are_ranked_by_the_head_that_was_measured(write_recipe: Callable[..., Path]) -> None:
    ranks = call("rank-base", write_recipe())["ranked"]
    assert sorted(row["layer"] for row in ranks) == [0, 1, 2]
    heads = [row["head_only"] for row in ranks]
    assert heads == sorted(heads, reverse=True)


def test_an_audit_finds_a_leak_and_names_both_lines(write_recipe: Callable[..., Path], rows: Path) -> None:
    test = rows.with_name("test.csv")
    first = rows.read_text(encoding="utf-8").splitlines()[1]
    test.write_text(
        f"text,label\n{first.upper().replace('POSITIVE', 'positive')}\nnew,negative\n", encoding="utf-8"
    )
    recipe = write_recipe(data={"test_path": "test.csv", "splits": {"strategy": "given"}})
    findings = call("audit", recipe)["findings"]
    leaks = [f for f in findings if f["kind"] == "leak"]
    assert len(leaks) == 1
    assert leaks[0]["file"].endswith("test.csv")
    assert "rows.csv, line 2" in leaks[0]["message"]


@pytest.mark.slow
def test_a_finished_run_is_recorded_in_a_local_mlflow_store(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    script = (
        "import sys, warnings; warnings.simplefilter('ignore'); from pathlib import Path\n"
        "from rootstock.training.recipe.recipe_file import load_recipe; from rootstock.training.run import run\n"
        "print(run(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]), force=True).digest)"
    )
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    recipe = write_recipe(tracking={"mlflow_tracking_uri": uri, "experiment": "tiny"})
    # In a process of its own: mlflow changes logging and warnings for good.
    ran = subprocess.run(
        [sys.executable, "-c", script, str(recipe), str(tmp_path / "out")],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    read = (
        "import sys, json, mlflow; c = mlflow.MlflowClient(sys.argv[1])\n"
        "e = c.get_experiment_by_name('tiny'); (r,) = c.search_runs([e.experiment_id])\n"
        "print(json.dumps([r.data.tags['digest'], r.data.metrics['adapter.accuracy'], r.data.params['peft.r']]))"
    )
    told = subprocess.run([sys.executable, "-c", read, uri], capture_output=True, text=True, check=True)
    digest, accuracy, rank = json.loads(told.stdout.splitlines()[-1])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert digest == metrics["digest"] == ran.stdout.split()[-1]
    assert accuracy == metrics["test"]["adapter"]["accuracy"]
    assert rank == "4"


def test_the_resolved_recipe_gives_the_same_digest(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    first = run(load_recipe(write_recipe(), ["training.seed=3"]), tmp_path / "a", force=True)
    written = yaml.safe_load((tmp_path / "a" / "recipe.yaml").read_text())
    assert written["training"]["seed"] == 3
    again = run(load_recipe(tmp_path / "a" / "recipe.yaml"), tmp_path / "b", force=True)
    assert again.digest == first.digest


def test_auto_keeps_the_head_alone_where_nothing_is_shown_to_be_better(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    outcome = run(load_recipe(write_recipe(peft={"method": "auto"}, evaluation={"alpha": 0.0})), tmp_path / "out")
    assert outcome.metrics["method"] == "head_only"
    assert "is not shown to be better" in outcome.metrics["choice"]["reason"]
    config = json.loads((tmp_path / "out" / "bundle" / "adapter_config.json").read_text())
    assert config == {"peft_type": None, "task_type": "SEQ_CLS"}


def test_evidence_asked_for_is_in_the_metrics_and_the_report(
    write_recipe: Callable[..., Path], rows: Path, tmp_path: Path
) -> None:
    lines = rows.read_text(encoding="utf-8").splitlines()
    grouped = ["text,label,who", *(f"{line},{'ab'[i % 2]}" for i, line in enumerate(lines[1:]))]
    rows.write_text("\n".join(grouped), encoding="utf-8")
    (tmp_path / "oos.csv").write_text("text\nRome Oslo\nwent to Rome\nAnn met Bo\n", encoding="utf-8")
    recipe = write_recipe(
        data={"group_column": "who"},
        training={"seeds": [0, 1]},
        evaluation={"from_scratch": True, "learning_curve": [0.5], "out_of_scope": {"test_path": "oos.csv"}},
    )
    metrics = run(load_recipe(recipe), tmp_path / "out", force=True).metrics
    assert set(metrics["test"]["baselines"]) == {"majority", "head_only", "from_scratch"}
    assert len(metrics["seeds"]["test"]) == 2
    assert [point["rows"] for point in metrics["learning_curve"]] == [10]
    assert metrics["out_of_scope"]["rows"] == {"in_scope": 10, "out_of_scope": 3}
    assert set(metrics["fairness"]["groups"]) == {"a", "b"}
    assert 0.05 <= metrics["calibration"]["temperature"] <= 20
    report = (tmp_path / "out" / "report.html").read_text()
    for title in ("Calibration", "Learning curve", "Seeds"):
        assert title in report
