"""Change the normalisations of a trunk for the tokens of a pass whose adapters tune them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rootstock.service.engine.runners.decoder.adapter_mix import AdapterMix, SitePlan

# The axis of the tokens in what most normalisations read: (1, tokens, width).
_TOKENS = 1


class TokenNorms:
    """The normalisations of a trunk, which differ between the tokens of a pass if its adapters say so.

    A pass without such an adapter runs the modules as they are.
    """

    def __init__(self, trunk: nn.Module, axes: Mapping[str, int]) -> None:
        """Take the axis of the tokens in what each normalisation reads, by its name."""
        self._modules = {name: trunk.get_submodule(name) for name in axes}
        self._axes = axes

    @contextmanager
    def changed(self, names: Iterable[str], mix: AdapterMix) -> Iterator[None]:
        """Change the named normalisations as the adapters of the mix's pass do."""
        with ExitStack() as hooks:
            for name in names:
                hook = partial(self._change, mix, name)
                hooks.callback(self._modules[name].register_forward_hook(hook).remove)
            yield

    def _change(self, mix: AdapterMix, name: str, _: nn.Module, __: Any, y: Tensor) -> Tensor:
        plan = mix.plan(name)
        return y if plan is None else _changed(y, plan, self._axes[name])


def _changed(y: Tensor, plan: SitePlan, axis: int) -> Tensor:
    """Return states times the scale of each token plus its shift. `axis` is that of the tokens."""
    for part, change in ((plan.output_scale, torch.mul), (plan.shift, torch.add)):
        if part is not None:
            between = (1,) * (y.dim() - axis - 2)
            y = change(y, part.view(part.shape[0], *between, part.shape[1]))
    return y


@torch.inference_mode()
def token_axes(
    model: Any, trunk: nn.Module, norms: Iterable[str], texts: Sequence[Sequence[int]]
) -> dict[str, int]:
    """Return the axis of the tokens in what each normalisation reads, from passes of two texts.

    The texts have different lengths, and no other axis has their lengths.
    """
    shapes: dict[str, list[torch.Size]] = {name: [] for name in norms}
    with ExitStack() as hooks:
        for name, seen in shapes.items():
            note = partial(_note, seen)
            hooks.callback(trunk.get_submodule(name).register_forward_pre_hook(note).remove)
        for text in texts:
            model(input_ids=torch.tensor([text]), use_cache=False)
    axes = {}
    for name, (first, second) in shapes.items():
        differ = [axis for axis, sizes in enumerate(zip(first, second, strict=True)) if sizes[0] != sizes[1]]
        axes[name] = differ[0] if differ else _TOKENS
    return axes


def _note(seen: list[torch.Size], _: nn.Module, given: tuple[Any, ...]) -> None:
    seen.append(given[0].shape)
