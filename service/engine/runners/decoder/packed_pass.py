"""Lay the tokens of several sequences one after the other, as one row without padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from rootstock.service.engine.runners.decoder.updates import TokenRun


class PackedPart(NamedTuple):
    """The tokens of one sequence in a pass, under the adapter in `slot`. The first one is at position `start`."""

    slot: int
    tokens: Sequence[int]
    start: int = 0


class PackedPass:
    """The tokens of the parts of a pass. Those of one adapter lie together, so that one product serves them all.


    `ids` and `positions` are (1, tokens) and (tokens,). `bounds` holds the first token and the end of each part,
    and `last` (parts,) its last token, in the parts' own order. `runs` covers the tokens in order.
    """

    def __init__(self, parts: Sequence[PackedPart], order: Mapping[int, int] | None = None) -> None:
        """Take the place of each slot among the others as `order`, by default its number."""
        self.bounds: list[tuple[int, int]] = [(0, 0)] * len(parts)
        self.runs: list[TokenRun] = []
        ids: list[int] = []
        positions: list[int] = []
        order = order or {part.slot: part.slot for part in parts}
        for i in sorted(range(len(parts)), key=lambda i: order[parts[i].slot]):
            slot, tokens, start = parts[i]
            first, end = len(ids), len(ids) + len(tokens)
            ids += tokens
            positions += range(start, start + len(tokens))
            self.bounds[i] = first, end
            if self.runs and self.runs[-1].slot == slot:
                self.runs[-1] = TokenRun(slot, self.runs[-1].first, end)
            else:
                self.runs.append(TokenRun(slot, first, end))
        self.ids = torch.tensor([ids])
        self.positions = torch.tensor(positions)
        self.last = torch.tensor([end - 1 for _, end in self.bounds])
