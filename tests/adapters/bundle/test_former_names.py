"""Adapters that were saved under the names of transformers 4 are adapters of the same modules of today."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from rootstock.adapters.bundle import Bundle, Limits, open_bundle, write_bundle
from rootstock.adapters.bundle.archive import CONFIG, WEIGHTS
from rootstock.adapters.bundle.names.former_names import former_name, present_name
from rootstock.adapters.spec import Adapter
from tests.adapters.bundle.media_models import MediaModel, make_model, save_media_adapter, zipped

# The names that transformers' own checkpoints have, by module: what `save_pretrained` writes (5.23).
NAMES = {
    "vit": ("layers.0.attention.q_proj", "encoder.layer.0.attention.attention.query"),
    "beit": ("layers.0.attention.o_proj", "encoder.layer.0.attention.output.dense"),
    "audio-spectrogram-transformer": ("layers.1.mlp.fc1", "encoder.layer.1.intermediate.dense"),
    "dinov2": ("encoder.layer.0.attention.v_proj", "encoder.layer.0.attention.attention.value"),
    "swin": ("encoder.layers.0.blocks.0.mlp.fc2", "encoder.layers.0.blocks.0.output.dense"),
}
# For each name: the model, the options under today's names, and those that differ under the former names.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vit": ("vit", {"target_modules": ["q_proj", "v_proj"]}, {"target_modules": ["query", "value"]}),
    "vit-dense": (
        "vit", {"target_modules": ["o_proj", "fc1", "fc2", "dense"]}, {"target_modules": ["dense"]}),
    "vit-patterns": (
        "vit", {
            "target_modules": ["q_proj", "fc2"], "rank_pattern": {"fc2": 2},
            "alpha_pattern": {"layers.1.mlp.fc2": 3},
        }, {
            "target_modules": r".*(query|(\d)\.output\.dense)", "rank_pattern": {r"\d.output.dense": 2},
            "alpha_pattern": {"encoder.layer.1.output.dense": 3},
        }),
    "vit-layers": (
        "vit", {"target_modules": ["k_proj", "v_proj"], "layers_to_transform": [1]},
        {"target_modules": ["key", "value"]}),
    "vit-all-linear": ("vit", {"target_modules": "all-linear"}, {}),
    "vit-excluded": (
        "vit", {"target_modules": "all-linear", "exclude_modules": ["q_proj", "fc1"]},
        {"exclude_modules": ["query", "intermediate.dense"]}),
    "vit-dora-biases": (
        "vit", {"target_modules": ["v_proj", "projection"], "use_dora": True, "bias": "lora_only"},
        {"target_modules": ["value", "projection"]}),
    "beit-ia3": (
        "beit", {"kind": "IA3", "target_modules": ["k_proj", "fc2"], "feedforward_modules": ["fc2"]},
        {"target_modules": r".*(key|layer\.\d\.output\.dense)", "feedforward_modules": ["output.dense"]}),
    "ast-adalora": (
        "audio-spectrogram-transformer", {
            "kind": "ADALORA", "target_modules": ["q_proj", "v_proj"], "init_r": 2, "total_step": 10,
            "rank_pattern": {"audio_spectrogram_transformer.layers.0.attention.q_proj.lora_E": [True, False]},
        }, {
            "target_modules": ["query", "value"], "rank_pattern": {
                "audio_spectrogram_transformer.encoder.layer.0.attention.attention.query.lora_E": [True, False]},
        }),
    "dinov2": (
        "dinov2", {"target_modules": ["q_proj", "o_proj", "fc2"]},
        {"target_modules": ["query", "attention.output.dense", "fc2"]}),
    "swin": ("swin", {"target_modules": ["q_proj", "fc1", "o_proj"]},
             {"target_modules": ["query", "intermediate.dense", "attention.output.dense"]}),
}  # fmt: skip
# One holds full names of the class with a head. In the other, PEFT finds no number of a layer without a prefix.
HEADED = ("ast-adalora", "vit-layers")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MediaModel]:
    return {name: make_model(name, tmp_path_factory.mktemp(name)) for name in NAMES}


def formerly(model: MediaModel, files: Mapping[str, bytes], options: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of an adapter as transformers 4 named its modules."""
    model_type, tensors = model.spec.model_type, load(files[WEIGHTS])
    renamed = save({former_name(model_type, name): np.array(tensor) for name, tensor in tensors.items()})
    config = json.loads(files[CONFIG])
    # PEFT saves the full names of modules for `all-linear`.
    config["target_modules"] = [former_name(model_type, name) for name in config["target_modules"]]
    return {**files, WEIGHTS: renamed, CONFIG: json.dumps({**config, **options}).encode()}


