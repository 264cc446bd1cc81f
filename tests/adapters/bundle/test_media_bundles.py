"""Bundles of images and audio: their tasks, their empty preprocessing, and their plain PEFT folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from rootstock.adapters.bundle import Bundle, Limits, Manifest, PlainFields, open_bundle, write_bundle
from rootstock.adapters.bundle.archive import CONFIG, WEIGHTS
from rootstock.adapters.bundle.manifest import read_manifest
from rootstock.adapters.errors import SourceError
from rootstock.adapters.sources.adapter_form import adapter_form
from rootstock.adapters.sources.source import Source
from rootstock.adapters.spec import (
    CLASSIFICATION,
    EMBEDDING,
    PROBLEM_TYPES,
    Calibration,
    FoundationSpec,
    HeadSpec,
    Rejected,
)
from tests.adapters.bundle.media_models import (
    MediaModel,
    graft,
    make_model,
    peft_media_model,
    save_media_adapter,
    zipped,
)
from tests.peft_adapters import close

TARGETS = {"vit": ["q_proj", "v_proj"], "wav2vec2": ["q_proj", "v_proj"]}
HEAD_ALONE = {CONFIG: b'{"peft_type": null, "task_type": null}'}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MediaModel]:
    return {name: make_model(name, tmp_path_factory.mktemp(name)) for name in TARGETS}


def linear_manifest(spec: FoundationSpec, task: str, **changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "task": task, "problem_type": "single_label_classification", "head": HeadSpec("linear"),
        "labels": ("no", "yes"), "preprocessing": None, "targets": (), "files": {},
        "foundation": {"fingerprint": spec.fingerprint, "name": spec.name, "revision": None},
    }  # fmt: skip
    return Manifest(**{**fields, **changes})


def linear_bundle(spec: FoundationSpec, task: str, outputs: int, **changes: Any) -> Bundle:
    head = {"head.weight": np.ones((outputs, 16), np.float32), "head.bias": np.zeros(outputs, np.float32)}
    return write_bundle(linear_manifest(spec, task, **changes), {**HEAD_ALONE, WEIGHTS: save(head)})


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("headless", [False, True])
@pytest.mark.parametrize("typed", [False, True])
def test_a_plain_folder_s_task_is_that_of_the_foundation_s_modality(
    models: dict[str, MediaModel], tmp_path: Path, name: str, headless: bool, typed: bool
) -> None:
    media = models[name]
    task_type = ("FEATURE_EXTRACTION" if headless else "SEQ_CLS") if typed else None
    save_media_adapter(media, tmp_path, headless=headless, target_modules=TARGETS[name], task_type=task_type)
    bundle = open_bundle(zipped(tmp_path), Limits(), media.spec)
    expected = (EMBEDDING if headless else CLASSIFICATION)[media.spec.modality]
    assert bundle.manifest.task == expected
    assert bundle.manifest.problem_type == (None if headless else "single_label_classification")
    assert bundle.manifest.head.kind == ("linear" if headless else "hf")
    assert bundle.manifest.to_json()["preprocessing"] == {}
    adapter = bundle.adapter(media.spec, 64)
    prefix = media.spec.class_for(expected).prefix
    model = graft(media.model(headless), prefix, adapter.weights.sites, adapter.weights.head)
    peft = media.outputs(peft_media_model(media, tmp_path, headless))
    assert all(close(ours, theirs) for ours, theirs in zip(media.outputs(model), peft, strict=True))


def test_a_folder_without_a_type_and_a_head_that_was_not_saved_is_refused_with_the_remedy(
    models: dict[str, MediaModel], tmp_path: Path
) -> None:
    save_media_adapter(models["vit"], tmp_path, target_modules=["q_proj"], modules_to_save=None)
    with pytest.raises(Rejected, match="modules_to_save=\\['classifier'\\]"):
        open_bundle(zipped(tmp_path), Limits(), models["vit"].spec)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "text-classification",
            "a task for text inputs, and this foundation takes image inputs; choose one of: image",
        ),
        ("token-classification", "a task for text inputs, and this foundation takes image inputs"),
        ("audio-classification", "a task for audio inputs, and this foundation takes image inputs"),
        ("no-such-task", r"'no-such-task' is not served on vit\d+; choose one of: image-classification"),
    ],
)
def test_a_task_of_another_modality_is_refused_by_name_with_those_that_fit(
    models: dict[str, MediaModel], tmp_path: Path, field: str, message: str
) -> None:
    save_media_adapter(models["vit"], tmp_path, target_modules=["q_proj"])
    with pytest.raises(Rejected, match=message):
        open_bundle(zipped(tmp_path), Limits(), models["vit"].spec, PlainFields(task=field))


def test_a_limit_in_tokens_is_refused_for_an_image(models: dict[str, MediaModel], tmp_path: Path) -> None:
    save_media_adapter(models["vit"], tmp_path, target_modules=["q_proj"])
    with pytest.raises(Rejected, match="takes image inputs, which no limit in tokens cuts; leave out the form"):
        open_bundle(zipped(tmp_path), Limits(), models["vit"].spec, PlainFields(max_length=8))


@pytest.mark.parametrize("task", ["image-classification", "audio-classification"])
@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_a_linear_head_serves_every_problem_type(
    models: dict[str, MediaModel], task: str, problem_type: str
) -> None:
    spec = models["vit" if task.startswith("image") else "wav2vec2"].spec
    bundle = linear_bundle(spec, task, 2, problem_type=problem_type)
    opened = open_bundle(bundle.to_zip(), Limits(), spec)
    adapter = opened.adapter(spec, 64)
    assert (adapter.problem_type, adapter.labels) == (problem_type, ("no", "yes"))
    assert adapter.preprocessing.max_length == spec.max_tokens
    assert opened.digest == bundle.digest


def test_a_projection_of_an_image_s_embedding_has_as_many_outputs_as_its_rows(
    models: dict[str, MediaModel],
) -> None:
    spec, task = models["vit"].spec, "image-feature-extraction"
    bundle = linear_bundle(spec, task, 5, problem_type=None, labels=())
    assert bundle.adapter(spec, 64).weights.head["head.weight"].shape == (5, 16)
    bare = write_bundle(bundle.manifest, {**HEAD_ALONE, WEIGHTS: save({})})
    assert bare.adapter(spec, 64).weights.head == {}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        (
            {"preprocessing": {"max_length": 8, "truncation_side": "right", "prefix": ""}},
            "leave it empty, because",
        ),
        ({"problem_type": None}, "bundle.json: problem_type"),
        ({"head": {"kind": "causal-lm", "class": "X"}}, "use 'linear' or 'hf'"),
        ({"id2label": {}}, "from 1 to 65536 labels"),
    ],
)
def test_a_manifest_that_does_not_fit_an_image_task_is_refused(
    models: dict[str, MediaModel], changes: dict[str, Any], where: str
) -> None:
    manifest = linear_manifest(models["vit"].spec, "image-classification")
    value = {**manifest.to_json(), **changes}
    with pytest.raises(Rejected, match=where):
        read_manifest(json.dumps(value).encode())


def test_an_empty_preprocessing_of_a_text_is_refused(models: dict[str, MediaModel]) -> None:
    value = linear_manifest(models["vit"].spec, "text-classification").to_json()
    with pytest.raises(Rejected, match="preprocessing: has the keys"):
        read_manifest(json.dumps(value).encode())


def test_a_classification_of_images_may_be_calibrated(models: dict[str, MediaModel]) -> None:
    manifest = linear_manifest(models["vit"].spec, "image-classification", calibration=Calibration(2.0))
    assert read_manifest(manifest.to_bytes()).calibration == Calibration(2.0)
    with pytest.raises(Rejected, match="calibration"):
        read_manifest(replace(manifest, problem_type="regression").to_bytes())


def test_the_spec_of_a_foundation_of_convolutions_reads_back_unchanged(models: dict[str, MediaModel]) -> None:
    for media in models.values():
        assert FoundationSpec.from_json(json.loads(json.dumps(media.spec.to_json()))) == media.spec
        assert all(one.convolutions for one in media.spec.classes.values())


def test_a_whole_model_for_images_is_refused_with_the_remedy(models: dict[str, MediaModel]) -> None:
    source = Source("checkpoint", class_name="ViTForImageClassification")
    with pytest.raises(SourceError, match=r"takes image inputs, .* train an adapter with PEFT"):
        adapter_form(source, models["vit"].spec, PlainFields())


def test_an_adapter_for_text_on_an_image_foundation_names_the_modality(
    models: dict[str, MediaModel], tmp_path: Path
) -> None:
    save_media_adapter(models["vit"], tmp_path, target_modules=["q_proj"], task_type="SEQ_CLS")
    tensors = load((tmp_path / WEIGHTS).read_bytes())
    renamed = {name.replace("vit.layers", "bert.encoder.layer"): tensor for name, tensor in tensors.items()}
    files = {p.name: p.read_bytes() for p in tmp_path.iterdir()} | {WEIGHTS: save(renamed)}
    with pytest.raises(Rejected, match="for another task than one with image inputs"):
        open_bundle(zipped(files), Limits(), models["vit"].spec)
