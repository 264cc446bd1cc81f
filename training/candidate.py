"""One way of making an adapter from rows: the head alone, or a head on LoRA, DoRA or IA3."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters.spec import Array
from training.augmentation import reworded
from training.checkpoint import Checkpoints
from training.contrastive import balanced_batches, supervised_contrast
from training.descent import Epoch, Fit, Report, Stage, descend, silent
from training.encoding import IGNORED, Encoded, encode
from training.evaluate import macro_f1
from training.example import Example
from training.inputs import Inputs
from training.job import Job
from training.linear_head import LinearHead, choose_strength, choose_strength_by, fit_head
from training.network import Network, has_one_layer, outputs, simple_head, start_at_states
from training.objective import Objective
from training.trunk import grafted, task_model

if TYPE_CHECKING:
    import torch

HEAD_ONLY = "head_only"
# Below this many rows a label on average, `auto` trains by contrast first.
FEW = 40
_CONTRASTIVE_EPOCHS = 16
_CONTRASTIVE_ROWS = 160
_RUN = 32
_TOKEN_STRENGTHS = (1.0, 10.0)
_START_STRENGTH = 10.0


@dataclass(frozen=True)
class Candidate:
    """A trained network, by which method, and how its training went; `strength` is the C of a fitted head."""

    method: str
    network: Network
    epochs: tuple[Epoch, ...] = ()
    best: Epoch | None = None
    strength: float | None = None

    def predict(self, job: Job, rows: Sequence[Encoded]) -> list[Array]:
        """The raw output for each row."""
        return outputs(self.network, job.inputs(rows)) if rows else []


@dataclass(frozen=True)
class Training:
    """The rows of one training: `examples` are what `train` was encoded from, `validation` may be empty."""

    job: Job
    examples: Sequence[Example]
    train: Sequence[Encoded]
    validation: Sequence[Encoded]
    seed: int
    report: Report = silent
    checkpoints: Checkpoints | None = None
    stage: str = "fit"

    @property
    def is_few(self) -> bool:
        """Whether there are so few rows that a contrastive stage pays."""
        asked = self.job.source.recipe.training.contrastive_epochs
        if asked is not None:
            return asked > 0
        few = len(self.train) < FEW * len(self.job.labels)
        return few and self.job.source.recipe.task_type == "SEQ_CLS"


def train_candidate(method: str, training: Training) -> Candidate:
    """Train by a method: head_only, lora, dora or ia3."""
    return _head_only(training) if method == HEAD_ONLY else _grafted(method, training)


def _head_only(training: Training) -> Candidate:
    """The head alone, fitted on the frozen trunk's features."""
    job = training.job
    network = new_network(job, None, training.seed)
    train, validation = job.inputs(training.train), job.inputs(training.validation)
    start_at_states(network, [train, validation])
    head = _fitted(network, train, validation, training)
    _set(network, head)
    return Candidate(HEAD_ONLY, network, strength=head.strength)


def _grafted(method: str, training: Training) -> Candidate:
    return _trained(method, new_network(training.job, method, training.seed), training, fit_head=True)


def descend_from(network: Network, training: Training) -> Candidate:
    """Train a network on, from the weights that it has."""
    return _trained("lora", network, training, fit_head=False)


def _trained(method: str, network: Network, training: Training, fit_head: bool) -> Candidate:
    job, recipe = training.job, training.job.source.recipe
    train, validation = job.inputs(training.train), job.inputs(training.validation)
    target = job.inputs(job.target) if job.target else None
    if recipe.training.cache_features and not _rewords(recipe):
        start_at_states(network, [train, validation, *([target] if target is not None else [])])
    if training.is_few:
        return _by_contrast(method, network, train, training)
    if fit_head and has_one_layer(network):
        _set(network, _start(network, train, training))
    fit = _by_cross_entropy(network, train, validation, target, training)
    if network.head is not None and len(validation):
        _refit(network, train, validation, training)
    return Candidate(method, network, fit.epochs, fit.best)


