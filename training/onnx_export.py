"""Exports foundation, adapter and head as one ONNX model, for programs that cannot load adapters."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from rootstock.training.network.inputs import TokenBatch
from rootstock.training.network.predictor import Predictor

_OPSET = 18


def write_onnx(adapter: Predictor, out: Path) -> float:
    """Write the model, and return the largest difference between its outputs and the bundle's golden outputs.

    The inputs are `input_ids`, `attention_mask` and, where the foundation has them, `token_type_ids`, each
    (rows, tokens) int64. The output is `logits`, (rows, labels) or (rows, tokens, labels). The file is written
    completely or not at all.
    """
    import torch
    from torch import nn

    network = adapter.network
    network.train(False)
    names = list(adapter.spec.inputs)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Register the parts, so that the exported graph holds their weights.
            self.parts = nn.ModuleList(network.modules())

        def forward(self, *tensors: Any) -> Any:
            batch = dict(zip(names, tensors, strict=True))
            ids = batch["input_ids"]
            return network.logits(TokenBatch(ids, batch.get("token_type_ids", ids), batch["attention_mask"], ids))

    embeddings: Any = network.trunk.get_input_embeddings()  # type: ignore[operator]
    ids = torch.arange(14).reshape(2, 7) % embeddings.num_embeddings
    sample = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    axes = {name: {0: "rows", 1: "tokens"} for name in names}
    axes["logits"] = {0: "rows", 1: "tokens"} if network.head is None else {0: "rows"}
    new = out.with_name(f".{out.name}.new")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Tracing warns of every Python branch it fixes; the outputs are compared instead.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Whole().eval(),
                tuple(sample[name] for name in names),
                str(new),
                input_names=names,
                output_names=["logits"],
                dynamic_axes=axes,
                opset_version=_OPSET,
                dynamo=False,
            )
        difference = _difference(adapter, new, names)
        os.replace(new, out)
    finally:
        new.unlink(missing_ok=True)
    return difference


def _difference(adapter: Predictor, model: Path, names: list[str]) -> float:
    """Return the largest difference between the model's outputs and the bundle's golden outputs."""
    # ONNX Runtime's Linux builds send usage data to their maker unless this is set before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

    import onnxruntime

    golden = adapter.bundle.golden()
    if golden is None:
        return float("nan")
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    worst = 0.0
    for value, output in zip(golden.texts, golden.outputs, strict=True):
        encoding = adapter.encoder.tokenizer.encode(*((value,) if isinstance(value, str) else value))
        inputs = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        (logits,) = session.run(None, {name: np.array([inputs[name]], np.int64) for name in names})
        worst = max(worst, float(np.abs(logits[0] - output).max()))
    return worst
