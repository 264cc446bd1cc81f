"""Training on answers: the losses are transformers' own, whatever the batches, and a killed run goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rootstock.adapters.foundation.location import locate
from rootstock.adapters.tasks import task_named
from rootstock.training.data.prompt_encoding import CompletionRow
from rootstock.training.fit.checkpoint import Checkpoints, StageState
from rootstock.training.fit.completions import negative_log_likelihoods, perplexity, train_completions
from rootstock.training.fit.descent import copy_of, deterministic
from rootstock.training.network.construction import new_network
from rootstock.training.network.language_passes import passes_of
from rootstock.training.network.network import Network
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.recipe.recipe import Peft, Training
from tests.marks import slow_except
from tests.service.engine.generate.families import FAMILIES, FAST, TinyDecoder, make_decoder

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
CPU = torch.device("cpu")
ROWS = tuple(
    CompletionRow(tuple(range(3, 3 + prompt)), (*range(40, 40 + answer), 2))
    for prompt, answer in ((5, 3), (2, 9), (11, 1), (4, 4), (7, 6), (3, 2), (9, 9), (6, 5))
)


@pytest.fixture(scope="module", params=slow_except(FAST, FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder(request.param, tmp_path_factory.mktemp(request.param) / "tiny")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDecoder:
    return make_decoder("llama", tmp_path_factory.mktemp("llama") / "tiny")


def spec_of(tiny: TinyDecoder, **peft: Any) -> NetworkSpec:
    task = task_named("text-generation")
    sites = list(tiny.spec.class_for(task.name).linears)
    prefix = tiny.spec.class_for(task.name).prefix
    names = [name.removeprefix(prefix) for name in sites]
    return NetworkSpec(locate(str(tiny.folder)), tiny.spec, task, 0, names, Peft(**{"r": 4, **peft}))


def network_of(tiny: TinyDecoder, method: str = "lora") -> Network:
    """A network whose adapter changes the foundation, as after a training."""
    network = new_network(spec_of(tiny), method, 0, CPU)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.train(False)
    return network


def transformers_loss(model: Any, row: CompletionRow) -> float:
    """The loss that transformers gives for one row, with the label -100 on the prompt."""
    ids = torch.tensor([[*row.prompt, *row.answer]])
    labels = torch.tensor([[-100] * len(row.prompt) + list(row.answer)])
    with torch.no_grad():
        return float(model(input_ids=ids, labels=labels).loss)


def test_the_loss_is_that_of_transformers_with_the_prompt_s_labels_left_out(family: TinyDecoder) -> None:
    model = AutoModelForCausalLM.from_pretrained(family.folder).eval()
    network = new_network(spec_of(family), "lora", 0, CPU)
    network.train(False)
    for row, (value, count) in zip(ROWS, negative_log_likelihoods(network, ROWS, 64), strict=True):
        assert count == len(row.answer)
        assert value / count == pytest.approx(transformers_loss(model, row), rel=1e-4)


@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_rows_in_one_batch_have_the_losses_that_each_has_alone(tiny: TinyDecoder, method: str) -> None:
    network = network_of(tiny, method)
    with torch.no_grad():
        together = passes_of(network).losses(ROWS)
        alone = torch.cat([passes_of(network).losses([row]) for row in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    expected = [transformers_loss(network.task_model, row) for row in ROWS]
    means = [float(part.mean()) for part in together.split([len(row.answer) for row in ROWS])]
    assert means == pytest.approx(expected, rel=1e-4)


def test_prompts_that_begin_alike_have_the_losses_that_each_has_alone(family: TinyDecoder) -> None:
    model = AutoModelForCausalLM.from_pretrained(family.folder).eval()
    network = new_network(spec_of(family), "lora", 0, CPU)
    begin = tuple(range(3, 23))
    rows = [CompletionRow((*begin, *row.prompt), row.answer) for row in ROWS]
    prefix = passes_of(network).prefix(rows)
    assert prefix is not None
    assert prefix.tokens >= len(begin)
    done: list[int] = []
    # Two rows in a batch, so that each batch needs the prefix anew.
    likelihoods = negative_log_likelihoods(network, rows, 64, progress=done.append)
    assert done[-1] == len(rows)
    assert len(done) > 1
    for row, (value, count) in zip(rows, likelihoods, strict=True):
        assert value / count == pytest.approx(transformers_loss(model, row), rel=1e-4)


def test_the_perplexity_is_the_exponential_of_the_mean_loss_of_all_answer_tokens(tiny: TinyDecoder) -> None:
    network = network_of(tiny)
    losses = [transformers_loss(network.task_model, row) * len(row.answer) for row in ROWS]
    mean = torch.tensor(sum(losses) / sum(len(row.answer) for row in ROWS))
    ours = perplexity(negative_log_likelihoods(network, ROWS, 64))
    assert ours == pytest.approx(float(mean.exp()), rel=1e-4)


SETTINGS = Training(
    learning_rate=0.01, num_train_epochs=3, per_device_train_batch_size=4, lr_scheduler_type="cosine"
)


def trained(
    tiny: TinyDecoder, settings: Training, checkpoints: Checkpoints | None = None, kill_at: int | None = None
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The weights after a training, and the loss of each epoch."""
    rates: list[float] = []

    def report(done: int, total: int, note: str, rate: float = 0.0, /) -> None:
        rates.append(rate)
        if len(rates) == kill_at:
            raise Killed

    with deterministic(0):
        network = new_network(spec_of(tiny, lora_dropout=0.1), "lora", 0, CPU)
        fit = train_completions(network, ROWS, ROWS[:3], settings, 0, "fit", report, checkpoints)
    assert all(rate > 0 for rate in rates)
    return copy_of(network.parameters()), [epoch.loss for epoch in fit.epochs]


