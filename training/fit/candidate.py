"""Trains a candidate for the adapter on rows: the head alone, or a head on LoRA, DoRA or IA3."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rootstock.adapters.spec import Array
from rootstock.training.data.example import Example
from rootstock.training.fit.augmentation import reword
from rootstock.training.fit.contrastive import balanced_batches, supervised_contrast
from rootstock.training.fit.descent import Epoch, EpochScore, Fit, FitStage, copy_of, descend
from rootstock.training.fit.objective import Objective
from rootstock.training.fit.plan import TrainingPlan, TrainingRows
from rootstock.training.network.construction import new_network, random_network
from rootstock.training.network.head_fit import cross_validated_head, set_head, standardised, weak_head
from rootstock.training.network.inputs import Inputs, KnownStates, TokenInputs, added_up
from rootstock.training.network.network import Network, has_one_layer, outputs, start_at_states
from rootstock.training.network.row_encoder import RowEncoder
from rootstock.training.network.strength import Line
from rootstock.training.recipe.augmentation_section import Augmentation

if TYPE_CHECKING:
    import torch

HEAD_ONLY = "head_only"
# Few rows make one step an epoch, and fewer steps than this leave a gain behind.
_CONTRASTIVE_EPOCHS, _CONTRASTIVE_STEPS = 16, 32
# An image has about ten times the tokens of a text, and the pass of every row is kept for the gradients.
_CONTRASTIVE_TEXTS, _CONTRASTIVE_MEDIA = 160, 64
# Shorter runs are padded less, and longer ones use the processor better: 16 is faster than 8 and 32.
_RUN = 16


class _Part(NamedTuple):
    """Rows of a step that can be batched, and their share of its rows."""

    positions: list[int]
    share: float


@dataclass(frozen=True)
class Candidate:
    """A network after its training, the method, and the epochs of its descent.

    `line` moves the weights back towards the start of the descent, for LoRA.
    """

    method: str
    network: Network
    epochs: tuple[Epoch, ...] = ()
    best: Epoch | None = None
    line: Line | None = None

    def predict(self, inputs: Inputs) -> list[Array]:
        """Return the raw output for each row."""
        return outputs(self.network, inputs)

    def keep_states(self, inputs: Inputs, known: KnownStates | None) -> None:
        """Keep the states of rows below the first layer that changes, for several predictions of them."""
        network = self.network
        if network.from_layer is not None and len(inputs):
            inputs.keep_states(network.trunk, network.spec, network.depth, known=known)


def train_candidate(method: str, rows: TrainingRows, plan: TrainingPlan) -> Candidate:
    """Train by a method: head_only, lora, dora or ia3."""
    if method == HEAD_ONLY:
        return _head_only(rows, plan)
    network = new_network(plan.network, method, plan.seed, plan.encoder.device)
    return _fit(method, network, rows, plan, fit_head=True)


def descend_from(network: Network, rows: TrainingRows, plan: TrainingPlan) -> Candidate:
    """Train a network further, from its present weights."""
    return _fit("lora", network, rows, plan, fit_head=False)


def _head_only(rows: TrainingRows, plan: TrainingPlan) -> Candidate:
    """Return the head alone, fitted on the frozen trunk's features."""
    encoder = plan.encoder
    network = new_network(plan.network, None, plan.seed, encoder.device)
    train, validation = encoder.inputs(rows.train), encoder.inputs(rows.validation)
    _start_at_states(network, [train, validation], plan)
    if plan.by_contrast(rows):
        head = weak_head(network, _with_label_names(network, train, plan), encoder.problem)
    else:
        head = cross_validated_head(network, train, validation, encoder.problem, plan.seed)
    set_head(network, head)
    return Candidate(HEAD_ONLY, network)


