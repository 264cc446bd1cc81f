"""Adapters made by PEFT itself, and PEFT's own answers for them: the oracle of the parity tests."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

CLASSES: dict[str, Any] = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
    "FEATURE_EXTRACTION": AutoModel,
}


TEXTS = [
    "Where is my parcel? It was due on Monday.",
    "ok",
    "The new headphones sound dull, and the left ear cup broke within a week of careful use.",
    "Ada Lovelace met Charles Babbage in London in June 1833, at a party in Dorset Street.",
]
ALL = "all-linear"
# (task type, labels, rank, targets): ranks 2 to 64, both target sets, many label counts, both tasks.
KINDS = [
    ("SEQ_CLS", 2, 2, ["query", "value"]),
    ("SEQ_CLS", 7, 8, ["query", "value"]),
    ("TOKEN_CLS", 9, 16, ["query", "value"]),
    ("SEQ_CLS", 3, 64, ALL),
    ("TOKEN_CLS", 5, 4, ["query", "key", "value", "dense"]),
    ("SEQ_CLS", 150, 32, ["query", "key", "value", "dense"]),
    ("SEQ_CLS", 1, 8, ["value"]),
    ("TOKEN_CLS", 3, 64, ["intermediate.dense"]),
]


@dataclass(frozen=True)
class PeftAdapter:
    """A folder that PEFT saved, as a zip, with what made it."""

    folder: Path
    task_type: str
    labels: int

    def zip(self) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for path in sorted(self.folder.iterdir()):
                archive.write(path, path.name)
        return out.getvalue()


def save_adapter(
    foundation: Path, folder: Path, task_type: str, seed: int, labels: int = 3, **config: Any
) -> PeftAdapter:
    """A LoRA adapter of natural size (B as large as a short training leaves it), saved by `save_pretrained`."""
    torch.manual_seed(seed)
    sized = {} if task_type == "FEATURE_EXTRACTION" else {"num_labels": labels}
    model = get_peft_model(
        CLASSES[task_type].from_pretrained(foundation, **sized),
        LoraConfig(task_type=task_type, **{"target_modules": ["query", "value"], "r": 8, **config}),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.02)
    model.save_pretrained(folder)
    return PeftAdapter(folder, task_type, labels)


def peft_outputs(foundation: Path, adapter: PeftAdapter, texts: Sequence[str]) -> list[np.ndarray]:
    """PEFT's raw outputs, one text at a time: logits, or the last hidden states."""
    sized = {} if adapter.task_type == "FEATURE_EXTRACTION" else {"num_labels": adapter.labels}
    base = CLASSES[adapter.task_type].from_pretrained(foundation, **sized)
    model = PeftModel.from_pretrained(base, adapter.folder).eval()
    tokenizer = tokenizer_of(foundation)
    outputs = []
    with torch.no_grad():
        for text in texts:
            out = model(**tokenizer(text, return_tensors="pt"))
            outputs.append((out.logits if "logits" in out else out.last_hidden_state)[0].numpy())
    return outputs


def tokenizer_of(foundation: Path) -> Any:
    """transformers' tokenizer of a folder, without the padding and truncation that its file bakes in."""
    tokenizer = AutoTokenizer.from_pretrained(foundation)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def temporary_adapter(foundation: Path, task_type: str, seed: int, **config: Any) -> bytes:
    """The zip alone, where the folder is not needed."""
    with tempfile.TemporaryDirectory() as folder:
        return save_adapter(foundation, Path(folder), task_type, seed, **config).zip()


def close(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Within the published tolerance: 1e-4 + 1e-4·|x|."""
    return actual.shape == expected.shape and bool(
        (np.abs(actual - expected) <= 1e-4 + 1e-4 * np.abs(expected)).all()
    )
