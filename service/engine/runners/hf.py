"""transformers models taken apart: the trunk with sites in place of its linear layers, and the heads alone."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn


class SiteLinear(nn.Module):
    """A frozen linear layer whose output gains (x @ a^T) @ b where a pair is set.

    x (rows, …, in); a (rows, r, in); b (rows, r, out). Row i of the batch is updated by a[i] and b[i] alone.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.a: Tensor | None = None
        self.b: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        if self.a is None or self.b is None:
            return y
        if x.dim() == 2:  # the pooler sees one vector a row
            return y + torch.matmul(torch.matmul(x.unsqueeze(1), self.a.transpose(1, 2)), self.b).squeeze(1)
        return y + torch.matmul(torch.matmul(x, self.a.transpose(1, 2)), self.b)


def load_trunk(folder: Path, attention: str) -> nn.Module:
    """The foundation's body in fp32, frozen, in eval mode. Safetensors only, no remote code."""
    previous = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        trunk = transformers.AutoModel.from_pretrained(
            folder,
            attn_implementation=attention,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
        )
    finally:
        transformers.utils.logging.set_verbosity(previous)
    return cast(nn.Module, trunk.eval().requires_grad_(False))


def graft_sites(trunk: nn.Module, sites: Iterable[str]) -> dict[str, SiteLinear]:
    """Replace each named linear layer by a SiteLinear around it, in place; returns them by name."""
    grafted = {}
    for name in sites:
        parent, _, child = name.rpartition(".")
        grafted[name] = SiteLinear(cast(nn.Linear, trunk.get_submodule(name)))
        setattr(trunk.get_submodule(parent), child, grafted[name])
    return grafted


class TrunkStub(nn.Module):
    """Stands where a task class expects its trunk and returns what was given: `hidden` and `pooled`."""

    def __init__(self, has_pooler: bool) -> None:
        super().__init__()
        self.has_pooler = has_pooler
        self.given: dict[str, Tensor] = {}

    def forward(self, *_: Any, **__: Any) -> Any:
        hidden, pooled = self.given["hidden"], self.given.get("pooled")
        return _Output(hidden, pooled)


class _Output(SimpleNamespace):
    """A trunk's output as task classes read it: by attribute or by position."""

    def __init__(self, hidden: Tensor, pooled: Tensor | None) -> None:
        super().__init__(last_hidden_state=hidden, pooler_output=pooled, hidden_states=None, attentions=None)

    def __getitem__(self, index: Any) -> Any:
        return tuple(v for v in (self.last_hidden_state, self.pooler_output) if v is not None)[index]


def head_model(folder: Path, class_name: str, labels: int) -> tuple[nn.Module, int]:
    """A task class whose trunk is a stub, in eval mode, and its hidden size: calling it runs the head alone."""
    config = copy.deepcopy(transformers.AutoConfig.from_pretrained(folder))
    config.num_labels = labels
    with torch.device("meta"):
        model = getattr(transformers, class_name)(config)
    trunk = getattr(model, model.base_model_prefix)
    setattr(model, model.base_model_prefix, TrunkStub(getattr(trunk, "pooler", None) is not None))
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model.eval(), config.hidden_size
