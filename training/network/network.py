"""The network that trains: the foundation's task class with an adapter on it, and a head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from rootstock.adapters.spec import Array, FoundationSpec, Pooling, TaskClass
from rootstock.training.errors import RecipeError
from rootstock.training.network.inputs import Count, InputBatch, Inputs, KnownStates, ignored
from rootstock.training.network.trunk import UpperTrunk, can_cut, head_layers, states_into

if TYPE_CHECKING:
    import torch
    from torch import nn

Output = Literal["logits", "embed", "states"]


@dataclass
class Network:
    """A task class (PEFT's model around it, where there is an adapter) and a linear head for texts.

    Texts: `head` on the pooled and L2-normalised states. Tokens: the task class's own head, `head` is None.
    `from_layer` runs the trunk from the first layer that changes, for inputs that hold the states into that
    layer.
    """

    model: nn.Module
    head: nn.Linear | None
    spec: FoundationSpec
    task_class: TaskClass
    depth: int
    from_layer: UpperTrunk | None = None

    @property
    def task_model(self) -> nn.Module:
        """The task class without PEFT's model around it."""
        around: Any = self.model
        return cast("nn.Module", around.base_model.model) if hasattr(around, "peft_config") else self.model

    @property
    def trunk(self) -> nn.Module:
        """The trunk with its adapter."""
        return self.task_model.get_submodule(self.task_class.prefix.rstrip("."))

    def modules(self) -> Iterator[nn.Module]:
        """Yield the task class, then the linear head where there is one."""
        yield self.model
        if self.head is not None:
            yield self.head

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by name; those of the linear head are head.weight and head.bias."""
        parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        if self.head is not None:
            parameters |= {f"head.{n}": p for n, p in self.head.named_parameters() if p.requires_grad}
        return parameters

    def train(self, mode: bool = True) -> None:
        """Switch dropout on or off."""
        for module in self.modules():
            module.train(mode)

    def states(self, batch: InputBatch) -> torch.Tensor:
        """Return the trunk's output, (rows, tokens, width)."""
        if batch.states is not None and self.from_layer is not None:
            return self.from_layer(batch.states, batch.mask)
        return cast("torch.Tensor", self.trunk(**batch.arguments(self.spec)).last_hidden_state)

    def embed(self, batch: InputBatch) -> torch.Tensor:
        """Return one L2-normalised vector a row, (rows, width); for tokens too."""
        from torch.nn.functional import normalize

        if self.pooling == "pooler":
            vectors = self.trunk(**batch.arguments(self.spec)).pooler_output.flatten(1)
        else:
            vectors = pooled(self.states(batch), batch.mask, self.pooling)
        return normalize(vectors, dim=-1)

    def logits(self, batch: InputBatch) -> torch.Tensor:
        """Return logits, (rows, labels) or (rows, tokens, labels)."""
        if self.head is not None:
            return cast("torch.Tensor", self.head(self.embed(batch)))
        with self._upper_trunk(batch):
            return cast("torch.Tensor", self.task_model(**batch.arguments(self.spec)).logits)

    @property
    def pooling(self) -> Pooling:
        """The pooling in front of a linear head: that of the foundation's embeddings."""
        return pooling_of(self.spec)

    def logits_of(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of the task class's head for (rows, tokens, width) states of the trunk.

        The task class computes them, since some families scale or cap them.
        """
        with self._trunk_replaced(lambda: states):
            return cast("torch.Tensor", self.task_model(inputs_embeds=states, use_cache=False).logits)

    @contextmanager
    def _upper_trunk(self, batch: InputBatch) -> Iterator[None]:
        """Let the task class start at the states of the batch, where the batch has them."""
        if batch.states is None or self.from_layer is None:
            yield
            return
        with self._trunk_replaced(lambda: self.states(batch)):
            yield

    @contextmanager
    def _trunk_replaced(self, states: Callable[[], torch.Tensor]) -> Iterator[None]:
        """Let the task class take these states for the output of its trunk."""
        from torch import nn

        class TrunkStates(nn.Module):
            def forward(self, *_: Any, **__: Any) -> Any:
                from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

                # Every task class finds the fields that it reads.
                return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=cast(Any, states()))

        name, model = self.task_class.prefix.rstrip("."), self.task_model
        whole = model._modules[name]
        model._modules[name] = TrunkStates()
        try:
            yield
        finally:
            model._modules[name] = whole


def pooling_of(spec: FoundationSpec) -> Pooling:
    """Return the pooling of images and recordings; for texts `cls` or `mean`.

    Not every task class for texts has the pooler of its foundation.
    """
    if spec.modality != "text":
        return spec.embedding.pooling
    return "cls" if spec.embedding.pooling == "cls" else "mean"


def pooled(states: torch.Tensor, mask: torch.Tensor | None, pooling: str) -> torch.Tensor:
    """Return one vector a row: the first token's states, or the mean over the tokens inside the mask."""
    if pooling == "cls":
        return states[:, 0]
    if mask is None:
        return states.mean(1)
    weights = mask.to(states.dtype)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
    return (weights[:, :, None] * states).sum(1)


def start_at_states(
    network: Network, parts: list[Inputs], count: Count = ignored, known: KnownStates | None = None
) -> None:
    """Let the network start at the first layer that changes, if that gives the same states.

    The states into that layer are computed once for every row of `parts`. `count` gets the number of rows of each
    batch, and `known` gives states that were computed before.
    """
    if not can_cut(network.trunk, network.spec) or network.pooling == "pooler":
        return
    network.train(False)
    cut = UpperTrunk(network.trunk, network.spec, min(network.depth, network.spec.layers))
    if not _is_same(network, cut, parts[0]):
        return
    for inputs in parts:
        if len(inputs) and not inputs.keep_states(network.trunk, network.spec, network.depth, count, known):
            for each in parts:
                each.states = None
            return
    network.from_layer = cut


def _is_same(network: Network, cut: UpperTrunk, inputs: Inputs) -> bool:
    """Return True if the cut trunk gives the states of the whole one, for the first rows."""
    import torch

    sample = inputs.batch(inputs.parts(list(range(min(4, len(inputs)))))[0])
    with torch.no_grad():
        arguments = sample.arguments(network.spec)
        whole = network.trunk(**arguments).last_hidden_state
        states = states_into(network.trunk, network.spec, network.depth, arguments)
        try:
            upper = cut(states, sample.mask)
            seen = slice(None) if sample.mask is None else sample.mask.bool()
            return torch.allclose(upper[seen], whole[seen], atol=1e-4, rtol=1e-4)
        except (TypeError, AttributeError, RuntimeError, IndexError, ValueError):
            # A trunk that cannot be cut this way trains from its inputs.
            return False


def outputs(network: Network, inputs: Inputs, kind: Output = "logits") -> list[Array]:
    """Return the raw output for each row in order: (labels,), or (tokens, labels) without padding.

    `kind` is `logits`, `embed` for (width,), or `states` for (tokens, width).
    """
    import torch

    compute: Callable[[InputBatch], torch.Tensor] = getattr(network, kind)
    network.train(False)
    by_row: list[Array | None] = [None] * len(inputs)
    with torch.inference_mode():
        for chosen in inputs.in_order():
            rows = compute(inputs.batch(chosen)).float().cpu().numpy()
            for row, i in zip(rows, chosen, strict=True):
                by_row[i] = np.array(row[: inputs.lengths[i]] if row.ndim == 2 else row)
    return cast("list[Array]", by_row)


def has_one_layer(network: Network) -> bool:
    """Return True if the head is one linear layer, which can be fitted without a descent."""
    return network.head is not None or len(head_layers(network.task_class)) == 1


def simple_head(network: Network) -> nn.Linear:
    """Return the linear layer that is the head. Raise RecipeError for a head of several layers."""
    if network.head is not None:
        return network.head
    names = head_layers(network.task_class)
    if len(names) != 1:
        raise RecipeError(
            f"peft.method: head_only fits a head of one linear layer; {network.task_class.name} has "
            f"{len(names)} ({', '.join(names)}); set lora"
        )
    module: Any = network.task_model.get_submodule(names[0])
    # PEFT trains a copy of what modules_to_save names.
    copies = getattr(module, "modules_to_save", None)
    return cast("nn.Linear", module if copies is None else copies["default"])
