"""A foundation that reads images or recordings is described as transformers computes it, on each architecture."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoFeatureExtractor, AutoImageProcessor

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.families import AUDIO_ARCHITECTURES, IMAGE_ARCHITECTURES, known
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, generates, with_files
from rootstock.adapters.foundation.processor_files import processor_config
from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import FoundationSpec
from rootstock.adapters.trunk_class import load_trunk
from rootstock.service.engine.encode.modalities.audio.audio_processor import AudioProcessor
from rootstock.service.engine.encode.modalities.image.image_processor import ImageProcessor
from tests.media_foundations import MEDIA, SIDE, make_media_foundation, save_media_foundation

Described = tuple[FoundationFiles, FoundationSpec, Any]
# transformers has no class for classification on these. Its configs of one tower are parts of those of two.
BARE = {"dinov3_vit", "clip_vision_model", "siglip_vision_model"}
# torch's multi-head attention computes with the weights of these modules and does not call them.
NOT_CALLED = {
    "wavlm": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "siglip": ("head.attention.out_proj",),
    "siglip_vision_model": ("head.attention.out_proj",),
}
LAYERS = {
    "encoder.layer.": ("dinov2", "dinov2_with_registers"),
    "model.layer.": ("dinov3_vit",),
    "layers.": ("vit", "deit", "beit", "audio-spectrogram-transformer", "whisper"),
    "encoder.stages.": ("convnext", "convnextv2", "resnet"),
    "encoder.blocks.": ("efficientnet",),
    "layer.": ("mobilenet_v2",),
}
PREFIX = {name: prefix for prefix, names in LAYERS.items() for name in names}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Described]:
    """Return a function that gives the files, the spec and the trunk of an architecture."""

    @cache
    def make(name: str) -> Described:
        files = make_media_foundation(name, tmp_path_factory.mktemp(name))
        return files, describe(files), load_trunk(files.folder).eval()

    return make


def prepared(name: str, files: FoundationFiles) -> torch.Tensor:
    """Two inputs as the processor in the folder prepares them; wave forms have 30 seconds."""
    random = np.random.default_rng(0)
    if name in IMAGE_ARCHITECTURES:
        images = [random.integers(0, 256, (50, 70, 3), dtype=np.uint8) for _ in range(2)]
        return AutoImageProcessor.from_pretrained(files.folder)(images, return_tensors="pt")["pixel_values"]
    waves = [random.normal(size=30 * 16000).astype(np.float32) for _ in range(2)]
    extractor = AutoFeatureExtractor.from_pretrained(files.folder)
    (values,) = extractor(waves, sampling_rate=16000, return_tensors="pt").values()
    return values


def test_the_tests_have_a_model_of_every_architecture() -> None:
    assert tuple(MEDIA) == IMAGE_ARCHITECTURES + AUDIO_ARCHITECTURES
    assert set(MEDIA) < set(known())


@pytest.mark.parametrize("name", MEDIA)
def test_shapes_and_costs_are_those_of_a_pass_of_what_the_processor_makes(
    described: Callable[[str], Described], name: str
) -> None:
    files, spec, trunk = described(name)
    inputs = prepared(name, files)
    assert (spec.modality, spec.inputs) == (
        "image" if name in IMAGE_ARCHITECTURES else "audio",
        (trunk.main_input_name,),
    )
    assert len(inputs.shape[1:]) == len(spec.input_shape)
    assert all(a in (b, None) for a, b in zip(spec.input_shape, inputs.shape[1:], strict=True))
    config = processor_config(files.folder, spec.modality)
    served: Any = ImageProcessor if spec.modality == "image" else AudioProcessor
    assert served.from_config(config).shape == spec.input_shape
    with torch.no_grad():
        output = trunk(**{spec.inputs[0]: inputs})
    hidden = output.last_hidden_state
    tokens = hidden if hidden.ndim == 3 else hidden.flatten(2).transpose(1, 2)
    assert (spec.max_tokens, spec.hidden_size) == tuple(tokens.shape[1:])
    assert spec.embedding.max_tokens == spec.max_tokens
    if spec.embedding.pooling == "pooler":
        assert output.pooler_output.flatten(1).shape == (2, spec.hidden_size)
    if spec.modality == "audio":
        assert spec.embedding.pooling == "mean"
    assert spec.parameters == sum(p.numel() for p in trunk.parameters())


@pytest.mark.parametrize("name", MEDIA)
def test_sites_are_what_peft_calls_all_linear_and_the_plain_convolutions(
    described: Callable[[str], Described], name: str
) -> None:
    files, spec, trunk = described(name)
    convolutions = {n: m for n, m in trunk.named_modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d)}
    assert spec.convolutions.keys() == {n for n, m in convolutions.items() if m.groups == 1}
    (bare,) = (one for one in spec.classes.values() if not one.prefix)
    linears = {n for n, m in trunk.named_modules() if isinstance(m, torch.nn.Linear)}
    assert bare.linears.keys() == linears | convolutions.keys()
    uncalled = {n for n in linears if n.endswith(NOT_CALLED.get(name, ()))}
    assert spec.sites.keys() == (linears - uncalled) | spec.convolutions.keys()

    peft: Any = get_peft_model(load_trunk(files.folder), LoraConfig(r=1, target_modules=sorted(spec.sites)))
    shapes = {n: p.shape for n, p in peft.named_parameters() if "lora_" in n}
    for site, (width_in, width_out) in spec.sites.items():
        a, b = (shapes[f"base_model.model.{site}.lora_{part}.default.weight"] for part in "AB")
        assert (a.numel(), b.numel()) == (width_in, width_out)
    if linears and not uncalled:
        everywhere = get_peft_model(load_trunk(files.folder), LoraConfig(r=1, target_modules="all-linear"))
        assert set(everywhere.targeted_module_names) == spec.sites.keys() - spec.convolutions.keys()


def test_peft_cannot_change_what_a_module_that_is_not_called_computes(
    described: Callable[[str], Described],
) -> None:
    """So an adapter that targets such a module has no effect in PEFT, and is refused."""
    files, spec, trunk = described("wavlm")
    targets = sorted({n for n in next(iter(spec.classes.values())).linears if n.endswith(NOT_CALLED["wavlm"])})
    assert targets
    assert not spec.sites.keys() & set(targets)
    changed: Any = get_peft_model(
        load_trunk(files.folder), LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    ).eval()
    wave = torch.randn(1, 4000)
    with torch.no_grad():
        assert torch.equal(changed(wave).last_hidden_state, trunk(wave).last_hidden_state)


@pytest.mark.parametrize("name", MEDIA)
def test_a_convolution_is_the_product_of_its_weight_with_patches_of_its_input(
    described: Callable[[str], Described], name: str
) -> None:
    """The geometry unfolds the input; the weight is that of the files."""
    files, spec, trunk = described(name)
    weights = FoundationWeights(files.folder, spec.model_type)
    for site, one in spec.convolutions.items():
        module = trunk.get_submodule(site)
        x = torch.randn(1, module.in_channels, *(20, 100)[2 - len(one.kernel) :])
        with torch.no_grad():
            expected = module(x).flatten(2)
        sizes = [(1, *numbers)[-2:] for numbers in (one.kernel, one.dilation, one.stride)]
        padding = (0, *one.padding)[-2:]
        x = x if x.ndim == 4 else x[:, :, None]
        patches = torch.nn.functional.unfold(x, sizes[0], sizes[1], padding, sizes[2])
        product = torch.tensor(weights.weight(site)) @ patches
        bias = weights.bias(site)
        torch.testing.assert_close(product if bias is None else product + torch.tensor(bias)[:, None], expected)


@pytest.mark.parametrize("name", MEDIA)
def test_norms_shift_states_of_rows_and_tokens_and_a_layer_is_one_of_the_trunk_s_list(
    described: Callable[[str], Described], name: str
) -> None:
    _, spec, trunk = described(name)
    seen: dict[str, tuple[int, ...]] = {}

    def record(norm: str) -> Any:
        def hook(module: Any, states: Any, out: torch.Tensor) -> None:
            seen[norm] = tuple(out.shape)

        return hook

    handles = [
        m.register_forward_hook(record(n)) for n, m in trunk.named_modules() if isinstance(m, torch.nn.LayerNorm)
    ]
    with torch.no_grad():
        trunk(**{spec.inputs[0]: torch.randn(3, *(n or 4000 for n in spec.input_shape))})
    for handle in handles:
        handle.remove()
    expected = {norm: shape[2] for norm, shape in seen.items() if len(shape) == 3 and shape[0] == 3}
    assert spec.norms == expected
    assert spec.layer_prefix == PREFIX.get(name, "encoder.layers.")
    layers: Any = trunk.get_submodule(spec.layer_prefix.rstrip("."))
    assert spec.layers == len(layers)
    assert {spec.layer_of(site) for site in spec.sites} >= set(range(spec.layers))


@pytest.mark.parametrize(
    ("name", "module", "layer"),
    [
        ("vit", "embeddings.patch_embeddings.projection", 0),
        ("resnet", "embedder.embedder.convolution", 0),
        ("mobilenet_v2", "conv_1x1.convolution", -1),
        ("siglip", "head.mlp.fc1", -1),
        ("siglip", "post_layernorm", -1),
        ("wav2vec2", "encoder.layer_norm", 0),
    ],
)
def test_a_module_outside_the_layers_belongs_to_the_nearest_one(
    described: Callable[[str], Described], name: str, module: str, layer: int
) -> None:
    _, spec, _ = described(name)
    assert spec.layer_of(module) == layer % spec.layers


def test_a_module_that_computes_after_the_layers_belongs_to_the_last_one_wherever_it_is_declared(
    tmp_path: Path,
) -> None:
    spec = describe(make_media_foundation("hubert", tmp_path, do_stable_layer_norm=True))
    assert spec.layer_of("encoder.layer_norm") == spec.layers - 1


@pytest.mark.parametrize("name", MEDIA)
def test_a_spec_is_the_same_after_json(described: Callable[[str], Described], name: str) -> None:
    files, spec, _ = described(name)
    read = FoundationSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert read == spec
    assert with_files(read, files) == spec
    assert not generates(files)
    assert not spec.lowercases


@pytest.mark.parametrize("name", [name for name in MEDIA if name not in BARE])
def test_the_head_of_the_class_for_classification_is_the_tensors_beside_the_trunk(
    described: Callable[[str], Described], name: str, tmp_path: Path
) -> None:
    _, spec, _ = described(name)
    task_class = spec.class_for(f"{spec.modality}-classification")
    kind = getattr(transformers, task_class.name)
    files = save_media_foundation(name, tmp_path, kind, num_labels=4)
    model = kind.from_pretrained(files.folder)
    outside = {n: tuple(p.shape) for n, p in model.named_parameters() if not n.startswith(task_class.prefix)}
    assert {n: tuple(4 if d is None else d for d in shape) for n, shape in task_class.head.items()} == outside
    weights = FoundationWeights(files.folder, name)
    inside = {n.removeprefix(task_class.prefix) for n, _ in model.named_parameters() if n not in outside}
    unread = {n for n in inside if n.endswith(("mask_token", "masked_spec_embed"))}
    statistics = {n for n in weights.names if n.endswith(("running_mean", "running_var"))}
    assert inside - unread == set(weights.names) - statistics
    assert set(weights.beside) == set(outside)


def test_only_architectures_without_a_class_for_classification_have_no_such_task(
    described: Callable[[str], Described],
) -> None:
    lacking = {n for n in MEDIA if not any(t.endswith("-classification") for t in described(n)[1].tasks)}
    assert lacking == BARE
    assert described("vit")[1].own_tasks == ("image-feature-extraction",)
    assert described("whisper")[1].own_tasks == ("audio-feature-extraction",)


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("vit", {"image_size": SIDE + 8}, rf"does not take inputs of the shape \(3, {SIDE}, {SIDE}\)"),
        (
            "wav2vec2",
            {"use_weighted_layer_sum": True},
            "config.json sets use_weighted_layer_sum, which",
        ),
        ("wav2vec2", {"add_adapter": True}, "config.json sets add_adapter, which is not served"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_with_the_setting(
    tmp_path: Path, name: str, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(FoundationError, match=problem):
        describe(make_media_foundation(name, tmp_path, **changes))


def test_beit_without_a_trained_pooler_embeds_with_its_class_token(tmp_path: Path) -> None:
    from transformers import BeitForMaskedImageModeling

    files = save_media_foundation("beit", tmp_path, BeitForMaskedImageModeling)
    assert describe(files).embedding.pooling == "cls"
