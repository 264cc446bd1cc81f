"""Keep the updates of the adapters in slots on the device, and choose those that a batch needs at each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rootstock.adapters.spec import Array, FoundationSpec, SiteUpdate
from rootstock.adapters.vocabulary.words import WordRows
from rootstock.service.engine.runners.torch.pages import Numbers, Pages
from rootstock.service.engine.runners.torch.staging import to_device

# A page holds this many ranks of a low-rank update, or one vector.
RANKS = 8
# The page that a state without a part reads: ones for a scale, and zeros for the other parts.
_ABSENT = {"A": 0, "B": 0, "input_scale": 1, "output_scale": 1, "shift": 0, "words": 0}
# The part of an update that holds rows of the word embedding, which belongs to no module.
_WORDS = "words"
_VECTORS = ("input_scale", "output_scale", "shift")
_KEPT_LAYOUTS = 256
# Up to this many bytes, the updates of all layers are gathered at once, which saves launches. Above it, they are
# gathered layer by layer, which saves memory.
_AT_ONCE = 2**25


class Pool(NamedTuple):
    """A pool of pages, identified by the shape of a page."""

    rows: int
    width: int


class Item(NamedTuple):
    """A part of an adapter's update at a module, with the number of pages that it takes."""

    module: str
    part: str
    array: Array
    pages: int


class Piece(NamedTuple):
    """A part at a module for a batch: one for each state, or one for all states, each of `pages` pages."""

    module: str
    part: str
    states: int
    pages: int


@dataclass(frozen=True)
class Gather:
    """The pieces that are fetched from the pools before a layer."""

    layer: int
    pieces: Mapping[Pool, tuple[Piece, ...]]


