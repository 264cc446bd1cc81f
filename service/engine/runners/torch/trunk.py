"""Run the trunk on a device, as a function of arrays of numbers whose form says what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rootstock.adapters.spec import FoundationSpec
from rootstock.service.engine.runners.modules import load_trunk
from rootstock.service.engine.runners.sites import (
    Site,
    SiteLinear,
    SiteNorm,
    graft_norms,
    graft_sites,
    graft_words,
    has_rows,
    select_rows,
)
from rootstock.service.engine.runners.torch.feed import Form
from rootstock.service.engine.runners.torch.staging import Cutter
from rootstock.service.engine.runners.torch.updates import Gather, Pool, Updates


class TorchTrunk:
    """The foundation's body with grafted sites, which read their updates from the pages of `updates`.

    Before each layer, hooks select the hidden states that its states continue from (sharing.Level), and give the
    sites their updates. A site runs as the plain layer if no state of the batch changes it.
    """

    def __init__(
        self, folder: Path, spec: FoundationSpec, updates: Updates, dtype: torch.dtype, device: torch.device
    ) -> None:
        trunk = load_trunk(folder, None, spec.model_type)
        self._sites: dict[str, Site | SiteNorm] = {
            **graft_sites(trunk, spec.sites, BatchedSite),
            **graft_norms(trunk, spec.norms),
        }
        self._words = graft_words(trunk, spec.words)
        self._model = cast(Any, trunk.to(device, dtype))
        self._dtype = dtype
        self._spec = spec
        self._updates = updates
        if spec.layer_prefix:
            layers = cast(nn.ModuleList, trunk.get_submodule(spec.layer_prefix.rstrip(".")))
            for i, layer in enumerate(layers):
                if i > 0:
                    layer.register_forward_pre_hook(self._ahead_of(i), with_kwargs=True)
        pooler = getattr(trunk, "pooler", None)
        self._has_pooler = isinstance(pooler, nn.Module)
        if isinstance(pooler, nn.Module):
            pooler.register_forward_pre_hook(self._ahead_of(spec.layers), with_kwargs=True)
        # State of the current pass: what to select and gather before each layer, and the sites that hold updates.
        self._parents: Mapping[int, Tensor] = {}
        self._roots: Mapping[int, Tensor] = {}
        self._gathers: Mapping[int, tuple[Gather, Tensor]] = {}
        self._holding: list[str] = []
        self._first_states = 0

    def run(self, form: Form, numbers: Tensor, *media: Tensor) -> tuple[Tensor, ...]:
        """Return the last level's hidden (states, tokens, width) and, if there is one, pooled (states, width).

        A convolutional trunk's hidden states are a grid (states, width, height, width of the grid). `numbers` and
        `media` are those of `feed.feed`: int64, and the inputs of images or audio, on the device.
        """
        cut = Cutter(numbers)
        self._first_states = form.states[0]
        names = self._spec.inputs
        if media:
            inputs = {name: array.to(self._dtype) for name, array in zip(names, media, strict=True)}
        else:
            inputs = {name: cut.next(form.states[0], *form.shape) for name in names}
        if self._words is not None:
            self._words.take(*self._word_changes(form, cut))
        self._parents = {i: cut.next(form.states[i]) for i in form.parents}
        self._roots = {i: cut.next(form.states[i]) for i in form.roots}
        gathers = self._updates.gathers(form.updated, form.uses)
        self._gathers = {gather.layer: (gather, cut.next(_count(gather))) for gather in gathers}
        try:
            self._gather(0)
            output = self._model(**inputs)
        finally:
            self._let_go()
        hidden, pooled = output.last_hidden_state, getattr(output, "pooler_output", None)
        if self._spec.layers in self._parents:
            parents = self._parents[self._spec.layers]
            hidden = hidden.index_select(0, parents)
            if pooled is not None and not self._has_pooler:
                pooled = pooled.index_select(0, parents)
        return (hidden,) if pooled is None else (hidden, pooled)

    def _word_changes(self, form: Form, cut: Cutter) -> tuple[Tensor | None, Tensor | None]:
        """Return the pages of all adapters' changes of the word embedding, and the page of each token's."""
        table = self._spec.words
        if table is None or not form.words:
            return None, None
        return self._updates.pools[Pool(1, table.width)].store[:, 0], cut.next(form.states[0], *form.shape)

    def _ahead_of(self, layer: int) -> Any:
        """Return a hook to run before a layer.

        It selects the layer's first argument by parent, and each other argument with one entry for each state by
        root.
        """

        def select(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            self._gather(layer)
            values = [*args, *kwargs.values()]
            if layer in self._parents:
                values[0] = values[0].index_select(0, self._parents[layer])
            if layer in self._roots:
                values[1:] = [self._of_roots(value, self._roots[layer]) for value in values[1:]]
            return tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True))

        return select

    def _of_roots(self, value: Any, roots: Tensor) -> Any:
        # A mask is (states, 1, …). A table, such as DeBERTa's of relative positions, is (entries, width).
        batched = isinstance(value, Tensor) and value.dim() > 2 and has_rows(value, self._first_states)
        return select_rows(value, self._first_states, roots) if batched else value

    def _gather(self, layer: int) -> None:
        """Fetch the updates needed before a layer, with one launch for each pool, and give them to the sites."""
        if layer not in self._gathers:
            return
        self._let_go()
        gather, numbers = self._gathers[layer]
        cut = Cutter(numbers)
        parts: dict[str, dict[str, Tensor]] = {}
        for pool, pieces in gather.pieces.items():
            pages = cut.next(sum(piece.states * piece.pages for piece in pieces))
            stack = Cutter(self._updates.pools[pool].store.index_select(0, pages).view(-1))
            for piece in pieces:
                stacked = stack.next(piece.states, piece.pages * pool.rows, pool.width)
                parts.setdefault(piece.module, {})[piece.part] = stacked
        for module, update in parts.items():
            self._sites[module].take(update)
        self._holding = list(parts)

    def _let_go(self) -> None:
        for module in self._holding:
            self._sites[module].take({})
        self._holding = []


class BatchedSite(SiteLinear):
    """A site that adds its low-rank update in one launch if each state has a separate one."""

    def add_low_rank(self, y: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return y + (x @ a.T) @ b."""
        if not y.shape[0] == x.shape[0] == a.shape[0]:
            return super().add_low_rank(y, x, a, b)
        return torch.baddbmm(y, torch.bmm(x, a.transpose(1, 2)), b)


def _count(gather: Gather) -> int:
    return sum(piece.states * piece.pages for pieces in gather.pieces.values() for piece in pieces)
