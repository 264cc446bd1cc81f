"""Fits the linear head of a network on the network's features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import IGNORED
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.network.inputs import Inputs
from rootstock.training.network.linear_head import (
    LinearHead,
    Targets,
    choose_strength,
    choose_strength_by,
    fit_head,
)
from rootstock.training.network.network import Network, outputs, simple_head

_TOKEN_STRENGTHS = (1.0, 10.0)
_WEAK = 10.0


def cross_validated_head(
    network: Network, train: Inputs, validation: Inputs, labels: Sequence[str], seed: int
) -> LinearHead:
    """Return the head on the network's features as they are now.

    For texts cross-validation chooses C. For tokens the validation rows choose it; without any it is 1.
    """
    features, targets = _features(network, train)
    if not train.per_token:
        return fit_head(features, targets, len(labels), choose_strength(features, targets, seed))
    if not len(validation):
        return fit_head(features, targets, len(labels), _TOKEN_STRENGTHS[0])
    states = outputs(network, validation, "states")

    def score(head: LinearHead) -> float:
        return macro_f1([head.logits(rows) for rows in states], validation.rows, labels)

    return choose_strength_by(features, targets, len(labels), score, _TOKEN_STRENGTHS)


def weak_head(network: Network, train: Inputs, labels: Sequence[str]) -> LinearHead:
    """Return the head of C = 10 on the network's features as they are now.

    C is fixed, since few rows, or rows after a contrastive stage, cannot choose it. A descent starts from this
    head too: one that fits every row would leave no loss to learn from.
    """
    features, targets = _features(network, train)
    return fit_head(features, targets, len(labels), _WEAK)


def set_head(network: Network, head: LinearHead) -> None:
    """Set the weights of the network's one-layer head."""
    import torch

    module = simple_head(network)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(head.weight))
        module.bias.copy_(torch.from_numpy(head.bias))


def _features(network: Network, inputs: Inputs) -> tuple[Array, Targets]:
    """Return a vector and a class for each text, or for each token that has a class."""
    targets = np.array(inputs.targets)
    if not inputs.per_token:
        return np.stack(outputs(network, inputs, "embed")), targets
    states = outputs(network, inputs, "states")
    labelled = [np.array(row.targets) != IGNORED for row in inputs.rows]
    return np.concatenate([rows[mask] for rows, mask in zip(states, labelled, strict=True)]), targets
