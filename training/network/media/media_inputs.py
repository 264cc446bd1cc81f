"""Images and recordings ready to be batched: rows of equal length, whose values are read when needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.training.network.inputs import Count, Inputs, KnownStates, ignored
from rootstock.training.network.media.media_row import MediaRow
from rootstock.training.network.trunk import states_into

if TYPE_CHECKING:
    import torch
    from torch import nn

_ROWS = 32
# States above this size are not kept: they take 4 bytes a number, for every token of every row.
_MOST_BYTES = 6 * 2**30


class RowReader(Protocol):
    """A source of the values of rows."""

    def values(self, row: MediaRow) -> Array:
        """Return a row as the trunk reads it."""


@dataclass(frozen=True)
class MediaBatch:
    """Rows of equal length. Their values are read if the trunk runs whole."""

    rows: tuple[MediaRow, ...]
    reader: RowReader
    targets: torch.Tensor
    states: torch.Tensor | None = None
    mask: None = None

    @property
    def mixed(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The class of each row's patch and its share of the row; None if no row has one."""
        import torch

        if not any(row.patch for row in self.rows):
            return None
        others = [row.targets[0] if row.patch is None else row.patch.target for row in self.rows]
        shares = [0.0 if row.patch is None else row.patch.share for row in self.rows]
        device = self.targets.device
        return torch.tensor(others, device=device), torch.tensor(shares, device=device)

    def arguments(self, spec: FoundationSpec) -> dict[str, Any]:
        """Return the trunk's arguments."""
        import torch

        values = np.stack([self.reader.values(row) for row in self.rows])
        return {spec.inputs[0]: torch.from_numpy(values).to(self.targets.device)}


@dataclass(frozen=True)
class ChangedBatch:
    """The trunk's arguments themselves, for values that belong to no row."""

    values: dict[str, Any]
    targets: torch.Tensor
    mask: None = None
    states: None = None
    mixed: None = None

    def arguments(self, spec: FoundationSpec) -> dict[str, Any]:
        """Return the trunk's arguments."""
        return self.values


class MediaInputs(Inputs):
    """Images or recordings. `states` holds the states of each row, (tokens, width)."""

    states: list[torch.Tensor] | None

    def __init__(self, rows: Sequence[MediaRow], reader: RowReader, device: torch.device) -> None:
        import torch

        self.rows: tuple[MediaRow, ...] = tuple(rows)
        self.lengths = np.array([row.length for row in rows], np.int64)
        self.per_token = False
        self.device = device
        self.states = None
        self._reader = reader
        self._targets = torch.tensor([row.targets[0] for row in rows], dtype=torch.long, device=device)

    def batch(self, chosen: Sequence[int]) -> MediaBatch:
        """Return the rows at these positions, which have the same length."""
        import torch

        states = None if self.states is None else torch.stack([self.states[i] for i in chosen])
        targets = self._targets[torch.tensor(list(chosen), device=self.device)]
        return MediaBatch(tuple(self.rows[i] for i in chosen), self._reader, targets, states)

    def in_order(self) -> Iterator[list[int]]:
        """Yield the positions of all rows in batches of equal length."""
        for group in self.parts(range(len(self))):
            for start in range(0, len(group), _ROWS):
                yield group[start : start + _ROWS]

    def keep_states(
        self,
        trunk: nn.Module,
        spec: FoundationSpec,
        depth: int,
        count: Count = ignored,
        known: KnownStates | None = None,
    ) -> bool:
        """Compute and keep the states into layer `depth`; return False where they would take too much memory."""
        import torch

        kept: dict[int, torch.Tensor] = {}
        with torch.no_grad():
            for chosen in self.in_order():
                states = states_into(trunk, spec, depth, self.batch(chosen).arguments(spec))
                if states[0].numel() * 4 * len(self) > _MOST_BYTES:
                    return False
                kept |= dict(zip(chosen, states, strict=True))
                count(len(chosen))
        self.states = [kept[i] for i in range(len(self))]
        return True

    def parts(self, chosen: Sequence[int]) -> list[list[int]]:
        """Return the positions in groups of equal length: no row is padded, so that none changes another."""
        groups: dict[int, list[int]] = {}
        for i in chosen:
            groups.setdefault(int(self.lengths[i]), []).append(i)
        return list(groups.values())
