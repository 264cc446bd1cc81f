"""One way of making an adapter from rows: the head alone, or a head on LoRA, DoRA or IA3."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import TokenRow, encode
from rootstock.training.data.example import Example
from rootstock.training.fit.augmentation import reworded
from rootstock.training.fit.checkpoint import Checkpoints
from rootstock.training.fit.contrastive import balanced_batches, supervised_contrast
from rootstock.training.fit.descent import Epoch, Fit, FitStage, Report, copied, descend, silent
from rootstock.training.fit.job import Job
from rootstock.training.fit.objective import Objective
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.network.head_fit import chosen_head, set_head, weak_head
from rootstock.training.network.inputs import Inputs
from rootstock.training.network.network import Network, has_one_layer, outputs, start_at_states
from rootstock.training.network.strength import Line
from rootstock.training.network.trunk import grafted, task_model

if TYPE_CHECKING:
    import torch

HEAD_ONLY = "head_only"
# Below this many rows a label on average, `auto` trains by contrast first.
FEW = 40
_CONTRASTIVE_EPOCHS = 16
_CONTRASTIVE_ROWS = 160
_RUN = 32


@dataclass(frozen=True)
class Candidate:
    """A trained network, by which method, and how its training went.

    `line` leads back to where its descent began, for LoRA.
    """

    method: str
    network: Network
    epochs: tuple[Epoch, ...] = ()
    best: Epoch | None = None
    line: Line | None = None

    def predict(self, job: Job, rows: Sequence[TokenRow]) -> list[Array]:
        """The raw output for each row."""
        return outputs(self.network, job.inputs(rows)) if rows else []


@dataclass(frozen=True)
class TrainingRows:
    """The rows of one training: `examples` are what `train` was encoded from, `validation` may be empty.

    `whole` is how many rows there are to train on where `train` is a fold of them: they decide how it is trained.
    """

    job: Job
    examples: Sequence[Example]
    train: Sequence[TokenRow]
    validation: Sequence[TokenRow]
    seed: int
    report: Report = silent
    checkpoints: Checkpoints | None = None
    stage: str = "fit"
    whole: int | None = None

    @property
    def by_contrast(self) -> bool:
        """Whether the adapter is trained by contrast: as the recipe says, otherwise where a label has few rows.

        The labels' names are rows then, of the head alone as well.
        """
        asked = self.job.source.recipe.training.contrastive_epochs
        if asked is not None:
            return asked > 0
        rows = len(self.train) if self.whole is None else self.whole
        return self.job.source.recipe.task_type == "SEQ_CLS" and rows < FEW * len(self.job.labels)


def train_candidate(method: str, training: TrainingRows) -> Candidate:
    """Train by a method: head_only, lora, dora or ia3."""
    return _head_only(training) if method == HEAD_ONLY else _grafted(method, training)


def _head_only(training: TrainingRows) -> Candidate:
    """The head alone, fitted on the frozen trunk's features."""
    job = training.job
    network = new_network(job, None, training.seed)
    train, validation = job.inputs(training.train), job.inputs(training.validation)
    start_at_states(network, [train, validation])
    if training.by_contrast:
        head = weak_head(network, _named(network, train, training), job.labels)
    else:
        head = chosen_head(network, train, validation, job.labels, training.seed)
    set_head(network, head)
    return Candidate(HEAD_ONLY, network)


def _grafted(method: str, training: TrainingRows) -> Candidate:
    return _trained(method, new_network(training.job, method, training.seed), training, fit_head=True)


def descend_from(network: Network, training: TrainingRows) -> Candidate:
    """Train a network on, from the weights that it has."""
    return _trained("lora", network, training, fit_head=False)


def _trained(method: str, network: Network, training: TrainingRows, fit_head: bool) -> Candidate:
    job, recipe = training.job, training.job.source.recipe
    train, validation = job.inputs(training.train), job.inputs(training.validation)
    target = job.inputs(job.target) if job.target else None
    if recipe.training.cache_features and not _rewords(recipe):
        start_at_states(network, [train, validation, *([target] if target is not None else [])])
    if training.by_contrast:
        return _by_contrast(method, network, train, training)
    if fit_head and has_one_layer(network):
        set_head(network, weak_head(network, train, job.labels))
    start = copied(network.parameters())
    fit = _by_cross_entropy(network, train, validation, target, training)
    line = Line(network, start) if method == "lora" else None
    return Candidate(method, network, fit.epochs, fit.best, line)


def new_network(job: Job, method: str | None, seed: int) -> Network:
    """A new network; without a method only its head is there to train."""
    import torch
    from torch import nn

    recipe = job.source.recipe
    torch.manual_seed(seed)
    model = task_model(job.files, recipe, len(job.labels))
    depth = job.spec.layers
    if method is not None:
        named = [job.task_class.prefix + site for site in job.sites]
        model = grafted(model, recipe, method, named, job.task_class)
        depth = job.spec.depth(job.sites)
    texts = recipe.task_type == "SEQ_CLS"
    head = nn.Linear(job.spec.hidden_size, len(job.labels)).to(job.device) if texts else None
    network = Network(model.to(job.device), head, job.spec, job.task_class, depth)
    if method is not None and recipe.peft.init_from_adapter is not None:
        from rootstock.training.network.files import start_from

        start_from(network, job.source)
    return network


