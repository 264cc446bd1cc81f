"""Training to rewrite text: losses and greedy answers are transformers' own, whatever the batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from rootstock.adapters.foundation.location import locate
from rootstock.adapters.language_model import Seq2SeqLM
from rootstock.adapters.tasks import task_named
from rootstock.training import text_export
from rootstock.training.data.prompt_encoding import SourceEncoder, SourceRow
from rootstock.training.data.text_pairs import PromptPair
from rootstock.training.errors import DataError
from rootstock.training.fit.checkpoint import Checkpoints
from rootstock.training.fit.completions import negative_log_likelihoods, train_completions
from rootstock.training.fit.descent import copy_of, deterministic
from rootstock.training.network.construction import new_network
from rootstock.training.network.language_passes import passes_of
from rootstock.training.network.network import Network
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.network.text_generator import adapter_off, greedy
from rootstock.training.recipe.recipe import Peft, Training
from tests.marks import slow_except
from tests.service.engine.generate.families import END, save_tokenizer
from tests.service.engine.generate.rewriters import FAST, REWRITERS, TinyRewriter, make_rewriter

CPU = torch.device("cpu")
ROWS = tuple(
    SourceRow(tuple(range(3, 3 + source)), (*range(40, 40 + target), 2))
    for source, target in ((5, 3), (2, 9), (11, 1), (4, 4), (7, 6), (3, 2), (9, 9), (6, 5))
)
USER = {"role": "user", "content": "a red cup"}


@pytest.fixture(scope="module", params=slow_except(FAST, REWRITERS))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyRewriter:
    return make_rewriter(request.param, tmp_path_factory.mktemp(request.param) / "tiny")


@pytest.fixture(scope="module", params=["t5", "bart"])
def one_of_two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyRewriter:
    return make_rewriter(request.param, tmp_path_factory.mktemp(request.param) / "tiny")


def spec_of(tiny: TinyRewriter, **peft: Any) -> NetworkSpec:
    task = task_named("text2text-generation")
    task_class = tiny.spec.class_for(task.name)
    names = [name.removeprefix(task_class.prefix) for name in task_class.linears]
    return NetworkSpec(locate(str(tiny.folder)), tiny.spec, task, 0, names, Peft(**{"r": 4, **peft}))


def network_of(tiny: TinyRewriter) -> Network:
    """A network whose adapter changes the foundation, as after a training."""
    network = new_network(spec_of(tiny), "lora", 0, CPU)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.train(False)
    return network


def transformers_loss(tiny: TinyRewriter, model: Any, row: SourceRow) -> float:
    """The loss that transformers gives for the labels of one row, with the start token of the answers served."""
    assert tiny.spec.seq2seq_lm is not None
    model.config.decoder_start_token_id = tiny.spec.seq2seq_lm.start_id
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([row.prompt]), labels=torch.tensor([row.answer])).loss)


def test_the_loss_is_that_of_transformers_for_the_target_as_labels(tiny: TinyRewriter) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny.folder).eval()
    network = new_network(spec_of(tiny), "lora", 0, CPU)
    for row, (value, count) in zip(ROWS, negative_log_likelihoods(network, ROWS, 64), strict=True):
        assert count == len(row.answer)
        assert value / count == pytest.approx(transformers_loss(tiny, model, row), rel=1e-4)


def test_rows_in_one_batch_have_the_losses_that_each_has_alone(tiny: TinyRewriter) -> None:
    network = network_of(tiny)
    passes = passes_of(network)
    with torch.no_grad():
        together = passes.losses(ROWS)
        alone = torch.cat([passes.losses([row]) for row in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    expected = [transformers_loss(tiny, network.task_model, row) for row in ROWS]
    means = [float(part.mean()) for part in together.split([len(row.answer) for row in ROWS])]
    assert means == pytest.approx(expected, rel=1e-4)


def test_greedy_answers_in_batches_are_transformers_own_up_to_their_ends(tiny: TinyRewriter) -> None:
    network = new_network(spec_of(tiny), "lora", 0, CPU)
    assert tiny.spec.seq2seq_lm is not None
    with adapter_off(network):
        answers = greedy(network, [row.prompt for row in ROWS], 12)
    for row, answer in zip(ROWS, answers, strict=True):
        expected = tiny.greedy(None, row.prompt, 12)
        ends = [at for at, token in enumerate(expected) if token in tiny.spec.seq2seq_lm.stop_ids]
        assert answer == expected[: ends[0] if ends else 12]


@pytest.fixture
def ending_bart(tmp_path: Path) -> TinyRewriter:
    """A BART that ends every answer as soon as its rules allow it."""
    bart = make_rewriter("bart", tmp_path / "tiny")
    model = AutoModelForSeq2SeqLM.from_pretrained(bart.folder)
    model.final_logits_bias[0, 2] += 100
    model.save_pretrained(bart.folder)
    return bart


def test_an_answer_has_as_many_tokens_as_the_checkpoint_s_rules_ask_for(ending_bart: TinyRewriter) -> None:
    network = new_network(spec_of(ending_bart), "lora", 0, CPU)
    (answer,) = greedy(network, [ROWS[0].prompt], 12)
    assert [*answer, 2] == ending_bart.greedy(None, ROWS[0].prompt, 12)
    assert len(answer) == 6


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.parametrize("least_lead", [0.01, 1e9])
def test_golden_tokens_are_those_of_an_answer_of_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least_lead: float
) -> None:
    monkeypatch.setattr(text_export, "_LEAST_LEAD", least_lead)
    bart = make_rewriter("bart", tmp_path / "tiny")
    assert bart.spec.seq2seq_lm is not None
    encoder = SourceEncoder(bart.folder, bart.spec.seq2seq_lm)
    golden = text_export.text_golden(new_network(spec_of(bart), "lora", 0, CPU), encoder, [USER["content"]])
    (output,) = golden.outputs
    tokens = output[:, 0].astype(int).tolist()
    # With the larger lead only the token that a rule forces is clear, and the end of one token is forced too.
    assert tokens == bart.greedy(None, encoder.plain(USER["content"]), len(tokens))
    assert (tokens == [2]) == (least_lead > 1)


SETTINGS = Training(
    learning_rate=0.01, num_train_epochs=3, per_device_train_batch_size=4, lr_scheduler_type="cosine"
)


class Killed(Exception):
    pass


def trained(
    tiny: TinyRewriter, settings: Training, checkpoints: Checkpoints | None = None, kill_at: int | None = None
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The weights after a training, and the loss of each epoch."""
    steps: list[int] = []

    def report(done: int, total: int, note: str, rate: float = 0.0, /) -> None:
        steps.append(done)
        if len(steps) == kill_at:
            raise Killed

    with deterministic(0):
        network = new_network(spec_of(tiny, lora_dropout=0.1), "lora", 0, CPU)
        fit = train_completions(network, ROWS, ROWS[:3], settings, 0, "fit", report, checkpoints)
    return copy_of(network.parameters()), [epoch.loss for epoch in fit.epochs]


