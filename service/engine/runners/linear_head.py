"""The linear head: pool the trunk's output, normalise, project. Same arithmetic in every runner."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Adapter, Array


def pool(hidden: Array | None, pooled: Array | None, mask: npt.NDArray[np.int64], pooling: str) -> Array:
    """Return one vector a row, (rows, width), from hidden states (rows, tokens, width) or the pooler's output."""
    if pooling == "pooler":
        if pooled is None:
            raise ValueError("this foundation has no pooler")
        return pooled
    if hidden is None:
        raise ValueError("pooling over tokens needs the hidden states")
    if pooling == "cls":
        return np.ascontiguousarray(hidden[:, 0])
    weights = mask.astype(np.float32)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1.0)
    return np.asarray(np.matmul(weights[:, None, :], hidden)[:, 0], dtype=np.float32)


def at_masks(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], mask_id: int) -> npt.NDArray[np.bool_]:
    """Return where a masked-language-model head reads: (rows, tokens), true at the mask tokens of each row."""
    return np.asarray((ids == mask_id) & (mask == 1))


def linear_head(vectors: Array, adapter: Adapter) -> Array:
    """Return (rows, labels), or (rows, width) for a head without weights."""
    if adapter.head.normalize:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    weights = adapter.weights.head
    if "head.weight" in weights:
        vectors = vectors @ weights["head.weight"].T
        if "head.bias" in weights:
            vectors = vectors + weights["head.bias"]
    return np.asarray(vectors, dtype=np.float32)
