"""Take transformers models apart: the trunk, and the separate heads."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
import transformers
from torch import Tensor, nn

from rootstock.adapters import trunk_class
from rootstock.adapters.spec import FoundationSpec, TaskClass

# In fp32, from safetensors alone, without code from the checkpoint.
_SAFE: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}


def load_trunk(folder: Path, attention: str | None, model_type: str | None = None) -> nn.Module:
    """Return the foundation's body in fp32, frozen, in eval mode. Read only safetensors and run no remote code.

    With `attention` None, transformers chooses the attention for the architecture. `model_type` is the trunk's
    architecture, by default the folder's.
    """
    with _quiet():
        trunk: Any = trunk_class.load_trunk(folder, model_type, **_SAFE, attn_implementation=attention)
    if trunk.config.model_type == "deberta-v2":
        from rootstock.service.engine.runners.deberta import let_positions_vary

        let_positions_vary(trunk)
    if trunk.config.model_type == "gemma3_text":
        from rootstock.service.engine.runners.gemma import let_every_token_see

        let_every_token_see(trunk)
    return cast(nn.Module, trunk.eval().requires_grad_(False))


@contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers log nothing while it loads."""
    previous = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(previous)


class TrunkStub(nn.Module):
    """A stand-in for a task class's trunk. It returns its `outputs`: "hidden" and, if there is one, "pooled".

    A `pooler` that belongs to the class, and not to the foundation, pools the hidden states.
    """

    def __init__(self, pooler: nn.Module | None = None) -> None:
        super().__init__()
        self.outputs: Mapping[str, Tensor] = {}
        self.pooler = pooler

    def forward(self, *_: Any, **__: Any) -> Any:
        hidden, pooled = self.outputs["hidden"], self.outputs.get("pooled")
        if self.pooler is not None:
            pooled = self.pooler(hidden)
        return _Output(hidden, pooled)


class _Output(SimpleNamespace):
    """A trunk's output that task classes can read by attribute or by index."""

    def __init__(self, hidden: Tensor, pooled: Tensor | None) -> None:
        absent = dict.fromkeys(("hidden_states", "attentions", "reshaped_hidden_states"))
        super().__init__(last_hidden_state=hidden, pooler_output=pooled, **absent)

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
        auto = transformers.AutoModelForMaskedLM
        with _quiet():
            model, loading = auto.from_pretrained(folder, **_SAFE, output_loading_info=True)
        prefix = f"{model.base_model_prefix}."
        if missing := sorted(name for name in loading["missing_keys"] if not name.startswith(prefix)):
            raise ValueError(f"{folder} holds no {missing[0]}, a part of {type(model).__name__}")
        stub = TrunkStub()
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


class TaskHead(nn.Module):
    """A task class without its trunk, frozen, in eval mode. Its tensors are zeros until somebody gives others."""

    def __init__(self, folder: Path, spec: FoundationSpec, task_class: TaskClass, labels: int) -> None:
        """Make the head from the config in a folder.

        A class for question answering always has two outputs, start and end, and ignores `labels`.
        """
        super().__init__()
        config = copy.deepcopy(transformers.AutoConfig.from_pretrained(folder))
        config.num_labels = 2 if task_class.name.endswith("QuestionAnswering") else labels
        with torch.device("meta"):
            model = getattr(transformers, task_class.name)(config)
        name = task_class.prefix.rstrip(".")
        pools = any(tensor.startswith(f"{name}.pooler.") for tensor in task_class.head)
        stub = TrunkStub(getattr(model, name).pooler if pools else None)
        setattr(model, name, stub)
        model.to_empty(device="cpu")
        for parameter in model.parameters():
            parameter.detach().zero_()
        self.model = model.eval().requires_grad_(False)
        self._outputs = stub
        self._input = spec.inputs[0]

    def forward(self, outputs: Mapping[str, Tensor], mask: Tensor | None) -> Tensor:
        """Return the logits for the trunk's outputs, in the shapes of `logits_of`. Only texts have a mask."""
        self._outputs.outputs = outputs
        # The stand-in for the trunk reads no input. Some classes look at the input's shape.
        feeds = {self._input: outputs["hidden"] if mask is None else torch.zeros_like(mask)}
        if mask is not None:
            feeds["attention_mask"] = mask
        try:
            return logits_of(self.model(**feeds))
        finally:
            self._outputs.outputs = {}
