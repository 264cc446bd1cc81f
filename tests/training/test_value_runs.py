"""Whole runs for several labels and for numbers on a tiny BERT, against PEFT in transformers' pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rootstock.adapters.bundle import Bundle, Limits, open_bundle
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import locate
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.training.cli.app import app
from rootstock.training.fit.candidate import from_scratch, train_candidate
from rootstock.training.fit.descent import deterministic
from rootstock.training.fit.job import prepare
from rootstock.training.network.construction import new_network
from rootstock.training.network.files import load, save
from rootstock.training.network.network import outputs, simple_head
from rootstock.training.recipe.recipe_file import load_recipe
from rootstock.training.run import run

# peft 0.21 reads an attribute that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
MULTI, REGRESSION = "multi_label_classification", "regression"
_WORDS = {"good": ("good", "fine"), "bad": ("bad", "awful"), "place": ("rome", "oslo")}


@pytest.fixture
def values(tmp_path: Path) -> Path:
    """Forty-eight rows with up to three labels and a number, which the words of the text show."""
    lines = ["text,labels,stars"]
    for i in range(48):
        labels = [label for bit, label in enumerate(_WORDS) if i >> bit & 1]
        words = [_WORDS[label][i // 8 % 2] for label in labels]
        stars = 1000 + 40 * ("good" in labels) - 40 * ("bad" in labels) + i % 3
        lines.append(f"it was {' '.join(words)} with the {i} to the,{'|'.join(labels)},{stars}")
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


_KEYS: dict[str, dict[str, Any]] = {
    MULTI: {"label_column": "labels", "label_separator": "|"},
    REGRESSION: {"label_column": "stars"},
}


def pipeline_scores(
    foundation: Path, bundle: Bundle, folder: Path, texts: list[str], function: str | None
) -> list[dict[str, float]]:
    """Return the scores of transformers' pipeline on PEFT's model with the bundle's head as its classifier."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from torch.nn.functional import normalize
    from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast, pipeline
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    labels = bundle.manifest.labels
    config = AutoConfig.from_pretrained(
        foundation,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        problem_type=bundle.manifest.problem_type,
    )
    base = AutoModelForSequenceClassification.from_pretrained(foundation, config=config)
    model: Any = PeftModel.from_pretrained(base, folder).eval().merge_and_unload()
    head = load_file(folder / "adapter_model.safetensors")

    class MeanHead(torch.nn.Module):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return normalize(states.mean(1), dim=-1) @ head["head.weight"].T + head["head.bias"]

    class States(torch.nn.Module):
        def __init__(self, trunk: torch.nn.Module) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, *inputs: Any, **named: Any) -> Any:
            states = self.trunk(*inputs, **named).last_hidden_state
            return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=states)

    model.bert = States(model.bert)
    model.dropout, model.classifier = torch.nn.Identity(), MeanHead()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(foundation / "tokenizer.json"), pad_token="[PAD]")
    classify: Any = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    # The file pads and cuts at 8 tokens, which servers and trainers leave out.
    keys = {"padding": False, "truncation": True, "max_length": 32, "top_k": None}
    answers = [classify([text], function_to_apply=function, **keys)[0] for text in texts]
    return [{one["label"]: one["score"] for one in answer} for answer in answers]


