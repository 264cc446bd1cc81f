"""PEFT with every adapter of a workload loaded: its mixed batch, and one adapter at a time."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import PeftModel

from rootstock.adapters.bundle import Limits, unpack
from rootstock.adapters.spec import Array
from rootstock.adapters.tasks import Modality
from rootstock.loadtest.fixtures.workload import LABELS, Workload
from rootstock.service.engine.encode.batch import Batch

# By modality, the class that classifies.
_CLASSES = {
    "text": "AutoModelForSequenceClassification",
    "image": "AutoModelForImageClassification",
    "audio": "AutoModelForAudioClassification",
}


class PeftPeer:
    """A classifier in torch, sdpa attention, with every adapter of a workload loaded by PEFT.

    It computes in `dtype` on `device` and returns logits in fp32.
    """

    def __init__(
        self,
        foundation: Path,
        workload: Workload,
        threads: int,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        modality: Modality = "text",
    ) -> None:
        torch.set_num_threads(threads)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        base = getattr(transformers, _CLASSES[modality]).from_pretrained(
            foundation, num_labels=LABELS, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        with warnings.catch_warnings():
            # peft reads an attribute that transformers renamed; the outputs do not depend on it.
            warnings.simplefilter("ignore", FutureWarning)
            self._model = _load(base, workload).eval().to(device, dtype)
        self._device = device
        self._feeds: dict[str, torch.Tensor] = {}
        self._names: list[str] = []

    def prepare(self, batch: Batch, inputs: Sequence[str], names: Sequence[str]) -> None:
        """Convert a batch's arrays to tensors, so that a run pays for no conversion."""
        self._feeds = {name: torch.from_numpy(batch.arrays[name]).to(self._device) for name in inputs}
        self._names = list(names)

    @torch.inference_mode()
    def run(self) -> Array:
        """Return the logits of the batch in one forward pass, (rows, labels)."""
        logits: Array = self._model(**self._feeds, adapter_names=self._names).logits.float().cpu().numpy()
        return logits

    @torch.inference_mode()
    def one_by_one(self) -> Array:
        """Return the same logits by one request a row: `set_adapter`, then a forward pass of one row."""
        logits = []
        for i, name in enumerate(self._names):
            self._model.set_adapter(name)
            feeds = {key: tensor[i : i + 1] for key, tensor in self._feeds.items()}
            logits.append(self._model(**feeds).logits[0].float().cpu().numpy())
        return np.stack(logits)


def _load(base: Any, workload: Workload) -> Any:
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
