"""Sites: the modules of a trunk that take a separate update for each row of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from rootstock.adapters.vocabulary.words import WordTable

# The parts of an update, by the names of the graph inputs or device tensors that hold them.
PARTS = ("A", "B", "input_scale", "output_scale", "shift")
# With fewer channels than this for each place of the stride, a convolution is computed on the unfolded input.
# With more, products with the states of all places take less memory: they have r channels for each place of the
# kernel.
_FEW = 16


class Site(nn.Module):
    """A frozen layer with a separate update (`SiteUpdate`) for each row of a batch.

    A is (rows, r, in), B (rows, r, out), and the scales and the shift are (rows, 1, features). A part is None if
    no row has it. It may have a single row, which then applies to every row.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.parts: dict[str, Tensor | None] = {}

    def take(self, parts: Mapping[str, Tensor | None]) -> None:
        """Set the updates of the next batch, by the names in `PARTS`."""
        self.parts = dict(parts)

    @property
    def weight(self) -> Tensor:
        """Return the frozen weight. Some trunks read its type."""
        weight: Any = self.layer.weight
        return cast(Tensor, weight)


class SiteLinear(Site):
    """A linear layer as a site. Its states x are (rows, …, in), or (rows * windows, …, in) as in Swin."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.dim() == 2  # the pooler gets one vector for each row
        if flat:
            x = x.unsqueeze(1)
        y = self._updated(x)
        return y.squeeze(1) if flat else y

    def _updated(self, x: Tensor) -> Tensor:
        a, b, input_scale, output_scale, shift = (self.parts.get(name) for name in PARTS)
        y: Tensor = self.layer(x if input_scale is None else _of_rows(x, input_scale, torch.mul))
        if output_scale is not None:
            y = _of_rows(y, output_scale, torch.mul)
        if shift is not None:
            y = _of_rows(y, shift, torch.add)
        if a is not None and b is not None:
            y = _of_rows(y, a, lambda y, a: self.add_low_rank(y, _by_row(x, a), a, b))
        return y

    def add_low_rank(self, y: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return y + (x @ a.T) @ b for each row."""
        return y + torch.matmul(torch.matmul(x, a.transpose(1, 2)), b)


