"""What a folder of an image or audio foundation must hold, and what its fingerprint covers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModel, PretrainedConfig

from rootstock.adapters.foundation.families import identifying_config
from rootstock.adapters.foundation.location import FoundationError, FoundationFiles, fingerprint, locate
from rootstock.adapters.foundation.processor_files import CONFIG, input_shape, processor_config
from tests.media_foundations import MEDIA, SIDE, make_media_foundation, save_media_foundation

WEIGHTS = "model.safetensors"
# The settings of transformers' configs that change no pass of the trunk. They belong to training, to heads, to
# parts that are not served, and to backbones, whose outputs are others.
OTHER_SETTINGS = {
    "activation_dropout", "apply_spec_augment", "attention_dropout", "attention_probs_dropout_prob",
    "classifier_dropout_prob", "drop_connect_rate", "drop_path_rate", "dropout", "dropout_rate",
    "encoder_layerdrop", "feat_proj_dropout", "feat_quantizer_dropout", "final_dropout", "hidden_dropout",
    "hidden_dropout_prob", "layerdrop", "init_std", "initializer_factor", "initializer_range", "layerscale_value",
    "mask_feature_length", "mask_feature_min_masks", "mask_feature_prob", "mask_time_length",
    "mask_time_min_masks", "mask_time_prob", "batch_norm_momentum", "pos_embed_jitter", "pos_embed_rescale",
    "pos_embed_shift", "use_mask_token", "contrastive_logits_temperature", "ctc_loss_reduction",
    "ctc_zero_infinity", "diversity_loss_weight", "num_negatives", "semantic_loss_ignore_index",
    "add_fpn", "auxiliary_channels", "auxiliary_concat_input", "auxiliary_loss_weight", "auxiliary_num_convs",
    "classifier_proj_size", "codevector_dim", "num_codevector_groups", "num_codevectors_per_group",
    "num_ctc_classes", "pool_scales", "proj_codevector_dim", "projection_dim", "tdnn_dilation", "tdnn_dim",
    "tdnn_kernel", "use_auxiliary_head", "vocab_size", "xvector_output_dim", "encoder_stride",
    "begin_suppress_tokens", "bos_token_id", "decoder_attention_heads", "decoder_ffn_dim", "decoder_layerdrop",
    "decoder_layers", "decoder_start_token_id", "eos_token_id", "max_target_positions", "median_filter_width",
    "pad_token_id", "suppress_tokens", "tie_word_embeddings", "use_cache", "text_config", "vision_config",
    "apply_layernorm", "out_features", "out_indices", "reshape_hidden_states", "stage_names",
    # These follow from other settings.
    "num_layers",
    # The server refuses them, and the settings of the layers that they add.
    "use_weighted_layer_sum", "add_adapter", "adapter_kernel_size", "adapter_stride", "num_adapter_layers",
    "output_hidden_size",
}  # fmt: skip
CROPS = {"do_center_crop": True}


def change(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_media_foundation("vit", tmp_path_factory.mktemp("vit")).folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.mark.parametrize("name", MEDIA)
def test_every_setting_that_can_change_a_pass_enters_the_fingerprint(name: str) -> None:
    """Another setting of an architecture, in a later transformers, has to be put on one side here."""
    config = AutoConfig.for_model(name).to_dict()
    identifying = identifying_config(config)
    identifying = identifying.get("vision_config", identifying)
    stated = config.get("vision_config", config).keys() - PretrainedConfig().to_dict().keys()
    assert stated - identifying.keys() - OTHER_SETTINGS == set()
    assert not identifying.keys() & OTHER_SETTINGS


@pytest.mark.parametrize("name", MEDIA)
def test_each_identifying_setting_changes_the_fingerprint(name: str, tmp_path: Path) -> None:
    files = make_media_foundation(name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    before = fingerprint(files.folder)
    assert fingerprint(files.folder) == before
    for key, value in identifying_config(config).items():
        if key == "model_type":
            continue
        changes = [{**value, inner: "another"} for inner in value] if isinstance(value, dict) else ["another"]
        for changed in changes:
            change(tmp_path, "config.json", **{key: changed})
            assert fingerprint(files.folder) != before, (key, changed)
        change(tmp_path, "config.json", **{key: value})
    assert fingerprint(files.folder) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"image_mean": [0.5, 0.5, 0.4]},
        {"resample": 3},
        {"do_rescale": False},
        {"size": {"height": SIDE, "width": SIDE + 8}},
        {"image_processor_type": "BitImageProcessor"},
    ],
)
def test_what_the_processor_makes_of_an_input_changes_it(folder: Path, changes: dict[str, Any]) -> None:
    before = fingerprint(folder)
    change(folder, CONFIG, **changes)
    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    "changes",
    [
        {"image_processor_type": "ViTImageProcessorFast"},
        {"image_processor_type": "absent", "feature_extractor_type": "ViTFeatureExtractor"},
        {"processor_class": "CLIPProcessor", "data_format": "channels_first", "device": None},
    ],
)
def test_another_name_of_the_processor_s_class_does_not_change_it(folder: Path, changes: dict[str, Any]) -> None:
    before = fingerprint(folder)
    change(folder, CONFIG, **changes)
    assert fingerprint(folder) == before


def test_one_bit_of_one_weight_changes_it(folder: Path) -> None:
    before, tensors = fingerprint(folder), load_file(folder / WEIGHTS)
    kernel = tensors["embeddings.patch_embeddings.projection.weight"]
    kernel.flat[-1] = np.nextafter(kernel.flat[-1], np.float32(1))
    save_file(tensors, folder / WEIGHTS)
    assert fingerprint(folder) != before


def test_vectors_of_pre_training_and_counters_do_not_change_it(tmp_path: Path) -> None:
    for name, tensor in (
        ("dinov2", "embeddings.mask_token"),
        ("hubert", "masked_spec_embed"),
        ("resnet", "embedder.embedder.normalization.num_batches_tracked"),
    ):
        folder = make_media_foundation(name, tmp_path / name).folder
        before, tensors = fingerprint(folder), load_file(folder / WEIGHTS)
        save_file({n: np.array(t + 1) if n == tensor else t for n, t in tensors.items()}, folder / WEIGHTS)
        assert fingerprint(folder) == before
        del tensors[tensor]
        save_file(tensors, folder / WEIGHTS)
        assert fingerprint(folder) == before


@pytest.mark.parametrize("name", ["vit", "dinov2", "dinov3_vit", "beit", "swin", "wav2vec2"])
def test_a_file_with_the_modules_own_names_has_the_fingerprint_of_one_with_the_old_names(
    name: str, tmp_path: Path
) -> None:
    """transformers writes the names of its earlier versions."""
    options = {"use_shared_relative_position_bias": True} if name == "beit" else {}
    folder = make_media_foundation(name, tmp_path, **options).folder
    model = AutoModel.from_pretrained(folder)
    before, own = fingerprint(folder), {n: t.numpy() for n, t in model.state_dict().items()}
    written = load_file(folder / WEIGHTS)
    if name == "wav2vec2":
        # torch's names of a normalised weight before version 2.
        own = {
            n.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): t
            for n, t in own.items()
        }
    assert own.keys() != written.keys()
    save_file(own, folder / WEIGHTS)
    assert fingerprint(folder) == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dinov2", "Dinov2ForImageClassification"),
        ("swin", "SwinForImageClassification"),
        ("resnet", "ResNetForImageClassification"),
        ("clip", "CLIPForImageClassification"),
        ("wav2vec2", "Wav2Vec2ForCTC"),
        ("wavlm", "WavLMForSequenceClassification"),
        ("whisper", "WhisperForConditionalGeneration"),
        ("whisper", "WhisperForAudioClassification"),
        ("audio-spectrogram-transformer", "ASTForAudioClassification"),
    ],
)
def test_a_head_on_the_same_trunk_has_the_same_fingerprint(name: str, kind: str, tmp_path: Path) -> None:
    bare = make_media_foundation(name, tmp_path / "bare").folder
    model = getattr(transformers, kind).from_pretrained(bare)
    shutil.copytree(bare, tmp_path / "headed")
    model.save_pretrained(tmp_path / "headed")
    assert load_file(tmp_path / "headed" / WEIGHTS).keys() != load_file(bare / WEIGHTS).keys()
    assert fingerprint(tmp_path / "headed") == fingerprint(bare)


def test_a_folder_needs_no_tokenizer(folder: Path) -> None:
    assert not (folder / "tokenizer.json").exists()
    (folder / "tokenizer_config.json").write_text(json.dumps({"truncation_side": "left"}))
    assert locate(str(folder)) == FoundationFiles(folder, "copy", None)


def test_a_processor_s_config_inside_that_of_a_processor_of_several_inputs_is_taken_first(folder: Path) -> None:
    part = json.loads((folder / CONFIG).read_text())
    before = fingerprint(folder)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": part}))
    change(folder, CONFIG, resample=0)
    assert fingerprint(folder) == before
    (folder / CONFIG).unlink()
    assert locate(str(folder)).folder == folder
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": part}))
    with pytest.raises(FoundationError, match=r"holds no preprocessor_config\.json, and no processor_config"):
        locate(str(folder))


def test_pickled_weights_alone_are_refused_and_not_read(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nabort\n(tR.")
    with pytest.raises(FoundationError, match=r"no \*\.safetensors; pickled weights are never read"):
        locate(str(folder))


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        ({"size": 224}, (224, 224)),
        ({"size": {"height": 32, "width": 48}}, (32, 48)),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 200}, **CROPS}, (224, 200)),
        ({"size": {"shortest_edge": 256}, "image_processor_type": "CLIPFeatureExtractor"}, (224, 224)),
        ({"size": {"height": 99, "width": 99}, "image_processor_type": "BeitImageProcessor"}, (99, 99)),
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, (224, 224)),
        ({"size": 346, "crop_size": {"height": 9, "width": 9}, "do_center_crop": False}, (346, 346)),
        ({"do_resize": False, "do_center_crop": True, "crop_size": 64}, (64, 64)),
        ({"size": {"shortest_edge": 384}, "image_processor_type": "ConvNextFeatureExtractor"}, (384, 384)),
        ({"size": {"shortest_edge": 384}, "image_processor_type": "ViTImageProcessor"}, None),
        ({"size": {"longest_edge": 384}}, None),
        ({"size": {"height": 224, "width": 224}, "do_resize": False}, None),
        ({"size": {"height": 0, "width": 224}}, None),
        ({"size": [224, 224]}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_size_of_an_image_is_that_of_its_crop_or_its_fixed_size(
    processor: dict[str, Any], size: tuple[int, int] | None, tmp_path: Path
) -> None:
    if size is not None:
        assert input_shape(tmp_path, {"model_type": "vit"}, processor, "image") == (3, *size)
        return
    with pytest.raises(FoundationError, match="gives images no fixed size"):
        input_shape(tmp_path, {"model_type": "vit"}, processor, "image")


def test_a_model_of_other_than_three_channels_is_refused(folder: Path) -> None:
    change(folder, "config.json", num_channels=1)
    with pytest.raises(FoundationError, match="reads images of 1 channels; choose a model for RGB"):
        locate(str(folder))


@pytest.mark.parametrize(
    ("name", "changes", "shape"),
    [
        ("wav2vec2", {}, (None,)),
        ("whisper", {}, (16, 100)),
        ("whisper", {"chunk_length": "absent", "feature_size": "absent"}, (80, 3000)),
        ("audio-spectrogram-transformer", {}, (64, 32)),
        ("audio-spectrogram-transformer", {"max_length": "absent", "num_mel_bins": "absent"}, (1024, 128)),
        ("wavlm", {"sampling_rate": "16000"}, "sampling_rate '16000'; expected a whole number over 0"),
        ("whisper", {"hop_length": 0}, "hop_length 0; expected a whole number over 0"),
    ],
)
def test_the_shape_of_a_recording_is_that_of_its_feature_extractor(
    name: str, changes: dict[str, Any], shape: tuple[int | None, ...] | str, tmp_path: Path
) -> None:
    folder = make_media_foundation(name, tmp_path).folder
    change(folder, CONFIG, **changes)
    config = json.loads((folder / "config.json").read_text())
    processor = processor_config(folder, "audio")
    if not isinstance(shape, str):
        assert input_shape(folder, config, processor, "audio") == shape
        return
    with pytest.raises(FoundationError, match=shape):
        locate(str(folder))


def test_a_config_of_two_towers_counts_only_what_the_images_tower_computes(tmp_path: Path) -> None:
    folder = save_media_foundation("clip", tmp_path, AutoModel).folder
    before = fingerprint(folder)
    config = json.loads((folder / "config.json").read_text())
    change(folder, "config.json", text_config={**config["text_config"], "hidden_act": "relu"}, projection_dim=8)
    assert fingerprint(folder) == before
    change(folder, "config.json", vision_config={**config["vision_config"], "hidden_act": "relu"})
    assert fingerprint(folder) != before
