"""Take transformers models apart: the trunk, with sites in place of its linear layers, and the separate heads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import torch
import transformers
from torch import Tensor, nn

# The parts of an update, by the names of the graph inputs or device tensors that hold them.
PARTS = ("A", "B", "input_scale", "output_scale", "shift")


class SiteLinear(nn.Module):
    """A frozen linear layer with a separate update (`SiteUpdate`) for each row of a batch.

    x is (rows, …, in), A (rows, r, in), B (rows, r, out), and the scales and the shift are (rows, 1, features).
    A part is None if no row has it. It may have a single row, which then applies to every row.
    """

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear
        self.parts: dict[str, Tensor | None] = {}

    def take(self, parts: Mapping[str, Tensor | None]) -> None:
        """Set the updates of the next batch, by the names in `PARTS`."""
        self.parts = dict(parts)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.dim() == 2  # the pooler gets one vector for each row
        if flat:
            x = x.unsqueeze(1)
        y = self._updated(x)
        return y.squeeze(1) if flat else y

    def _updated(self, x: Tensor) -> Tensor:
        a, b, input_scale, output_scale, shift = (self.parts.get(name) for name in PARTS)
        y: Tensor = self.linear(x if input_scale is None else x * input_scale)
        if output_scale is not None:
            y = y * output_scale
        if shift is not None:
            y = y + shift
        if a is not None and b is not None:
            y = self.add_low_rank(y, x, a, b)
        return y

    def add_low_rank(self, y: Tensor, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return y + (x @ a.T) @ b for each row."""
        return y + torch.matmul(torch.matmul(x, a.transpose(1, 2)), b)


class SiteNorm(nn.Module):
    """A frozen normalisation layer with a separate shift for each row of a batch: (rows, 1, width) or None."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.shift: Tensor | None = None

    def take(self, parts: Mapping[str, Tensor | None]) -> None:
        """Set the shift of the next batch."""
        self.shift = parts.get("shift")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        return y if self.shift is None else y + self.shift


def load_trunk(folder: Path, attention: str | None) -> nn.Module:
    """Return the foundation's body in fp32, frozen, in eval mode. Read only safetensors and run no remote code.

    With `attention` None, transformers chooses the attention for the architecture.
    """
    trunk = _load(transformers.AutoModel, folder, attn_implementation=attention)
    if trunk.config.model_type == "deberta-v2":
        from rootstock.service.engine.runners.deberta import let_positions_vary

        let_positions_vary(trunk)
    return cast(nn.Module, trunk.eval().requires_grad_(False))


def _load(auto: Any, folder: Path, **options: Any) -> Any:
    """Return the model that an auto class loads in fp32: safetensors only, no remote code, no log output."""
    previous = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        return auto.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, **options
        )
    finally:
        transformers.utils.logging.set_verbosity(previous)


def graft_sites(
    trunk: nn.Module, sites: Iterable[str], kind: Callable[[nn.Module], SiteLinear] = SiteLinear
) -> dict[str, SiteLinear]:
    """Replace each named linear layer, in place, by a SiteLinear around it. Return the sites by name."""
    return {name: _graft(trunk, name, kind) for name in sites}


def graft_norms(trunk: nn.Module, norms: Iterable[str]) -> dict[str, SiteNorm]:
    """Replace each named normalisation layer, in place, by a SiteNorm around it. Return the sites by name."""
    return {name: _graft(trunk, name, SiteNorm) for name in norms}


Grafted = TypeVar("Grafted", bound=nn.Module)


def _graft(trunk: nn.Module, name: str, kind: Callable[[nn.Module], Grafted]) -> Grafted:
    parent, _, child = name.rpartition(".")
    grafted = kind(trunk.get_submodule(name))
    setattr(trunk.get_submodule(parent), child, grafted)
    return grafted


class TrunkStub(nn.Module):
    """A stand-in for a task class's trunk. It returns its `outputs`: "hidden" and, with a pooler, "pooled"."""

    def __init__(self, has_pooler: bool) -> None:
        super().__init__()
        self.has_pooler = has_pooler
        self.outputs: dict[str, Tensor] = {}

    def forward(self, *_: Any, **__: Any) -> Any:
        hidden, pooled = self.outputs["hidden"], self.outputs.get("pooled")
        return _Output(hidden, pooled)


class _Output(SimpleNamespace):
    """A trunk's output that task classes can read by attribute or by index."""

    def __init__(self, hidden: Tensor, pooled: Tensor | None) -> None:
        super().__init__(last_hidden_state=hidden, pooler_output=pooled, hidden_states=None, attentions=None)

    def __getitem__(self, index: Any) -> Any:
        return tuple(v for v in (self.last_hidden_state, self.pooler_output) if v is not None)[index]


def logits_of(output: Any) -> Tensor:
    """Return a task class's logits: (rows, labels), or (rows, tokens, labels).

    For question answering, the labels are start and end.
    """
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    logits: Tensor = output.logits
    return logits


class MaskedLMHead(nn.Module):
    """A foundation's own masked-language-model head, with its checkpoint's weights, frozen, in eval mode.

    It maps hidden states (masks, width) to logits (masks, vocabulary).
    """

    def __init__(self, folder: Path) -> None:
        """Load the head from a checkpoint's folder. Raise ValueError if the checkpoint lacks a part of it."""
        super().__init__()
        model, loading = _load(transformers.AutoModelForMaskedLM, folder, output_loading_info=True)
        prefix = f"{model.base_model_prefix}."
        if missing := sorted(name for name in loading["missing_keys"] if not name.startswith(prefix)):
            raise ValueError(f"{folder} holds no {missing[0]}, a part of {type(model).__name__}")
        stub = TrunkStub(has_pooler=False)
        # DeBERTa's newer head multiplies by the embeddings. Other heads have a decoder tied to them.
        embeddings: Any = getattr(model.base_model, "embeddings", None)
        stub.embeddings = embeddings
        setattr(model, model.base_model_prefix, stub)
        self.model = model.eval().requires_grad_(False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Run the head at the masks alone, because every head of this kind treats tokens one by one."""
        stub = self.model.base_model
        stub.outputs = {"hidden": hidden}
        try:
            logits: Tensor = self.model(input_ids=None).logits
        finally:
            stub.outputs = {}
        return logits


def head_model(folder: Path, class_name: str, labels: int) -> tuple[nn.Module, int]:
    """Return a task class whose trunk is a TrunkStub, in eval mode, and its hidden size. A call runs the head.

    A class for question answering always has two outputs, start and end, and ignores `labels`.
    """
    config = copy.deepcopy(transformers.AutoConfig.from_pretrained(folder))
    config.num_labels = 2 if class_name.endswith("QuestionAnswering") else labels
    with torch.device("meta"):
        model = getattr(transformers, class_name)(config)
    trunk = getattr(model, model.base_model_prefix)
    setattr(model, model.base_model_prefix, TrunkStub(getattr(trunk, "pooler", None) is not None))
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model.eval(), config.hidden_size
