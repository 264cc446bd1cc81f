"""Uploads for images and audio that attack: each is refused by its check, naming the tensor and the reason."""

from __future__ import annotations

import base64
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from rootstock.adapters.bundle import Limits, open_bundle, pack, write_bundle
from rootstock.adapters.bundle.archive import CONFIG, GOLDEN, MANIFEST, WEIGHTS
from rootstock.adapters.bundle.golden import MAX_FILE_BYTES
from rootstock.adapters.spec import Convolution, FoundationSpec, Rejected
from tests.adapters.bundle.media_models import MediaModel, make_model, save_media_adapter, zipped
from tests.attacks.forge import at_most, plain_files, refused

PREFIX = "base_model.model."
STEM = "resnet.embedder.embedder.convolution"
WAVES = "wav2vec2.feature_extractor.conv_layers.1.conv"
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MediaModel]:
    names = ("resnet", "convnext", "wav2vec2", "vit")
    return {name: make_model(name, tmp_path_factory.mktemp(name)) for name in names}


@pytest.fixture(scope="module")
def resnet(models: dict[str, MediaModel]) -> FoundationSpec:
    return models["resnet"].spec


def config(kind: str = "LORA", **changes: Any) -> dict[str, Any]:
    own = {"LORA": {"r": 4}, "ADALORA": {"init_r": 4}, "IA3": {"feedforward_modules": []}}[kind]
    given = {"peft_type": kind, "task_type": None, "target_modules": ["embedder.convolution"], **own}
    return {**given, "modules_to_save": ["classifier"], **changes}


def stem(**changes: Any) -> Tensors:
    """A LoRA of rank 4 of the first convolution, 7 x 7 on 3 channels, and a head; None leaves a tensor out."""
    shapes: dict[str, Any] = {
        f"{STEM}.lora_A.weight": (4, 3, 7, 7), f"{STEM}.lora_B.weight": (8, 4, 1, 1),
        "classifier.1.weight": (3, 16), "classifier.1.bias": (3,), **changes,
    }  # fmt: skip
    return {f"{PREFIX}{n}": np.full(size, 0.1, np.float32) for n, size in shapes.items() if size is not None}


def test_the_unspoilt_adapter_is_accepted(resnet: FoundationSpec) -> None:
    opened = open_bundle(pack(plain_files(stem(), config())), Limits(), resnet)
    assert opened.adapter(resnet, 16).weights.sites["embedder.embedder.convolution"].a.shape == (4, 147)


