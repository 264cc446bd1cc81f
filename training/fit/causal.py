"""Trains an adapter to generate: the loss on answers alone, in batches of similar length.

The batch and the forward pass of a causal model are `batch_of` and `answer_losses`; everything else knows only
the losses of answer tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rootstock.training.data.prompt_encoding import CompletionRow
from rootstock.training.fit.candidate import like_lengths
from rootstock.training.fit.checkpoint import Checkpoints
from rootstock.training.fit.descent import Fit, FitStage, Report, descend, precision, silent
from rootstock.training.network.network import Network
from rootstock.training.network.trunk import known_warnings
from rootstock.training.recipe.recipe import Training

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CompletionBatch:
    """Padded rows: `ids` (rows, tokens), `places` of the states that predict answer tokens, and those `targets`.

    `places` are positions in the flattened rows, (answer tokens,), in the order of the rows.
    """

    ids: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class CompletionPart:
    """The rows of a part of a step, and the answer tokens of the whole step."""

    rows: tuple[CompletionRow, ...]
    step_answers: int


def batch_of(rows: Sequence[CompletionRow], device: torch.device) -> CompletionBatch:
    """Return rows padded at their ends. A causal model needs no mask for that: no token sees a later one."""
    import torch

    longest = max(map(len, rows))
    ids: list[list[int]] = []
    places: list[int] = []
    targets: list[int] = []
    for number, row in enumerate(rows):
        ids.append([*row.prompt, *row.answer, *[0] * (longest - len(row))])
        # The state before a token predicts it.
        begin = number * longest + len(row.prompt) - 1
        places += range(begin, begin + len(row.answer))
        targets += row.answer
    return CompletionBatch(*(torch.tensor(values, device=device) for values in (ids, places, targets)))


def answer_losses(network: Network, batch: CompletionBatch, smoothing: float = 0.0) -> torch.Tensor:
    """Return the cross entropy of each answer token, (answer tokens,).

    Only their logits are computed: with a large vocabulary these cost more than the layers.
    """
    from torch.nn.functional import cross_entropy

    states = network.trunk(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits = network.logits_of(states.flatten(0, 1).index_select(0, batch.places)[None])[0]
    return cross_entropy(logits.float(), batch.targets, reduction="none", label_smoothing=smoothing)


def negative_log_likelihoods(
    network: Network, rows: Sequence[CompletionRow], budget: int, bf16: bool = False
) -> list[tuple[float, int]]:
    """Return for each row the negative log-likelihood of its answer, in nats, and the number of its tokens."""
    import torch

    device = next(network.model.parameters()).device
    network.train(False)
    by_row: dict[int, tuple[float, int]] = {}
    with torch.inference_mode():
        for chosen in _parts(rows, range(len(rows)), len(rows), budget):
            with precision(bf16, device):
                losses = answer_losses(network, batch_of([rows[i] for i in chosen], device))
            sums = torch.split(losses.double(), [len(rows[i].answer) for i in chosen])
            by_row |= {i: (float(part.sum()), len(part)) for i, part in zip(chosen, sums, strict=True)}
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
    device = next(iter(network.parameters().values())).device
    size = settings.per_device_train_batch_size
    if settings.gradient_checkpointing:
        model: Any = network.task_model
        with known_warnings():
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def batches(order: torch.Generator) -> Iterable[list[CompletionPart]]:
        for step in like_lengths([len(row) for row in train], size * settings.gradient_accumulation_steps, order):
            total = sum(len(train[i].answer) for i in step)
            parts = _parts(train, step, size, settings.tokens_per_batch)
            yield [CompletionPart(tuple(train[i] for i in chosen), total) for chosen in parts]

    def loss(part: CompletionPart, done: float) -> torch.Tensor:
        losses = answer_losses(network, batch_of(part.rows, device), settings.label_smoothing_factor)
        return losses.sum() / part.step_answers

    def score() -> float:
        likelihoods = negative_log_likelihoods(network, validation, settings.tokens_per_batch, settings.bf16)
        return 1 / perplexity(likelihoods)

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
    rows: Sequence[CompletionRow], positions: Iterable[int], most_rows: int, budget: int
) -> Iterable[list[int]]:
    """Yield positions of rows of similar length, the longest first; rows × longest stays within the budget."""
    order = sorted(positions, key=lambda i: -len(rows[i]))
    while order:
        count = max(1, min(most_rows, budget // len(rows[order[0]])))
        yield order[:count]
        order = order[count:]
