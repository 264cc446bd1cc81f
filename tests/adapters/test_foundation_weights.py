"""A foundation's own weights and biases are those that transformers loads, whatever form its files have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModel, BertForMaskedLM, GPT2Config, GPT2Model

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles, locate
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import FoundationSpec, Rejected
from tests.attacks.forge import WORDS, save_tokenizer, tiny_bert


def check(files: FoundationFiles, spec: FoundationSpec, folder: Path | None = None) -> None:
    """Every site and norm that the spec names, against the model of the (original) folder."""
    model: Any = AutoModel.from_pretrained(folder or files.folder).float()
    weights = FoundationWeights(files.folder, spec.model_type)
    for site in spec.sites:
        module = model.get_submodule(site)
        expected = module.weight if isinstance(module, torch.nn.Linear) else module.weight.T
        assert np.array_equal(weights.weight(site), expected.detach().numpy()), site
    for name in [*spec.sites, *spec.norms]:
        bias, expected = weights.bias(name), model.get_submodule(name).bias
        assert (bias is None) == (expected is None)
        assert bias is None or np.array_equal(bias, expected.detach().numpy()), name


def test_the_default_foundation_s_weights_are_transformers_own(
    foundation: FoundationFiles, spec: FoundationSpec
) -> None:
    check(foundation, spec)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    files = tiny_bert(tmp_path)
    AutoModel.from_pretrained(tmp_path).to(dtype).save_pretrained(tmp_path)
    check(files, describe(files))
    assert FoundationWeights(tmp_path, "bert").weight("pooler.dense").dtype == np.float32


def test_a_trunk_in_shards_under_a_head_is_found(tmp_path: Path) -> None:
    files = tiny_bert(tmp_path / "bare")
    BertForMaskedLM.from_pretrained(files.folder).save_pretrained(tmp_path / "full", max_shard_size="10KB")
    assert len(list((tmp_path / "full").glob("*.safetensors"))) > 3
    bare, full = (FoundationWeights(tmp_path / name, "bert") for name in ("bare", "full"))
    for site in describe(files).sites:
        if site != "pooler.dense":
            assert np.array_equal(full.weight(site), bare.weight(site))
    with pytest.raises(Rejected, match=r"pooler\.dense: the foundation's files hold no weight"):
        full.weight("pooler.dense")


def test_the_old_names_of_normalisation_layers_are_read(tmp_path: Path) -> None:
    files = tiny_bert(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t + 1
        for n, t in load_file(path).items()
    }
    assert "embeddings.LayerNorm.beta" in tensors
    save_file(tensors, path, {"format": "pt"})
    check(files, describe(files))


def test_a_conv1d_s_weight_is_turned_round_also_where_it_is_square(tmp_path: Path) -> None:
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=len(WORDS))
    GPT2Model(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, WORDS)
    files = locate(str(tmp_path))
    spec = describe(files)
    assert spec.sites["h.0.attn.c_proj"] == (32, 32)
    assert spec.sites["h.0.mlp.c_fc"] == (32, 128)
    check(files, spec)