def read(media: MediaModel, bundle: Bundle) -> Adapter:
    return bundle.adapter(media.spec, 64, media.base)


@pytest.mark.parametrize(
    ("name", "headless"),
    [(name, False) for name in CASES] + [(name, True) for name in CASES if name not in HEADED],
)
def test_an_adapter_under_former_names_is_the_same_adapter(
    models: dict[str, MediaModel], tmp_path: Path, name: str, headless: bool
) -> None:
    model, config, former = CASES[name]
    media = models[model]
    folder = save_media_adapter(media, tmp_path, headless=headless, **config)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    renamed = formerly(media, files, former)
    assert load(renamed[WEIGHTS]).keys() != load(files[WEIGHTS]).keys()
    new, old = (open_bundle(zipped(each), Limits(), media.spec) for each in (files, renamed))
    assert old.manifest.targets == new.manifest.targets
    expected, actual = read(media, new).weights, read(media, old).weights
    assert actual.sites.keys() == expected.sites.keys()
    assert all(len(update.arrays()) for update in expected.sites.values())
    for site, update in expected.sites.items():
        for ours, theirs in zip(actual.sites[site].arrays(), update.arrays(), strict=True):
            assert (ours == theirs).all()
    assert all((actual.head[key] == tensor).all() for key, tensor in expected.head.items())


def test_a_bundle_may_list_its_targets_under_former_names(models: dict[str, MediaModel], tmp_path: Path) -> None:
    media = models["vit"]
    save_media_adapter(media, tmp_path, target_modules=["q_proj"])
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    opened = open_bundle(zipped(formerly(media, files, {"target_modules": ["query"]})), Limits(), media.spec)
    targets = tuple(sorted(former_name("vit", name) for name in opened.manifest.targets))
    assert targets[0].startswith("encoder.layer.0.attention.attention.query")
    stored = write_bundle(type(opened.manifest)(**{**vars(opened.manifest), "targets": targets}), opened.files)
    assert read(media, stored).weights.sites.keys() == read(media, opened).weights.sites.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_table_is_transformers_own(models: dict[str, MediaModel], name: str) -> None:
    """Each module's former name becomes today's by transformers' renaming of checkpoints."""
    media = models[name]
    trunk = media.model(headless=True)
    assert former_name(media.spec.model_type, NAMES[name][0]) == NAMES[name][1]
    mapping = get_checkpoint_conversion_mapping(type(trunk).__name__) or []
    mapping = mapping or get_checkpoint_conversion_mapping(media.spec.model_type)
    changed = 0
    for site in media.spec.sites:
        former = former_name(media.spec.model_type, site)
        assert present_name(media.spec.model_type, former) == site
        assert present_name(media.spec.model_type, f"{former}.weight") == f"{site}.weight"
        renamed = former
        for entry in mapping:
            for source, target in zip(entry.source_patterns, entry.target_patterns, strict=False):
                renamed = re.sub(source, target, renamed)
        assert renamed == site
        changed += former != site
    assert changed >= 4


@pytest.mark.parametrize("model_type", ["clip", "siglip"])
def test_a_tower_s_modules_lose_the_name_of_the_part_that_it_is(model_type: str) -> None:
    name = "encoder.layers.0.self_attn.q_proj"
    assert present_name(model_type, f"vision_model.{name}.lora_A.weight") == f"{name}.lora_A.weight"
    assert former_name(model_type, name) == f"vision_model.{name}"


@pytest.mark.parametrize("name", ["model.layer.0.attention.q_proj", "model.stages.1.layers.0.pointwise_conv1"])
def test_a_present_name_that_ends_in_the_former_one_stays(name: str) -> None:
    model_type = "dinov3_vit" if "attention" in name else "dinov3_convnext"
    assert present_name(model_type, name.removeprefix("model.")) == present_name(model_type, name) == name
    assert former_name(model_type, name) == name.removeprefix("model.")


def test_models_whose_names_stayed_have_no_former_names() -> None:
    name = "encoder.layers.0.attention.q_proj"
    assert [former_name(model_type, name) for model_type in ("wav2vec2", "hubert", "bert")] == [name] * 3
