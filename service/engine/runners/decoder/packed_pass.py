"""Lay the tokens of several sequences one after the other, as one row without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from rootstock.service.engine.runners.decoder.adapter_mix import AdapterMix, TokenRun


class PackedPart(NamedTuple):
    """The tokens of one sequence in a pass, under the adapter in `slot`. The first one is at position `start`."""

    slot: int
    tokens: Sequence[int]
    start: int = 0


class PackedPass:
    """The tokens of the parts of a pass. Those of one adapter lie together, so that one product serves them all.

    `ids` and `positions` are (1, tokens) and (tokens,). `bounds` holds the first token and the end of each part,
    `last` (parts,) its last token, and `slots` its slot, in the parts' own order. The adapters `mix` are told of
    the pass.
    """

    def __init__(self, parts: Sequence[PackedPart], mix: AdapterMix, decodes: bool = False) -> None:
        """Lay out the parts. `decodes`: each is one token of an answer, as most were in the pass before."""
        self.bounds: list[tuple[int, int]] = [(0, 0)] * len(parts)
        runs: list[TokenRun] = []
        ids: list[int] = []
        positions: list[int] = []
        self.slots = slots = [part.slot for part in parts]
        order = mix.order(slots) if decodes else {slot: slot for slot in slots}
        for i in sorted(range(len(parts)), key=lambda i: order[slots[i]]):
            slot, tokens, start = parts[i]
            first, end = len(ids), len(ids) + len(tokens)
            ids += tokens
            positions += range(start, start + len(tokens))
            self.bounds[i] = first, end
            if runs and runs[-1].slot == slot:
                runs[-1] = TokenRun(slot, runs[-1].first, end)
            else:
                runs.append(TokenRun(slot, first, end))
        mix.take(runs, decodes)
        self.ids = torch.tensor([ids])
        self.positions = torch.tensor(positions)
        self.last = torch.tensor([end - 1 for _, end in self.bounds])