@pytest.mark.parametrize(("problem", "function"), [(MULTI, "sigmoid"), (REGRESSION, "none")])
def test_a_run_gives_a_bundle_whose_answers_are_those_of_peft_in_transformers_pipeline(
    write_recipe: Callable[..., Path],
    values: Path,
    tmp_path: Path,
    tiny_bert: Path,
    problem: str,
    function: str,
) -> None:
    recipe = write_recipe(
        problem_type=problem, data=_KEYS[problem], training={"num_train_epochs": 4, "learning_rate": 5e-3}
    )
    outcome = run(load_recipe(recipe), tmp_path / "out", force=True)
    spec = describe(locate(str(tiny_bert)))
    bundle = open_bundle(outcome.results.zip.read_bytes(), Limits(), spec)
    adapter = bundle.adapter(spec, 64)
    assert adapter.problem_type == problem
    assert any(pair.b.any() for pair in adapter.weights.sites.values())
    golden = bundle.golden()
    assert golden is not None
    texts = [text for text in golden.inputs if isinstance(text, str)]
    # Left to itself the pipeline takes the function of the problem type; its answers are the server's.
    for wanted in (None, function):
        theirs = pipeline_scores(tiny_bert, bundle, outcome.results.bundle, texts, wanted)
        for raw, scores in zip(golden.outputs, theirs, strict=True):
            parameters = {"top_k": None} if wanted is None else {"top_k": None, "function_to_apply": wanted}
            served = TASKS["text-classification"].predict([raw], [], adapter, parameters, None)  # type: ignore[arg-type]
            ours = {one["label"]: one["score"] for one in served}
            assert ours == pytest.approx(scores, rel=1e-4, abs=1e-4)
    metrics = json.loads(outcome.results.metrics.read_text(encoding="utf-8"))
    assert metrics["problem_type"] == problem
    report = outcome.results.report.read_text(encoding="utf-8")
    card = bundle.files["README.md"].decode()
    if problem == MULTI:
        assert adapter.calibration is not None
        assert set(metrics["test"]["adapter"]["labels"]) == set(_WORDS)
        assert "right sets" in report
        assert "one applies from a score of 0.5 on" in card
    else:
        assert adapter.calibration is None
        assert (adapter.labels, metrics["labels"]) == (("stars",), ["stars"])
        # The scale of the numbers is in the head: without it no answer is near 1000.
        assert all(900 < output[0] < 1100 for output in golden.outputs)
        assert "Largest errors" in report
        assert (outcome.results.folder / "plots" / "numbers.png").is_file()
        assert "`stars` is a number" in card


