"""Apply the updates of several adapters in one pass, each to the tokens of its own sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rootstock.adapters.spec import SiteUpdate

# From this many adapters on, one batched product replaces two products for each.
_BATCHED = 3


class TokenRun(NamedTuple):
    """The tokens `first` to `end` (not included) of a pass, whose adapter is in `slot`."""

    slot: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class TensorUpdate:
    """A SiteUpdate as tensors: `a` is (r, in), `b` is (r, out). A vector that changes nothing is None."""

    a: Tensor
    b: Tensor
    input_scale: Tensor | None
    output_scale: Tensor | None
    shift: Tensor | None


def to_tensors(update: SiteUpdate, dtype: torch.dtype) -> TensorUpdate:
    """Return an update as tensors of a dtype."""
    a, b = (torch.from_numpy(part).to(dtype) for part in (update.a, update.b))
    vectors = (update.input_scale, update.output_scale, update.shift)
    return TensorUpdate(a, b, *(None if v is None else torch.from_numpy(v).to(dtype) for v in vectors))


@dataclass(frozen=True, slots=True)
class _LowRankRun:
    """A low-rank update of one run of tokens, or of all of them, one product after the other.

    `a` is (in, r) and `b` is (r, out).
    """

    tokens: slice | None
    a: Tensor
    b: Tensor

    def add(self, y: Tensor, x: Tensor) -> None:
        if self.tokens is not None:
            x, y = x[self.tokens], y[self.tokens]
        y.addmm_(x @ self.a, self.b)


@dataclass(frozen=True, slots=True)
class _LowRankStack:
    """Low-rank updates of one rank, stacked: `a` is (adapters, r, in) and `b` is (adapters, r, out).

    `tokens` (adapters, most tokens of one) says which tokens each adapter updates. An adapter with fewer repeats
    its last one, and `kept` selects the results that count. Both are None if adapter i updates token i alone.
    """

    a: Tensor
    b: Tensor
    tokens: Tensor | None = None
    kept: Tensor | None = None
    targets: Tensor | None = None

    def add(self, y: Tensor, x: Tensor) -> None:
        if self.tokens is None or self.kept is None or self.targets is None:
            count = len(self.a)
            low = torch.bmm(x[:count].unsqueeze(1), self.a.transpose(1, 2))
            y[:count].add_(torch.bmm(low, self.b).squeeze(1))
            return
        low = torch.bmm(x[self.tokens], self.a.transpose(1, 2))
        changes = torch.bmm(low, self.b).flatten(0, 1)
        y.index_add_(0, self.targets, changes[self.kept])


class UpdateStack:
    """Copies of the low-rank updates at one site, of one rank, in the order of the last pass that decoded.

    A pass with other adapters copies only those whose place changes.
    """

    def __init__(self) -> None:
        self._held: list[TensorUpdate] = []
        self._a = self._b = torch.empty(0)

    def of(self, updates: Sequence[TensorUpdate]) -> tuple[Tensor, Tensor]:
        """Return the stacks (adapters, r, in) and (adapters, r, out) of these updates."""
        if len(updates) > len(self._a) or 4 * len(updates) < len(self._a):
            room = 2 ** (len(updates) - 1).bit_length()
            self._a, self._b = (part.new_empty((room, *part.shape)) for part in (updates[0].a, updates[0].b))
            self._held = []
        for i, update in enumerate(updates):
            if i >= len(self._held) or self._held[i] is not update:
                self._a[i], self._b[i] = update.a, update.b
        self._held = list(updates)
        return self._a[: len(updates)], self._b[: len(updates)]


@dataclass(frozen=True, slots=True)
class SitePlan:
    """The work at one site in one pass. The vectors are (tokens, features), or None if no token has any."""

    low_rank: Sequence[_LowRankRun | _LowRankStack]
    input_scale: Tensor | None
    output_scale: Tensor | None
    shift: Tensor | None


class AdapterMix:
    """The adapters in slots, and the plan of each site for the pass that runs.

    The plans and the stacks of the last pass that decoded stay, because passes of prompts come between.
    """

    def __init__(self) -> None:
        self._slots: dict[int, Mapping[str, TensorUpdate]] = {}
        self._seats: list[int] = []
        self._runs: tuple[TokenRun, ...] = ()
        self._decodes = False
        self._plans: dict[str, SitePlan | None] = {}
        self._decoding: tuple[tuple[TokenRun, ...], dict[str, SitePlan | None]] = (), {}
        self._stacks: dict[tuple[str, int], UpdateStack] = {}
        self._stacked: set[tuple[str, int]] = set()

    def place(self, slot: int, updates: Mapping[str, TensorUpdate]) -> None:
        """Put an adapter's updates into a slot."""
        self._slots[slot] = updates
        self._decoding = (), {}

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._slots.pop(slot, None)
        self._decoding = (), {}

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

    def plan(self, site: str) -> SitePlan | None:
        """Return the work at a site, or None if no adapter of the pass changes it."""
        if site not in self._plans:
            self._plans[site] = self._make(site)
        return self._plans[site]

    def _make(self, site: str) -> SitePlan | None:
        updated = [(run, update) for run in self._runs if (update := self._slots[run.slot].get(site)) is not None]
        if not updated:
            return None
        by_rank: dict[int, list[tuple[TokenRun, TensorUpdate]]] = {}
        for run, update in updated:
            if update.a.shape[0]:
                by_rank.setdefault(update.a.shape[0], []).append((run, update))
        low_rank: list[_LowRankRun | _LowRankStack] = []
        for rank, group in by_rank.items():
            low_rank += self._stack(site, rank, group)
        scale_in, scale_out, shift = (self._vectors(updated, name, fill) for name, fill in _VECTORS.items())
        return SitePlan(low_rank, scale_in, scale_out, shift)

    def _stack(
        self, site: str, rank: int, group: Sequence[tuple[TokenRun, TensorUpdate]]
    ) -> Sequence[_LowRankRun | _LowRankStack]:
        lengths = [run.end - run.first for run, _ in group]
        most = max(lengths)
        padded = len(group) * most > 2 * sum(lengths) + len(group)
        if len(group) < _BATCHED or padded or not self._decodes:
            return [
                _LowRankRun(slice(run.first, run.end) if len(self._runs) > 1 else None, update.a.T, update.b)
                for run, update in group
            ]
        self._stacked.add((site, rank))
        a, b = self._stacks.setdefault((site, rank), UpdateStack()).of([update for _, update in group])
        if most == 1 and [run.first for run, _ in group] == list(range(len(group))):
            return [_LowRankStack(a, b)]
        rows = [[min(run.first + i, run.end - 1) for i in range(most)] for run, _ in group]
        kept = [i * most + j for i, length in enumerate(lengths) for j in range(length)]
        tokens = torch.tensor(rows)
        kept_tensor = torch.tensor(kept)
        return [_LowRankStack(a, b, tokens, kept_tensor, tokens.flatten()[kept_tensor])]

    def _vectors(self, updated: Sequence[tuple[TokenRun, TensorUpdate]], name: str, fill: float) -> Tensor | None:
        present = [(run, vector) for run, update in updated if (vector := getattr(update, name)) is not None]
        if not present:
            return None
        vectors = torch.full((self._runs[-1].end, present[0][1].shape[0]), fill, dtype=present[0][1].dtype)
        for run, vector in present:
            vectors[run.first : run.end] = vector
        return vectors


