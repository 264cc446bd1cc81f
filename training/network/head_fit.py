"""Fits the linear head of a network on the network's features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array
from rootstock.training.data.encoding import IGNORED
from rootstock.training.metrics.evaluation import macro_f1
from rootstock.training.network.inputs import Inputs
from rootstock.training.network.network import Network, outputs, simple_head
from rootstock.training.problems.linear_head import (
    LinearHead,
    choose_strength_by,
    fit_head,
)
from rootstock.training.problems.problem import Problem
from rootstock.training.problems.units import NONE, Units

_TOKEN_STRENGTHS = (1.0, 10.0)


def cross_validated_head(
    network: Network, train: Inputs, validation: Inputs, problem: Problem, seed: int
) -> LinearHead:
    """Return the head on the network's features as they are now.

    For texts cross-validation chooses its strength. For tokens the validation rows choose it; without any it is
    1.
    """
    features, targets = _features(network, train)
    if not train.per_token:
        return problem.fit_head(features, targets, seed)
    labels = problem.labels
    if not len(validation):
        return fit_head(features, targets, len(labels), _TOKEN_STRENGTHS[0])
    states = outputs(network, validation, "states")

    def score(head: LinearHead) -> float:
        return macro_f1([head.logits(rows) for rows in states], validation.rows, labels)

    return choose_strength_by(features, targets, len(labels), score, _TOKEN_STRENGTHS)


def weak_head(network: Network, train: Inputs, problem: Problem) -> LinearHead:
    """Return the head of a low strength on the network's features as they are now.

    The strength is fixed, since few rows, or rows after a contrastive stage, cannot choose it. A descent starts
    from this head too: one that fits every row would leave no loss to learn from.
    """
    features, targets = _features(network, train)
    return problem.fit_weak_head(features, targets)


def set_head(network: Network, head: LinearHead) -> None:
    """Set the weights of the network's one-layer head."""
    import torch

    module = simple_head(network)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(head.weight))
        module.bias.copy_(torch.from_numpy(head.bias))


@contextmanager
def standardised(network: Network, units: Units, fitted: bool = True) -> Iterator[None]:
    """Let the network's one-layer head answer in standardised numbers; afterwards it answers in numbers.

    A head that is not `fitted` to numbers, but random, counts as one that answers in standardised numbers.
    """
    if units == NONE:
        yield
        return
    import torch

    module = simple_head(network)
    if fitted:
        with torch.no_grad():
            module.weight.div_(units.deviation)
            module.bias.sub_(units.mean).div_(units.deviation)
    yield
    with torch.no_grad():
        module.weight.mul_(units.deviation)
        module.bias.mul_(units.deviation).add_(units.mean)


def _features(network: Network, inputs: Inputs) -> tuple[Array, npt.NDArray[Any]]:
    """Return a vector and a class, or values, for each text, or for each token that has a class."""
    values = not inputs.per_token and bool(inputs.rows[0].values)
    targets = np.array([row.values for row in inputs.rows] if values else inputs.targets)
    if not inputs.per_token:
        return np.stack(outputs(network, inputs, "embed")), targets
    states = outputs(network, inputs, "states")
    labelled = [np.array(row.targets) != IGNORED for row in inputs.rows]
    return np.concatenate([rows[mask] for rows, mask in zip(states, labelled, strict=True)]), targets
