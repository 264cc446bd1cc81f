"""transformers' `generate` with one PEFT `set_adapter` for each request, a peer of generated text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from rootstock.adapters.spec import Adapter


class SetAdapterGeneration:
    """A PEFT model in fp32 that holds copies of LoRA adapters of one rank."""

    def __init__(self, folder: Path, adapters: Mapping[str, Adapter], rank: int) -> None:
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        names = list(adapters)
        sites = sorted({site.rpartition(".")[2] for site in adapters[names[0]].weights.sites})
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=sites, task_type="CAUSAL_LM")
        self._model = get_peft_model(base, config, adapter_name=names[0])
        for name in names[1:]:
            self._model.add_adapter(name, config)
        trunk = self._model.base_model.model.base_model
        with torch.no_grad():
            for name, adapter in adapters.items():
                for site, update in adapter.weights.sites.items():
                    module = trunk.get_submodule(site)
                    module.lora_A[name].weight.copy_(torch.from_numpy(update.a))
                    module.lora_B[name].weight.copy_(torch.from_numpy(update.b).T)
        self._model.eval()

    @torch.inference_mode()
    def generate(self, names: Sequence[str], prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        """Return the greedy tokens of each prompt under the adapter of its name, one request after the other."""
        answers = []
        for name, prompt in zip(names, prompts, strict=False):
            self._model.set_adapter(name)
            ids = torch.tensor([list(prompt)])
            out = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
            )
            answers.append([int(token) for token in out[0, len(prompt) :]])
        return answers
