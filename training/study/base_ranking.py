"""Ranks foundations and their layers for a recipe's data: transferability beside a measured head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.dataset import require_classes
from rootstock.training.fit.job import prepare
from rootstock.training.fit.plan import TrainingRows
from rootstock.training.metrics.transferability import h_score, log_me
from rootstock.training.network.network import pooled, pooling_of
from rootstock.training.network.network_spec import NetworkSpec
from rootstock.training.network.row_encoder import InputEncoder
from rootstock.training.network.trunk import states_into, task_model
from rootstock.training.problems.linear_head import choose_strength, fit_head
from rootstock.training.recipe.recipe_file import RecipeFile, changed


class LayerFeatures(NamedTuple):
    """(n, width) features, their classes, and the row that each is of."""

    vectors: Array
    targets: Any
    rows: Any


@dataclass(frozen=True)
class BaseRank:
    """A layer's output as features: LogME, H-score, and the cross-validated accuracy of a head on them."""

    base_model: str
    layer: int
    log_me: float
    h_score: float
    head_only: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures, rounded."""
        return {
            "base_model": self.base_model,
            "layer": self.layer,
            "log_me": round(self.log_me, 4),
            "h_score": round(self.h_score, 4),
            "head_only": round(self.head_only, 4),
        }


def rank_bases(
    source: RecipeFile, base_models: Sequence[str], observe: Callable[[str, int], None] = lambda *_: None
) -> list[BaseRank]:
    """Rank each foundation's layers, the best head first; texts are pooled, tokens are used singly.

    Layer 0 gives the embeddings, the last layer the trunk's output. Only the rows to train and choose by are
    read.
    """
    require_classes(source)
    ranks = []
    for base_model in base_models:
        job = prepare(changed(source, {"base_model": base_model, "peft.method": "head_only"}))
        rows, seed = job.joined_rows, job.seeds[0]
        for layer in range(job.network.foundation.layers + 1):
            observe(base_model, layer)
            features = features_of(job.network, job.encoder, rows, layer)
            strength = 10.0 if job.dataset.tokens else choose_strength(features.vectors, features.targets, seed)
            ranks.append(
                BaseRank(
                    base_model,
                    layer,
                    log_me(features.vectors, features.targets),
                    h_score(features.vectors, features.targets),
                    _accuracy(features, rows, len(job.labels), strength),
                )
            )
    return sorted(ranks, key=lambda rank: -rank.head_only)


def features_of(network: NetworkSpec, encoder: InputEncoder, rows: TrainingRows, layer: int) -> LayerFeatures:
    """Return the output of a layer of the foundation for the rows to train on."""
    import torch

    model = task_model(network).to(encoder.device).eval()
    trunk = model.get_submodule(network.task_class.prefix.rstrip("."))
    foundation, inputs = network.foundation, encoder.inputs(rows.train)
    vectors: list[Array] = []
    targets: list[int] = []
    origins: list[int] = []
    with torch.inference_mode():
        for positions in inputs.in_order():
            batch = inputs.batch(positions)
            states = states_into(trunk, foundation, layer, batch.arguments(foundation))
            if inputs.per_token:
                labelled = batch.targets >= 0
                vectors.append(states[labelled].cpu().numpy())
                targets += batch.targets[labelled].tolist()
                origins += np.repeat(positions, labelled.sum(1).cpu().numpy()).tolist()
            else:
                pooling = pooling_of(foundation)
                embeddings = torch.nn.functional.normalize(pooled(states, batch.mask, pooling), dim=-1)
                vectors.append(embeddings.cpu().numpy())
                targets += batch.targets.tolist()
                origins += positions
    return LayerFeatures(np.concatenate(vectors), np.array(targets), np.array(origins))


def _accuracy(features: LayerFeatures, rows: TrainingRows, labels: int, strength: float) -> float:
    """Return the accuracy of a head on the features, each row predicted by a head that did not see it."""
    right = 0
    vectors, targets, origins = features
    for _, fold in rows.folds():
        test = np.isin(origins, fold)
        head = fit_head(vectors[~test], targets[~test], labels, strength)
        right += int((head.logits(vectors[test]).argmax(1) == targets[test]).sum())
    return right / len(targets)
