"""Whole runs for rewritten text on tiny foundations: the bundle, the gate, and the text that a server gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from typer.testing import CliRunner

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.training.cli.app import app
from rootstock.training.errors import BelowBaseline, DataError, RecipeError
from rootstock.training.recipe.recipe_file import load_recipe
from rootstock.training.results import RunResult
from rootstock.training.run import run
from tests.live_server import RunningServer
from tests.marks import slow_except
from tests.peft_adapters import PeftAdapter, peft_model
from tests.service.engine.generate.families import make_decoder
from tests.service.engine.generate.rewriters import TinyRewriter, make_rewriter
from tests.training.generation_recipe import serve_outcome, write_generation_recipe, write_rows

LEARNED = {"num_train_epochs": 12, "learning_rate": 0.02}


@pytest.fixture(scope="module", params=slow_except(["t5"], ["t5", "bart"]))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyRewriter:
    return make_rewriter(request.param, tmp_path_factory.mktemp(request.param) / "tiny")


@pytest.fixture(scope="module")
def folder(tiny: TinyRewriter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"run-{tiny.name}")
    write_rows(folder)
    return folder


@pytest.fixture(scope="module")
def outcome(tiny: TinyRewriter, folder: Path) -> RunResult:
    """A run that learns its rows."""
    return run(load_recipe(write_generation_recipe(folder, tiny, training=LEARNED)), folder / "out")


@pytest.fixture(scope="module")
def server(
    tiny: TinyRewriter, outcome: RunResult, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server of the foundation with the run's adapter, which it has verified."""
    with serve_outcome(tmp_path_factory.mktemp("home"), tiny, outcome) as running:
        yield running


def saved(outcome: RunResult) -> PeftAdapter:
    """The bundle's files, as PEFT reads them."""
    return PeftAdapter(outcome.results.bundle, "SEQ_2_SEQ_LM", 0)