class MixInUse:
    """The adapters that the sites of a trunk apply: those of the pass that runs."""

    mix: AdapterMix


_VECTORS = {"input_scale": 1.0, "output_scale": 1.0, "shift": 0.0}


class TokenSite(nn.Module):
    """A frozen linear layer whose update (`SiteUpdate`) differs between the tokens (1, tokens, in) of a pass."""

    def __init__(self, linear: Any, name: str, adapters: MixInUse) -> None:
        super().__init__()
        self.linear = linear
        self.name = name
        self.adapters = adapters

    @property
    def weight(self) -> Tensor:
        """Return the layer's weight. T5 reads its dtype."""
        weight: Tensor = self.linear.weight
        return weight

    def forward(self, x: Tensor) -> Tensor:
        plan = self.adapters.mix.plan(self.name)
        if plan is None:
            return self.linear(x)  # type: ignore[no-any-return]
        y: Tensor = self.linear(x if plan.input_scale is None else x * plan.input_scale)
        if plan.output_scale is not None:
            y = y * plan.output_scale
        if plan.shift is not None:
            y = y + plan.shift
        for part in plan.low_rank:
            part.add(y[0], x[0])
        return y


class TokenNorm(nn.Module):
    """A frozen normalisation layer whose shift differs between the tokens of a pass."""

    def __init__(self, norm: nn.Module, name: str, adapters: MixInUse) -> None:
        super().__init__()
        self.norm = norm
        self.name = name
        self.adapters = adapters

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        plan = self.adapters.mix.plan(self.name)
        return y if plan is None or plan.shift is None else y + plan.shift
