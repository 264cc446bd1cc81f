"""Checkpoints that hold several layers in one tensor are read as transformers' modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from rootstock.adapters.foundation.location import fingerprint
from rootstock.adapters.foundation.weights import FoundationWeights
from tests.parity.foundations import make_tiny
from tests.parity.matrix import ARCHITECTURES

# A tensor of each published form, and the layers that it holds.
FUSED = {
    "nomic_bert": ("encoder.layers.0.attn.Wqkv.weight", 31),
    "gte": ("encoder.layer.0.attention.qkv_proj.bias", 37),
    "jina_embeddings_v3": ("encoder.layers.0.mixer.Wqkv.weight", 42),
}


@pytest.mark.parametrize("name", FUSED)
def test_a_published_file_gives_each_module_its_tensors_and_the_fingerprint_of_separate_ones(
    name: str, tmp_path: Path
) -> None:
    folder = make_tiny(ARCHITECTURES[name], tmp_path / "model").folder
    model = AutoModel.from_pretrained(folder)
    state = {n: tensor for n, tensor in model.state_dict().items() if n in dict(model.named_parameters())}
    save_file(state, folder / "model.safetensors")
    separate = fingerprint(folder)
    # save_pretrained of a new model writes the names and the tensors that published checkpoints have.
    published = AutoModel.from_config(model.config)
    published.load_state_dict(model.state_dict())
    published.save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert FUSED[name][0] in file.keys()  # noqa: SIM118
        assert len(file.keys()) == FUSED[name][1]
    assert fingerprint(folder) == separate
    weights = FoundationWeights(folder, name)
    assert weights.names == sorted(state)
    for module, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            assert np.array_equal(weights.weight(module), layer.weight.detach().numpy())
            bias = weights.bias(module)
            assert (bias is None) == (layer.bias is None)
            assert bias is None or np.array_equal(bias, layer.bias.detach().numpy())


def test_a_file_of_a_language_model_of_the_published_gte_is_read_without_its_prefix(tmp_path: Path) -> None:
    folder = make_tiny(ARCHITECTURES["gte"], tmp_path / "model").folder
    before = FoundationWeights(folder, "gte").names
    tensors = load_file(folder / "model.safetensors")
    renamed = {f"new.{n.removeprefix('gte.')}" if n.startswith("gte.") else n: t for n, t in tensors.items()}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    assert FoundationWeights(folder, "gte").names == before
