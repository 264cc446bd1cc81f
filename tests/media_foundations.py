"""Tiny random foundations that read images or recordings, one an architecture, as transformers writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel

from rootstock.adapters.foundation.location import FoundationFiles, locate

SIDE = 32
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": SIDE, "patch_size": 8,
}  # fmt: skip
_DINO = {key: value for key, value in _VIT.items() if key != "intermediate_size"} | {"mlp_ratio": 2}
_STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": SIDE}
_TEXT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "vocab_size": 30, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
_TOWERS = {"vision_config": _VIT, "text_config": _TEXT}
_WAVES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": [8, 8], "conv_kernel": [80, 5], "conv_stride": [64, 5], "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 12,
}  # fmt: skip
_SQUARE = {"size": {"height": SIDE, "width": SIDE}}
_CROP = {"size": {"shortest_edge": SIDE + 8}, "crop_size": {"height": SIDE, "width": SIDE}}


@dataclass(frozen=True)
class MediaArchitecture:
    """An architecture: the sizes of a tiny config, the class of its processor, and the processor's options."""

    name: str
    config: Mapping[str, Any]
    processor: str
    options: Mapping[str, Any] = field(default_factory=dict)


MEDIA = {
    architecture.name: architecture
    for architecture in (
        MediaArchitecture("vit", _VIT, "ViTImageProcessor", _SQUARE),
        MediaArchitecture(
            "deit", _VIT, "DeiTImageProcessor", {**_CROP, "size": {"height": SIDE + 8, "width": SIDE + 8}}
        ),
        MediaArchitecture("dinov2", _DINO, "BitImageProcessor", _CROP | _IMAGENET),
        MediaArchitecture(
            "dinov2_with_registers", _DINO | {"num_register_tokens": 2}, "BitImageProcessor", _CROP | _IMAGENET
        ),
        # transformers' own class for it needs torchvision. The options are the same.
        MediaArchitecture(
            "dinov3_vit", _VIT | {"num_register_tokens": 2}, "ViTImageProcessor", _SQUARE | _IMAGENET
        ),
        MediaArchitecture("beit", _VIT | {"use_relative_position_bias": True}, "BeitImageProcessor", _SQUARE),
        MediaArchitecture(
            "swin",
            {
                "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4, "image_size": SIDE,
                "patch_size": 2,
            },
            "ViTImageProcessor",
            _SQUARE | _IMAGENET,
        ),
        MediaArchitecture("convnext", _STAGES, "ConvNextImageProcessor", {"size": {"shortest_edge": SIDE}}),
        MediaArchitecture("convnextv2", _STAGES, "ConvNextImageProcessor", {"size": {"shortest_edge": SIDE}}),
        MediaArchitecture(
            "resnet",
            {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "bottleneck"},
            "ConvNextImageProcessor",
            {"size": {"shortest_edge": SIDE}},
        ),
        MediaArchitecture(
            "efficientnet",
            {
                "image_size": SIDE, "width_coefficient": 0.5, "depth_coefficient": 1.0, "depth_divisor": 8,
                "kernel_sizes": [3, 5], "in_channels": [32, 16], "out_channels": [16, 320],
                "strides": [1, 2], "num_block_repeats": [1, 2], "expand_ratios": [1, 2], "hidden_dim": 640,
            },
            "EfficientNetImageProcessor",
            _SQUARE,
        ),
        MediaArchitecture(
            "mobilenet_v2", {"image_size": SIDE, "depth_multiplier": 0.25}, "MobileNetV2ImageProcessor", _CROP
        ),
        MediaArchitecture(
            "clip", _TOWERS | {"projection_dim": 16}, "CLIPImageProcessor", _CROP
        ),
        MediaArchitecture("clip_vision_model", _VIT, "CLIPImageProcessor", _CROP),
        MediaArchitecture("siglip", _TOWERS, "SiglipImageProcessor", _SQUARE),
        MediaArchitecture("siglip_vision_model", _VIT, "SiglipImageProcessor", _SQUARE),
        MediaArchitecture("wav2vec2", _WAVES, "Wav2Vec2FeatureExtractor"),
        MediaArchitecture("hubert", _WAVES, "Wav2Vec2FeatureExtractor"),
        MediaArchitecture("wavlm", _WAVES, "Wav2Vec2FeatureExtractor"),
        MediaArchitecture(
            "audio-spectrogram-transformer",
            {
                "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
                "max_length": 64, "num_mel_bins": 32,
            },
            "ASTFeatureExtractor",
            {"max_length": 64, "num_mel_bins": 32},
        ),
        MediaArchitecture(
            "whisper",
            {
                "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
                "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 64,
                "max_source_positions": 50, "num_mel_bins": 16, "pad_token_id": 1, "bos_token_id": 1,
                "eos_token_id": 1, "decoder_start_token_id": 2, "begin_suppress_tokens": [1],
                "classifier_proj_size": 12,
            },
            "WhisperFeatureExtractor",
            {"feature_size": 16, "chunk_length": 1},
        ),
    )
}  # fmt: skip


def make_media_foundation(name: str, folder: Path, seed: int = 0, **changes: Any) -> FoundationFiles:
    """Save a random foundation of an architecture, with `changes` of its config, and its processor."""
    return save_media_foundation(name, folder, AutoModel, seed, **changes)


def save_media_foundation(name: str, folder: Path, kind: Any, seed: int = 0, **changes: Any) -> FoundationFiles:
    """Save a random model of a class of transformers that has the trunk of an architecture."""
    architecture = MEDIA[name]
    config = AutoConfig.for_model(name, **{**architecture.config, **changes})
    torch.manual_seed(seed)
    model = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    model.save_pretrained(folder)
    getattr(transformers, architecture.processor)(**architecture.options).save_pretrained(folder)
    return locate(str(folder))
