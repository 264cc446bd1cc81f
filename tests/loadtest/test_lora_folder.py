"""The PEFT folders of the benchmarks: PEFT reads the updates that our engine computes with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from rootstock.loadtest.fixtures.lora_folder import write_lora_folder
from rootstock.loadtest.fixtures.random_lora import LoraKind, random_adapters
from tests.service.engine.generate.families import make_decoder


@pytest.mark.parametrize("kind", [LoraKind(4, None), LoraKind(2, ("q_proj", "v_proj"))])
def test_peft_reads_a_written_folder_as_the_same_update(kind: LoraKind, tmp_path: Path) -> None:
    tiny = make_decoder("llama", tmp_path / "model")
    adapter = next(iter(random_adapters(tiny.spec, kind, 1).values()))
    write_lora_folder(adapter, tiny.spec, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(tiny.folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    modules = dict(model.base_model.model.base_model.named_modules())
    for site, update in adapter.weights.sites.items():
        expected = torch.from_numpy(update.a.T @ update.b).T
        torch.testing.assert_close(modules[site].get_delta_weight("default"), expected, atol=1e-6, rtol=1e-5)
    assert len(adapter.weights.sites) == sum(
        "lora_A.default.weight" in name for name, _ in model.named_parameters()
    )