class Killed(Exception):
    pass


def test_the_loss_falls(tiny: TinyDecoder) -> None:
    _, losses = trained(tiny, SETTINGS.model_copy(update={"num_train_epochs": 12}))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("kill_at", [1, 2, 3, 6])
def test_a_run_killed_at_any_step_ends_with_the_weights_of_one_that_was_not(
    tiny: TinyDecoder, tmp_path: Path, kill_at: int
) -> None:
    whole, _ = trained(tiny, SETTINGS)
    checkpoints = Checkpoints(tmp_path / "resume", "one run")
    with pytest.raises(Killed):
        trained(tiny, SETTINGS, checkpoints, kill_at)
    resumed, _ = trained(tiny, SETTINGS, checkpoints)
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_the_time_of_a_resumed_run_is_that_of_all_its_epochs(tiny: TinyDecoder, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "resume", "one run")
    with pytest.raises(Killed):
        trained(tiny, SETTINGS, checkpoints, kill_at=5)
    state = checkpoints.load("fit")
    assert state is not None
    # As if the epoch before the kill had taken an hour.
    checkpoints.save("fit", StageState(state.tensors, {**state.progress, "seconds": 3600.0}))
    network = new_network(spec_of(tiny, lora_dropout=0.1), "lora", 0, CPU)
    fit = train_completions(network, ROWS, ROWS[:3], SETTINGS, 0, "fit", checkpoints=checkpoints)
    assert fit.seconds > 3600


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens_per_batch": 24},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True},
    ],
    ids=["parts", "accumulation", "checkpointing"],
)
def test_the_parts_of_a_step_and_what_is_kept_of_it_do_not_change_the_result(
    tiny: TinyDecoder, changes: dict[str, Any]
) -> None:
    # Adam moves a parameter by the sign of a gradient that is nearly 0, so one epoch is compared by its loss.
    settings = SETTINGS.model_copy(update={"num_train_epochs": 4})
    network = spec_of(tiny)
    assert replace(network, peft=Peft()).peft.lora_dropout == 0
    losses = []
    for chosen in (settings, settings.model_copy(update=changes)):
        with deterministic(0):
            net = new_network(network, "lora", 0, CPU)
            fit = train_completions(net, ROWS, ROWS[:3], chosen, 0, "fit")
        losses.append([epoch.loss for epoch in fit.epochs])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_bfloat16_trains_to_about_the_same_loss(tiny: TinyDecoder) -> None:
    _, plain = trained(tiny, SETTINGS)
    _, mixed = trained(tiny, SETTINGS.model_copy(update={"bf16": True}))
    assert mixed != plain
    assert mixed[-1] == pytest.approx(plain[-1], rel=0.1)
