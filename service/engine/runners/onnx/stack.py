"""Stack adapters' updates into inputs of a trunk graph: arrays at each site for all states of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import Array, FoundationSpec, SiteUpdate
from rootstock.adapters.vocabulary.words import WordRows

# The graph inputs of the words whose embedding an adapter changes: see sites.WordSite.
WORD_CHANGES, WORD_PLACES = "words.changes", "words.places"
# The most numbers in a kept buffer (1 MiB in fp32): enough for 32 rows of rank 16 at a site of width 512.
_MAX_BUFFER = 2**18


class Stack:
    """A set of buffers that updates are stacked into, used again for each batch. Handle one batch at a time.

    Each method takes one update for each state, or None for a state whose adapter does not change the site. A
    single update, or None for all states, gives arrays of one row, which the graph broadcasts.
    """

    def __init__(self, spec: FoundationSpec) -> None:
        self._spec = spec
        self._kept: dict[str, Array] = {}
        self._nothing: dict[tuple[int, float], Array] = {}
        self._no_pair = {
            site: (np.zeros((1, 0, i), np.float32), np.zeros((1, 0, o), np.float32))
            for site, (i, o) in spec.sites.items()
        }

    def low_rank(self, site: str, updates: Sequence[SiteUpdate | None]) -> dict[str, Array]:
        """Return A (states, r, in) and B (states, r, out), with r the largest rank. Smaller ranks are padded."""
        ranks = [0 if update is None else update.rank for update in updates]
        rank = max(ranks)
        if rank == 0:
            a, b = self._no_pair[site]
        elif len(updates) == 1 and updates[0] is not None:
            a, b = updates[0].a[None], updates[0].b[None]
        else:
            width_in, width_out = self._spec.sites[site]
            a = self._buffer(f"{site}.A", len(updates), rank, width_in)
            b = self._buffer(f"{site}.B", len(updates), rank, width_out)
            if min(ranks) == rank:
                whole = [update for update in updates if update is not None]
                np.concatenate([update.a for update in whole], out=a.reshape(-1, width_in))
                np.concatenate([update.b for update in whole], out=b.reshape(-1, width_out))
            else:
                _pad_ranks(updates, a, b)
        return {f"{site}.A": a, f"{site}.B": b}

    def scales(self, site: str, updates: Sequence[SiteUpdate | None]) -> dict[str, Array]:
        """Return the site's scales and shift, (states, 1, features).

        A missing scale is ones, a missing shift zeros.
        """
        width_in, width_out = self._spec.scaled_width(site), self._spec.sites[site][1]
        scaled = {
            "input_scale": self._vectors([u.input_scale if u else None for u in updates], width_in, 1.0),
            "output_scale": self._vectors([u.output_scale if u else None for u in updates], width_out, 1.0),
            "shift": self._vectors([u.shift if u else None for u in updates], width_out, 0.0),
        }
        return {f"{site}.{part}": array for part, array in scaled.items()}

    def norm(self, norm: str, updates: Sequence[SiteUpdate | None]) -> dict[str, Array]:
        """Return a normalisation layer's scale and shift, (states, 1, width)."""
        width = self._spec.norms[norm]
        scales = [update.output_scale if update else None for update in updates]
        shifts = [update.shift if update else None for update in updates]
        return {
            f"{norm}.output_scale": self._vectors(scales, width, 1.0),
            f"{norm}.shift": self._vectors(shifts, width, 0.0),
        }

    def words(
        self, rows: Sequence[WordRows | None], tokens: npt.NDArray[np.int64]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the changes of the word embedding, and the place of each token's, (states, tokens).

        `tokens` are those of the states. The first change is zeros, for tokens without one.
        """
        table = self._spec.words
        if table is None:
            return {}
        distinct = {id(one): one for one in rows if one is not None}
        if not distinct:
            return {
                WORD_CHANGES: np.zeros((1, table.width), np.float32),
                WORD_PLACES: np.zeros((1, 1), np.int64),
            }
        starts: dict[int, int] = {}
        filled = 0
        for key, one in distinct.items():
            starts[key] = filled
            filled += len(one.ids)
        changes = [np.zeros((1, table.width), np.float32), *(one.changes for one in distinct.values())]
        places = np.zeros(tokens.shape, np.int64)
        for i, row in enumerate(rows):
            if row is not None:
                own = row.places(tokens[i])
                places[i] = np.where(own > 0, own + starts[id(row)], 0)
        return {WORD_CHANGES: np.concatenate(changes), WORD_PLACES: places}

    def _vectors(self, vectors: Sequence[Array | None], width: int, absent: float) -> Array:
        if all(vector is None for vector in vectors):
            if (width, absent) not in self._nothing:
                self._nothing[width, absent] = np.full((1, 1, width), absent, np.float32)
            return self._nothing[width, absent]
        stacked = np.full((len(vectors), 1, width), absent, np.float32)
        for i, vector in enumerate(vectors):
            if vector is not None:
                stacked[i, 0] = vector
        return stacked

    def _buffer(self, name: str, *shape: int) -> Array:
        """Return an array to fill for the next run.

        Up to a size it is kept, since new memory costs more than copying.
        """
        size = math.prod(shape)
        if size > _MAX_BUFFER:
            return np.empty(shape, np.float32)
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            kept = self._kept[name] = np.empty(size, np.float32)
        return kept[:size].reshape(shape)


def _pad_ranks(updates: Sequence[SiteUpdate | None], a: Array, b: Array) -> None:
    """Stack updates of different ranks. The rows beyond an update's rank are zero and add nothing."""
    a.fill(0)
    b.fill(0)
    for i, update in enumerate(updates):
        if update is not None:
            a[i, : update.rank] = update.a
            b[i, : update.rank] = update.b
