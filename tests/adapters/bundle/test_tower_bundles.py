"""Bundles and foundations of two towers: what identifies them, and adapters of the whole model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoHaConfig, LoraConfig
from safetensors.numpy import load_file, save_file

from rootstock.adapters.bundle import Bundle, Limits, PlainFields, open_bundle, write_bundle
from rootstock.adapters.bundle.manifest import read_manifest
from rootstock.adapters.convert.conversion import convert
from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationError, fingerprint, locate
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import FoundationSpec, HeadSpec, Rejected
from tests.two_towers import make_two_towers, save_tower_adapter

TASK = "zero-shot-image-classification"
RANK = 16
TEXTS_ALONE = LoraConfig(r=2, target_modules=r"text_model\..*\.q_proj")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_two_towers("clip", tmp_path_factory.mktemp("clip") / "clip")


@pytest.fixture(scope="module")
def spec(clip: Path) -> FoundationSpec:
    return describe(locate(str(clip)))


def opened(data: bytes, spec: FoundationSpec, task: str | None = TASK) -> Bundle:
    return open_bundle(data, Limits(), spec, PlainFields(task=task))


def retensored(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        save_file(
            {**tensors, name: np.asarray(change(tensors[name]))}, folder / "model.safetensors", {"format": "pt"}
        )

    return rewrite


def reworded(file: str, old: str, new: str) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return rewrite


@pytest.mark.parametrize(
    "change",
    [
        retensored("text_model.encoder.layers.1.mlp.fc1.bias", lambda tensor: tensor + 1),
        retensored("visual_projection.weight", lambda tensor: tensor * 2),
        retensored("logit_scale", lambda tensor: tensor + np.float32(0.5)),
        reworded("tokenizer.json", '"green"', '"olive"'),
        reworded("config.json", '"max_position_embeddings": 24', '"max_position_embeddings": 25'),
    ],
)
def test_the_fingerprint_covers_both_towers(clip: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = shutil.copytree(clip, tmp_path / "copy")
    assert fingerprint(folder) == fingerprint(clip)
    change(folder)
    assert fingerprint(folder) != fingerprint(clip)


def test_without_a_tokenizer_the_foundation_is_the_tower_for_images_alone(clip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip, tmp_path / "copy")
    (folder / "tokenizer.json").unlink()
    alone = fingerprint(folder)
    retensored("text_model.encoder.layers.1.mlp.fc1.bias", lambda tensor: tensor + 1)(folder)
    assert fingerprint(folder) == alone
    assert fingerprint(folder) != fingerprint(clip)


def test_the_spec_of_two_towers_reads_back(spec: FoundationSpec) -> None:
    tower = spec.text_tower
    assert tower is not None
    assert FoundationSpec.from_json(json.loads(json.dumps(spec.to_json()))).text_tower == tower
    assert tower.trunk.fingerprint == spec.fingerprint
    assert (tower.trunk.hidden_size, tower.trunk.max_tokens, spec.hidden_size) == (24, 24, 16)
    assert tower.scale == pytest.approx(np.exp(1.7))
    assert spec.own_tasks == ("image-feature-extraction", TASK)


def test_a_siglip_whose_padding_token_is_unknown_is_refused(tmp_path: Path) -> None:
    folder = make_two_towers("siglip", tmp_path / "siglip")
    reworded("tokenizer_config.json", '"pad_token": "</s>"', '"pad_token": "<pad>"')(folder)
    with pytest.raises(FoundationError, match=r"padding token '<pad>'.*save the tokenizer again"):
        describe(locate(str(folder)))


def test_a_plain_folder_with_tensors_of_the_texts_needs_no_task(
    clip: Path, spec: FoundationSpec, tmp_path: Path
) -> None:
    made = save_tower_adapter(clip, tmp_path / "texts", 1, TEXTS_ALONE)
    bundle = opened(made.zip(), spec, task=None)
    assert bundle.manifest.task == TASK
    assert bundle.manifest.head == HeadSpec("towers", class_name="CLIPModel")
    assert bundle.manifest.targets[0] == "text_model.encoder.layers.0.self_attn.q_proj"
    assert read_manifest(bundle.manifest.to_bytes()) == bundle.manifest
    adapter = bundle.adapter(spec, RANK)
    assert set(adapter.weights.sites) == set(bundle.manifest.targets)
    assert adapter.weights.head == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head": HeadSpec("hf", class_name="CLIPModel")}, "'hf' does not serve"),
        ({"labels": ("cat",)}, "takes no labels"),
        ({"head": HeadSpec("towers", class_name="SiglipModel")}, "the class is 'CLIPModel'"),
    ],
)
def test_a_bundle_that_disagrees_with_the_towers_is_refused(
    clip: Path, spec: FoundationSpec, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    made = opened(save_tower_adapter(clip, tmp_path / "texts", 1, TEXTS_ALONE).zip(), spec)
    changed = write_bundle(replace(made.manifest, **change), made.files)
    with pytest.raises(Rejected, match=words):
        open_bundle(changed.to_zip(), Limits(), spec).adapter(spec, RANK)


def test_an_adapter_of_the_whole_model_is_refused_on_a_foundation_without_texts(
    clip: Path, spec: FoundationSpec, tmp_path: Path
) -> None:
    made = save_tower_adapter(clip, tmp_path / "texts", 1, TEXTS_ALONE)
    folder = shutil.copytree(clip, tmp_path / "copy")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(Rejected, match=f"'{TASK}' is not served"):
        open_bundle(
            made.zip(), Limits(), describe(locate(str(folder))), PlainFields(task=TASK, foundation="copy")
        )


def test_a_kind_that_becomes_a_lora_converts_on_both_towers(
    clip: Path, spec: FoundationSpec, tmp_path: Path
) -> None:
    targets = r".*(encoder\.layers\.1\..*\.q_proj|text_projection)"
    made = save_tower_adapter(clip, tmp_path / "loha", 1, LoHaConfig(r=2, target_modules=targets))
    lora = convert(made.zip(), locate(str(clip)), RANK, TASK)
    sites = opened(lora.data, spec).adapter(spec, RANK, FoundationWeights(clip, "clip")).weights.sites
    assert set(sites) == {
        "vision_model.encoder.layers.1.self_attn.q_proj",
        "text_model.encoder.layers.1.self_attn.q_proj",
        "text_projection",
    }