def call(*arguments: object) -> Any:
    """Return the document that a command prints with --json."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr or result.output
    return json.loads(result.stdout)


def test_a_run_leaves_a_bundle_of_the_task(outcome: RunResult, tiny: TinyRewriter) -> None:
    bundle = open_bundle(outcome.results.zip.read_bytes(), Limits(), tiny.spec)
    adapter = bundle.adapter(tiny.spec, 64, tiny.weights)
    assert (adapter.task, adapter.labels, adapter.digest) == ("text2text-generation", (), outcome.digest)
    assert (adapter.head.kind, adapter.prompting.system_prompt) == ("seq2seq-lm", None)
    assert adapter.preprocessing.max_length == tiny.spec.max_tokens
    sites = adapter.weights.sites
    assert any(name.startswith("encoder.") for name in sites)
    assert any(name.startswith("decoder.") for name in sites)


def test_golden_tokens_are_those_of_peft_s_generate(outcome: RunResult, tiny: TinyRewriter) -> None:
    golden = open_bundle(outcome.results.zip.read_bytes(), Limits(), tiny.spec).golden()
    assert golden is not None
    assert len(golden.inputs) >= 8
    assert tiny.spec.seq2seq_lm is not None
    model, tokenizer = peft_model(tiny.folder, saved(outcome)), AutoTokenizer.from_pretrained(tiny.folder)
    for text, output in zip(golden.inputs, golden.outputs, strict=True):
        ids = tokenizer(text).input_ids
        tokens = output[:, 0].astype(int).tolist()
        assert tokens == tiny.greedy(saved(outcome), ids, len(tokens))
        before = torch.tensor([[tiny.spec.seq2seq_lm.start_id, *tokens[:-1]]])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), decoder_input_ids=before).logits[0]
        scores = logits.log_softmax(-1)[torch.arange(len(tokens)), tokens]
        np.testing.assert_allclose(output[:, 1], scores.numpy(), atol=1e-4)


def served_text(client: httpx.Client, prompt: str) -> dict[str, Any]:
    body = {"model": "tiny-writer", "prompt": prompt, "temperature": 0, "max_tokens": 12}
    answer: dict[str, Any] = client.post("/v1/completions", json=body).json()
    return answer


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
def test_the_served_text_is_peft_s_greedy_text(
    server: RunningServer, outcome: RunResult, tiny: TinyRewriter
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    with server.client() as client:
        for prompt in ("kettle: red", "boat: grey", "something else"):
            expected = tokenizer.decode(
                tiny.greedy(saved(outcome), tokenizer(prompt).input_ids, 12), skip_special_tokens=True
            )
            answer = served_text(client, prompt)
            assert answer["digest"] == outcome.digest
            assert answer["choices"][0]["text"].rstrip("\ufffd") == expected.rstrip("\ufffd")


def test_figures_report_and_card_state_the_adapter_beside_the_foundation(outcome: RunResult) -> None:
    metrics = json.loads(outcome.results.metrics.read_text(encoding="utf-8"))
    test = metrics["test"]
    assert test["adapter"]["perplexity"] < test["baselines"]["prompted"]["perplexity"]
    assert {"rougeL", "bleu", "exact_match"} <= set(test["adapter"])
    report = (outcome.results.folder / "report.md").read_text(encoding="utf-8")
    card = (outcome.results.bundle / "README.md").read_text(encoding="utf-8")
    for page in (report, card):
        assert "the foundation with 0 examples in its prompt" in page
        assert metrics["samples"][0]["prompt"] in page
    assert "Text to send, with the columns of a row in braces" in card
    assert "pipeline_tag: text2text-generation" in card


def test_a_run_that_was_killed_and_the_recipe_that_it_leaves_give_the_same_digest(
    outcome: RunResult, tmp_path: Path
) -> None:
    source = load_recipe(outcome.results.folder / "recipe.yaml")
    steps: list[int] = []

    def report(done: int, total: int, note: str, rate: float = 0.0, /) -> None:
        steps.append(done)
        if len(steps) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "again", report)
    assert run(source, tmp_path / "again").digest == outcome.digest


def test_an_adapter_that_is_no_better_than_the_foundation_is_refused_without_force(
    tiny: TinyRewriter, folder: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path)
    source = load_recipe(write_generation_recipe(tmp_path, tiny, training={"learning_rate": 1e-30}))
    with pytest.raises(BelowBaseline, match="no better than the foundation with 0 examples"):
        run(source, tmp_path / "out")
    kept = run(source, tmp_path / "out", force=True)
    assert "kept by --force" in kept.metrics["choice"]["reason"]


def test_evaluate_gives_the_figures_of_the_run_and_those_of_the_served_adapter(
    outcome: RunResult, server: RunningServer, tiny: TinyRewriter, folder: Path
) -> None:
    recipe, rows = outcome.results.folder / "recipe.yaml", folder / "rows.csv"
    here = call("evaluate", outcome.results.zip, rows, "--recipe", recipe, "--foundation", tiny.folder)
    assert here["rows"] == 48
    served = call("evaluate", "tiny-writer", rows, "--recipe", recipe, "--server", server.url)
    # A server leaves out the bytes at an answer's end that are no whole character.
    ours, theirs = ([one["answer"].rstrip("\ufffd") for one in answers["answers"]] for answers in (here, served))
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    # A batch of answers may differ from one computed alone where two tokens are about equally likely.
    assert same >= 46
    assert served["rougeL"] == pytest.approx(here["rougeL"], abs=0.02)


def test_validate_shows_a_text_as_the_encoder_reads_it(outcome: RunResult) -> None:
    checked = call("validate", outcome.results.folder / "recipe.yaml")
    assert checked["prompt"] == "cup: red"
    assert checked["longest"] < checked["tokens"] / checked["rows"]["train"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generation": {"max_new_tokens": 128}}, r"a prompt has .* takes 128 each"),
        ({"training": {"max_length": 3}}, r"training\.max_length: every row is longer than 3 tokens"),
        ({"generation": {"shots": 30}}, r"lower generation\.shots"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused_before_it_is(
    tiny: TinyRewriter, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_rows(tmp_path)
    with pytest.raises((RecipeError, DataError), match=message):
        run(load_recipe(write_generation_recipe(tmp_path, tiny, **changes)), tmp_path / "out")


def test_a_foundation_of_the_other_kind_is_refused_with_the_task_type_that_fits(
    tiny: TinyRewriter, tmp_path: Path
) -> None:
    write_rows(tmp_path)
    path = write_generation_recipe(tmp_path, tiny, task_type="CAUSAL_LM")
    said = (
        r"CAUSAL_LM needs a foundation with a decoder alone; tiny has an encoder too; set SEQ_2_SEQ_LM, or choose"
    )
    with pytest.raises(RecipeError, match=said):
        run(load_recipe(path), tmp_path / "out")
    decoder = make_decoder("llama", tmp_path / "decoder")
    path = write_generation_recipe(tmp_path, tiny, base_model=str(decoder.folder))
    said = "needs a foundation with an encoder and a decoder; decoder has a decoder alone; set CAUSAL_LM, or"
    with pytest.raises(RecipeError, match=said):
        run(load_recipe(path), tmp_path / "out")


def test_the_foundation_gets_no_examples_unless_the_recipe_asks_for_them(
    tiny: TinyRewriter, tmp_path: Path
) -> None:
    write_rows(tmp_path)
    source = load_recipe(write_generation_recipe(tmp_path, tiny, generation={"shots": 2}))
    assert source.recipe.generation.shots == 2
    value = source.recipe.model_dump(mode="json", exclude_unset=True)
    del value["generation"]
    assert type(source.recipe).model_validate(value).generation.shots == 0
    assert type(source.recipe).model_validate({**value, "task_type": "CAUSAL_LM"}).generation.shots == 3