def _refit(network: Network, train: Inputs, validation: Inputs, training: Training) -> None:
    """Fit the head once more on what the trunk now gives, and keep the better one on validation."""
    labels = training.job.labels
    before = macro_f1(outputs(network, validation), validation.rows, labels)
    head = _fitted(network, train, validation, training)
    embedded = np.stack(outputs(network, validation, "embed"))
    if macro_f1(list(head.logits(embedded)), validation.rows, labels) > before:
        _set(network, head)


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
        from training.saved import start_from

        start_from(network, job.source)
    return network


def _fitted(network: Network, train: Inputs, validation: Inputs, training: Training) -> LinearHead:
    """The head on the network's features as they are now.

    For texts C is chosen by cross-validation, for tokens on the validation rows, where there are any.
    """
    labels = len(training.job.labels)
    targets = np.array(train.targets)
    if not train.per_token:
        features = np.stack(outputs(network, train, "embed"))
        return fit_head(features, targets, labels, choose_strength(features, targets, training.seed))
    features = _labelled(outputs(network, train, "states"), train)
    if not len(validation):
        return fit_head(features, targets, labels, _TOKEN_STRENGTHS[0])
    states = outputs(network, validation, "states")

    def score(head: LinearHead) -> float:
        return macro_f1([head.logits(rows) for rows in states], validation.rows, training.job.labels)

    return choose_strength_by(features, targets, labels, score, _TOKEN_STRENGTHS)


def _start(network: Network, train: Inputs, training: Training) -> LinearHead:
    """The head to start a descent from: a weak one, for one that fits every row leaves nothing to learn from."""
    targets = np.array(train.targets)
    if train.per_token:
        features = _labelled(outputs(network, train, "states"), train)
    else:
        features = np.stack(outputs(network, train, "embed"))
    return fit_head(features, targets, len(training.job.labels), _START_STRENGTH)


def _labelled(states: list[Array], inputs: Inputs) -> Array:
    """The states of the tokens that have a target."""
    kept = [np.array(row.targets) != IGNORED for row in inputs.rows]
    return np.concatenate([rows[keep] for rows, keep in zip(states, kept, strict=True)])


def _set(network: Network, head: LinearHead) -> None:
    import torch

    module = simple_head(network)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(head.weight))
        module.bias.copy_(torch.from_numpy(head.bias))


def _by_contrast(method: str, network: Network, train: Inputs, training: Training) -> Candidate:
    """Embeddings by contrast, then a head on them (SetFit, Tunstall et al., 2022, the body an adapter's)."""
    import torch

    settings = training.job.source.recipe.training
    epochs = settings.contrastive_epochs or _CONTRASTIVE_EPOCHS
    if settings.label_names:
        train = _with_names(network, train, training.job)
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
    stage = Stage(f"{training.stage}-contrast", epochs, steps, batches, loss)
    fit = descend(network, stage, settings, training.seed, training.report, training.checkpoints)
    head = _fitted(network, train, training.job.inputs([]), training)
    _set(network, head)
    return Candidate(method, network, fit.epochs, fit.best, head.strength)


def _with_names(network: Network, train: Inputs, job: Job) -> Inputs:
    """The rows with each label's name as one more row of it: a name says what its rows are about."""
    names = [label.replace("_", " ").replace("-", " ") for label in job.labels]
    rows = [replace(row, targets=(i,)) for i, row in enumerate(job.encoded(names))]
    more = job.inputs([*train.rows, *rows])
    if train.states is not None:
        more.keep_states(network.trunk, network.spec, network.depth)
    return more


def _by_cross_entropy(
    network: Network, train: Inputs, validation: Inputs, target: Inputs | None, training: Training
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

    stage = Stage(
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


def _reworded(training: Training, order: torch.Generator) -> Inputs:
    import torch

    chance = random.Random(int(torch.randint(2**31, (1,), generator=order)))  # noqa: S311 - can be repeated
    job, change = training.job, training.job.source.recipe.augmentation
    examples = [reworded(e, change.word_dropout, change.word_swap, chance) for e in training.examples]
    return job.inputs(encode(job.tokenizer, examples, job.labels))


def from_scratch(training: Training) -> Candidate:
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
