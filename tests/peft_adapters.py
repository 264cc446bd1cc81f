"""Makes adapters with PEFT, and computes PEFT's own answers for them: the oracle of the parity tests."""

from __future__ import annotations

import io
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

CLASSES: dict[str, Any] = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
    "QUESTION_ANS": AutoModelForQuestionAnswering,
    "FEATURE_EXTRACTION": AutoModel,
    "CAUSAL_LM": AutoModelForCausalLM,
    "SEQ_2_SEQ_LM": AutoModelForSeq2SeqLM,
}
# The task types whose classes have no labels.
_UNLABELLED = ("FEATURE_EXTRACTION", "CAUSAL_LM", "SEQ_2_SEQ_LM")


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
    """A folder that PEFT saved, with the task type and the number of labels that it was made for."""

    folder: Path
    task_type: str
    labels: int

    def zip(self) -> bytes:
        """Return the folder's files as a zip."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for path in sorted(self.folder.iterdir()):
                archive.write(path, path.name)
        return out.getvalue()


def zip_folder(folder: Path, under: str = "", **extra: str) -> bytes:
    """Return a folder as a zip that a person would make, with `extra` files that the system adds."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{under}{path.relative_to(folder)}")
        for name, content in extra.items():
            archive.writestr(name, content)
    return out.getvalue()


# The options that a kind's config needs beside its targets.
DEFAULTS: dict[str, dict[str, Any]] = {
    "LORA": {"r": 8},
    "ADALORA": {"total_step": 10},
    "IA3": {"feedforward_modules": []},
}


def save_adapter(
    foundation: Path, folder: Path, task_type: str, seed: int, labels: int = 3, kind: str = "LORA", **config: Any
) -> PeftAdapter:
    """Return an adapter of any PEFT kind and realistic size, saved by `save_pretrained`.

    Every trained tensor differs from its start as much as after a short training. `config` are options of the
    kind's own config.
    """
    torch.manual_seed(seed)
    sized = {} if task_type in _UNLABELLED else {"num_labels": labels}
    chosen = {"target_modules": ["query", "value"], **DEFAULTS.get(kind, {}), **config}
    base = CLASSES[task_type].from_pretrained(foundation, **sized)
    with without_wrong_warnings():
        model = get_peft_model(base, PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)](task_type=task_type, **chosen))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if kind == "LORA" and ".lora_B." in name and name.endswith("weight"):
                parameter.normal_(0, 0.02)
            # MiCA begins with a lora_A of zeros.
            elif parameter.requires_grad and (".lora_A." not in name or not parameter.any()):
                _move(name, parameter, draw)
    with without_wrong_warnings():
        model.save_pretrained(folder)
    return PeftAdapter(folder, task_type, labels)


def mixed_adapters(foundation: Path, root: Path, count: int) -> list[PeftAdapter]:
    """Return adapters of both classifying tasks: ranks 2 to 64, several sets of targets, 1 to 150 labels."""
    adapters = []
    for i in range(count):
        task_type, labels, rank, targets = KINDS[i % len(KINDS)]
        kind = {"r": rank, "lora_alpha": 2 * rank, "target_modules": targets, "use_rslora": i % 3 == 0}
        adapters.append(save_adapter(foundation, root / str(i), task_type, i, labels, **kind))
    return adapters


def _move(name: str, parameter: torch.Tensor, draw: torch.Generator) -> None:
    """Change factors by a tenth, AdaLoRA's singular values (zero at first) to about 1, all else by 0.02."""
    noise = torch.randn(parameter.shape, generator=draw)
    if "ia3_l" in name or "magnitude" in name:
        parameter.mul_(1 + 0.1 * noise)
    elif parameter.is_floating_point():
        parameter.add_((1.0 if "lora_E" in name else 0.02) * noise)


def peft_outputs(foundation: Path, adapter: PeftAdapter, texts: Sequence[str]) -> list[np.ndarray]:
    """Return PEFT's raw outputs, computed one text at a time: logits, or the last hidden states."""
    model = peft_model(foundation, adapter)
    tokenizer = tokenizer_of(foundation)
    outputs = []
    with torch.no_grad():
        for text in texts:
            out = model(**tokenizer(text, return_tensors="pt"))
            outputs.append((out.logits if "logits" in out else out.last_hidden_state)[0].numpy())
    return outputs


def peft_model(foundation: Path, adapter: PeftAdapter) -> Any:
    """Return PEFT's model of a saved adapter, loaded again from its folder."""
    sized = {} if adapter.task_type in _UNLABELLED else {"num_labels": adapter.labels}
    base = CLASSES[adapter.task_type].from_pretrained(foundation, **sized)
    with without_wrong_warnings():
        return PeftModel.from_pretrained(base, adapter.folder).eval()


@contextmanager
def without_wrong_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # The warning is harmless: PEFT corrects the option by the module's class.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to")
        # PEFT mistakes AdaLoRA's rank_pattern for LoRA's, and a bias of B for a shard. Both are valid.
        warnings.filterwarnings("ignore", "The following rank_pattern keys did not match")
        warnings.filterwarnings("ignore", "Adapter 'default'. .* have invalid shape")
        # BOFT warns because it cannot compile a kernel.
        warnings.filterwarnings("ignore", "Failed to load the CUDA extension|Setting boft_n_butterfly_factor")
        # LN tuning asks no layer for its sizes.
        warnings.filterwarnings("ignore", "Unsupported layer type .*RMSNorm")
        yield


def merged(foundation: Path, adapter: PeftAdapter) -> Any:
    """Return a plain model of the adapter's class, into which PEFT has merged the adapter."""
    base = CLASSES[adapter.task_type].from_pretrained(foundation, num_labels=adapter.labels)
    return PeftModel.from_pretrained(base, adapter.folder).merge_and_unload().eval()


def tokenizer_of(foundation: Path) -> Any:
    """Return transformers' tokenizer of a folder, without the padding and truncation that its file sets."""
    tokenizer = AutoTokenizer.from_pretrained(foundation)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def temporary_adapter(foundation: Path, task_type: str, seed: int, **config: Any) -> bytes:
    """Return an adapter's zip, for a test that does not need its folder."""
    with tempfile.TemporaryDirectory() as folder:
        return save_adapter(foundation, Path(folder), task_type, seed, **config).zip()


def close(actual: np.ndarray, expected: np.ndarray) -> bool:
    """Return True if the arrays agree within the published tolerance: 1e-4 + 1e-4·|x|."""
    return actual.shape == expected.shape and bool(
        (np.abs(actual - expected) <= 1e-4 + 1e-4 * np.abs(expected)).all()
    )


def with_card(adapter: PeftAdapter, card: str) -> bytes:
    """Return the zip of an adapter that PEFT saved, with another card."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(adapter.zip())) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            if name != "README.md":
                new.writestr(name, old.read(name))
        new.writestr("README.md", card)
    return out.getvalue()
