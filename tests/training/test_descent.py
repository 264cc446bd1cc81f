"""A killed run goes on to the same weights, and the best epoch is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rootstock.training.errors import Diverged
from rootstock.training.fit.candidate import train_candidate
from rootstock.training.fit.checkpoint import Checkpoints
from rootstock.training.fit.descent import Epoch, EpochScore, FitStage, copy_of, descend, deterministic
from rootstock.training.fit.job import Job, prepare
from rootstock.training.network.construction import new_network
from rootstock.training.network.network import Network
from rootstock.training.recipe.recipe_file import load_recipe

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("rows"),
]


class Killed(Exception):
    pass


def train(job: Job, checkpoints: Checkpoints | None, kill_at: int | None = None) -> dict[str, torch.Tensor]:
    steps = [0]

    def report(done: int, total: int, note: str) -> None:
        steps[0] += 1
        if steps[0] == kill_at:
            raise Killed

    with deterministic(0):
        network = train_candidate("lora", job.training_rows, job.plan(report, checkpoints)).network
    return copy_of(network.parameters())


@pytest.mark.parametrize(
    ("epochs", "kill_at"),
    [
        ({"num_train_epochs": 4}, 1),
        ({"num_train_epochs": 4}, 4),
        ({"num_train_epochs": 4}, 7),
        ({"num_train_epochs": 4}, 11),
        ({"contrastive_epochs": 6}, 1),
        ({"contrastive_epochs": 6}, 5),
    ],
)
def test_a_run_killed_at_any_step_ends_with_the_weights_of_one_that_was_not(
    write_recipe: Callable[..., Path], tmp_path: Path, epochs: dict[str, int], kill_at: int
) -> None:
    settings = {**epochs, "learning_rate": 0.01, "lr_scheduler_type": "cosine"}
    job = prepare(load_recipe(write_recipe(training=settings, augmentation={"token_dropout": 0.2})))
    whole = train(job, None)
    checkpoints = Checkpoints(tmp_path / "resume", "one run")
    with pytest.raises(Killed):
        train(job, checkpoints, kill_at)
    resumed = train(job, checkpoints)
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_checkpoints_of_another_run_and_damaged_ones_are_not_seen(tmp_path: Path) -> None:
    from rootstock.training.fit.checkpoint import StageState

    Checkpoints(tmp_path, "one").save("fit", StageState({"a": torch.ones(2)}, {"epochs": []}))
    assert Checkpoints(tmp_path, "another").load("fit") is None
    state = Checkpoints(tmp_path, "one").load("fit")
    assert state is not None
    assert state.progress == {"epochs": []}
    (tmp_path / "fit.safetensors").write_bytes((tmp_path / "fit.safetensors").read_bytes()[:40])
    assert Checkpoints(tmp_path, "one").load("fit") is None


def stage_of(network: Network, job: Job, scores: list[float], losses: Callable[[], torch.Tensor]) -> FitStage:
    told = iter(scores)
    return FitStage(
        "fit", len(scores), 1, lambda order: [[[0]]], lambda rows, done: losses(), lambda: EpochScore(next(told))
    )


def test_the_best_epoch_is_kept_the_earlier_among_equals(write_recipe: Callable[..., Path]) -> None:
    job = prepare(load_recipe(write_recipe()))
    network = new_network(job.network, "lora", 0, job.encoder.device)
    seen: list[torch.Tensor] = []
    head = network.head
    assert head is not None

    def loss() -> torch.Tensor:
        seen.append(head.bias.detach().clone())
        return head.bias.sum()

    settings = job.settings.training
    fit = descend(network, stage_of(network, job, [0.2, 0.6, 0.6, 0.1], loss), settings, 0)
    assert fit.best == Epoch(2, pytest.approx(fit.epochs[1].loss), 0.6)
    assert torch.equal(head.bias, seen[2])


def test_a_stage_with_a_decay_keeps_the_moving_average_of_its_weights(
    write_recipe: Callable[..., Path],
) -> None:
    job = prepare(load_recipe(write_recipe(training={"learning_rate": 0.1})))
    network = new_network(job.network, "lora", 0, job.encoder.device)
    head = network.head
    assert head is not None
    after: list[torch.Tensor] = []
    average = head.bias.detach().clone()
    stage = FitStage("fit", 3, 2, lambda order: [[[0]], [[1]]], lambda rows, done: head.bias.sum(), ema_decay=0.5)
    descend(
        network,
        stage,
        job.settings.training,
        0,
        lambda done, total, note: after.append(head.bias.detach().clone()),
    )
    for weights in after:
        average = 0.5 * average + 0.5 * weights
    assert len(after) == 6
    torch.testing.assert_close(head.bias.detach(), average)
    assert not torch.allclose(average, after[-1], atol=0.01)


def test_early_stopping_waits_as_many_epochs_as_it_says(write_recipe: Callable[..., Path]) -> None:
    job = prepare(load_recipe(write_recipe(training={"early_stopping_patience": 2})))
    network = new_network(job.network, "lora", 0, job.encoder.device)
    head = network.head
    assert head is not None
    stage = stage_of(network, job, [0.5, 0.4, 0.3, 0.9], lambda: head.bias.sum())
    assert [e.number for e in descend(network, stage, job.settings.training, 0).epochs] == [1, 2, 3]


def test_a_loss_that_is_no_number_names_the_rate_to_lower(write_recipe: Callable[..., Path]) -> None:
    job = prepare(load_recipe(write_recipe()))
    network = new_network(job.network, "lora", 0, job.encoder.device)
    head = network.head
    assert head is not None
    stage = stage_of(network, job, [0.5], lambda: head.bias.sum() * float("nan"))
    with pytest.raises(Diverged, match=r"loss is nan in epoch 1 of stage fit; lower training\.learning_rate"):
        descend(network, stage, job.settings.training, 0)
