"""The LoRA that stands for a whole model, at the smallest rank that keeps its outputs. It imports torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rootstock.adapters.convert.conversion import largest_difference
from rootstock.adapters.convert.low_rank import WeightChange, change_of
from rootstock.adapters.errors import SourceError
from rootstock.adapters.sources.limits import MAX_RANK
from rootstock.adapters.spec import TaskClass

_RANKS = (1, 2, 4, 8, 16, 32, MAX_RANK)
Outputs = Callable[[Mapping[str, Tensor]], Iterator[Tensor]]
_NORMS = "the weights of the normalisation layers"


@dataclass(frozen=True)
class LowRankForm:
    """A whole model as a change of the foundation.

    `outputs` are the raw outputs with the change, one for each input. `difference` is their largest difference
    from the whole model's outputs, as a share of the largest output.
    """

    change: WeightChange
    outputs: Sequence[Tensor]
    difference: float


def low_rank_form(
    base: nn.Module,
    final: Mapping[str, Tensor],
    task_class: TaskClass,
    norms: Collection[str],
    outputs: Outputs,
    rank: int | None,
    limit: float,
) -> LowRankForm:
    """Return the LoRA that turns `base` into the model with the parameters `final`.

    Its rank is `rank`. If that is None, it is the smallest of 1, 2, 4 … MAX_RANK with a difference of at most
    `limit`. Raise SourceError if no rank is within the limit; the message names what differs.

    Each weight's change is cut by its singular values, which is the best approximation of a rank in the Frobenius
    norm (Eckart and Young, 1936).
    """
    original = {name: parameter.detach() for name, parameter in base.named_parameters()}
    expected = list(outputs(final))
    whole = change_of(base, final, task_class, norms, rank or MAX_RANK)
    ranks = [rank] if rank is not None else [small for small in _RANKS if small < whole.rank] + [MAX_RANK]
    for change in map(whole.truncated, ranks):
        got = _within(outputs(change.parameters(original)), expected, limit)
        if got is not None:
            return LowRankForm(change, got, _difference(expected, got))
    difference = _difference(expected, [*outputs(whole.parameters(original))])
    moved = _moved(original, final, whole)
    causes = _causes(original, final, whole, norms, outputs, expected)
    raise SourceError(
        f"as a LoRA of rank {whole.rank} the model's outputs differ by {difference:.2g} of the "
        f"largest output, and the limit is {limit:g}; each part alone: {', '.join(causes)}; the weights differ "
        f"by {moved:.0%} from the foundation's; give the foundation that the model was trained from, allow more "
        "with --max-difference or --rank, or train a LoRA"
    )


def _within(outputs: Iterator[Tensor], expected: Sequence[Tensor], limit: float) -> list[Tensor] | None:
    """Return the outputs; None at the first that differs by more than the limit, without computing the rest."""
    most = limit * max(float(output.abs().max()) for output in expected)
    got = []
    for before, after in zip(expected, outputs, strict=True):
        if not float((after - before).abs().max()) <= most:
            return None
        got.append(after)
    return got


def _difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    before, after = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in (expected, got))
    return largest_difference(before, after)


def _causes(
    original: Mapping[str, Tensor],
    final: Mapping[str, Tensor],
    change: WeightChange,
    norms: Collection[str],
    outputs: Outputs,
    expected: Sequence[Tensor],
) -> Iterator[str]:
    """Yield each part that the LoRA lacks with the difference that it makes alone, all else being exact."""
    weights = change.parameters(original)
    cut = {name: weights[name] for name in (f"{module}.weight" for module in change.pairs)}
    parts: dict[str, dict[str, Tensor]] = {f"rank {change.rank}": cut}
    for name in change.left_out:
        module = name.rpartition(".")[0]
        part = _NORMS if any(module.endswith(norm) for norm in norms) else name
        parts.setdefault(part, {})[name] = original[name]
    measured = {part: _difference(expected, [*outputs({**final, **values})]) for part, values in parts.items()}
    for part in sorted(measured, key=lambda part: -measured[part])[:3]:
        yield f"{part} by {measured[part]:.2g}"


def _moved(original: Mapping[str, Tensor], final: Mapping[str, Any], change: WeightChange) -> float:
    """Return the change of the linear layers' weights as a share of the weights, by Frobenius norm."""
    names = [f"{module}.weight" for module in change.pairs]
    moved = sum(float((final[name] - original[name]).square().sum()) for name in names)
    return float((moved / sum(float(original[name].square().sum()) for name in names)) ** 0.5) if names else 0.0
