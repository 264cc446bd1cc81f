"""Finds a model's linear layers, convolutions and normalisations, and the list that holds its layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rootstock.adapters.spec import Convolution
from rootstock.adapters.vocabulary.words import WordTable

if TYPE_CHECKING:
    from torch import nn


def linears(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the (in, out) features of the linear layers, by name."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    found = {n: (m.in_features, m.out_features) for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    return found | {n: (m.nx, m.nf) for n, m in model.named_modules() if isinstance(m, Conv1D)}


def convolutions(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return the features of the convolutions by name: (channels * kernel area, out)."""
    return {name: features(module) for name, module in model.named_modules() if is_convolution(module)}


def features(convolution: Any) -> tuple[int, int]:
    """Return the features of a convolution, as those of the linear layer on one patch of its input."""
    channels = convolution.in_channels // convolution.groups
    return channels * math.prod(convolution.kernel_size), convolution.out_channels


def is_convolution(module: nn.Module) -> bool:
    """Return whether a module is a convolution along one or two axes."""
    from torch import nn

    return isinstance(module, nn.Conv1d | nn.Conv2d)


def geometry(module: Any) -> Convolution | None:
    """Return the geometry of a convolution; None if a row's adapter cannot update it.

    An update multiplies patches of the input by a matrix. In a depthwise or grouped convolution, a channel of the
    output reads only some channels. A normalised weight is computed again in each pass.
    """
    from torch.nn.utils import parametrize

    padding = _padding(module)
    plain = module.groups == 1 and module.padding_mode == "zeros" and not parametrize.is_parametrized(module)
    if not plain or padding is None:
        return None
    return Convolution(tuple(module.kernel_size), tuple(module.stride), padding, tuple(module.dilation))


def _padding(module: Any) -> tuple[int, ...] | None:
    """Return the padding of each axis on both sides; None if the two sides differ."""
    if not isinstance(module.padding, str):
        return tuple(module.padding)
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    both = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return None if any(width % 2 for width in both) else tuple(width // 2 for width in both)


def norms(trunk: nn.Module) -> dict[str, int]:
    """Return the widths of the layer normalisations and of the RMS normalisations, by name.

    DeBERTa's layer on relative positions is left out: it does not apply to the rows of a batch, so it cannot
    differ between them.
    """
    return {
        name: int(module.weight.shape[0])
        for name, module in trunk.named_modules()
        if _is_norm(module) and name != "encoder.LayerNorm"
    }


def _is_norm(module: Any) -> bool:
    """Return whether a module normalises vectors, and multiplies them by a weight.

    Each architecture of transformers has a class of the RMS norm (Zhang and Sennrich 2019), and all their names
    end alike.
    """
    from torch import nn

    if isinstance(module, nn.LayerNorm):
        return bool(module.elementwise_affine)
    return type(module).__name__.endswith("RMSNorm") and getattr(module, "weight", None) is not None


def words(trunk: Any) -> WordTable | None:
    """Return the word embedding of a trunk, if its output is a table's rows, or these times one number."""
    from torch import nn

    table = trunk.get_input_embeddings()
    scale = 1.0 if type(table) is nn.Embedding else _scale(table)
    if scale is None or table.max_norm is not None:
        return None
    name = next(name for name, module in trunk.named_modules() if module is table)
    padding = getattr(trunk.config, "pad_token_id", None)
    return WordTable(name, table.num_embeddings, table.embedding_dim, 1 if padding == 0 else 0, scale)


def _scale(table: Any) -> float | None:
    """Return the number by which an embedding of Gemma's form multiplies its rows; None for any other one."""
    if not type(table).__name__.endswith("TextScaledWordEmbedding"):
        return None
    return float(table.scalar_embed_scale)


def layer_prefix(trunk: nn.Module, layers: int) -> str:
    """Return the beginning of the names of the layers, of which there are `layers`; "" if no list holds them."""
    from torch import nn

    for name, module in trunk.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers and "groups" not in name:
            return f"{name}."
    return ""


def longest_list(trunk: nn.Module) -> tuple[str, int]:
    """Return the beginning of the names of the trunk's layers or stages, and their number.

    They are the list with the most parameters: a stage's own list of layers has at most as many. Without a list
    the trunk is one layer.
    """
    from torch import nn

    lists = {n: m for n, m in trunk.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    if not lists:
        return "", 1
    name = max(lists, key=lambda n: sum(p.numel() for p in lists[n].parameters()))
    return f"{name}.", len(lists[name])