def _fit(method: str, network: Network, rows: TrainingRows, plan: TrainingPlan, fit_head: bool) -> Candidate:
    encoder, settings = plan.encoder, plan.settings
    train, validation = encoder.inputs(rows.train), encoder.inputs(rows.validation)
    views = encoder.inputs(encoder.views(rows.train))
    target = encoder.inputs(plan.target) if plan.target else None
    if settings.training.cache_features and not settings.rewords:
        _start_at_states(network, [train, validation, views, *([target] if target is not None else [])], plan)
    if plan.by_contrast(rows):
        return _by_contrast(method, network, train, views, plan)
    if fit_head and has_one_layer(network):
        set_head(network, weak_head(network, train, encoder.problem))
    start = copy_of(network.parameters())
    train_on = views if len(views) else train
    fit = _by_label_loss(network, train_on, len(train), validation, target, rows.examples, plan)
    line = Line(network, start) if method == "lora" else None
    return Candidate(method, network, fit.epochs, fit.best, line)


def _start_at_states(network: Network, parts: list[Inputs], plan: TrainingPlan) -> None:
    """Let the network start at the first layer that changes, and report the rows that pass the layers below."""
    total, note = sum(map(len, parts)), f"{plan.stage}: rows through the frozen layers"
    start_at_states(network, parts, added_up(lambda done: plan.preparing(done, total, note)), plan.known)