class Updates:
    """The updates by slot. Slot `bare`, one beyond the last, has no update and stands for the bare foundation.

    An update's arrays lie in pages of the pool of their width, in the runner's precision. The host holds the page
    numbers. At each module, a batch reads as many pages for each state as its largest adapter there has.
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
        self._scaled = {site: spec.scaled_width(site) for site in spec.sites}
        self._place_of = {name: i for i, name in enumerate(self.modules)}
        # For each slot and module: the pages of the low-rank update, then 1 or 0 for each of `_VECTORS`.
        self._uses = np.zeros((slots + 1, len(self.modules), 1 + len(_VECTORS)), np.uint16)
        # The page numbers of each slot, for each part that any adapter has had.
        self._tables: dict[tuple[str, str], Numbers] = {}
        # For each slot: its parts, and the page numbers that it took from each pool.
        self._contents: dict[int, tuple[list[tuple[str, str]], dict[Pool, Numbers]]] = {}
        self._words: dict[int, WordRows] = {}
        self.pools: dict[Pool, Pages] = {}
        self._dtype, self._device, self._most_bytes = dtype, device, most_bytes
        self.gathers: Callable[[tuple[int, ...], bytes], tuple[Gather, ...]] = lru_cache(_KEPT_LAYOUTS)(
            self._gathers
        )

    @property
    def growths(self) -> int:
        """Return how many times the pools have moved. A graph captured before a move reads the old address."""
        return sum(pool.growths for pool in self.pools.values())

    @property
    def nbytes(self) -> int:
        return sum(pool.nbytes for pool in self.pools.values())

    def items(self, sites: Mapping[str, SiteUpdate], words: WordRows | None = None) -> dict[Pool, list[Item]]:
        """Return an adapter's arrays, grouped by pool. Make room for them, or raise RunnerFault."""
        items: dict[Pool, list[Item]] = {}
        if words is not None:
            width = words.changes.shape[1]
            items[Pool(1, width)] = [Item("", _WORDS, words.changes, len(words.ids))]
        for module, update in sites.items():
            parts = {"A": update.a, "B": update.b} if update.rank else {}
            for part, array in parts.items():
                item = Item(module, part, array, -(-update.rank // RANKS))
                items.setdefault(Pool(RANKS, array.shape[1]), []).append(item)
            for part in _VECTORS:
                vector = getattr(update, part)
                if vector is not None:
                    items.setdefault(Pool(1, vector.size), []).append(Item(module, part, vector, 1))
        for pool, group in items.items():
            pages = self._pages(pool)
            pages.reserve(
                sum(item.pages for item in group),
                None if self._most_bytes is None else max(0, self._most_bytes - self.nbytes),
            )
        return items

    def place(
        self,
        slot: int,
        items: Mapping[Pool, Sequence[Item]],
        values: Sequence[Tensor],
        words: WordRows | None = None,
    ) -> None:
        """Put an adapter into a slot. `values` holds its items' pages for each pool, in fp32 on the device."""
        self.clear(slot)
        if words is not None:
            self._words[slot] = words
        pages_of = {}
        for (pool, group), value in zip(items.items(), values, strict=True):
            pages = self.pools[pool]
            numbers = pages_of[pool] = pages.take(sum(item.pages for item in group))
            pages.write(to_device(numbers, self._device), value.view(-1, *pool))
            for item in group:
                self._table(item)[slot, : item.pages], numbers = numbers[: item.pages], numbers[item.pages :]
                if item.part == _WORDS:
                    continue
                use = self._uses[slot, self._place_of[item.module]]
                if item.part in _VECTORS:
                    use[1 + _VECTORS.index(item.part)] = 1
                else:
                    use[0] = item.pages
        parts = [(item.module, item.part) for group in items.values() for item in group]
        self._contents[slot] = parts, pages_of

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._words.pop(slot, None)
        parts, pages_of = self._contents.pop(slot, ([], {}))
        for module, part in parts:
            self._tables[module, part][slot] = _ABSENT[part]
        for pool, numbers in pages_of.items():
            self.pools[pool].give(numbers)
        self._uses[slot] = 0

    def changes_words(self, slots: Numbers) -> bool:
        """Return whether an adapter of these slots changes the word embedding."""
        return bool(self._words) and not self._words.keys().isdisjoint(slots.tolist())

    def word_pages(self, slots: Numbers, tokens: Numbers) -> Numbers:
        """Return the page of each token's change of the word embedding, (states, tokens). Page 0 holds zeros."""
        pages = np.zeros(tokens.shape, np.int64)
        for i, slot in enumerate(slots.tolist()):
            if (words := self._words.get(slot)) is not None:
                own = np.concatenate([[0], self._tables["", _WORDS][slot, : len(words.ids)]])
                pages[i] = own[words.places(tokens[i])]
        return pages

    def uses(self, slots: Sequence[Numbers], rounded: bool) -> bytes:
        """Return the parts and pages that a batch needs at each module, as a key for `gathers`.

        `slots` holds the slots of each layer's states. With `rounded`, page counts are rounded up to a power of
        two, so that batches differ less.
        """
        used = np.zeros(self._uses.shape[1:], np.uint16)
        if all(layer is slots[0] for layer in slots):
            np.max(self._uses[slots[0]], axis=0, out=used)
        else:
            for layer, modules in zip(slots, self._of_layer, strict=True):
                np.max(self._uses[layer, modules], axis=0, out=used[modules])
        if rounded:
            used[:, 0] = [power(int(pages)) for pages in used[:, 0]]
        return used.tobytes()

    def numbers(self, gathers: Sequence[Gather], slots: Sequence[Numbers]) -> list[Numbers]:
        """Return the page numbers that the gathers read, in their order. `slots` is that of `uses`."""
        return [
            self._tables[piece.module, piece.part][
                slots[self.layer_of[piece.module]][: piece.states], : piece.pages
            ]
            for gather in gathers
            for pieces in gather.pieces.values()
            for piece in pieces
        ]

    def _gathers(self, states: tuple[int, ...], uses: bytes) -> tuple[Gather, ...]:
        """Return a batch's gathers: one before the first layer, or one for each layer.

        `states` counts the updates of each layer.
        """
        used = np.frombuffer(uses, np.uint16).reshape(self._uses.shape[1:])
        pieces: list[tuple[int, Pool, Piece]] = []
        for i in np.flatnonzero(used.any(axis=1)).tolist():
            module, pages = self.modules[i], int(used[i, 0])
            layer, (width_in, width_out) = self.layer_of[module], self._widths[module]
            parts = {"A": (width_in, pages), "B": (width_out, pages)} if pages else {}
            parts |= {
                part: (self._scaled[module] if part == "input_scale" else width_out, 0)
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
        """Return the table of a part's page numbers, and widen it first if the item needs more pages."""
        key = item.module, item.part
        table = self._tables.get(key)
        if table is None or table.shape[1] < item.pages:
            wider = np.full((self.bare + 1, power(item.pages)), _ABSENT[item.part], np.int64)
            if table is not None:
                wider[:, : table.shape[1]] = table
            table = self._tables[key] = wider
        return table


def power(count: int) -> int:
    """Return the smallest power of two that is at least `count`, or 0 for 0."""
    return 1 << (count - 1).bit_length() if count else 0
