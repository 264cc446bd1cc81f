"""Finds which dimensions of a head are the number of labels, from two models that differ in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# Two label counts that no width of a head equals.
_LABELS = (3, 5)


def two_sizes(make: Callable[[Any], nn.Module], config: Any) -> tuple[nn.Module, nn.Module]:
    """Return two models that `make` makes of a config, with two different label counts."""
    small, large = (with_labels(make, config, count) for count in _LABELS)
    return small, large


def with_labels(make: Callable[[Any], nn.Module], config: Any, labels: int) -> nn.Module:
    """Return the model that `make` makes of a config with this label count."""
    sized = copy.deepcopy(config)
    sized.num_labels = labels
    return make(sized)


def head_shapes(
    small: nn.Module, large: nn.Module, prefix: str, trunk: nn.Module | None = None
) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes of the tensors outside the trunk, by name, with None for the number of labels.

    `prefix` begins the names of the trunk's tensors. The class may give the trunk a pooler that `trunk`, the
    foundation's, lacks; its tensors belong to the head.
    """
    inside = None if trunk is None else {f"{prefix}{name}" for name, _ in trunk.named_parameters()}
    sizes = dict(large.named_parameters())
    return {
        name: tuple(a if a == b else None for a, b in zip(p.shape, sizes[name].shape, strict=True))
        for name, p in small.named_parameters()
        if not name.startswith(prefix) or (inside is not None and name not in inside)
    }
