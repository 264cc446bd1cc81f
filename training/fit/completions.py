"""Trains an adapter to generate: the loss on answers alone, in batches of similar length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rootstock.training.data.prompt_encoding import CompletionRow
from rootstock.training.fit.candidate import like_lengths
from rootstock.training.fit.checkpoint import Checkpoints
from rootstock.training.fit.descent import EpochScore, Fit, FitStage, Report, descend, precision, silent
from rootstock.training.network.language_passes import LanguagePasses, passes_of
from rootstock.training.network.network import Network
from rootstock.training.network.trunk import known_warnings
from rootstock.training.recipe.recipe import Training

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CompletionPart:
    """The rows of a part of a step, and the answer tokens of the whole step."""

    rows: tuple[CompletionRow, ...]
    step_answers: int


def negative_log_likelihoods(
    network: Network,
    rows: Sequence[CompletionRow],
    budget: int,
    bf16: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[float, int]]:
    """Return for each row the negative log-likelihood of its answer, in nats, and the number of its tokens.

    `progress` is told of the number of rows that are done.
    """
    import torch

    passes = passes_of(network)
    network.train(False)
    by_row: dict[int, tuple[float, int]] = {}
    with torch.inference_mode():
        with precision(bf16, passes.device):
            prefix = passes.prefix(rows)
        for chosen in _parts(passes, rows, range(len(rows)), len(rows), budget):
            with precision(bf16, passes.device):
                losses = passes.losses([rows[i] for i in chosen], prefix=prefix)
            sums = torch.split(losses.double(), [len(rows[i].answer) for i in chosen])
            by_row |= {i: (float(part.sum()), len(part)) for i, part in zip(chosen, sums, strict=True)}
            if progress is not None:
                progress(len(by_row))
    return [by_row[i] for i in range(len(rows))]


def train_completions(
    network: Network,
    train: Sequence[CompletionRow],
    validation: Sequence[CompletionRow],
    settings: Training,
    seed: int,
    stage: str,
    report: Report = silent,
    checkpoints: Checkpoints | None = None,
) -> Fit:
    """Train the network's adapter on answers, and leave it with the epoch of the lowest validation loss.

    The loss of a step is the mean over the answer tokens of all its rows, in however many parts it is computed.
    An epoch's score is the mean probability of a validation token, the inverse of the perplexity.
    """
    passes = passes_of(network)
    size = settings.per_device_train_batch_size
    if settings.gradient_checkpointing:
        model: Any = network.task_model
        with known_warnings():
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def batches(order: torch.Generator) -> Iterable[list[CompletionPart]]:
        for step in like_lengths([len(row) for row in train], size * settings.gradient_accumulation_steps, order):
            total = sum(len(train[i].answer) for i in step)
            parts = _parts(passes, train, step, size, settings.tokens_per_batch)
            yield [CompletionPart(tuple(train[i] for i in chosen), total) for chosen in parts]

    def loss(part: CompletionPart, done: float) -> torch.Tensor:
        losses = passes.losses(part.rows, settings.label_smoothing_factor)
        return losses.sum() / part.step_answers

    def score() -> EpochScore:
        likelihoods = negative_log_likelihoods(network, validation, settings.tokens_per_batch, settings.bf16)
        value = perplexity(likelihoods)
        return EpochScore(1 / value, math.log(value))

    fit_stage = FitStage(
        stage,
        settings.num_train_epochs,
        -(-len(train) // (size * settings.gradient_accumulation_steps)),
        batches,
        loss,
        score,
        tokens=lambda part: sum(map(len, part.rows)),
    )
    return descend(network, fit_stage, settings, seed, report, checkpoints)


def perplexity(likelihoods: Sequence[tuple[float, int]]) -> float:
    """Return the perplexity of answers from their negative log-likelihoods and numbers of tokens."""
    mean = sum(value for value, _ in likelihoods) / sum(count for _, count in likelihoods)
    # A float holds no larger one.
    return math.exp(min(mean, 700.0))


def _parts(
    passes: LanguagePasses, rows: Sequence[CompletionRow], positions: Iterable[int], most_rows: int, budget: int
) -> Iterable[list[int]]:
    """Yield positions of rows of similar length, the longest first; rows × width stays within the budget."""
    order = sorted(positions, key=lambda i: -len(rows[i]))
    while order:
        count = 1
        while count < min(most_rows, len(order)):
            if (count + 1) * passes.width([rows[i] for i in order[: count + 1]]) > budget:
                break
            count += 1
        yield order[:count]
        order = order[count:]