def _by_contrast(method: str, network: Network, train: Inputs, views: Inputs, plan: TrainingPlan) -> Candidate:
    """Train embeddings by contrast, then fit a head on them (SetFit, Tunstall et al., 2022, on an adapter).

    The contrast reads the changed copies of the rows, if there are any.
    """
    import torch

    settings = plan.settings.training
    train = _with_label_names(network, train, plan)
    targets, read = train.targets, views if len(views) else train
    size = _CONTRASTIVE_TEXTS if isinstance(plan.encoder, RowEncoder) else _CONTRASTIVE_MEDIA

    def loss(positions: list[int], done: float) -> torch.Tensor:
        # Embed in runs of similar length: a batch this large would be padded to its longest text.
        ordered = sorted(positions, key=lambda i: int(read.lengths[i]))
        runs = [ordered[i : i + _RUN] for i in range(0, len(ordered), _RUN)]
        parts = [read.batch(part) for run in runs for part in read.parts(run)]
        embeddings = torch.cat([network.embed(part) for part in parts])
        labels = torch.cat([part.targets for part in parts])
        return supervised_contrast(embeddings, labels, settings.contrastive_temperature)

    def batches(order: torch.Generator) -> Iterable[list[list[int]]]:
        copy = draw_views(len(targets), len(read), order)
        return ([[copy[i] for i in rows]] for rows in balanced_batches(targets, size, order))

    steps = len(list(batches(torch.Generator())))
    epochs = settings.contrastive_epochs or max(_CONTRASTIVE_EPOCHS, -(-_CONTRASTIVE_STEPS // steps))
    stage = FitStage(f"{plan.stage}-contrast", epochs, steps, batches, loss, ema_decay=settings.ema_decay)

    def fit_head() -> None:
        set_head(network, weak_head(network, train, plan.encoder.problem))

    start = copy_of(network.parameters())
    fit = descend(network, stage, settings, plan.seed, plan.report, plan.checkpoints)
    fit_head()
    line = Line(network, start, fit_head) if method == "lora" else None
    return Candidate(method, network, fit.epochs, fit.best, line)


def _with_label_names(network: Network, train: Inputs, plan: TrainingPlan) -> Inputs:
    """Return the rows with each label's name as one more row of it, since a name describes its rows."""
    encoder = plan.encoder
    # A name is a text, which a foundation for images or audio does not read.
    if not plan.settings.training.label_names or not isinstance(encoder, RowEncoder):
        return train
    names = [label.replace("_", " ").replace("-", " ") for label in encoder.labels]
    # A name that two labels share says nothing.
    rows = [
        replace(row, targets=(i,))
        for i, row in enumerate(encoder.encode_texts(names))
        if names.count(names[i]) == 1
    ]
    more = encoder.inputs([*cast(TokenInputs, train).rows, *rows])
    if train.states is not None:
        more.keep_states(network.trunk, network.spec, network.depth, known=plan.known)
    return more


def _by_label_loss(
    network: Network,
    train: Inputs,
    count: int,
    validation: Inputs,
    target: Inputs | None,
    examples: Sequence[Example],
    plan: TrainingPlan,
    fitted: bool = True,
) -> Fit:
    """Train by the loss of the problem, for classes cross entropy.

    `train` holds `count` rows, or that many for each of their changed copies. `fitted` is False for a random
    head.
    """
    settings, problem = plan.settings, plan.encoder.problem
    objective = Objective(settings, problem, network, train, target)
    size = settings.training.per_device_train_batch_size
    current = [train]

    def batches(order: torch.Generator) -> Iterable[list[_Part]]:
        if settings.rewords:
            encoder = cast(RowEncoder, plan.encoder)
            current[0] = _reworded_inputs(examples, encoder, settings.augmentation, order)
        copy = draw_views(count, len(current[0]), order)
        for rows in like_lengths(current[0].lengths[:count], size, order):
            parts = current[0].parts([copy[i] for i in rows])
            yield [_Part(part, len(part) / len(rows)) for part in parts]

    def loss(part: _Part, done: float) -> torch.Tensor:
        return objective(current[0].batch(part.positions), done) * part.share

    def score() -> EpochScore:
        raw, rows = objective.units.restored(outputs(network, validation)), validation.rows
        return EpochScore(problem.score(raw, rows), problem.loss(raw, rows, objective.units))

    stage = FitStage(
        plan.stage,
        settings.training.num_train_epochs,
        -(-count // size),
        batches,
        loss,
        score if len(validation) else None,
        objective.parameters,
    )
    with standardised(network, objective.units, fitted):
        return descend(network, stage, settings.training, plan.seed, plan.report, plan.checkpoints)


def draw_views(count: int, copies: int, order: torch.Generator) -> list[int]:
    """Return the position of one of the changed copies of each of `count` rows; `copies` of them follow in turn.

    With as many copies as rows, each is its row.
    """
    import torch

    rows = torch.arange(count)
    if copies > count:
        rows = rows + count * torch.randint(copies // count, (count,), generator=order)
    return [int(i) for i in rows]


def like_lengths(lengths: Any, size: int, order: torch.Generator) -> list[list[int]]:
    """Return all rows once, in random batches of similar length, which need little padding.

    Rows are shuffled, sorted by length within runs of sixteen batches, and the batches shuffled again.
    """
    import torch

    shuffled = torch.randperm(len(lengths), generator=order).tolist()
    batches = []
    for start in range(0, len(shuffled), 16 * size):
        run = sorted(shuffled[start : start + 16 * size], key=lambda i: -int(lengths[i]))
        batches += [run[i : i + size] for i in range(0, len(run), size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=order).tolist()]


def _reworded_inputs(
    examples: Sequence[Example], encoder: RowEncoder, change: Augmentation, order: torch.Generator
) -> Inputs:
    import torch

    chance = random.Random(int(torch.randint(2**31, (1,), generator=order)))  # noqa: S311 - can be repeated
    texts = [reword(example, change.word_dropout, change.word_swap, chance) for example in examples]
    return encoder.inputs(encoder.encode(texts))


def from_scratch(rows: TrainingRows, plan: TrainingPlan) -> Candidate:
    """Train the same network from random weights, to show the gain from the foundation's pre-training."""
    encoder = plan.encoder
    network = random_network(plan.network, plan.seed, encoder.device)
    train, validation = encoder.inputs(rows.train), encoder.inputs(rows.validation)
    slower = plan.settings.training.model_copy(update={"learning_rate": 5e-4, "unfreeze_schedule": None})
    slow_plan = replace(plan, settings=replace(plan.settings, training=slower))
    fit = _by_label_loss(network, train, len(train), validation, None, rows.examples, slow_plan, fitted=False)
    return Candidate("from_scratch", network, fit.epochs, fit.best)
