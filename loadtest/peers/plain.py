"""The foundation exported to ONNX unchanged, run by ONNX Runtime alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# ONNX Runtime's Linux builds send usage data to their maker unless this is set before the import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort
import torch
from torch import Tensor, nn

from rootstock.adapters.spec import Array, FoundationSpec
from rootstock.loadtest.measure.pairs import mean_seconds
from rootstock.service.engine.core.catalog import foundation_adapter
from rootstock.service.engine.encode.batch import Batch
from rootstock.service.engine.runners.linear_head import linear_head, pool
from rootstock.service.engine.runners.modules import load_trunk
from rootstock.service.engine.runners.onnx.export.trunk import to_onnx
from rootstock.service.engine.runners.onnx.sessions import _options as session_options

# The implementations of attention in transformers that can be exported.
_ATTENTIONS = ("sdpa", "eager")
_TRIALS = 3


class PlainPeer:
    """The foundation's body from transformers, exported with each attention. `attention` names the one in use."""

    def __init__(self, foundation: Path, spec: FoundationSpec, threads: int) -> None:
        self._spec = spec
        self._foundation = foundation_adapter(spec)
        self._sessions = {name: _session(foundation, spec, name, threads) for name in _ATTENTIONS}
        self.attention = _ATTENTIONS[0]

    def choose(self, batch: Batch) -> dict[str, float]:
        """Choose the attention that is faster for this batch, and return the seconds of each."""
        seconds = {}
        for self.attention in _ATTENTIONS:
            seconds[self.attention] = mean_seconds(lambda: self.run(batch), _TRIALS)
        self.attention = min(seconds, key=lambda name: seconds[name])
        return seconds

    def run(self, batch: Batch) -> list[Array]:
        """Return the embedding of each input of a batch."""
        arrays = {
            "input_ids": batch.arrays["input_ids"],
            "attention_mask": batch.arrays["attention_mask"],
            "token_type_ids": batch.arrays["token_type_ids"],
        }
        feeds = {name: arrays[name] for name in self._spec.inputs}
        hidden = self._sessions[self.attention].run(["hidden"], feeds)[0]
        vectors = pool(hidden, None, batch.arrays["attention_mask"], self._foundation.head.pooling)
        return list(linear_head(vectors, self._foundation))


class _Body(nn.Module):
    """A model called by the names of its inputs. Returns the hidden states alone."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tensors: Tensor) -> Tensor:
        hidden: Tensor = self.model(**dict(zip(self.names, tensors, strict=True))).last_hidden_state
        return hidden


def _session(foundation: Path, spec: FoundationSpec, attention: str, threads: int) -> ort.InferenceSession:
    ids = torch.randint(4, 100, (3, 7))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    # Put the whole module in eval mode, since the exporter restores the mode of the module that it traced.
    body = _Body(load_trunk(foundation, attention), spec.inputs).eval()
    axes = {name: {0: "rows", 1: "tokens"} for name in [*spec.inputs, "hidden"]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.onnx"
        to_onnx(body, tuple(inputs[name] for name in spec.inputs), path, list(spec.inputs), ["hidden"], axes)
        return ort.InferenceSession(str(path), session_options(threads), providers=["CPUExecutionProvider"])
