"""The states of a run's rows below the first layer that changes, computed once for all of its trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rootstock.adapters.spec import FoundationSpec
from rootstock.training.data.encoding import TokenRow
from rootstock.training.network.inputs import TokenInputs, added_up

if TYPE_CHECKING:
    import torch
    from torch import nn

# Shared states beside those of a training would take twice the memory, so only small sets share them.
_MOST_BYTES = 2**29
# Takes the number of rows that passed the layers, and of all that will.
Progress = Callable[[int, int], None]


def _ignored(done: int, total: int, /) -> None:
    """Ignore a report of progress."""


class KeptStates:
    """The states into some layers for the token rows of a run, which every fold and the last training share.

    All rows pass the layers together, so that the states of a row do not depend on the training that asks first:
    a resumed run gets the same ones. `progress` gets the rows of each batch of that pass.
    """

    def __init__(
        self, rows: Sequence[TokenRow], pad_id: int, device: torch.device, progress: Progress = _ignored
    ) -> None:
        self._rows, self._pad_id, self._device, self._progress = rows, pad_id, device, progress
        self._tokens = sum(len(row.ids) for row in rows)
        self._places = {id(row): i for i, row in enumerate(rows)}
        self._by_depth: dict[int, TokenInputs] = {}

    def of(self, row: TokenRow, trunk: nn.Module, spec: FoundationSpec, depth: int) -> torch.Tensor | None:
        """Return the states (tokens, width) of a row into layer `depth`; None for one that is not of this run."""
        place = self._places.get(id(row))
        if place is None or self._tokens * spec.hidden_size * 4 > _MOST_BYTES:
            return None
        if depth not in self._by_depth:
            self._by_depth[depth] = self._computed(trunk, spec, depth)
        return self._by_depth[depth].states_of(place)

    def _computed(self, trunk: nn.Module, spec: FoundationSpec, depth: int) -> TokenInputs:
        inputs = TokenInputs(self._rows, self._pad_id, self._device)
        inputs.keep_states(trunk, spec, depth, added_up(lambda done: self._progress(done, len(self._rows))))
        return inputs
