"""The updates of the adapters in slots, on the device, and which of them a batch needs at which layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rootstock.adapters.spec import Array, FoundationSpec, SiteUpdate
from rootstock.service.engine.runners.torch.pages import Numbers, Pages
from rootstock.service.engine.runners.torch.staging import to_device

# A page holds this many ranks of a low-rank update, or one vector.
RANKS = 8
# The page that a state without the part reads: of a scale ones, of all else zeros.
_ABSENT = {"A": 0, "B": 0, "input_scale": 1, "output_scale": 1, "shift": 0}
_VECTORS = ("input_scale", "output_scale", "shift")
_KEPT_LAYOUTS = 256
# Up to so many bytes, the updates of all layers are gathered at once: fewer launches. Beyond, layer by layer:
# less memory.
_AT_ONCE = 2**25


class Pool(NamedTuple):
    """The shape of a page."""

    rows: int
    width: int


class Item(NamedTuple):
    """A part of an adapter's update at a module, and the pages that it takes."""

    module: str
    part: str
    array: Array
    pages: int


class Piece(NamedTuple):
    """A part at a module for a whole batch: one a state, or one that stands for all, each of `pages` pages."""

    module: str
    part: str
    states: int
    pages: int


@dataclass(frozen=True)
class Gather:
    """The pieces that are fetched from the pools ahead of a layer."""

    layer: int
    pieces: Mapping[Pool, tuple[Piece, ...]]


