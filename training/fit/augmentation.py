"""Changes to training rows: words dropped or swapped, tokens hidden from attention, embeddings mixed."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from rootstock.training.data.example import Example
from rootstock.training.network.inputs import TokenBatch

if TYPE_CHECKING:
    import torch


def reword(example: Example, drop: float, swap: float, chance: random.Random) -> Example:
    """Return the example with words dropped, and others swapped with the next (Wei and Zou, EDA, 2019).

    At least one word stays.
    """
    words = example.text.split()
    rest = [word for word in words if chance.random() >= drop] or [chance.choice(words)]
    for i in range(len(rest) - 1):
        if chance.random() < swap:
            rest[i], rest[i + 1] = rest[i + 1], rest[i]
    return replace(example, text=" ".join(rest))


def hide_tokens(batch: TokenBatch, share: float, special: int = 1) -> TokenBatch:
    """Return the batch with a share of its tokens hidden from attention and pooling, never the first or last."""
    import torch

    hidden = torch.rand(batch.mask.shape, device=batch.mask.device) < share
    places = torch.arange(batch.mask.shape[1], device=batch.mask.device)
    lengths = batch.mask.sum(1, keepdim=True)
    hidden &= (places >= special) & (places < lengths - special)
    return replace(batch, mask=batch.mask * (~hidden).long())


def mixing(rows: int, alpha: float) -> tuple[float, torch.Tensor]:
    """Return the share that each row keeps, and the row that supplies its rest (Zhang et al., mixup, 2018)."""
    import torch

    share = torch.distributions.Beta(alpha, alpha).sample().item()
    return max(share, 1 - share), torch.randperm(rows)