def call(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr or result.output
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 2, result.output
    return " ".join((result.stderr or result.output).split())


@pytest.mark.parametrize("problem", [MULTI, pytest.param(REGRESSION, marks=pytest.mark.slow)])
def test_the_commands_measure_an_adapter_or_refuse_its_problem_by_name(
    write_recipe: Callable[..., Path], values: Path, tmp_path: Path, tiny_bert: Path, problem: str
) -> None:
    recipe = write_recipe(problem_type=problem, data=_KEYS[problem], peft={"method": "head_only"})
    made = call("run", recipe, "--output-dir", tmp_path / "out")
    again = call("run", tmp_path / "out" / "recipe.yaml", "--output-dir", tmp_path / "again")
    assert again["digest"] == made["digest"]
    assert call("validate", recipe)["rows"] == made["rows"]
    columns = ["--label-column", _KEYS[problem]["label_column"], "--foundation", tiny_bert]
    columns += ["--label-separator", "|"] if problem == MULTI else []
    score = "micro_f1" if problem == MULTI else "r2"
    figures = call("evaluate", made["zip"], values, *columns)
    assert figures["rows"] == 48
    assert figures["intervals"][score][0] <= figures[score] <= figures["intervals"][score][1]
    if problem == MULTI:
        lines = ["text,good,bad,place"]
        for line in values.read_text(encoding="utf-8").splitlines()[1:]:
            text, labels, _ = line.split(",")
            lines.append(",".join([text, *(str(int(label in labels.split("|"))) for label in _WORDS)]))
        (tmp_path / "flags.csv").write_text("\n".join(lines), encoding="utf-8")
        assert call("evaluate", made["zip"], tmp_path / "flags.csv", "--foundation", tiny_bert) == figures
    compared = call("compare", made["zip"], again["zip"], values, *columns)
    assert (compared["first"], compared["paired"]["wins"]) == (compared["second"], 0)
    scores = call("cv", recipe, "--folds", "2")["methods"]["head_only"]["scores"]
    assert len(scores) == 2
    space = {"trials": 1, "space": {"training.weight_decay": {"choices": [0.0]}}}
    swept = call(
        "sweep", write_recipe(problem_type=problem, data=_KEYS[problem], peft={"method": "head_only"}, hpo=space)
    )
    assert np.isfinite(swept["best"]["score"])
    assert {one["kind"] for one in call("audit", recipe)["findings"]} <= {
        "near_duplicate",
        "near_conflict",
        "label_noise",
    }
    for command in (["rank-base", recipe], ["federate", recipe], ["bench", recipe], ["study", recipe]):
        assert f"problem_type: this command is for one label an input; {problem} has run" in refused(*command)
    (tmp_path / "texts.csv").write_text("text\nit was good\n", encoding="utf-8")
    for command in (["suggest", made["zip"], tmp_path / "texts.csv"], ["explain", made["zip"], "it was good"]):
        assert f"the problem type of this one is {problem}" in refused(*command, "--foundation", tiny_bert)


@pytest.mark.slow
@pytest.mark.parametrize("problem", [MULTI, REGRESSION])
def test_seeds_shares_of_rows_and_random_weights_are_measured_by_the_problem_s_score(
    write_recipe: Callable[..., Path], values: Path, tmp_path: Path, problem: str
) -> None:
    recipe = write_recipe(
        problem_type=problem,
        data=_KEYS[problem],
        training={"seeds": [1, 2], "learning_rate": 5e-3},
        augmentation={"word_dropout": 0.1, "token_dropout": 0.1},
        evaluation={"learning_curve": [0.5], "from_scratch": True},
    )
    metrics = run(load_recipe(recipe), tmp_path / "out", force=True).metrics
    score = "micro_f1" if problem == MULTI else "r2"
    figures = metrics["test"]["adapter"][score]
    assert metrics["seeds"]["test"][0] == pytest.approx(figures, abs=5e-4)
    assert len(metrics["seeds"]["test"]) == 2
    assert [point["rows"] for point in metrics["learning_curve"]] == [12]
    assert score in metrics["test"]["baselines"]["from_scratch"]
    best = max(epoch[f"validation_{'f1' if problem == MULTI else 'r2'}"] for epoch in metrics["epochs"])
    assert best == pytest.approx(max(metrics["seeds"]["validation"]), abs=0.3)
    assert all(epoch["validation_loss"] < 3 for epoch in metrics["epochs"])


def test_numbers_in_another_unit_train_the_same_adapter(
    write_recipe: Callable[..., Path], values: Path, tmp_path: Path
) -> None:
    header, *lines = values.read_text(encoding="utf-8").splitlines()
    scaled = [f"{line.rpartition(',')[0]},{int(line.rpartition(',')[2]) / 1000}" for line in lines]
    (tmp_path / "scaled.csv").write_text("\n".join([header, *scaled]), encoding="utf-8")
    answers = []
    for path in ("rows.csv", "scaled.csv"):
        data = {"path": path, **_KEYS[REGRESSION]}
        recipe = write_recipe(problem_type=REGRESSION, data=data, training={"learning_rate": 5e-3})
        job = prepare(load_recipe(recipe))
        with deterministic(0):
            head = train_candidate("head_only", job.training_rows, job.plan())
            trained = train_candidate("lora", job.training_rows, job.plan())
        answers.append([np.stack(one.predict(job.inputs("test"))) for one in (head, trained)])
    assert np.abs(answers[0][1] - answers[0][0]).max() > 1
    for ours, scaled_answers in zip(*answers, strict=True):
        np.testing.assert_allclose(1000 * scaled_answers, ours, atol=0.05)


@pytest.mark.usefixtures("values")
def test_a_bundle_in_float16_keeps_the_scale_of_its_numbers(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = write_recipe(problem_type=REGRESSION, data=_KEYS[REGRESSION], save_dtype="float16")
    job = prepare(load_recipe(recipe))
    network = new_network(job.network, None, 0, job.encoder.device)
    for scale in (300_000.0, 2001.3):
        with torch.no_grad():
            simple_head(network).bias.fill_(scale)
        save(network, job.network, tmp_path)
        inputs = job.inputs("test")
        np.testing.assert_allclose(
            outputs(load(tmp_path, job.network), inputs), outputs(network, inputs), rtol=0, atol=scale * 1e-6
        )


def test_numbers_far_from_0_train_random_weights_as_numbers_near_0_do(
    write_recipe: Callable[..., Path], values: Path, tmp_path: Path
) -> None:
    header, *lines = values.read_text(encoding="utf-8").splitlines()
    shifted = [f"{line.rpartition(',')[0]},{int(line.rpartition(',')[2]) - 1000}" for line in lines]
    (tmp_path / "shifted.csv").write_text("\n".join([header, *shifted]), encoding="utf-8")
    answers = []
    for path in ("rows.csv", "shifted.csv"):
        data = {"path": path, **_KEYS[REGRESSION]}
        job = prepare(load_recipe(write_recipe(problem_type=REGRESSION, data=data)))
        with deterministic(0):
            trained = from_scratch(job.training_rows, job.plan())
        answers.append(np.stack(trained.predict(job.inputs("test"))))
    np.testing.assert_allclose(answers[1] + 1000, answers[0], atol=0.05)
