"""Kinds that PEFT merges into convolutions become LoRAs of them, whose outputs are PEFT's."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import save

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.bundle.archive import CONFIG, WEIGHTS
from rootstock.adapters.convert.conversion import convert
from rootstock.adapters.convert.low_rank import change_of, lora_of, merged_parameters
from rootstock.adapters.spec import Rejected
from tests.adapters.bundle.media_models import (
    MediaModel,
    graft,
    make_model,
    peft_media_model,
    save_media_adapter,
    zipped,
)
from tests.peft_adapters import close, without_wrong_warnings

RESNET = ["convolution"]
KINDS: dict[str, dict[str, Any]] = {
    "LOHA": {"r": 2, "target_modules": RESNET},
    "LOKR": {"r": 2, "target_modules": RESNET},
    # PEFT rotates windows without padding, which is the merged layer for a kernel of one number only.
    "OFT": {"r": 0, "oft_block_size": 4, "target_modules": ["shortcut.convolution"]},
    "BOFT": {"boft_block_size": 2, "target_modules": ["layer.1.convolution"]},
}
FULL = 72


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MediaModel]:
    return {
        name: make_model(name, tmp_path_factory.mktemp(name))
        for name in ("resnet", "convnext", "vit", "wav2vec2")
    }


def peft_model(media: MediaModel, kind: str, **options: Any) -> Any:
    torch.manual_seed(3)
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)](modules_to_save=["classifier"], **options)
    with without_wrong_warnings():
        model = get_peft_model(media.model(), config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def as_lora(media: MediaModel, model: Any, rank: int) -> bytes:
    """Return the zip of the LoRA that replaces PEFT's adapter."""
    task_class = media.spec.class_for("image-classification")
    merged = merged_parameters(copy.deepcopy(model))
    config, tensors = lora_of(media.model(), merged, task_class, media.spec.norms, rank)
    weights = save({name: tensor.clone().contiguous() for name, tensor in tensors.items()})
    return zipped({CONFIG: json.dumps({**config, "task_type": None}).encode(), WEIGHTS: weights})


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_peft_merges_into_convolutions_becomes_a_lora(
    models: dict[str, MediaModel], kind: str
) -> None:
    media = models["resnet"]
    model = peft_model(media, kind, **KINDS[kind])
    expected = media.outputs(model)
    adapter = open_bundle(as_lora(media, model, FULL), Limits(), media.spec).adapter(media.spec, FULL)
    sites = adapter.weights.sites
    assert sites
    assert sites.keys() <= media.spec.convolutions.keys()
    ours = media.outputs(graft(media.model(), "resnet.", sites, adapter.weights.head))
    bare = media.outputs(graft(media.model(), "resnet.", {}, adapter.weights.head))
    assert all(close(a, e) for a, e in zip(ours, expected, strict=True))
    assert max(np.abs(b - e).max() for b, e in zip(bare, expected, strict=True)) > 2e-3


@pytest.mark.parametrize(
    ("name", "headless", "targets"),
    [
        ("resnet", False, RESNET),
        ("vit", True, ["projection", "q_proj"]),
        ("wav2vec2", False, ["q_proj", "v_proj"]),
    ],
)
def test_a_folder_for_images_or_audio_converts(
    models: dict[str, MediaModel], tmp_path: Path, name: str, headless: bool, targets: list[str]
) -> None:
    media = models[name]
    folder = save_media_adapter(media, tmp_path, "LOHA", headless, r=2, target_modules=targets)
    made = convert(zipped(folder), media.files, FULL)
    assert (made.kind, made.max_difference < 1e-3) == ("LOHA", True)
    adapter = open_bundle(made.data, Limits(), media.spec).adapter(media.spec, FULL, media.base)
    prefix = media.spec.class_for(adapter.task).prefix
    ours = media.outputs(graft(media.model(headless), prefix, adapter.weights.sites, adapter.weights.head))
    theirs = media.outputs(peft_media_model(media, folder, headless))
    assert all(np.abs(o - t).max() < 1e-3 * np.abs(t).max() for o, t in zip(ours, theirs, strict=True))


def test_the_change_of_a_convolution_reads_back_as_its_parameters(models: dict[str, MediaModel]) -> None:
    media = models["resnet"]
    merged = merged_parameters(peft_model(media, "LOHA", **KINDS["LOHA"]))
    base = media.model()
    original = {name: parameter.detach() for name, parameter in base.named_parameters()}
    change = change_of(base, merged, media.spec.class_for("image-classification"), media.spec.norms, FULL)
    for name, parameter in change.parameters(original).items():
        assert close(parameter.numpy(), merged[name].numpy())


def test_an_adapter_of_a_head_alone_needs_a_target_that_fits_a_trunk_of_convolutions(
    models: dict[str, MediaModel],
) -> None:
    media = models["resnet"]
    task_class = media.spec.class_for("image-classification")
    base = media.model()
    final = {name: parameter.detach() for name, parameter in base.named_parameters()}
    config, tensors = lora_of(base, final, task_class, media.spec.norms, FULL)
    weights = save({name: tensor.clone().contiguous() for name, tensor in tensors.items()})
    data = zipped({CONFIG: json.dumps({**config, "task_type": None}).encode(), WEIGHTS: weights})
    [update] = open_bundle(data, Limits(), media.spec).adapter(media.spec, 64).weights.sites.values()
    assert not update.b.any()


@pytest.mark.parametrize("dilated", [False, True])
def test_a_change_of_a_depthwise_or_dilated_convolution_is_refused(
    models: dict[str, MediaModel], dilated: bool
) -> None:
    media = models["convnext"]
    base = media.model()
    final = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    name = next(
        name for name in final if name.endswith("downsampling_layer.1.weight" if dilated else "dwconv.weight")
    )
    if dilated:
        base.get_submodule(name.removesuffix(".weight")).dilation = (2, 2)
    final[name] += 1
    with pytest.raises(Rejected, match="neither grouped nor dilated") as caught:
        lora_of(base, final, media.spec.class_for("image-classification"), media.spec.norms, FULL)
    assert caught.value.where == name
