"""Which foundation, and which of its layers, suits a recipe's data: transferability beside a measured head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.split import folds
from rootstock.training.fit.job import Job, prepare
from rootstock.training.metrics.transferability import h_score, log_me
from rootstock.training.network.linear_head import choose_strength, fit_head
from rootstock.training.network.network import pooled, pooling_of
from rootstock.training.network.trunk import states_into, task_model
from rootstock.training.recipe.recipe_file import RecipeFile, changed


@dataclass(frozen=True)
class BaseRank:
    """A layer's output as features: LogME and H-score, and the accuracy of a head on them by cross-validation."""

    base_model: str
    layer: int
    log_me: float
    h_score: float
    head_only: float

    def to_json(self) -> dict[str, Any]:
        """The figures, rounded."""
        return {
            "base_model": self.base_model,
            "layer": self.layer,
            "log_me": round(self.log_me, 4),
            "h_score": round(self.h_score, 4),
            "head_only": round(self.head_only, 4),
        }


def rank_bases(
    source: RecipeFile, base_models: Sequence[str], told: Callable[[str, int], None] = lambda *_: None
) -> list[BaseRank]:
    """Each foundation's layers, the best head first. Texts: pooled and normalised; tokens: each labelled token.

    Layer 0 gives the embeddings, the last the trunk's output. Reads the rows to train and choose by alone.
    """
    found = []
    for base_model in base_models:
        job = prepare(changed(source, {"base_model": base_model, "peft.method": "head_only"}))
        for layer in range(job.spec.layers + 1):
            told(base_model, layer)
            found.append(_ranked(job, base_model, layer))
    return sorted(found, key=lambda one: -one.head_only)


def _ranked(job: Job, base_model: str, layer: int) -> BaseRank:
    features, targets, groups = features_of(job, layer)
    return BaseRank(
        base_model,
        layer,
        log_me(features, targets),
        h_score(features, targets),
        _accuracy(job, features, targets, groups),
    )


def features_of(job: Job, layer: int) -> tuple[Array, Any, Any]:
    """(n, width) features, their classes, and which row each is of."""
    import torch

    recipe = job.source.recipe
    model = task_model(job.files, recipe, len(job.labels)).to(job.device).eval()
    trunk = model.get_submodule(job.task_class.prefix.rstrip("."))
    rows = [*job.rows["train"], *job.rows["validation"]]
    inputs = job.inputs(rows)
    features: list[Array] = []
    targets: list[int] = []
    groups: list[int] = []
    with torch.inference_mode():
        for chosen in inputs.in_order():
            batch = inputs.batch(chosen)
            states = states_into(trunk, job.spec, layer, batch.arguments(job.spec))
            if inputs.per_token:
                kept = batch.targets >= 0
                features.append(states[kept].cpu().numpy())
                targets += batch.targets[kept].tolist()
                groups += np.repeat(chosen, kept.sum(1).cpu().numpy()).tolist()
            else:
                vectors = torch.nn.functional.normalize(pooled(states, batch.mask, pooling_of(job.spec)), dim=-1)
                features.append(vectors.cpu().numpy())
                targets += batch.targets.tolist()
                groups += chosen
    return np.concatenate(features), np.array(targets), np.array(groups)


def _accuracy(job: Job, features: Array, targets: Any, groups: Any) -> float:
    """Of a head on the features, each row predicted by a head that did not see it."""
    examples = [*job.parts.train, *job.parts.validation]
    right = 0
    strength = 10.0 if job.dataset.tokens else choose_strength(features, targets, job.source.recipe.seeds[0])
    for kept, taken in folds(examples, job.source.recipe.data.splits.seed):
        train, test = np.isin(groups, kept), np.isin(groups, taken)
        head = fit_head(features[train], targets[train], len(job.labels), strength)
        right += int((head.logits(features[test]).argmax(1) == targets[test]).sum())
    return right / len(targets)
