"""Write a LoRA adapter of a benchmark as PEFT's `save_pretrained` does, for servers that read such folders."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.numpy import save_file

from rootstock.adapters.spec import Adapter, FoundationSpec


def write_lora_folder(adapter: Adapter, spec: FoundationSpec, folder: Path) -> None:
    """Write the adapter's updates, all of one rank, as a PEFT folder for a causal language model."""
    tensors = {}
    for site, update in adapter.weights.sites.items():
        tensors[f"base_model.model.model.{site}.lora_A.weight"] = update.a
        tensors[f"base_model.model.model.{site}.lora_B.weight"] = update.b.T.copy()
    rank = max(update.a.shape[0] for update in adapter.weights.sites.values())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": spec.name,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({site.rpartition(".")[2] for site in adapter.weights.sites}),
        "inference_mode": True,
    }
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))
