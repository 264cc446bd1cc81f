"""Hold the updates of adapters as tensors, and add them to what a layer gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rootstock.adapters.spec import Array, SiteUpdate
from rootstock.service.engine.runners.decoder.site_group import SiteGroup

# The features of a tensor that a part of an update reads or changes; None for all of them.
Columns = slice | None


class LowRankPart(NamedTuple):
    """The second product of a low-rank update at one site of a group.

    It multiplies the features `low` of what the first product gives by `b`, and changes the features `columns`.
    """

    low: Columns
    columns: Columns
    b: Tensor

    def take(self, low: Tensor) -> Tensor:
        """Return the features that this part reads, of (…, r)."""
        return low if self.low is None else low[..., self.low]

    def target(self, y: Tensor) -> Tensor:
        """Return the features that this part changes, of (…, out)."""
        return y if self.columns is None else y[..., self.columns]


@dataclass(frozen=True, slots=True)
class TensorUpdate:
    """The SiteUpdates of an adapter at the sites of a group, as tensors.

    `a` is (r, in), where r is the sum of the sites' ranks, and `b` of each part is (r of its site, out of its
    site). The scale and the shift of the output are (out of the group,). `input_scales` are those of each site.
    A vector that changes nothing is None.
    """

    a: Tensor
    parts: tuple[LowRankPart, ...]
    input_scales: tuple[Tensor | None, ...] | None = None
    output_scale: Tensor | None = None
    shift: Tensor | None = None

    @property
    def ranks(self) -> tuple[tuple[int, int], ...]:
        """Return the rank of each part with the first feature that it changes. Updates with equal ones stack."""
        return tuple((len(p.b), 0 if p.columns is None else p.columns.start) for p in self.parts)


def stage_updates(
    updates: Mapping[str, SiteUpdate], groups: Sequence[SiteGroup], dtype: torch.dtype
) -> dict[str, TensorUpdate]:
    """Return an adapter's updates as tensors of a dtype, by the names of the groups that it changes."""
    return {
        group.name: _join(group, [updates.get(name) for name in group.names], dtype)
        for group in groups
        if any(name in updates for name in group.names)
    }


def _join(group: SiteGroup, updates: Sequence[SiteUpdate | None], dtype: torch.dtype) -> TensorUpdate:
    present = [(update, columns) for update, columns in zip(updates, group.columns, strict=True) if update]
    rank = sum(update.rank for update, _ in present)
    parts: list[LowRankPart] = []
    done = 0
    for update, columns in present:
        if own := update.rank:
            low = None if own == rank else slice(done, done + own)
            parts.append(LowRankPart(low, columns if len(updates) > 1 else None, _tensor(update.b, dtype)))
            done += own
    scales = tuple(
        None if update is None or update.input_scale is None else _tensor(update.input_scale, dtype)
        for update in updates
    )
    a = [_tensor(update.a, dtype) for update, _ in present]
    return TensorUpdate(
        a[0] if len(a) == 1 else torch.cat(a),
        tuple(parts),
        None if all(scale is None for scale in scales) else scales,
        _beside(
            [None if update is None else update.output_scale for update in updates], group.widths, 1.0, dtype
        ),
        _beside([None if update is None else update.shift for update in updates], group.widths, 0.0, dtype),
    )


def _tensor(array: Array, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(array).to(dtype)


def _beside(
    vectors: Sequence[Array | None], widths: Sequence[int], fill: float, dtype: torch.dtype
) -> Tensor | None:
    """Return the vectors of a group's sites as one, with `fill` for those without. None if no site has one."""
    if all(vector is None for vector in vectors):
        return None
    parts = [
        torch.full((width,), fill, dtype=dtype) if vector is None else _tensor(vector, dtype)
        for vector, width in zip(vectors, widths, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
