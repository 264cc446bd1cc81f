"""What is trained: the foundation's task class with an adapter on it, and a head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from rootstock.adapters.spec import Array, FoundationSpec, Pooling, TaskClass
from rootstock.training.errors import RecipeError
from rootstock.training.network.inputs import InputBatch, Inputs
from rootstock.training.network.trunk import GivenStates, can_cut, head_layers

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass
class Network:
    """A task class (PEFT's model around it, where there is an adapter) and a linear head for texts.

    Texts: `head` on the pooled and L2-normalised states. Tokens: the task class's own head, `head` is None.
    `from_layer` runs the trunk from the first layer that changes, where inputs hold the states that go into it.
    """

    model: nn.Module
    head: nn.Linear | None
    spec: FoundationSpec
    task_class: TaskClass
    depth: int
    from_layer: GivenStates | None = None

    @property
    def task_model(self) -> nn.Module:
        """The task class without PEFT's model around it."""
        around: Any = self.model
        return cast("nn.Module", around.base_model.model) if hasattr(around, "peft_config") else self.model

    @property
    def trunk(self) -> nn.Module:
        """The trunk, with whatever is grafted on it."""
        return self.task_model.get_submodule(self.task_class.prefix.rstrip("."))

    def modules(self) -> Iterator[nn.Module]:
        """The task class, and the linear head."""
        yield self.model
        if self.head is not None:
            yield self.head

    def parameters(self) -> dict[str, nn.Parameter]:
        """What trains, by name; the linear head's are head.weight and head.bias."""
        found = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        if self.head is not None:
            found |= {f"head.{n}": p for n, p in self.head.named_parameters() if p.requires_grad}
        return found

    def train(self, mode: bool = True) -> None:
        """Switch dropout on or off."""
        for module in self.modules():
            module.train(mode)

    def states(self, batch: InputBatch) -> torch.Tensor:
        """The trunk's output, (rows, tokens, width)."""
        if batch.states is not None and self.from_layer is not None:
            return self.from_layer(batch.states, batch.mask)
        return cast("torch.Tensor", self.trunk(**batch.arguments(self.spec)).last_hidden_state)

    def embed(self, batch: InputBatch) -> torch.Tensor:
        """One L2-normalised vector a row, (rows, width); for tokens the mean over them too."""
        from torch.nn.functional import normalize

        return normalize(pooled(self.states(batch), batch.mask, self.pooling), dim=-1)

    def logits(self, batch: InputBatch) -> torch.Tensor:
        """(rows, labels), or (rows, tokens, labels)."""
        if self.head is not None:
            return cast("torch.Tensor", self.head(self.embed(batch)))
        with self._trunk_given(batch):
            return cast("torch.Tensor", self.task_model(**batch.arguments(self.spec)).logits)

    @property
    def pooling(self) -> Pooling:
        """How a linear head's vector is made: as the foundation makes its embeddings."""
        return pooling_of(self.spec)

    @contextmanager
    def _trunk_given(self, batch: InputBatch) -> Iterator[None]:
        """The task class with a trunk that starts at the states of the batch, where it has them."""
        if batch.states is None or self.from_layer is None:
            yield
            return
        from torch import nn

        network = self

        class LayerInputs(nn.Module):
            def forward(self, *_: Any, **__: Any) -> Any:
                from transformers.modeling_outputs import BaseModelOutput

                return BaseModelOutput(last_hidden_state=cast(Any, network.states(batch)))

        name, model = self.task_class.prefix.rstrip("."), self.task_model
        whole = model._modules[name]
        model._modules[name] = LayerInputs()
        try:
            yield
        finally:
            model._modules[name] = whole


def pooling_of(spec: FoundationSpec) -> Pooling:
    """`cls` or `mean`. A pooler that a foundation brings is no part of a classifier's trunk everywhere."""
    return "cls" if spec.embedding.pooling == "cls" else "mean"


def pooled(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector a row: the first token's states, or the mean over the tokens that the mask keeps."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.to(states.dtype)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
    return (weights[:, :, None] * states).sum(1)


def start_at_states(network: Network, parts: list[Inputs]) -> None:
    """Let the network start at the first layer that changes, where that gives the same states.

    The states that go into it are computed once for every row of `parts`.
    """
    import torch

    if not can_cut(network.spec):
        return
    network.train(False)
    for inputs in parts:
        if len(inputs) and not inputs.keep_states(network.trunk, network.spec, network.depth):
            for each in parts:
                each.states = None
            return
    cut = GivenStates(network.trunk, network.spec, min(network.depth, network.spec.layers))
    sample = parts[0].batch(list(range(min(4, len(parts[0])))))
    seen = sample.mask.bool()
    with torch.no_grad():
        whole = network.trunk(**sample.arguments(network.spec)).last_hidden_state
        try:
            found = cut(cast(Any, sample.states), sample.mask)
            same = torch.allclose(found[seen], whole[seen], atol=1e-4, rtol=1e-4)
        except (TypeError, AttributeError, RuntimeError, IndexError):
            # An architecture whose trunk is put together in another way trains from its token ids.
            same = False
    if same:
        network.from_layer = cut
    else:
        for each in parts:
            each.states = None


def outputs(network: Network, inputs: Inputs, what: str = "logits") -> list[Array]:
    """The raw output for each row in order: (labels,), or (tokens, labels) without padding.

    `what` is `logits`, `embed` for (width,), or `states` for (tokens, width).
    """
    import torch

    compute: Callable[[InputBatch], torch.Tensor] = getattr(network, what)
    network.train(False)
    found: list[Array | None] = [None] * len(inputs)
    with torch.inference_mode():
        for chosen in inputs.in_order():
            rows = compute(inputs.batch(chosen)).float().cpu().numpy()
            for row, i in zip(rows, chosen, strict=True):
                found[i] = np.array(row[: inputs.lengths[i]] if row.ndim == 2 else row)
    return cast("list[Array]", found)


def has_one_layer(network: Network) -> bool:
    """Whether the head is one linear layer, which can be fitted without a descent."""
    return network.head is not None or len(head_layers(network.task_class)) == 1


def simple_head(network: Network) -> nn.Linear:
    """The one linear layer that is the head; RecipeError where the task class has more than that."""
    if network.head is not None:
        return network.head
    names = head_layers(network.task_class)
    if len(names) != 1:
        raise RecipeError(
            f"{network.task_class.name} has a head of {len(names)} layers ({', '.join(names)}): peft.method "
            "head_only fits one linear layer; set lora"
        )
    module: Any = network.task_model.get_submodule(names[0])
    # PEFT trains a copy of what modules_to_save names.
    copies = getattr(module, "modules_to_save", None)
    return cast("nn.Linear", module if copies is None else copies["default"])
