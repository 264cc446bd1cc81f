"""Wrap a foundation's layers. Each token of a pass gets the update of its adapter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rootstock.service.engine.runners.decoder.adapter_mix import AdapterMix, SitePlan
from rootstock.service.engine.runners.decoder.site_group import SiteGroup


class MixInUse:
    """The adapters that the sites of a trunk apply: those of the pass that runs."""

    mix: AdapterMix


class TokenSite(nn.Module):
    """A frozen linear layer, or several as one, whose update (`SiteUpdate`) differs between the tokens of a pass.

    It maps (1, tokens, in) to (1, tokens, out), the outputs of the group's sites one beside the other.
    """

    def __init__(self, linear: Any, group: SiteGroup, adapters: MixInUse) -> None:
        super().__init__()
        self.linear = linear
        self.group = group
        self.name = group.name
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
        y = self._product(x, plan)
        if plan.output_scale is not None:
            y = y * plan.output_scale
        if plan.shift is not None:
            y = y + plan.shift
        for part in plan.low_rank:
            part.add(y[0], x[0])
        return y

    def _product(self, x: Tensor, plan: SitePlan) -> Tensor:
        if plan.input_scales is None:
            return self.linear(x)  # type: ignore[no-any-return]
        # Each scale needs a product of all sites, which matters little: adapters that scale an input are rare.
        products = [self.linear(x if scale is None else x * scale) for scale in plan.input_scales]
        if len(products) == 1:
            return products[0]  # type: ignore[no-any-return]
        columns = self.group.columns
        return torch.cat([y[..., own] for y, own in zip(products, columns, strict=True)], dim=-1)


class TokenNorm(nn.Module):
    """A frozen normalisation layer whose scale and shift differ between the tokens of a pass."""

    def __init__(self, norm: nn.Module, group: SiteGroup, adapters: MixInUse) -> None:
        super().__init__()
        self.norm = norm
        self.name = group.name
        self.adapters = adapters

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        plan = self.adapters.mix.plan(self.name)
        if plan is None:
            return y
        if plan.output_scale is not None:
            y = y * plan.output_scale
        return y if plan.shift is None else y + plan.shift
