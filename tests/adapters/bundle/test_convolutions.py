"""Adapters of convolutions: our updates on the bare model give PEFT's weights and PEFT's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.bundle.peft_config import read_config
from rootstock.adapters.spec import Adapter
from tests.adapters.bundle.media_models import (
    MediaModel,
    graft,
    make_model,
    peft_media_model,
    save_media_adapter,
    zipped,
)
from tests.peft_adapters import close, without_wrong_warnings

_R = "encoder.stages"
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": ["convolution"], "lora_alpha": 16},
    "lora-patterns": {
        "target_modules": ["convolution"], "use_rslora": True, "rank_pattern": {"shortcut.convolution": 2},
        "alpha_pattern": {".*layer.0.convolution": 3},
    },
    "dora": {"target_modules": ["convolution"], "use_dora": True},
    "ia3": {"kind": "IA3", "target_modules": ["convolution"], "feedforward_modules": []},
    "ia3-feedforward": {
        "kind": "IA3", "target_modules": ["convolution", "layer.0.convolution"],
        "feedforward_modules": ["layer.0.convolution"],
    },
    "adalora": {"kind": "ADALORA", "target_modules": ["convolution"], "init_r": 4, "total_step": 10},
    "adalora-allocated": {
        "kind": "ADALORA", "target_modules": ["convolution"], "init_r": 4, "total_step": 10,
        "rank_pattern": {"resnet.embedder.embedder.convolution.lora_E": [True, False, False, True]},
    },
}  # fmt: skip
# Options beside those of the kind, for convolutions of other models.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "patches-and-layers": ("vit", {"target_modules": ["projection", "q_proj", "fc2"], "lora_alpha": 16}),
    "patches-dora": ("dinov2", {"target_modules": ["projection", "v_proj"], "use_dora": True}),
    "patches-bias": ("vit", {"target_modules": ["projection"], "lora_bias": True}),
    "patches-dora-biases": ("beit", {"target_modules": ["projection"], "use_dora": True, "bias": "lora_only"}),
    "patches-ia3": ("vit", {
        "kind": "IA3", "target_modules": ["projection", "fc2"], "feedforward_modules": ["projection"]}),
    "spectrogram": (
        "audio-spectrogram-transformer", {"target_modules": ["projection", "q_proj"], "bias": "lora_only"}),
    "waves": ("wav2vec2", {"target_modules": ["conv_layers.0.conv", "conv_layers.1.conv", "q_proj"]}),
    "waves-dora": ("wav2vec2", {"target_modules": [r"conv_layers.1.conv", "q_proj"], "use_dora": True}),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MediaModel]:
    names = ("resnet", *dict.fromkeys(model for model, _ in OTHERS.values()))
    return {name: make_model(name, tmp_path_factory.mktemp(name)) for name in names}


def read(media: MediaModel, folder: Path) -> Adapter:
    return open_bundle(zipped(folder), Limits(), media.spec).adapter(media.spec, Limits().max_rank, media.base)


def check(media: MediaModel, folder: Path) -> Adapter:
    """Compare the outputs of the updates on the bare model with PEFT's; PEFT must change the model's."""
    adapter = read(media, folder)
    prefix = media.spec.class_for(adapter.task).prefix
    expected = media.outputs(peft_media_model(media, folder))
    actual = media.outputs(graft(media.model(), prefix, adapter.weights.sites, adapter.weights.head))
    assert all(close(a, e) for a, e in zip(actual, expected, strict=True))
    bare = media.outputs(graft(media.model(), prefix, {}, adapter.weights.head))
    assert max(np.abs(b - e).max() for b, e in zip(bare, expected, strict=True)) > 2e-3, "the updates do nothing"
    return adapter


@pytest.mark.parametrize("name", KINDS)
def test_our_updates_of_convolutions_give_peft_s_outputs(
    models: dict[str, MediaModel], tmp_path: Path, name: str
) -> None:
    media = models["resnet"]
    sizes = {} if "kind" in KINDS[name] else {"r": 4}
    adapter = check(media, save_media_adapter(media, tmp_path, **sizes, **KINDS[name]))
    assert adapter.weights.sites.keys() <= media.spec.convolutions.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_convolutions_of_patches_spectrograms_and_waves_give_peft_s_outputs(
    models: dict[str, MediaModel], tmp_path: Path, name: str
) -> None:
    model, config = OTHERS[name]
    sizes = {} if "kind" in config else {"r": 4}
    check(models[model], save_media_adapter(models[model], tmp_path, **sizes, **config))


@pytest.mark.parametrize("name", ["lora", "lora-patterns", "dora", "ia3", "ia3-feedforward", "adalora"])
def test_our_change_of_each_flattened_kernel_is_peft_s(
    models: dict[str, MediaModel], tmp_path: Path, name: str
) -> None:
    media = models["resnet"]
    sizes = {} if "kind" in KINDS[name] else {"r": 4}
    adapter = read(media, save_media_adapter(media, tmp_path, **sizes, **KINDS[name]))
    model = peft_media_model(media, tmp_path)
    layers = {site: model.base_model.model.resnet.get_submodule(site) for site in adapter.weights.sites}
    if name in ("lora", "lora-patterns", "adalora"):
        for site, layer in layers.items():
            update = adapter.weights.sites[site]
            delta = layer.get_delta_weight("default").detach()
            assert close(update.b.T @ update.a, delta.reshape(len(delta), -1).numpy())
    model.merge_adapter()
    assert len(layers) == len(media.spec.convolutions)
    for site, layer in layers.items():
        update, weight = adapter.weights.sites[site], media.base.weight(site)
        if update.input_scale is not None:
            weight = weight * np.repeat(update.input_scale, weight.shape[1] // len(update.input_scale))
        if update.output_scale is not None:
            weight = weight * update.output_scale[:, None]
        expected = layer.base_layer.weight.detach()
        assert close(weight + update.b.T @ update.a, expected.reshape(len(expected), -1).numpy())


@pytest.mark.parametrize(
    ("name", "target"), [("swin", "downsample.reduction"), ("convnext", "downsampling_layer.1")]
)
def test_a_module_that_not_every_stage_has_is_served(tmp_path: Path, name: str, target: str) -> None:
    media = make_model(name, tmp_path / "base")
    adapter = check(media, save_media_adapter(media, tmp_path / "saved", r=4, target_modules=[target]))
    assert len(adapter.weights.sites) == 1


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_all_linear_means_no_convolution_as_in_peft(tmp_path: Path, name: str) -> None:
    media = make_model(name, tmp_path)
    options = {"target_modules": "all-linear", "modules_to_save": ["classifier"]}
    with without_wrong_warnings():
        model = get_peft_model(media.model(), LoraConfig(**options))
    config = read_config({"peft_type": "LORA", "task_type": None, **options})
    assert list(config.targets(media.spec.class_for("image-classification"))) == sorted(
        model.targeted_module_names
    )


def test_a_foundation_s_weight_of_a_convolution_is_a_matrix(models: dict[str, MediaModel]) -> None:
    media = models["resnet"]
    trunk = media.model(headless=True)
    for site, (width_in, width_out) in media.spec.sites.items():
        expected = trunk.get_submodule(site).weight.detach().reshape(width_out, width_in)
        assert (media.base.weight(site) == expected.numpy()).all()


def test_an_adapter_keeps_a_kernel_s_factor_as_a_matrix_of_its_block(
    models: dict[str, MediaModel], tmp_path: Path
) -> None:
    media = models["resnet"]
    adapter = read(media, save_media_adapter(media, tmp_path, r=4, **KINDS["lora"]))
    for site, update in adapter.weights.sites.items():
        width_in, width_out = media.spec.sites[site]
        assert (update.a.shape, update.b.shape) == ((4, width_in), (4, width_out))
        assert torch.tensor(update.a).is_contiguous()
