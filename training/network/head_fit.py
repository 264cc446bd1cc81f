"""A linear head fitted on what a network gives for rows, and put into it."""

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


def chosen_head(
    network: Network, train: Inputs, validation: Inputs, labels: Sequence[str], seed: int
) -> LinearHead:
    """The head on the network's features as they are now.

    For texts C is chosen by cross-validation, for tokens on the validation rows, where there are any.
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
    """The head of C = 10 on the network's features as they are now.

    For rows that cannot choose C, being few, or drawn together by contrast; and to start a descent from, since a
    head that fits every row leaves nothing to learn from.
    """
    features, targets = _features(network, train)
    return fit_head(features, targets, len(labels), _WEAK)


def set_head(network: Network, head: LinearHead) -> None:
    """Give the network's one-layer head these weights."""
    import torch

    module = simple_head(network)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(head.weight))
        module.bias.copy_(torch.from_numpy(head.bias))


def _features(network: Network, inputs: Inputs) -> tuple[Array, Targets]:
    """A vector and a class for each text, or for each token that has one."""
    targets = np.array(inputs.targets)
    if not inputs.per_token:
        return np.stack(outputs(network, inputs, "embed")), targets
    states = outputs(network, inputs, "states")
    kept = [np.array(row.targets) != IGNORED for row in inputs.rows]
    return np.concatenate([rows[keep] for rows, keep in zip(states, kept, strict=True)]), targets
