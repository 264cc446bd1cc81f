"""The contrastive stage for few rows: it pulls embeddings of one label together, and others apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def supervised_contrast(embeddings: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the supervised contrastive loss, which is low if a row is similar to rows of its label alone.

    `embeddings` (rows, width) have length 1. A row without another row of its label does not count. Source:
    Khosla et al., "Supervised Contrastive Learning", 2020, eq. 2.
    """
    import torch

    similar = embeddings @ embeddings.T / temperature
    itself = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    similar = similar.masked_fill(itself, -1e9)
    positive = (targets[:, None] == targets[None, :]) & ~itself
    logs = similar - torch.logsumexp(similar, dim=1, keepdim=True)
    counts = positive.sum(1)
    losses = -(logs * positive).sum(1) / counts.clamp(min=1)
    return losses.sum() / (counts > 0).sum().clamp(min=1)


def balanced_batches(targets: list[int], rows: int, order: torch.Generator) -> Iterator[list[int]]:
    """Yield each row once, in random batches of about `rows` that hold all labels as evenly as possible."""
    import torch

    by_label: dict[int, list[int]] = {}
    for i in torch.randperm(len(targets), generator=order).tolist():
        by_label.setdefault(targets[i], []).append(i)
    count = max(1, round(len(targets) / rows))
    batches: list[list[int]] = [[] for _ in range(count)]
    start = 0
    for label in sorted(by_label):
        positions = by_label[label]
        # A run of one label goes to one batch, so that each row shares its batch with others of its label.
        size = -(-len(positions) // count)
        size = max(2, size)
        for run in range(0, len(positions), size):
            batches[start % count].extend(positions[run : run + size])
            start += 1
    yield from (batch for batch in batches if len(batch) > 1)
