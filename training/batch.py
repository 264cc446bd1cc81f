"""Encoded examples as padded tensors, and a model's raw outputs for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters.spec import Array
from training.encoding import IGNORED, Encoded

if TYPE_CHECKING:
    import torch
    from torch import nn


def tensors(batch: Sequence[Encoded], pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """What a Hugging Face model takes: input_ids, attention_mask and labels, padded to the longest."""
    import torch

    longest = max(len(example.ids) for example in batch)

    def padded(rows: list[Sequence[int]], value: int) -> torch.Tensor:
        return torch.tensor([[*row, *([value] * (longest - len(row)))] for row in rows], device=device)

    per_token = bool(batch[0].words)
    targets: Any = [example.targets for example in batch]
    return {
        "input_ids": padded([example.ids for example in batch], pad_id),
        "attention_mask": padded([[1] * len(example.ids) for example in batch], 0),
        "labels": padded(targets, IGNORED) if per_token else torch.tensor(targets, device=device)[:, 0],
    }


def outputs(
    model: nn.Module, examples: Sequence[Encoded], batch_size: int, attribute: str = "logits"
) -> list[Array]:
    """The model's raw output for each example in order: (labels,), or (tokens, labels) without padding.

    `attribute` names the output; `last_hidden_state` gives (tokens, hidden) of a trunk.
    """
    import torch

    was_training = model.training
    model.eval()
    found: list[Array] = []
    with torch.inference_mode():
        for start in range(0, len(examples), batch_size):
            batch = examples[start : start + batch_size]
            inputs = tensors(batch, pad_id(model), device_of(model))
            del inputs["labels"]
            rows = getattr(model(**inputs), attribute).float().cpu().numpy()
            for row, example in zip(rows, batch, strict=True):
                found.append(np.array(row[: len(example.ids)] if row.ndim == 2 else row))
    model.train(was_training)
    return found


def pad_id(model: nn.Module) -> int:
    """The token id to pad with; any id does where the foundation names none, since padding is masked."""
    config: Any = model.config
    return config.pad_token_id or 0


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device
