"""Whole runs for generated text on a tiny foundation: the bundle, the gate, and the text that a server gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from typer.testing import CliRunner

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.bundle.archive import CARD
from rootstock.adapters.spec import Prompting
from rootstock.training.cli.app import app
from rootstock.training.errors import BelowBaseline, DataError
from rootstock.training.recipe.recipe_file import load_recipe
from rootstock.training.results import RunResult
from rootstock.training.run import run
from rootstock.training.study.text_assessment import assess_text
from tests.live_server import RunningServer
from tests.peft_adapters import PeftAdapter, peft_model
from tests.service.engine.generate.families import TinyDecoder, make_decoder
from tests.training.generation_recipe import serve_outcome, write_generation_recipe, write_rows

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
LEARNED = {"num_train_epochs": 12, "learning_rate": 0.02}


def call(*arguments: object) -> Any:
    """What a command prints with --json."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr or result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_rows(folder)
    return folder


@pytest.fixture(scope="module")
def outcome(tiny: TinyDecoder, folder: Path) -> RunResult:
    """A run that learns its rows."""
    return run(load_recipe(write_generation_recipe(folder, tiny, training=LEARNED)), folder / "out")


@pytest.fixture(scope="module")
def server(
    tiny: TinyDecoder, outcome: RunResult, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server of the foundation with the run's adapter."""
    with serve_outcome(tmp_path_factory.mktemp("home"), tiny, outcome) as running:
        yield running


def peft(outcome: RunResult, tiny: TinyDecoder) -> Any:
    """PEFT's model of the bundle's files."""
    return peft_model(tiny.folder, PeftAdapter(outcome.results.bundle, "CAUSAL_LM", 0))


def test_a_reference_beyond_the_context_is_refused_before_anything_is_trained(
    tiny: TinyDecoder, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path)
    long = "a very long text " * 60
    (tmp_path / "test.csv").write_text(f"thing,colour,text\ncup,pink,{long}\n", encoding="utf-8")
    splits = {"strategy": "given", "val_size": 0.2}
    data = {"path": rows.name, "test_path": "test.csv", "splits": splits}
    path = write_generation_recipe(tmp_path, tiny, data=data)
    with pytest.raises(DataError, match=r"tokens together; .* takes 128; shorten"):
        run(load_recipe(path), tmp_path / "out")


def test_a_run_leaves_a_bundle_of_the_task_with_its_system_prompt(outcome: RunResult, tiny: TinyDecoder) -> None:
    bundle = open_bundle(outcome.results.zip.read_bytes(), Limits(), tiny.spec)
    adapter = bundle.adapter(tiny.spec, 64, tiny.weights)
    assert (adapter.task, adapter.labels, adapter.digest) == ("text-generation", (), outcome.digest)
    assert adapter.prompting.system_prompt == "Be brief."
    assert adapter.preprocessing.max_length == tiny.spec.max_tokens
    assert str(tiny.folder) not in "".join(
        content.decode("utf-8", "replace")
        for name, content in bundle.files.items()
        if name.endswith(("json", "md"))
    )


def test_a_run_leaves_a_bundle_with_the_chat_template_of_its_recipe(tiny: TinyDecoder, tmp_path: Path) -> None:
    write_rows(tmp_path)
    template = "{{ bos_token }}{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}a:"
    path = write_generation_recipe(tmp_path, tiny, training=LEARNED, prompts={"chat_template": template})
    done = run(load_recipe(path), tmp_path / "out")
    bundle = open_bundle(done.results.zip.read_bytes(), Limits(), tiny.spec)
    assert bundle.manifest.prompting == Prompting("Be brief.", template)
    assert "    {{ bos_token }}{% for m in messages %}" in bundle.files[CARD].decode()
    golden = bundle.golden()
    assert golden is not None
    assert all(text.startswith("<|im_start|>s:Be brief.\nu:") for text in golden.inputs)
    figures = assess_text(done.results.zip, str(tiny.folder), tmp_path / "rows.csv", path)
    assert figures["rows"] > 0


def test_golden_tokens_are_peft_s_own(outcome: RunResult, tiny: TinyDecoder) -> None:
    golden = open_bundle(outcome.results.zip.read_bytes(), Limits(), tiny.spec).golden()
    assert golden is not None
    assert 8 <= len(golden.inputs) <= 16
    model, tokenizer = peft(outcome, tiny), AutoTokenizer.from_pretrained(tiny.folder)
    for text, output in zip(golden.inputs, golden.outputs, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        tokens = output[:, 0].astype(int).tolist()
        with torch.no_grad():
            logits = model(input_ids=torch.cat([ids, torch.tensor([tokens])], 1)).logits[0, ids.shape[1] - 1 : -1]
        assert logits.argmax(-1).tolist() == tokens
        scores = logits.log_softmax(-1)[torch.arange(len(tokens)), tokens]
        np.testing.assert_allclose(output[:, 1], scores.numpy(), atol=1e-4)


def test_the_served_text_is_peft_s_greedy_text(
    server: RunningServer, outcome: RunResult, tiny: TinyDecoder
) -> None:
    model, tokenizer = peft(outcome, tiny), AutoTokenizer.from_pretrained(tiny.folder)
    for prompt in ("kettle: red", "boat: grey", "something else"):
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            out = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
        expected = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        with server.client() as client:
            body = {"model": "tiny-writer", "messages": chat[1:], "temperature": 0, "max_tokens": 12}
            served = client.post("/v1/chat/completions", json=body).json()
        assert served["digest"] == outcome.digest
        assert served["choices"][0]["message"]["content"].rstrip("\ufffd") == expected.rstrip("\ufffd")


def test_figures_report_and_card_state_the_adapter_beside_the_prompted_foundation(outcome: RunResult) -> None:
    metrics = json.loads(outcome.results.metrics.read_text(encoding="utf-8"))
    test = metrics["test"]
    assert test["adapter"]["perplexity"] < test["baselines"]["prompted"]["perplexity"]
    compared = test["comparison"]["prompted"]
    assert compared["metric"] == "perplexity"
    low, high = compared["interval"]
    assert 0 < low <= compared["difference"] <= high
    assert metrics["cost"]["tokens_per_second"] > 0
    report = (outcome.results.folder / "report.md").read_text(encoding="utf-8")
    card = (outcome.results.bundle / "README.md").read_text(encoding="utf-8")
    for page in (report, card):
        assert "the foundation with 1 example in its prompt" in page
        assert "95 % interval" in page
        assert metrics["samples"][0]["prompt"] in page
    assert "tokens trained a second" in report
    assert "minutes" in report
    assert "second" not in card


def test_the_recipe_that_a_run_leaves_gives_the_same_digest_again(outcome: RunResult, tmp_path: Path) -> None:
    again = run(load_recipe(outcome.results.folder / "recipe.yaml"), tmp_path / "again")
    assert again.digest == outcome.digest


@pytest.mark.parametrize(
    ("metric", "epochs"), [("perplexity", {"learning_rate": 1e-30}), ("exact_match", {"learning_rate": 1e-30})]
)
def test_an_adapter_that_is_no_better_than_the_prompted_foundation_is_refused_without_force(
    tiny: TinyDecoder, folder: Path, tmp_path: Path, metric: str, epochs: dict[str, Any]
) -> None:
    generation = {"shots": 0, "metric": metric}
    source = load_recipe(write_generation_recipe(folder, tiny, training=epochs, generation=generation))
    with pytest.raises(BelowBaseline, match=f"no better than the foundation with 0 examples .*{metric}.*--force"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out" / "bundle").exists()
    notes: list[str] = []
    kept = run(source, tmp_path / "out", lambda done, total, note, *rate: notes.append(note), force=True)
    assert "kept by --force" in kept.metrics["choice"]["reason"]
    assert not [note for note in notes if "epoch" in note], "the weights of the refused run are there"


@pytest.mark.parametrize("method", ["dora", "ia3"])
def test_other_kinds_of_adapters_are_trained_too(
    tiny: TinyDecoder, folder: Path, tmp_path: Path, method: str
) -> None:
    peft = {"method": method, "use_rslora": method == "dora"}
    source = load_recipe(write_generation_recipe(folder, tiny, peft=peft, training={"learning_rate": 0.02}))
    outcome = run(source, tmp_path / "out", force=True)
    bundle = open_bundle(outcome.results.zip.read_bytes(), Limits(), tiny.spec)
    assert bundle.adapter(tiny.spec, 64, tiny.weights).weights.sites
    losses = [epoch["loss"] for epoch in outcome.metrics["epochs"]]
    assert losses[-1] < losses[0]


def test_evaluate_gives_the_figures_of_the_run_and_those_of_the_served_adapter(
    outcome: RunResult, server: RunningServer, tiny: TinyDecoder, folder: Path
) -> None:
    recipe, rows = folder / "recipe.yaml", folder / "rows.csv"
    here = call("evaluate", outcome.results.zip, rows, "--recipe", recipe, "--foundation", tiny.folder)
    assert here["rows"] == 48
    served = call("evaluate", "tiny-writer", rows, "--recipe", recipe, "--server", server.url)
    assert "perplexity" not in served
    same = sum(a["answer"] == b["answer"] for a, b in zip(here["answers"], served["answers"], strict=True))
    # A batch of answers may differ from one computed alone where two tokens are about equally likely.
    assert same >= 46
    assert served["rougeL"] == pytest.approx(here["rougeL"], abs=0.02)


def test_validate_shows_a_prompt_as_the_foundation_reads_it(tiny: TinyDecoder, folder: Path) -> None:
    checked = call("validate", write_generation_recipe(folder, tiny))
    assert checked["prompt"].startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert checked["prompt"].endswith("<|im_start|>assistant\n")
    assert checked["rows"]["train"] > 20
    assert checked["too_long"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generation": {"metric": "valid_json"}}, "generation.metric: valid_json needs answers that are JSON"),
        ({"generation": {"max_new_tokens": 120}}, "generation: a prompt has"),
        ({"training": {"max_length": 5}}, "training.max_length: every row is longer than 5 tokens"),
        ({"training": {"max_length": 500}}, "training.max_length: 500; tiny takes 128 tokens"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused_before_it_is(
    tiny: TinyDecoder, folder: Path, changes: dict[str, Any], message: str
) -> None:
    result = CliRunner().invoke(app, ["validate", str(write_generation_recipe(folder, tiny, **changes))])
    assert result.exit_code == 2
    assert message in result.stderr


def test_commands_for_classifiers_refuse_a_recipe_for_generated_text(tiny: TinyDecoder, folder: Path) -> None:
    for command in ("cv", "audit", "bench", "rank-base", "sweep", "federate"):
        result = CliRunner().invoke(app, [command, str(write_generation_recipe(folder, tiny))])
        assert result.exit_code == 2
        assert "task_type: this command is for classifiers" in result.stderr


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS", "CAUSAL_LM", "SEQ_2_SEQ_LM"])
def test_init_writes_a_valid_recipe_and_never_over_a_file(tmp_path: Path, task_type: str) -> None:
    path = tmp_path / "new.yaml"
    assert call("init", path, "--task-type", task_type)["task_type"] == task_type
    assert load_recipe(path).recipe.task_type == task_type
    again = CliRunner().invoke(app, ["init", str(path)])
    assert again.exit_code == 2
    assert "the file exists; choose another name" in again.stderr
