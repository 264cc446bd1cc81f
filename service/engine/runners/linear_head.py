"""Compute the linear head: pool the trunk's output, normalise, project. Every runner has the same arithmetic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Adapter, Array


def pool(hidden: Array | None, pooled: Array | None, mask: npt.NDArray[np.int64] | None, pooling: str) -> Array:
    """Return one vector for each row, (rows, width).

    They come from the hidden states, (rows, tokens, width) or for a grid (rows, width, height, width of the
    grid), or with `pooling` "pooler" from the pooler's output. Without a mask every token counts. Raise
    ValueError if the input that `pooling` needs is None.
    """
    if pooling == "pooler":
        if pooled is None:
            raise ValueError("this foundation has no pooler")
        return pooled.reshape(len(pooled), -1)
    if hidden is None:
        raise ValueError("pooling over tokens needs the hidden states")
    if hidden.ndim == 4:
        hidden = hidden.reshape(*hidden.shape[:2], -1).swapaxes(1, 2)
    if pooling == "cls":
        return np.ascontiguousarray(hidden[:, 0])
    if mask is None:
        return np.asarray(hidden[:, -1] if pooling == "last" else hidden.mean(axis=1), dtype=np.float32)
    if pooling == "last":
        return np.asarray(hidden[np.arange(len(hidden)), np.maximum(mask.sum(axis=1) - 1, 0)])
    weights = mask.astype(np.float32)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1.0)
    return np.asarray(np.matmul(weights[:, None, :], hidden)[:, 0], dtype=np.float32)


def at_masks(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], mask_id: int) -> npt.NDArray[np.bool_]:
    """Return the tokens that a masked-language-model head reads: (rows, tokens), true at mask tokens."""
    return np.asarray((ids == mask_id) & (mask == 1))


def linear_head(vectors: Array, adapter: Adapter) -> Array:
    """Return the head's output: (rows, labels), or (rows, width) for a head without weights."""
    if adapter.head.normalize:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    weights = adapter.weights.head
    if "head.weight" in weights:
        vectors = vectors @ weights["head.weight"].T
        if "head.bias" in weights:
            vectors = vectors + weights["head.bias"]
    return np.asarray(vectors, dtype=np.float32)
