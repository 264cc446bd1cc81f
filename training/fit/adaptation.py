"""Losses that bring the embeddings of the training rows and of an unlabelled target domain together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch
    from torch import nn


def coral(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the squared distance of the covariances of (rows, width) embeddings (Sun and Saenko, 2016).

    The paper divides by 4 width². Embeddings of length 1 have covariances of about 1/width, so here the distance
    is multiplied by width / 4, which makes it about as large as the cross entropy.
    """
    width = source.shape[1]
    return ((_covariance(source) - _covariance(target)) ** 2).sum() * width / 4


def _covariance(rows: torch.Tensor) -> torch.Tensor:
    centred = rows - rows.mean(0)
    return centred.T @ centred / max(1, len(rows) - 1)


class DomainClassifier:
    """A classifier of source and target embeddings that the trunk learns to fool (Ganin et al., DANN, 2016)."""

    def __init__(self, width: int, device: torch.device) -> None:
        from torch import nn

        self.network = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 2)).to(device)

    def loss(self, source: torch.Tensor, target: torch.Tensor, done: float) -> torch.Tensor:
        """Return the cross entropy. Gradients to the embeddings are reversed, and grow over the run (`done`)."""
        import torch
        from torch.nn.functional import cross_entropy

        strength = 2 / (1 + math.exp(-10 * done)) - 1
        rows = _reversed(torch.cat([source, target]), strength)
        domains = torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).long().to(rows.device)
        return cross_entropy(cast("nn.Module", self.network)(rows), domains)


def _reversed(rows: torch.Tensor, strength: float) -> torch.Tensor:
    """Return the same rows with their gradient reversed and scaled."""
    import torch

    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: Any) -> Any:
            return value.view_as(value)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return -strength * gradients[0]

    return cast("torch.Tensor", Reverse.apply(rows))  # type: ignore[no-untyped-call]