def _by_contrast(method: str, network: Network, train: Inputs, training: TrainingRows) -> Candidate:
    """Embeddings by contrast, then a head on them (SetFit, Tunstall et al., 2022, the body an adapter's)."""
    import torch

    settings = training.job.source.recipe.training
    epochs = settings.contrastive_epochs or _CONTRASTIVE_EPOCHS
    train = _named(network, train, training)
    targets = train.targets

    def loss(chosen: list[int], done: float) -> torch.Tensor:
        # In runs of like lengths: a batch this large would be padded to its longest text.
        ordered = sorted(chosen, key=lambda i: int(train.lengths[i]))
        parts = [train.batch(ordered[i : i + _RUN]) for i in range(0, len(ordered), _RUN)]
        embedded = torch.cat([network.embed(part) for part in parts])
        labels = torch.cat([part.targets for part in parts])
        return supervised_contrast(embedded, labels, settings.contrastive_temperature)

    def batches(order: torch.Generator) -> Iterable[list[int]]:
        return balanced_batches(targets, _CONTRASTIVE_ROWS, order)

    steps = len(list(batches(torch.Generator())))
    stage = FitStage(f"{training.stage}-contrast", epochs, steps, batches, loss, ema_decay=settings.ema_decay)

    def fit_head() -> None:
        set_head(network, weak_head(network, train, training.job.labels))

    start = copied(network.parameters())
    fit = descend(network, stage, settings, training.seed, training.report, training.checkpoints)
    fit_head()
    line = Line(network, start, fit_head) if method == "lora" else None
    return Candidate(method, network, fit.epochs, fit.best, line)


def _named(network: Network, train: Inputs, training: TrainingRows) -> Inputs:
    """The rows, with each label's name as one more row of it: a name says what its rows are about."""
    job = training.job
    if not job.source.recipe.training.label_names:
        return train
    names = [label.replace("_", " ").replace("-", " ") for label in job.labels]
    # A name that two labels share says nothing.
    rows = [replace(r, targets=(i,)) for i, r in enumerate(job.encoded(names)) if names.count(names[i]) == 1]
    more = job.inputs([*train.rows, *rows])
    if train.states is not None:
        more.keep_states(network.trunk, network.spec, network.depth)
    return more


def _by_cross_entropy(
    network: Network, train: Inputs, validation: Inputs, target: Inputs | None, training: TrainingRows
) -> Fit:
    recipe, labels = training.job.source.recipe, training.job.labels
    objective = Objective(recipe, len(labels), network, train, target)
    size = recipe.training.per_device_train_batch_size
    current = [train]

    def batches(order: torch.Generator) -> Iterable[list[int]]:
        if _rewords(recipe):
            current[0] = _reworded(training, order)
        return like_lengths(current[0].lengths, size, order)

    def loss(chosen: list[int], done: float) -> torch.Tensor:
        return objective(current[0].batch(chosen), done)

    def score() -> float:
        return macro_f1(outputs(network, validation), validation.rows, labels)

    stage = FitStage(
        training.stage,
        recipe.training.num_train_epochs,
        -(-len(train) // size),
        batches,
        loss,
        score if len(validation) else None,
        objective.parameters,
    )
    return descend(network, stage, recipe.training, training.seed, training.report, training.checkpoints)


def like_lengths(lengths: Any, size: int, order: torch.Generator) -> list[list[int]]:
    """All rows once, in random batches of like lengths: little padding, and each epoch other company.

    Rows are shuffled, sorted by length within runs of sixteen batches, and the batches shuffled again.
    """
    import torch

    shuffled = torch.randperm(len(lengths), generator=order).tolist()
    batches = []
    for start in range(0, len(shuffled), 16 * size):
        run = sorted(shuffled[start : start + 16 * size], key=lambda i: -int(lengths[i]))
        batches += [run[i : i + size] for i in range(0, len(run), size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=order).tolist()]


def _rewords(recipe: Any) -> bool:
    return bool(recipe.augmentation.word_dropout or recipe.augmentation.word_swap)


def _reworded(training: TrainingRows, order: torch.Generator) -> Inputs:
    import torch

    chance = random.Random(int(torch.randint(2**31, (1,), generator=order)))  # noqa: S311 - can be repeated
    job, change = training.job, training.job.source.recipe.augmentation
    examples = [reworded(e, change.word_dropout, change.word_swap, chance) for e in training.examples]
    return job.inputs(encode(job.tokenizer, examples, job.labels))


def from_scratch(training: TrainingRows) -> Candidate:
    """The same network from random weights, all of which train: what the foundation's own training is worth."""
    import torch
    from torch import nn

    job, recipe = training.job, training.job.source.recipe
    torch.manual_seed(training.seed)
    model = task_model(job.files, recipe, len(job.labels), scratch=True).requires_grad_(True)
    texts = recipe.task_type == "SEQ_CLS"
    head = nn.Linear(job.spec.hidden_size, len(job.labels)).to(job.device) if texts else None
    network = Network(model.to(job.device), head, job.spec, job.task_class, 0)
    train, validation = job.inputs(training.train), job.inputs(training.validation)
    slower = recipe.training.model_copy(update={"learning_rate": 5e-4, "unfreeze_schedule": None})
    plain = replace(
        job, source=replace(job.source, recipe=recipe.model_copy(update={"training": slower})), target=[]
    )
    fit = _by_cross_entropy(network, train, validation, None, replace(training, job=plain))
    return Candidate("from_scratch", network, fit.epochs, fit.best)
