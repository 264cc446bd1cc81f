"""The peer of row 2: PEFT's own mixed batch, `adapter_names=` in one forward pass."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel

from adapters.bundle import Limits, unpack
from adapters.spec import Array
from loadtest.workload import LABELS, Workload
from service.engine.batch import Batch


class PeftPeer:
    """A sequence classifier in torch, fp32, sdpa attention, with every adapter of a workload loaded by PEFT."""

    def __init__(self, foundation: Path, workload: Workload, threads: int) -> None:
        torch.set_num_threads(threads)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        base = transformers.AutoModelForSequenceClassification.from_pretrained(
            foundation, num_labels=LABELS, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        with warnings.catch_warnings():
            # peft reads an attribute that transformers renamed; it has no say in the outputs.
            warnings.simplefilter("ignore", FutureWarning)
            self._model = _loaded(base, workload).eval()
        self._feeds: dict[str, torch.Tensor] = {}
        self._names: list[str] = []

    def prepare(self, batch: Batch, inputs: Sequence[str], names: Sequence[str]) -> None:
        """Take a batch's arrays as tensors, so that `run` pays for no conversion."""
        arrays = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": batch.token_type_ids,
        }
        self._feeds = {name: torch.from_numpy(arrays[name]) for name in inputs}
        self._names = list(names)

    @torch.inference_mode()
    def run(self) -> Array:
        """The logits of the prepared batch, (rows, labels)."""
        logits: Array = self._model(**self._feeds, adapter_names=self._names).logits.numpy()
        return logits


def _loaded(base: Any, workload: Workload) -> Any:
    model: Any = None
    with tempfile.TemporaryDirectory() as root:
        for name, data in zip(workload.names, workload.bundles, strict=True):
            folder = Path(root) / name
            folder.mkdir()
            for member, content in unpack(data, Limits()).items():
                (folder / member).write_bytes(content)
            if model is None:
                model = PeftModel.from_pretrained(base, folder, adapter_name=name)
            else:
                model.load_adapter(folder, adapter_name=name)
    return model