class Updates:
    """Updates by slot. Slot `bare`, one beyond the last, holds none: it stands for the foundation alone.

    An update's arrays lie in pages of the pool of their width, in the runner's precision; the host holds the page
    numbers. A batch reads, at each module, as many pages of each state as its largest adapter there has.
    """

    def __init__(
        self,
        spec: FoundationSpec,
        slots: int,
        dtype: torch.dtype,
        device: torch.device,
        most_bytes: int | None = None,
    ) -> None:
        self.bare = slots
        self.modules = tuple(sorted([*spec.sites, *spec.norms], key=spec.layer_of))
        self.layer_of = {name: spec.layer_of(name) for name in self.modules}
        layers = [self.layer_of[name] for name in self.modules]
        self._of_layer = [slice(*np.searchsorted(layers, [i, i + 1])) for i in range(spec.layers + 1)]
        self._widths = {**spec.sites, **{norm: (width, width) for norm, width in spec.norms.items()}}
        self._place_of = {name: i for i, name in enumerate(self.modules)}
        # For each slot and module: pages of the low-rank update; whether there is each of `_VECTORS`.
        self._uses = np.zeros((slots + 1, len(self.modules), 1 + len(_VECTORS)), np.uint16)
        # For each part that any adapter ever had: the page numbers of each slot.
        self._tables: dict[tuple[str, str], Numbers] = {}
        self._held: dict[int, tuple[list[tuple[str, str]], dict[Pool, Numbers]]] = {}
        self.pools: dict[Pool, Pages] = {}
        self._dtype, self._device, self._most_bytes = dtype, device, most_bytes
        self.gathers: Callable[[tuple[int, ...], bytes], tuple[Gather, ...]] = lru_cache(_KEPT_LAYOUTS)(
            self._gathers
        )

    @property
    def growths(self) -> int:
        """Return how often any pool moved. A graph that was captured before reads the old place."""
        return sum(pool.growths for pool in self.pools.values())

    @property
    def nbytes(self) -> int:
        return sum(pool.nbytes for pool in self.pools.values())

    def items(self, sites: Mapping[str, SiteUpdate]) -> dict[Pool, list[Item]]:
        """Return an adapter's arrays, those of one pool together. Make room for them, or raise RunnerFault."""
        items: dict[Pool, list[Item]] = {}
        for module, update in sites.items():
            parts = {"A": update.a, "B": update.b} if update.rank else {}
            for part, array in parts.items():
                item = Item(module, part, array, -(-update.rank // RANKS))
                items.setdefault(Pool(RANKS, array.shape[1]), []).append(item)
            for part in _VECTORS:
                vector = getattr(update, part)
                if vector is not None:
                    items.setdefault(Pool(1, vector.size), []).append(Item(module, part, vector, 1))
        for pool, those in items.items():
            pages = self._pages(pool)
            pages.reserve(
                sum(item.pages for item in those),
                None if self._most_bytes is None else max(0, self._most_bytes - self.nbytes),
            )
        return items

    def place(self, slot: int, items: Mapping[Pool, Sequence[Item]], values: Sequence[Tensor]) -> None:
        """Put an adapter into a slot: `values`, one a pool, hold its items' pages, fp32 on the device."""
        self.clear(slot)
        taken = {}
        for (pool, those), value in zip(items.items(), values, strict=True):
            pages = self.pools[pool]
            numbers = taken[pool] = pages.take(sum(item.pages for item in those))
            pages.write(to_device(numbers, self._device), value.view(-1, *pool))
            for item in those:
                self._table(item)[slot, : item.pages], numbers = numbers[: item.pages], numbers[item.pages :]
                use = self._uses[slot, self._place_of[item.module]]
                if item.part in _VECTORS:
                    use[1 + _VECTORS.index(item.part)] = 1
                else:
                    use[0] = item.pages
        self._held[slot] = ([(item.module, item.part) for those in items.values() for item in those], taken)

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        parts, taken = self._held.pop(slot, ([], {}))
        for module, part in parts:
            self._tables[module, part][slot] = _ABSENT[part]
        for pool, numbers in taken.items():
            self.pools[pool].give(numbers)
        self._uses[slot] = 0

    def uses(self, slots: Sequence[Numbers], rounded: bool) -> bytes:
        """Return what a batch needs at each module, for the slots of each layer's states: a key for `gathers`.

        `rounded`: numbers of pages go up to a power of two, so that batches differ less.
        """
        used = np.zeros(self._uses.shape[1:], np.uint16)
        if all(those is slots[0] for those in slots):
            np.max(self._uses[slots[0]], axis=0, out=used)
        else:
            for those, modules in zip(slots, self._of_layer, strict=True):
                np.max(self._uses[those, modules], axis=0, out=used[modules])
        if rounded:
            used[:, 0] = [power(int(pages)) for pages in used[:, 0]]
        return used.tobytes()

    def numbers(self, gathers: Sequence[Gather], slots: Sequence[Numbers]) -> list[Numbers]:
        """Return the page numbers that the gathers read, in their order, for the slots of each layer's states."""
        return [
            self._tables[piece.module, piece.part][
                slots[self.layer_of[piece.module]][: piece.states], : piece.pages
            ]
            for gather in gathers
            for pieces in gather.pieces.values()
            for piece in pieces
        ]

    def _gathers(self, states: tuple[int, ...], uses: bytes) -> tuple[Gather, ...]:
        """Return a batch's gathers of so many updates a layer: all ahead of the first, or layer by layer."""
        used = np.frombuffer(uses, np.uint16).reshape(self._uses.shape[1:])
        pieces: list[tuple[int, Pool, Piece]] = []
        for i in np.flatnonzero(used.any(axis=1)).tolist():
            module, pages = self.modules[i], int(used[i, 0])
            layer, (width_in, width_out) = self.layer_of[module], self._widths[module]
            parts = {"A": (width_in, pages), "B": (width_out, pages)} if pages else {}
            parts |= {
                part: (width_in if part == "input_scale" else width_out, 0)
                for part, present in zip(_VECTORS, used[i, 1:].tolist(), strict=True)
                if present
            }
            for part, (width, count) in parts.items():
                pool = Pool(RANKS if count else 1, width)
                pieces.append((layer, pool, Piece(module, part, states[layer], max(count, 1))))
        size = sum(piece.states * piece.pages * pool.rows * pool.width for _, pool, piece in pieces)
        at_once = size * self._dtype.itemsize <= _AT_ONCE
        grouped: dict[int, dict[Pool, tuple[Piece, ...]]] = {}
        for layer, pool, piece in pieces:
            pools = grouped.setdefault(0 if at_once else layer, {})
            pools[pool] = (*pools.get(pool, ()), piece)
        return tuple(Gather(layer, pools) for layer, pools in grouped.items())

    def _pages(self, pool: Pool) -> Pages:
        if pool not in self.pools:
            constants = (0.0,) if pool.rows == RANKS else (0.0, 1.0)
            self.pools[pool] = Pages(*pool, constants, self._dtype, self._device)
        return self.pools[pool]

    def _table(self, item: Item) -> Numbers:
        """Return the page numbers of a part, wide enough for the item."""
        key = item.module, item.part
        table = self._tables.get(key)
        if table is None or table.shape[1] < item.pages:
            wider = np.full((self.bare + 1, power(item.pages)), _ABSENT[item.part], np.int64)
            if table is not None:
                wider[:, : table.shape[1]] = table
            table = self._tables[key] = wider
        return table


def power(count: int) -> int:
    """Return the smallest power of two that is no smaller; 0 for 0."""
    return 1 << (count - 1).bit_length() if count else 0