def test_the_loss_falls(one_of_two: TinyRewriter) -> None:
    _, losses = trained(one_of_two, SETTINGS.model_copy(update={"num_train_epochs": 12}))
    # The logits of a tiny T5 are small, so its loss stays near that of equal probabilities.
    assert losses[-1] < 0.92 * losses[0]


@pytest.mark.parametrize("kill_at", [2, 3])
def test_a_run_killed_at_any_step_ends_with_the_weights_of_one_that_was_not(
    one_of_two: TinyRewriter, tmp_path: Path, kill_at: int
) -> None:
    whole, _ = trained(one_of_two, SETTINGS)
    checkpoints = Checkpoints(tmp_path / "resume", "one run")
    with pytest.raises(Killed):
        trained(one_of_two, SETTINGS, checkpoints, kill_at)
    resumed, _ = trained(one_of_two, SETTINGS, checkpoints)
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens_per_batch": 40},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True},
    ],
    ids=["parts", "accumulation", "checkpointing"],
)
def test_the_parts_of_a_step_and_what_is_kept_of_it_do_not_change_the_result(
    one_of_two: TinyRewriter, changes: dict[str, Any]
) -> None:
    # Adam moves a parameter by the sign of a gradient that is nearly 0, so few steps are compared by their loss.
    losses = []
    for update in ({}, changes):
        settings = SETTINGS.model_copy(update={"num_train_epochs": 2, **update})
        with deterministic(0):
            spec = spec_of(one_of_two)
            # The dropout of the foundation would draw other numbers.
            network = new_network(NetworkSpec(**{**vars(spec), "dropout": 0.0}), "lora", 0, CPU)
            fit = train_completions(network, ROWS, ROWS[:3], settings, 0, "fit")
        losses.append([epoch.loss for epoch in fit.epochs])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("single", ["$A <|im_end|>", "<|im_start|> $A <|im_end|>", "$A"])
def test_source_and_target_have_the_tokens_of_transformers_with_one_end(tmp_path: Path, single: str) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<|im_start|>", END)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    theirs, end = AutoTokenizer.from_pretrained(tmp_path / "tokenizer"), special[1][1]
    encoder = SourceEncoder(tmp_path / "tokenizer", Seq2SeqLM("", len(tokenizer), (end,), "", 0))
    row = encoder.row([USER], "It is red.", "here")
    assert list(row.prompt) == theirs(USER["content"]).input_ids
    target = theirs(text_target="It is red.").input_ids
    assert list(row.answer) == (target if END in single else [*target, end])
    assert row.context == max(len(row.prompt), len(row.answer))


def test_a_target_begins_with_the_token_that_the_checkpoint_forces(tmp_path: Path) -> None:
    bart = make_rewriter("bart", tmp_path / "tiny")
    assert bart.spec.seq2seq_lm is not None
    row = SourceEncoder(bart.folder, bart.spec.seq2seq_lm).row([USER], "red", "here")
    assert (row.answer[0], row.answer[-1]) == (5, 2)


def test_examples_are_paragraphs_before_the_text_and_a_chat_is_refused(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "tokenizer")
    language = Seq2SeqLM("", 500, (2,), "", 0)
    shots = [PromptPair(({"role": "user", "content": "1"},), "one", tmp_path, 1)]
    encoder = SourceEncoder(tmp_path / "tokenizer", language, shots)
    assert encoder.text([USER], "here") == "1\none\n\na red cup"
    chat = [USER, {"role": "assistant", "content": "Red."}, USER]
    with pytest.raises(DataError, match=r"here: a chat of 3 messages .*; leave one message"):
        encoder.text(chat, "here")