A, B = f"{STEM}.lora_A.weight", f"{STEM}.lora_B.weight"
SHAPES: dict[str, tuple[dict[str, Any], str, object]] = {
    "flat A": ({A: (4, 147)}, "lora_A", [4, 3, 7, 7]),
    "flat B": ({B: (8, 4)}, "lora_B", [8, 4, 1, 1]),
    "A of another kernel": ({A: (4, 3, 5, 5)}, "lora_A", [4, 3, 5, 5]),
    "A of as many numbers": ({A: (4, 7, 7, 3)}, "lora_A", [4, 7, 7, 3]),
    "A of one axis more": ({A: (4, 3, 7, 7, 1)}, "lora_A", [4, 3, 7, 7, 1]),
    "A of other channels": ({A: (4, 1, 7, 7)}, "lora_A", [4, 1, 7, 7]),
    "B with a kernel": ({B: (8, 4, 7, 7)}, "lora_B", [8, 4, 7, 7]),
    "B of another width": ({B: (9, 4, 1, 1)}, "lora_B", [9, 4, 1, 1]),
    "B of groups": ({B: (8, 2, 1, 1)}, "lora_B", [8, 2, 1, 1]),
    "another rank": ({A: (5, 3, 7, 7), B: (8, 5, 1, 1)}, "lora_A", [5, 3, 7, 7]),
    "no numbers": ({A: (4, 0, 7, 7)}, "lora_A", [4, 0, 7, 7]),
    "B missing": ({B: None}, "lora_B", "missing"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_forged_shape_at_a_convolution_is_refused(resnet: FoundationSpec, name: str) -> None:
    changes, where, said = SHAPES[name]
    refused(plain_files(stem(**changes), config()), resnet, "sites", where, said)


KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "dora as for a linear layer": (
        "LORA", {"use_dora": True}, {f"{STEM}.lora_magnitude_vector": (8,)}, "magnitude"),
    "ia3 as for a linear layer": ("IA3", {}, {f"{STEM}.ia3_l": (8, 1)}, "ia3_l"),
    "ia3 of the kernel": (
        "IA3", {"feedforward_modules": ["embedder.convolution"]}, {f"{STEM}.ia3_l": (1, 147, 1, 1)}, "ia3_l"),
    "adalora as kernels": (
        "ADALORA", {}, {f"{STEM}.lora_A": (4, 3, 7, 7), f"{STEM}.lora_E": (4, 1)}, "lora_A"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_another_kind_s_forged_shape_at_a_convolution_is_refused(
    models: dict[str, MediaModel], resnet: FoundationSpec, name: str
) -> None:
    kind, options, changes, where = KINDS[name]
    lora = {} if kind == "LORA" else {A: None, B: None}
    upload = plain_files(stem(**lora, **changes), config(kind, **options))
    refused(upload, resnet, "sites", where, "expected", base=models["resnet"].base)


def test_the_rank_at_a_convolution_is_limited(resnet: FoundationSpec) -> None:
    tensors = stem(**{A: (17, 3, 7, 7), B: (8, 17, 1, 1)})
    refused(plain_files(tensors, config(r=17)), resnet, "rank", "embedder.convolution", 17, 16)


def test_nan_at_a_convolution_is_refused(resnet: FoundationSpec) -> None:
    tensors = stem()
    tensors[PREFIX + A][3, 2, 6, 6] = np.nan
    refused(plain_files(tensors, config()), resnet, "finite", "lora_A", "nan")


@pytest.mark.parametrize("kind", ["LORA", "IA3"])
def test_an_adapter_that_peft_made_of_a_grouped_convolution_is_refused_with_the_reason(
    models: dict[str, MediaModel], tmp_path: Path, kind: str
) -> None:
    # PEFT wants a rank that the groups divide: 8 in the first stage, 16 in the second.
    own: dict[str, Any] = {"r": 16} if kind == "LORA" else {"feedforward_modules": []}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LoRA adapter added to ConvNd layer with groups > 1")
        save_media_adapter(models["convnext"], tmp_path, kind, target_modules=["dwconv"], **own)
    refused(
        zipped(tmp_path), models["convnext"].spec, "sites", "dwconv", "grouped", "leave it out of target_modules"
    )


def convolution(models: dict[str, MediaModel], **changes: Any) -> FoundationSpec:
    """The ResNet's spec with another geometry of its first convolution."""
    spec, site = models["resnet"].spec, STEM.removeprefix("resnet.")
    return replace(spec, convolutions={**spec.convolutions, site: replace(spec.convolutions[site], **changes)})


def test_a_lora_of_a_dilated_convolution_is_refused_because_peft_s_does_not_fit(
    models: dict[str, MediaModel],
) -> None:
    refused(plain_files(stem(), config()), convolution(models, dilation=(2, 2)), "sites", STEM, "dilated")


def test_a_grouped_convolution_in_a_spec_is_refused_too(models: dict[str, MediaModel]) -> None:
    refused(plain_files(stem(), config()), convolution(models, groups=3), "sites", STEM, "grouped")


@pytest.mark.parametrize("kind", ["IA3", "ADALORA"])
def test_a_kind_that_peft_has_not_for_waves_is_refused(models: dict[str, MediaModel], kind: str) -> None:
    assert models["wav2vec2"].spec.convolutions["feature_extractor.conv_layers.1.conv"] == Convolution(
        (5,), (5,), (0,), (1,)
    )
    head = {"projector.weight": (12, 16), "projector.bias": (12,), "classifier.weight": (3, 12)}
    shapes = {**head, "classifier.bias": (3,), f"{WAVES}.ia3_l": (8, 1)}
    tensors = {f"{PREFIX}{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
    options = config(kind, target_modules=["conv_layers.1.conv"], modules_to_save=["projector", "classifier"])
    refused(plain_files(tensors, options), models["wav2vec2"].spec, "sites", WAVES, f"no {kind} of a one-dim")


def bundle_with(spec: FoundationSpec, inputs: list[Any]) -> dict[str, bytes]:
    """A bundle of a plain folder, whose golden set has these inputs."""
    plain = open_bundle(pack(plain_files(stem(), config())), Limits(), spec)
    golden = json.dumps({"inputs": inputs, "outputs": [[0.0, 0.0, 0.0]] * len(inputs)}).encode()
    bundle = write_bundle(plain.manifest, {**plain.files, GOLDEN: golden})
    return {**bundle.files, MANIFEST: bundle.manifest.to_bytes()}


def encoded(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


GOLDENS: dict[str, tuple[list[Any], str]] = {
    "too large": ([{"image": {"b64": encoded(MAX_FILE_BYTES + 1)}}], f"the limit is {MAX_FILE_BYTES}"),
    "no base64": ([{"image": {"b64": "<svg>" * 99}}], "not base64"),
    "base64 of URLs": ([{"image": {"b64": "_-__"}}], "not base64"),
    "a text": (["a text"], "the task takes image inputs"),
    "a pair": ([{"text": "a", "text_pair": "b"}], "the task takes image inputs"),
    "a recording": ([{"audio": {"b64": "aGk="}}], "the task takes image inputs"),
    "an address": ([{"image": "https://example.com/a.png"}], "the task takes image inputs"),
    "a data URL": ([{"image": "data:image/png;base64,aGk="}], "the task takes image inputs"),
    "deep": ([{"image": {"b64": {"b64": {"b64": "aGk="}}}}], "the task takes image inputs"),
    "too many": ([{"image": {"b64": "aGk="}}] * 17, "from 1 to 16"),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_a_golden_set_of_images_that_is_wrong_is_refused(resnet: FoundationSpec, name: str) -> None:
    inputs, said = GOLDENS[name]
    data = pack(bundle_with(resnet, inputs))
    with at_most(24), pytest.raises(Rejected) as caught:
        open_bundle(data, Limits(), resnet)
    assert (caught.value.check, caught.value.where[:11]) == ("schema", "golden.json")
    assert said in caught.value.message


def test_a_bundle_for_text_on_an_image_foundation_names_both_modalities(resnet: FoundationSpec) -> None:
    files = bundle_with(resnet, [{"image": {"b64": "aGk="}}])
    value = json.loads(files[MANIFEST])
    value |= {"task": "text-classification", "golden": "none"}
    value["preprocessing"] = {"max_length": 8, "truncation_side": "right", "prefix": ""}
    value["files"].pop(GOLDEN)
    upload = {CONFIG: files[CONFIG], WEIGHTS: files[WEIGHTS], MANIFEST: json.dumps(value).encode()}
    refused(upload, resnet, "schema", "task", "for text inputs", "takes image inputs", "image-classification")


def test_the_bundle_for_images_on_a_text_foundation_names_both_modalities(
    resnet: FoundationSpec, spec: FoundationSpec
) -> None:
    files = bundle_with(resnet, [{"image": {"b64": "aGk="}}])
    refused(files, spec, "schema", "task", "for image inputs", "takes text inputs", "text-classification")


@pytest.mark.parametrize("task_type", [None, "SEQ_CLS"])
def test_a_plain_folder_for_images_on_a_text_foundation_is_refused(
    spec: FoundationSpec, task_type: str | None
) -> None:
    upload = plain_files(stem(), config(task_type=task_type))
    if task_type is None:
        refused(upload, spec, "schema", "task_type", "names no task", "form field `task`")
    else:
        refused(upload, spec, "sites", STEM, "another task than one with text inputs")


def test_names_of_both_spellings_in_one_file_are_refused(models: dict[str, MediaModel]) -> None:
    """Such a file would hold two updates of one module."""
    shapes = {"classifier.weight": (3, 16), "classifier.bias": (3,)}
    for module in ("vit.layers.0.attention.q_proj", "vit.encoder.layer.0.attention.attention.query"):
        shapes |= {f"{module}.lora_A.weight": (4, 16), f"{module}.lora_B.weight": (16, 4)}
    tensors = {f"{PREFIX}{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}
    options = config(target_modules=["query", "q_proj"])
    refused(
        pack({CONFIG: json.dumps(options).encode(), WEIGHTS: save(tensors)}), models["vit"].spec, "sites", WEIGHTS
    )