def _of_rows(y: Tensor, part: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return states changed by a part, in the shape that they came in."""
    by_row = _by_row(y, part)
    changed = change(by_row, part)
    return changed if by_row is y else changed.reshape(y.shape)


def _by_row(x: Tensor, part: Tensor) -> Tensor:
    """Return states as (rows of the part, states of a row, features), or unchanged if they broadcast with it."""
    # Convert to plain numbers, because during tracing a shape holds tensors.
    first, rows = int(x.shape[0]), int(part.shape[0])
    if x.dim() == 3 and (first in (1, rows) or rows == 1):
        return x
    return x.reshape(part.shape[0], -1, x.shape[-1])


class SiteConvolution(Site):
    """A convolution along one or two axes as a site. Its states x are (rows, channels, …).

    A is (rows, r, channels * kernel area): convolutions with the same geometry and r outputs, flattened.
    `input_scale` is (rows, 1, channels).
    """

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__(convolution)
        self._geometry: Any = convolution
        # Some trunks pad their states by these numbers.
        self.kernel_size, self.stride, self.dilation = (
            getattr(convolution, name) for name in ("kernel_size", "stride", "dilation")
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b, input_scale, output_scale, shift = (self.parts.get(name) for name in PARTS)
        y: Tensor = self.layer(x if input_scale is None else x * _along_channels(input_scale, x))
        if output_scale is not None:
            y = y * _along_channels(output_scale, y)
        if shift is not None:
            y = y + _along_channels(shift, y)
        if a is not None and b is not None:
            # For rank 0, ONNX Runtime 1.31 is wrong if it fuses a transpose into a product, and broadcasts no
            # rows. The first reshape prevents the fusion. The second keeps the rows that there are.
            outwards = b.transpose(1, 2).reshape(b.shape[0], b.shape[2], b.shape[1])
            change = torch.matmul(outwards, self._convolve(x, a, y))
            y = y + change.reshape(change.shape[0], *y.shape[1:])
        return y

    def _convolve(self, x: Tensor, a: Tensor, y: Tensor) -> Tensor:
        """Return each row's convolution with its own weights `a`, at the places of `y`: (rows, r, places)."""
        x = nn.functional.pad(x, self._geometry._reversed_padding_repeated_twice)
        if x.dim() == 3:
            x, y = x.unsqueeze(2), y.unsqueeze(2)
        kernel, stride, dilation = ((1, *axes)[-2:] for axes in (self.kernel_size, self.stride, self.dilation))
        height, width = y.shape[2:]
        if kernel == stride and dilation == (1, 1):
            return torch.matmul(a, _patches(x, kernel, height, width))

        def shifted(states: Tensor, place: int) -> Tensor:
            """Return what a place of the kernel reads: (…, height, width)."""
            top, left = place // kernel[1] * dilation[0], place % kernel[1] * dilation[1]
            bottom, right = top + (height - 1) * stride[0] + 1, left + (width - 1) * stride[1] + 1
            return states[..., top : bottom : stride[0], left : right : stride[1]]

        area, channels = math.prod(kernel), int(x.shape[1])
        if channels < _FEW * math.prod(stride):
            unfolded = torch.stack([shifted(x, place) for place in range(area)], dim=2)
            return torch.matmul(a, unfolded.reshape(x.shape[0], channels * area, height * width))
        products = _products(x, a, area)
        total: Any = sum(shifted(products[:, place], place) for place in range(area))
        result: Tensor = total.reshape(x.shape[0], a.shape[1], height * width)
        return result


def _along_channels(part: Tensor, x: Tensor) -> Tensor:
    """Return (rows, 1, channels) as (rows, channels, 1, …), with as many axes as x."""
    return part.transpose(1, 2) if x.dim() == 3 else part.transpose(1, 2).unsqueeze(3)


def _patches(x: Tensor, kernel: tuple[int, ...], height: int, width: int) -> Tensor:
    """Return patches that do not overlap: (rows, channels * kernel area, places)."""
    if kernel == (1, 1):
        return x.flatten(2)
    rows, channels = x.shape[:2]
    high, wide = kernel
    x = x[:, :, : height * high, : width * wide]
    x = x.reshape(rows, channels, height, high, width, wide).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(rows, int(channels) * high * wide, -1)


def _products(x: Tensor, a: Tensor, area: int) -> Tensor:
    """Return the product of all states with the weights of each place of the kernel: (rows, area, r, …)."""
    (rows, rank, _), channels = a.shape, int(x.shape[1])
    # In a graph the rank can be 0, so that no size may be left to be inferred.
    weights = a.reshape(rows, rank, channels, area).permute(0, 3, 1, 2)
    products = torch.matmul(weights, x.flatten(2).unsqueeze(1))
    return products.reshape(x.shape[0], area, rank, x.shape[2], x.shape[3])


class SiteNorm(nn.Module):
    """A frozen normalisation layer with a scale and a shift for each row of a batch: (rows, 1, width) or None.

    Its states are (rows, tokens, width), or for the queries and keys of some trunks (rows, tokens, heads, width).
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.scale: Tensor | None = None
        self.shift: Tensor | None = None

    def take(self, parts: Mapping[str, Tensor | None]) -> None:
        """Set the scale and the shift of the next batch."""
        self.scale, self.shift = parts.get("output_scale"), parts.get("shift")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        if self.scale is not None:
            y = y * (self.scale if y.dim() == 3 else self.scale.unsqueeze(1))
        if self.shift is not None:
            y = y + (self.shift if y.dim() == 3 else self.shift.unsqueeze(1))
        return y


class WordSite(nn.Module):
    """A frozen word embedding whose rows differ between the rows of a batch, for single tokens.

    `changes` is (n, width), and `places` (rows, tokens) has for each token the index of what is added to its row
    of the table. Both are None if no adapter of the batch has any. Places of shape (1, 1) apply to all tokens.
    """

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table
        self.changes: Tensor | None = None
        self.places: Tensor | None = None

    def take(self, changes: Tensor | None, places: Tensor | None) -> None:
        """Set the changes of the next batch."""
        self.changes, self.places = changes, places

    @property
    def weight(self) -> Tensor:
        """Return the frozen rows. Some trunks read their type."""
        weight: Any = self.table.weight
        return cast(Tensor, weight)

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.table(tokens)
        if self.changes is None or self.places is None:
            return y
        return y + nn.functional.embedding(self.places, self.changes)


def has_rows(value: Tensor, rows: int) -> bool:
    """Tell whether a value's first axis is rows, or rows * heads as in WavLM's position bias.

    A table of two axes, such as DeBERTa's of relative positions, has another first axis.
    """
    first = int(value.shape[0])
    return first == rows or (value.dim() > 2 and first % rows == 0)


def select_rows(value: Tensor, rows: int, chosen: Tensor) -> Tensor:
    """Return the chosen rows of a value that `has_rows`."""
    first = int(value.shape[0])
    if first == rows:
        return value.index_select(0, chosen)
    by_row = value.reshape(-1, first // rows, *value.shape[1:])
    return by_row.index_select(0, chosen).flatten(0, 1)


def graft_sites(
    trunk: nn.Module, sites: Iterable[str], linear: Callable[[nn.Module], Site] = SiteLinear
) -> dict[str, Site]:
    """Replace each named layer, in place, by a site around it. Return the sites by name."""
    grafted = {}
    for name in sites:
        convolves = isinstance(trunk.get_submodule(name), nn.Conv1d | nn.Conv2d)
        grafted[name] = _graft(trunk, name, SiteConvolution if convolves else linear)
    return grafted


def graft_norms(trunk: nn.Module, norms: Iterable[str]) -> dict[str, SiteNorm]:
    """Replace each named normalisation layer, in place, by a SiteNorm around it. Return the sites by name."""
    return {name: _graft(trunk, name, SiteNorm) for name in norms}


def graft_words(trunk: nn.Module, words: WordTable | None) -> WordSite | None:
    """Replace the word embedding, in place, by a WordSite around it, and return that; None without one."""
    return None if words is None else _graft(trunk, words.name, WordSite)


Grafted = TypeVar("Grafted", bound=nn.Module)


def _graft(trunk: nn.Module, name: str, kind: Callable[[nn.Module], Grafted]) -> Grafted:
    parent, _, child = name.rpartition(".")
    grafted = kind(trunk.get_submodule(name))
    setattr(trunk.get_submodule(parent), child, grafted)
    return grafted
