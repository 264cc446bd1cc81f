"""An image is preprocessed to the numbers of transformers' image processors with the PIL backend."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor
from transformers.image_utils import load_image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from rootstock.service.engine.core.errors import TooLarge
from rootstock.service.engine.encode.modalities.image.image_decoder import decode
from rootstock.service.engine.encode.modalities.image.image_processor import ImageProcessor
from rootstock.service.engine.encode.modalities.image.processor_config import UnservedProcessor
from rootstock.service.engine.encode.modalities.image.processor_defaults import DEFAULTS, OF_MODEL
from tests.service.engine.modalities.image_files import good_files, noise

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
FILES = good_files()

# The files of well-known models, from the hub, and variants of them.
CONFIGS: dict[str, dict[str, Any]] = {
    "ViT": {
        "do_normalize": True,
        "do_resize": True,
        "do_rescale": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "ViTImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 224, "width": 224},
    },
    "ViT of an old file": {
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ViTFeatureExtractor",
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "size": 224,
    },
    "ViT with defaults": {"image_processor_type": "ViTImageProcessor"},
    "ViT that is not square": {"image_processor_type": "ViTImageProcessorFast", "size": [96, 160], "resample": 0},
    "ViT with one mean": {"image_processor_type": "ViTImageProcessorPil", "image_mean": 0.4, "image_std": 0.3},
    "ViT without rescaling": {"image_processor_type": "ViTImageProcessor", "do_rescale": False, "size": 48},
    "ViT without normalisation": {"image_processor_type": "ViTImageProcessor", "do_normalize": None, "size": 48},
    "ViT that only crops": {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "do_center_crop": True,
        "crop_size": {"height": 61, "width": 88},
    },
    "DeiT": {
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "DeiTFeatureExtractor",
        **IMAGENET,
        "resample": 3,
        "size": 256,
    },
    "DINOv2": {
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        **IMAGENET,
        "image_processor_type": "BitImageProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 256},
    },
    "DINOv2 that pads": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 50},
        "crop_size": {"height": 83, "width": 120},
    },
    "BEiT": {
        "crop_size": 224,
        "do_center_crop": False,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "BeitFeatureExtractor",
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "reduce_labels": True,
        "resample": 2,
        "size": 224,
    },
    "Swin": {
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ViTFeatureExtractor",
        **IMAGENET,
        "resample": 3,
        "size": 224,
    },
    "ConvNeXT": {
        "crop_pct": 0.875,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "ConvNextFeatureExtractor",
        **IMAGENET,
        "resample": 3,
        "size": 224,
    },
    "ConvNeXT that crops again": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 90},
        "crop_pct": 0.95,
        "do_center_crop": True,
        "crop_size": {"height": 70, "width": 101},
    },
    "ConvNeXT of 384": {"image_processor_type": "ConvNextImageProcessor", "crop_pct": None},
    "ResNet": {
        "crop_pct": 0.875,
        "do_normalize": True,
        "do_resize": True,
        "do_rescale": True,
        **IMAGENET,
        "image_processor_type": "ConvNextImageProcessor",
        "resample": 3,
        "size": {"shortest_edge": 224},
    },
    "EfficientNet": {
        "crop_size": {"height": 289, "width": 289},
        "do_center_crop": False,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "EfficientNetImageProcessor",
        "image_std": [0.47853944, 0.4732864, 0.47434163],
        "include_top": True,
        "resample": 0,
        "rescale_factor": 0.00392156862745098,
        "rescale_offset": False,
        "size": {"height": 224, "width": 224},
    },
    "EfficientNet with an offset": {
        "image_processor_type": "EfficientNetImageProcessor",
        "include_top": False,
        "rescale_factor": 1 / 127.5,
        "rescale_offset": True,
        "do_normalize": False,
        "size": {"height": 65, "width": 64},
    },
    "EfficientNet without steps": {
        "image_processor_type": "EfficientNetImageProcessor",
        "rescale_offset": True,
        "do_rescale": False,
        "do_normalize": False,
        "size": {"height": 65, "width": 64},
    },
    "MobileNetV2": {
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "MobileNetV2ImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 256},
    },
    "CLIP": {
        "crop_size": 224,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        **CLIP,
        "resample": 3,
        "size": 224,
    },
    "SigLIP": {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "SiglipProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 224, "width": 224},
    },
    **{
        f"ViT with filter {number}": {"image_processor_type": "ViTImageProcessor", "resample": number, "size": 40}
        for number in range(6)
    },
}


@cache
def oracle(name: str) -> Any:
    with TemporaryDirectory() as folder:
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(CONFIGS[name]))
        return AutoImageProcessor.from_pretrained(folder, backend="pil")


def expected(name: str, image: Image.Image) -> npt.NDArray[np.float32]:
    pixels: npt.NDArray[np.float32] = oracle(name)(image, return_tensors="np")["pixel_values"][0]
    return pixels


def assert_equal(pixels: npt.NDArray[np.float32], reference: npt.NDArray[Any], kind: str = "") -> None:
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, reference, rtol=1e-6, atol=1e-6, err_msg=kind)


SIZES = st.integers(1, 400)


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=5)
@given(SIZES, SIZES, st.integers(0, 2**32))
@example(1, 1, 0)
@example(1, 300, 0)
@example(300, 2, 0)
@example(1024, 600, 0)
def test_an_image_of_any_size_has_the_numbers_of_transformers(
    name: str, width: int, height: int, seed: int
) -> None:
    image = noise(width, height, 3, seed)
    processor = ImageProcessor.from_config(CONFIGS[name])
    pixels = processor(image)
    assert pixels.shape == processor.shape
    assert_equal(pixels, expected(name, image))


@pytest.mark.parametrize("name", ["DINOv2", "ConvNeXT", "ViT of an old file"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_of_any_format_has_the_numbers_of_transformers(name: str) -> None:
    processor = ImageProcessor.from_config(CONFIGS[name])
    for kind, data in FILES.items():
        image = load_image(base64.b64encode(data).decode())
        np.testing.assert_allclose(
            processor(decode(data)), expected(name, image), rtol=1e-6, atol=1e-6, err_msg=kind
        )


@settings(max_examples=30)
@given(SIZES, SIZES, st.sampled_from([2, 3]), st.sampled_from([{"height": 64, "width": 80}, 224]))
def test_dinov3_resizes_values_that_are_not_rounded(width: int, height: int, resample: int, size: object) -> None:
    """Its processor needs torchvision, whose `resize` is this call of torch. Torch is 1e-5 off in 32 bits."""
    image = noise(width, height)
    config = {"image_processor_type": "DINOv3ViTImageProcessorFast", "resample": resample, "size": size}
    processor = ImageProcessor.from_config(config)
    values = torch.from_numpy(np.asarray(image, np.float64).transpose(2, 0, 1).copy()).unsqueeze(0) / 255
    mode = {2: "bilinear", 3: "bicubic"}[resample]
    resized = torch.nn.functional.interpolate(
        values, processor.shape[1:], mode=mode, align_corners=False, antialias=True
    )
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET.values())
    reference = ((resized[0] - mean) / deviation).numpy()
    np.testing.assert_allclose(processor(image), reference, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_key_that_is_absent_has_the_default_of_transformers(name: str) -> None:
    if name == "DINOv3ViTImageProcessor":
        pytest.skip("this class needs torchvision; the test above compares its numbers")
    reference = getattr(transformers, name + "Pil")
    for key, value in DEFAULTS[name].items():
        given_value = getattr(reference, key, None)
        assert (tuple(given_value) if isinstance(given_value, list) else given_value) == value, key
    for key in ("crop_pct", "rescale_offset", "include_top", "crop_size", "size", "do_convert_rgb", "do_pad"):
        assert hasattr(reference, key) <= (key in DEFAULTS[name] or getattr(reference, key, None) is None), key


@pytest.mark.parametrize("model_type", OF_MODEL)
def test_a_config_without_a_type_is_read_by_the_model_s(model_type: str) -> None:
    assert OF_MODEL[model_type] == IMAGE_PROCESSOR_MAPPING_NAMES[model_type]["torchvision"]
    config = {"size": 64, "do_center_crop": OF_MODEL[model_type] != "DINOv3ViTImageProcessor", "crop_size": 48}
    if model_type != "dinov3_vit":
        assert ImageProcessor.from_config(config, model_type).shape == (3, 48, 48)
    with pytest.raises(UnservedProcessor, match="image_processor_type"):
        ImageProcessor.from_config(config, "dpt")


def test_the_config_of_a_whole_processor_is_read_too() -> None:
    nested = {"processor_class": "CLIPProcessor", "image_processor": CONFIGS["CLIP"]}
    assert ImageProcessor.from_config(nested).shape == (3, 224, 224)


VIT = {"image_processor_type": "ViTImageProcessor"}
CONVNEXT = {"image_processor_type": "ConvNextImageProcessor"}
DINOV3 = {"image_processor_type": "DINOv3ViTImageProcessor"}
UNSERVED: dict[str, tuple[dict[str, Any], str]] = {
    "another type": ({"image_processor_type": "Siglip2ImageProcessor"}, "Siglip2ImageProcessor"),
    "no type": ({"size": 224}, "image_processor_type"),
    "padding": ({**VIT, "do_pad": True, "pad_size": {"height": 300, "width": 300}}, "do_pad"),
    "a square CLIP": ({"image_processor_type": "CLIPImageProcessor", "use_square_size": True}, "use_square_size"),
    "a longest edge": ({**VIT, "size": {"shortest_edge": 800, "longest_edge": 1333}}, "size="),
    "a number of pixels": ({**VIT, "size": {"min_pixels": 8, "max_pixels": 99}}, "size="),
    "no size": ({**VIT, "size": None}, "size="),
    "an empty size": ({**VIT, "size": {"height": 0, "width": 224}}, "at least 1"),
    "a size of parts of pixels": ({**VIT, "size": {"height": 24.5, "width": 224}}, "whole number"),
    "a size that is true": ({**VIT, "size": [True, True]}, "whole number"),
    "a crop by an edge": ({**VIT, "do_center_crop": True, "crop_size": {"shortest_edge": 9}}, "crop_size"),
    "no crop size": ({**VIT, "do_center_crop": True}, "crop_size"),
    "another filter": ({**VIT, "resample": 99}, "resample"),
    "no filter": ({**VIT, "resample": None}, "resample"),
    "no factor": ({**VIT, "rescale_factor": None}, "rescale_factor"),
    "a mean of two channels": ({**VIT, "image_mean": [0.5, 0.5]}, "image_mean"),
    "a mean that is text": ({**VIT, "image_mean": ["0.5"] * 3}, "image_mean"),
    "no deviation": ({**VIT, "image_std": None}, "image_std"),
    "a deviation of zero": ({**VIT, "image_std": [0.5, 0, 0.5]}, "image_std"),
    "values that are not finite": ({**VIT, "image_std": [1e-46] * 3}, "finite"),
    "ConvNeXT with a height": ({**CONVNEXT, "size": {"height": 9, "width": 9}}, "shortest_edge"),
    "ConvNeXT without a share": ({**CONVNEXT, "size": 224, "crop_pct": None}, "crop_pct"),
    "ConvNeXT with a share of nothing": ({**CONVNEXT, "size": 224, "crop_pct": 0}, "crop_pct"),
    "DINOv3 with a crop": ({**DINOV3, "do_center_crop": True, "crop_size": 9}, "do_center_crop"),
    "DINOv3 without rescaling": ({**DINOV3, "do_rescale": False}, "do_rescale"),
    "DINOv3 with the nearest pixel": ({**DINOV3, "resample": 0}, "resample"),
    "images of different heights": ({**VIT, "size": {"shortest_edge": 224}}, "does not crop"),
    "images of any size": ({**VIT, "do_resize": False}, "neither resizes nor crops"),
}


@pytest.mark.parametrize(("config", "named"), UNSERVED.values(), ids=UNSERVED)
def test_a_processor_that_is_not_computed_is_refused_when_loaded(config: dict[str, Any], named: str) -> None:
    with pytest.raises(UnservedProcessor, match=named):
        ImageProcessor.from_config(config)


def test_an_image_that_becomes_too_long_when_resized_is_refused() -> None:
    with pytest.raises(TooLarge, match="less narrow"):
        ImageProcessor.from_config(CONFIGS["DINOv2"])(Image.new("RGB", (1, 800)))
