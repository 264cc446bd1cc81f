"""Add the updates of several adapters in one pass. Each changes the tokens of its sequences."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rootstock.service.engine.runners.decoder.changes.token_rows import TokenRows
from rootstock.service.engine.runners.decoder.updates import LowRankPart, TensorUpdate

# From this many adapters on, one batched product replaces two products for each.
_BATCHED = 3
# The name of a group of sites, and the ranks of the updates.
_StackKey = tuple[str, tuple[tuple[int, int], ...]]


class TokenRun(NamedTuple):
    """The tokens `first` to `end` (not included) of a pass, whose adapter is in `slot`."""

    slot: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class _LowRankRun:
    """The low-rank updates of one run of tokens, or of all of them, one product after the other.

    `a` is (in, r), and `b` of each part is (r, out).
    """

    tokens: slice | None
    a: Tensor
    parts: Sequence[LowRankPart]

    def add(self, y: Tensor, x: Tensor) -> None:
        if self.tokens is not None:
            x, y = x[self.tokens], y[self.tokens]
        low = x @ self.a
        for part in self.parts:
            part.target(y).addmm_(part.take(low), part.b)


@dataclass(frozen=True, slots=True)
class _LowRankStack:
    """Low-rank updates of equal ranks, stacked: `a` is (adapters, r, in), `b` of a part is (adapters, r, out).

    `tokens` (adapters, most tokens of one) says which tokens each adapter updates. An adapter with fewer repeats
    its last one, and `kept` selects the results that count. Both are None if adapter i updates token i alone.
    """

    a: Tensor
    parts: Sequence[LowRankPart]
    tokens: Tensor | None = None
    kept: Tensor | None = None
    targets: Tensor | None = None

    def add(self, y: Tensor, x: Tensor) -> None:
        if self.tokens is None or self.kept is None or self.targets is None:
            count = len(self.a)
            low = torch.bmm(x[:count].unsqueeze(1), self.a.transpose(1, 2))
            for part in self.parts:
                part.target(y[:count]).add_(torch.bmm(part.take(low), part.b).squeeze(1))
            return
        low = torch.bmm(x[self.tokens], self.a.transpose(1, 2))
        for part in self.parts:
            changes = torch.bmm(part.take(low), part.b).flatten(0, 1)
            part.target(y).index_add_(0, self.targets, changes[self.kept])


class UpdateStack:
    """Copies of the low-rank updates of one group, of equal ranks, in the order of the last pass that decoded.

    A pass with other adapters copies only those whose place changes.
    """

    def __init__(self) -> None:
        self._held: list[TensorUpdate] = []
        self._a = torch.empty(0)
        self._parts: list[LowRankPart] = []

    def of(self, updates: Sequence[TensorUpdate]) -> tuple[Tensor, list[LowRankPart]]:
        """Return the stacks of these updates: (adapters, r, in), and parts whose `b` is (adapters, r, out)."""
        count, first = len(updates), updates[0]
        if count > len(self._a) or 4 * count < len(self._a):
            room = 2 ** (count - 1).bit_length()
            self._a = first.a.new_empty((room, *first.a.shape))
            self._parts = [part._replace(b=part.b.new_empty((room, *part.b.shape))) for part in first.parts]
            self._held = []
        for i, update in enumerate(updates):
            if i >= len(self._held) or self._held[i] is not update:
                self._a[i] = update.a
                for stack, part in zip(self._parts, update.parts, strict=True):
                    stack.b[i] = part.b
        self._held = list(updates)
        return self._a[:count], [part._replace(b=part.b[:count]) for part in self._parts]


@dataclass(frozen=True, slots=True)
class SitePlan:
    """The work at a group of sites in one pass.

    The vectors are (tokens, features), or None if no token has any. Those of the input are each site's.
    """

    low_rank: Sequence[_LowRankRun | _LowRankStack]
    input_scales: Sequence[Tensor | None] | None
    output_scale: Tensor | None
    shift: Tensor | None


class AdapterMix:
    """The adapters in slots, and the plan of each group of sites for the pass that runs.

    The plans and the stacks of the last pass that decoded stay, because passes of prompts come between. `norms`
    are the names of the trunk's normalisations.
    """

    def __init__(self, norms: Iterable[str] = ()) -> None:
        self._norms = frozenset(norms)
        self._tuned: dict[int, frozenset[str]] = {}
        self._slots: dict[int, Mapping[str, TensorUpdate]] = {}
        self._token_rows: dict[int, TokenRows] = {}
        self._seats: list[int] = []
        self._runs: tuple[TokenRun, ...] = ()
        self._decodes = False
        self._plans: dict[str, SitePlan | None] = {}
        self._decoding: tuple[tuple[TokenRun, ...], dict[str, SitePlan | None]] = (), {}
        self._stacks: dict[_StackKey, UpdateStack] = {}
        self._stacked: set[_StackKey] = set()

    def place(self, slot: int, updates: Mapping[str, TensorUpdate], rows: TokenRows | None = None) -> None:
        """Put an adapter's updates, by the names of their groups, and its tokens' rows into a slot."""
        self._slots[slot] = updates
        self._tuned.pop(slot, None)
        if tuned := self._norms & updates.keys():
            self._tuned[slot] = tuned
        if rows is None:
            self._token_rows.pop(slot, None)
        else:
            self._token_rows[slot] = rows
        self._decoding = (), {}

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._slots.pop(slot, None)
        self._token_rows.pop(slot, None)
        self._tuned.pop(slot, None)
        self._decoding = (), {}

    def tuned_norms(self, slots: Iterable[int]) -> Collection[str]:
        """Return the names of the normalisations that the adapters in these slots tune."""
        if not self._tuned:
            return ()
        return frozenset().union(*(self._tuned.get(slot, ()) for slot in slots))

    def token_rows(self, slots: Sequence[int]) -> Sequence[TokenRows | None] | None:
        """Return the tokens' rows of each of these slots; None if none of them has any."""
        if not self._token_rows or self._token_rows.keys().isdisjoint(slots):
            return None
        return [self._token_rows.get(slot) for slot in slots]

    def order(self, slots: Sequence[int]) -> Mapping[int, int]:
        """Return the places of the slots of a pass that decodes, so that stacks change little from the last one.

        Most adapters of the last pass keep their places: a slot that leaves is replaced by a new one, or else by
        the last. Slots without an update come last.
        """
        wanted = dict.fromkeys(slot for slot in slots if self._slots[slot])
        new = [slot for slot in wanted if slot not in self._seats]
        seats = [slot if slot in wanted or not new else new.pop() for slot in self._seats]
        seats += new
        for i in range(len(seats) - 1, -1, -1):
            if seats[i] not in wanted:
                seats[i] = seats[-1]
                seats.pop()
        self._seats = seats
        places = {slot: i for i, slot in enumerate(seats)}
        return {slot: places.get(slot, len(seats) + slot) for slot in slots}

    def take(self, runs: Sequence[TokenRun], decodes: bool = False) -> None:
        """Set the runs of the next pass, which cover its tokens in order.

        `decodes` tells that the pass holds one token of each sequence.
        """
        self._runs, self._decodes = tuple(runs), decodes
        if decodes:
            if self._decoding[0] != self._runs:
                self._decoding = self._runs, {}
                # A stack that the last pass did not use would keep its copies for nothing.
                self._stacks = {key: stack for key, stack in self._stacks.items() if key in self._stacked}
                self._stacked = set()
            self._plans = self._decoding[1]
        else:
            self._plans = {}

    def plan(self, group: str) -> SitePlan | None:
        """Return the work at a group of sites, or None if no adapter of the pass changes it."""
        if group not in self._plans:
            self._plans[group] = self._make(group)
        return self._plans[group]

    def _make(self, group: str) -> SitePlan | None:
        updated = [
            (run, update) for run in self._runs if (update := self._slots[run.slot].get(group)) is not None
        ]
        if not updated:
            return None
        alike: dict[_StackKey, list[tuple[TokenRun, TensorUpdate]]] = {}
        for run, update in updated:
            if update.parts:
                alike.setdefault((group, update.ranks), []).append((run, update))
        low_rank: list[_LowRankRun | _LowRankStack] = []
        for key, members in alike.items():
            low_rank += self._stack(key, members)
        return SitePlan(
            low_rank,
            self._input_scales(updated),
            self._rows([(run, update.output_scale) for run, update in updated], 1.0),
            self._rows([(run, update.shift) for run, update in updated], 0.0),
        )

    def _stack(
        self, key: _StackKey, members: Sequence[tuple[TokenRun, TensorUpdate]]
    ) -> Sequence[_LowRankRun | _LowRankStack]:
        lengths = [run.end - run.first for run, _ in members]
        most = max(lengths)
        padded = len(members) * most > 2 * sum(lengths) + len(members)
        if len(members) < _BATCHED or padded or not self._decodes:
            return [
                _LowRankRun(slice(run.first, run.end) if len(self._runs) > 1 else None, update.a.T, update.parts)
                for run, update in members
            ]
        self._stacked.add(key)
        a, parts = self._stacks.setdefault(key, UpdateStack()).of([update for _, update in members])
        if most == 1 and [run.first for run, _ in members] == list(range(len(members))):
            return [_LowRankStack(a, parts)]
        rows = [[min(run.first + i, run.end - 1) for i in range(most)] for run, _ in members]
        kept = [i * most + j for i, length in enumerate(lengths) for j in range(length)]
        tokens = torch.tensor(rows)
        kept_tensor = torch.tensor(kept)
        return [_LowRankStack(a, parts, tokens, kept_tensor, tokens.flatten()[kept_tensor])]

    def _input_scales(self, updated: Sequence[tuple[TokenRun, TensorUpdate]]) -> Sequence[Tensor | None] | None:
        scaled = [(run, update.input_scales) for run, update in updated if update.input_scales is not None]
        sites = len(scaled[0][1]) if scaled else 0
        return [self._rows([(run, scales[i]) for run, scales in scaled], 1.0) for i in range(sites)] or None

    def _rows(self, vectors: Sequence[tuple[TokenRun, Tensor | None]], fill: float) -> Tensor | None:
        """Return a row for each token of the pass: its run's vector, or else `fill`. None without a vector."""
        present = [(run, vector) for run, vector in vectors if vector is not None]
        if not present:
            return None
        rows = torch.full((self._runs[-1].end, present[0][1].shape[0]), fill, dtype=present[0][1].dtype)
        for run, vector in present:
            rows[run.first : run.end] = vector
        return rows
