"""Rows ready to be batched: their values, or the states into the first layer that changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from rootstock.adapters.spec import FoundationSpec
from rootstock.training.data.encoding import IGNORED, EncodedRow, TokenRow
from rootstock.training.network.trunk import states_into

if TYPE_CHECKING:
    import torch
    from torch import nn

# States above this size are not kept: they take 4 bytes a number, for every token of every row.
_MOST_BYTES = 4 * 2**30
_TOKENS = 4096


class InputBatch(Protocol):
    """The rows of a batch, for a trunk.

    `targets`: classes (rows,), for tokens (rows, tokens) with IGNORED at padding and special tokens; or the
    values of the rows, (rows, outputs). `mask`: (rows, tokens), None where no row is padded. `states`: (rows,
    tokens, width), or None where the trunk runs whole. `mixed`: the second class of each row and its share of the
    row, both (rows,), or None.
    """

    @property
    def targets(self) -> torch.Tensor: ...

    @property
    def mask(self) -> torch.Tensor | None: ...

    @property
    def states(self) -> torch.Tensor | None: ...

    @property
    def mixed(self) -> tuple[torch.Tensor, torch.Tensor] | None: ...

    def arguments(self, spec: FoundationSpec) -> dict[str, Any]:
        """Return the trunk's arguments."""


@dataclass(frozen=True)
class TokenBatch:
    """Padded token rows: `ids`, `types` and `mask` are (rows, tokens)."""

    ids: torch.Tensor
    types: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    states: torch.Tensor | None = None
    mixed: None = None

    def arguments(self, spec: FoundationSpec) -> dict[str, Any]:
        """Return the trunk's arguments."""
        arguments = {"input_ids": self.ids, "attention_mask": self.mask, "token_type_ids": self.types}
        return {name: arguments[name] for name in spec.inputs}


# Takes a number of rows that are done.
Count = Callable[[int], None]
# Takes a row, the trunk, its spec and a depth, and returns the states of the row into that layer, if known.
KnownStates = Callable[[Any, "nn.Module", FoundationSpec, int], "torch.Tensor | None"]


def ignored(rows: int, /) -> None:
    """Ignore a number of rows."""


def added_up(report: Callable[[int], None]) -> Count:
    """Return a count that reports the number of all rows that are done so far."""
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        report(done)

    return count


class Inputs(ABC):
    """The rows of one part, ready to be batched. `lengths` are in tokens, samples or images.

    `states` are the states into the first layer that changes, if they are kept.
    """

    rows: tuple[EncodedRow, ...]
    lengths: npt.NDArray[np.int64]
    per_token: bool
    device: torch.device
    states: Any = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> list[int]:
        """The class of each input, or of each token that has one."""
        return [t for row in self.rows for t in row.targets if t != IGNORED]

    @abstractmethod
    def batch(self, chosen: Sequence[int]) -> InputBatch:
        """Return the rows at these positions."""

    @abstractmethod
    def in_order(self) -> Iterator[list[int]]:
        """Yield the positions of all rows in batches of like length, each within a limit of tokens."""

    @abstractmethod
    def keep_states(
        self,
        trunk: nn.Module,
        spec: FoundationSpec,
        depth: int,
        count: Count = ignored,
        known: KnownStates | None = None,
    ) -> bool:
        """Compute and keep the states into layer `depth`; return False where they would take too much memory.

        `count` gets the number of rows of each batch that is computed. The states of rows that are `known` are
        taken from there.
        """

    def parts(self, chosen: Sequence[int]) -> list[list[int]]:
        """Return the positions of a step in groups that can be batched."""
        return [list(chosen)]


class TokenInputs(Inputs):
    """Token rows. `states` are flat, (all tokens + 1, width); the last one is for padding."""

    def __init__(self, rows: Sequence[TokenRow], pad_id: int, device: torch.device) -> None:
        import torch

        self.rows: tuple[TokenRow, ...] = tuple(rows)
        self.lengths = np.array([len(row.ids) for row in rows], np.int64)
        self.per_token = bool(rows) and bool(rows[0].words)
        self.device = device
        self.states: torch.Tensor | None = None
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._starts, self._end = starts[:-1], int(starts[-1])

        def flat(values: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
            joined = [v for row in values for v in row]
            return torch.tensor([*joined, pad], dtype=torch.long, device=device)

        self._ids = flat([row.ids for row in rows], pad_id)
        self._types = flat([row.types or (0,) * len(row.ids) for row in rows], 0)
        if self.per_token:
            self._targets = flat([row.targets for row in rows], IGNORED)
        elif rows and rows[0].values:
            self._targets = torch.tensor([row.values for row in rows], dtype=torch.float32, device=device)
        else:
            self._targets = torch.tensor([row.targets[0] for row in rows], dtype=torch.long, device=device)

    def batch(self, chosen: Sequence[int]) -> TokenBatch:
        """Return the rows at these positions, padded on the right to the longest of them."""
        import torch

        lengths = self.lengths[chosen]
        places = np.arange(lengths.max())[None, :]
        inside = places < lengths[:, None]
        index = torch.from_numpy(np.where(inside, self._starts[chosen][:, None] + places, self._end)).to(
            self.device
        )
        targets = self._targets[index if self.per_token else torch.tensor(list(chosen), device=self.device)]
        states = None if self.states is None else self.states[index]
        mask = torch.from_numpy(inside.astype(np.int64)).to(self.device)
        return TokenBatch(self._ids[index], self._types[index], mask, targets, states)

    def in_order(self) -> Iterator[list[int]]:
        """Yield the positions of all rows in batches of like length, each within a limit of tokens."""
        yield from self._batches(np.argsort(self.lengths, kind="stable").tolist())

    def _batches(self, order: list[int]) -> Iterator[list[int]]:
        """Yield positions, which are in the order of their lengths, in batches within a limit of tokens."""
        while order:
            size = max(1, _TOKENS // int(self.lengths[order[min(len(order), 64) - 1]]))
            size = min(size, 64)
            yield order[:size]
            order = order[size:]

    def states_of(self, place: int) -> torch.Tensor | None:
        """Return the kept states of the row at a place, (tokens, width)."""
        return None if self.states is None else self.states[self._span(place)]

    def _span(self, place: int) -> slice:
        start = int(self._starts[place])
        return slice(start, start + int(self.lengths[place]))

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

        if (self._end + 1) * spec.hidden_size * 4 > _MOST_BYTES:
            return False
        states = torch.zeros(self._end + 1, spec.hidden_size, device=self.device)
        with torch.no_grad():
            rest = []
            for i in np.argsort(self.lengths, kind="stable").tolist():
                found = None if known is None else known(self.rows[i], trunk, spec, depth)
                if found is None:
                    rest.append(i)
                else:
                    states[self._span(i)] = found
            if len(rest) < len(self):
                count(len(self) - len(rest))
            for chosen in self._batches(rest):
                batch = self.batch(chosen)
                computed = states_into(trunk, spec, depth, batch.arguments(spec))
                for row, i in enumerate(chosen):
                    states[self._span(i)] = computed[row, : int(self.lengths[i])]
                count(len(chosen))
        self.states = states
        return True
