"""Random tiny foundations for images and audio, small labelled folders, and recipes on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

SIZE = 28


@pytest.fixture(scope="session")
def tiny_dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foundation folder: DINOv2 with two layers of width 32, on images of 28 pixels."""
    import torch
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("foundation") / "tiny-dinov2"
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=SIZE, patch_size=14
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}, resample=3
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foundation folder: Wav2Vec2 with two layers of width 32."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    folder = tmp_path_factory.mktemp("foundation") / "tiny-wav2vec2"
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_dim=(16, 16),
        conv_stride=(20, 16), conv_kernel=(20, 16), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        mask_time_prob=0.0, layerdrop=0.0,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16000).save_pretrained(folder)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of forty PNGs of two labels, beside the recipe: the upper or the lower half is bright."""
    from PIL import Image

    chance = np.random.default_rng(0)
    for label, rows in (("up", slice(0, 14)), ("down", slice(14, 28))):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(20):
            pixels = chance.integers(0, 120, (SIZE, SIZE, 3), np.uint8)
            pixels[rows] += 100
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i:02}.png")
    return tmp_path / "images"


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder of forty WAVs of 8 kHz and two lengths, of two labels, beside the recipe: a low or a high tone."""
    import soundfile

    chance = np.random.default_rng(0)
    for label, pitch in (("low", 200), ("high", 2000)):
        (tmp_path / "recordings" / label).mkdir(parents=True)
        for i in range(20):
            time = np.arange(800 + 400 * (i % 2)) / 8000
            samples = np.sin(2 * np.pi * pitch * time) + 0.1 * chance.standard_normal(len(time))
            soundfile.write(tmp_path / "recordings" / label / f"{i:02}.wav", 0.5 * samples, 8000)
    return tmp_path / "recordings"


@pytest.fixture
def write_media_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe; keyword arguments replace its keys, dicts one level deep."""

    def write(foundation: Path, folder: Path, **changes: Any) -> Path:
        kind = "image" if folder.name == "images" else "audio"
        value: dict[str, Any] = {
            "task_type": f"{kind}-classification",
            "base_model": str(foundation),
            "name": "tiny",
            "license": "cc-by-4.0",
            "description": "A test.",
            "data": {
                f"{kind}_folder": folder.name,
                "splits": {"test_size": 0.25, "val_size": 0.25, "seed": 1},
            },
            "peft": {"method": "lora", "r": 4, "layers_to_transform": [1]},
            "training": {"num_train_epochs": 2, "per_device_train_batch_size": 8, "contrastive_epochs": 0},
        }
        for key, change in changes.items():
            value[key] = {**value.get(key, {}), **change} if isinstance(change, dict) else change
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in value.items() if v is not None}), encoding="utf-8")
        return path

    return write
