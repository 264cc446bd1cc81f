"""Layers of Llama's form give what transformers' own give, whatever options a checkpoint's config has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rootstock.service.engine.generate.decoder import Segment
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder
from rootstock.service.engine.runners.decoder.gated_layer import is_gated
from rootstock.service.engine.runners.decoder.packed_decoder import StagedTensors
from tests.service.engine.generate.families import make_decoder

_LLAMA_3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 10_000.0,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10_000.0}


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"head_dim": 12}),
        ("llama", {"num_key_value_heads": 1}),
        ("llama", {"num_key_value_heads": 4, "hidden_act": "gelu"}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"rope_parameters": _LLAMA_3}),
        ("llama", {"rope_parameters": _YARN}),
        # Llama has no windows, so this key means nothing.
        ("llama", {"sliding_window": 3}),
        ("mistral", {"sliding_window": None}),
        ("mistral", {"sliding_window": 3}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_passes_have_the_logits_of_transformers(
    tmp_path: Path, family: str, options: dict[str, Any], precision: str
) -> None:
    tiny = make_decoder(family, tmp_path / "tiny", **options)
    # In int4 this compares with the same weights in transformers, and refuses a difference.
    decoder = TorchDecoder(tiny.folder, tiny.spec, 4, 1024, 1, precision)
    if precision == "int4":
        return
    tokens = [(37 * i) % 400 + 3 for i in range(40)]
    model = AutoModelForCausalLM.from_pretrained(tiny.folder, attn_implementation="eager").eval()
    assert is_gated(model.base_model)
    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0].numpy()
    decoder.place(0, StagedTensors({}))
    row = decoder.cache.open()
    decoder.cache.extend(row, len(tokens))
    for start, end in ((0, 7), (7, 30), *((i, i + 1) for i in range(30, 40))):
        [logits] = decoder.run([Segment(row, 0, tokens[start:end], start)])
        np.testing.assert_allclose(logits, expected[end - 1], atol=1e-4, rtol=1e-4)
