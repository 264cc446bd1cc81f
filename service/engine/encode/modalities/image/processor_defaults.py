"""The defaults of transformers' image processors, and the processors of model types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL.Image import Resampling

_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_CLIP = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
_ALL = {
    "do_resize": True,
    "do_center_crop": None,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "default_to_square": True,
}
_CLIP_STEPS = {
    **_ALL,
    **_CLIP,
    "resample": Resampling.BICUBIC,
    "size": {"shortest_edge": 224},
    "default_to_square": False,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_convert_rgb": True,
}
_SQUARE = {"height": 224, "width": 224}

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "ViTImageProcessor": {**_ALL, **_HALF, "resample": Resampling.BILINEAR, "size": _SQUARE},
    "DeiTImageProcessor": {
        **_ALL,
        **_HALF,
        "resample": Resampling.BICUBIC,
        "size": {"height": 256, "width": 256},
        "do_center_crop": True,
        "crop_size": _SQUARE,
    },
    "BitImageProcessor": _CLIP_STEPS,
    "CLIPImageProcessor": _CLIP_STEPS,
    "DINOv3ViTImageProcessor": {**_ALL, **_IMAGENET, "resample": Resampling.BILINEAR, "size": _SQUARE},
    "BeitImageProcessor": {
        **_ALL,
        **_HALF,
        "resample": Resampling.BICUBIC,
        "size": _SQUARE,
        "do_center_crop": False,
        "crop_size": _SQUARE,
    },
    "ConvNextImageProcessor": {
        **_ALL,
        **_HALF,
        "resample": Resampling.BICUBIC,
        "size": {"shortest_edge": 384},
        "default_to_square": False,
        "crop_pct": 224 / 256,
    },
    "EfficientNetImageProcessor": {
        **_ALL,
        **_HALF,
        "resample": Resampling.BICUBIC,
        "size": {"height": 346, "width": 346},
        "do_center_crop": False,
        "crop_size": {"height": 289, "width": 289},
        "rescale_offset": False,
        "include_top": True,
    },
    "MobileNetV2ImageProcessor": {
        **_ALL,
        **_HALF,
        "resample": Resampling.BILINEAR,
        "size": {"shortest_edge": 256},
        "default_to_square": False,
        "do_center_crop": True,
        "crop_size": _SQUARE,
    },
    "SiglipImageProcessor": {
        **_ALL,
        **_HALF,
        "resample": Resampling.BICUBIC,
        "size": _SQUARE,
        "default_to_square": False,
        "do_convert_rgb": True,
    },
}

# The processor of a model type, for configs that name none.
OF_MODEL: Mapping[str, str] = {
    "beit": "BeitImageProcessor",
    "clip": "CLIPImageProcessor",
    "convnext": "ConvNextImageProcessor",
    "convnextv2": "ConvNextImageProcessor",
    "deit": "DeiTImageProcessor",
    "dinov2": "BitImageProcessor",
    "dinov3_vit": "DINOv3ViTImageProcessor",
    "efficientnet": "EfficientNetImageProcessor",
    "mobilenet_v2": "MobileNetV2ImageProcessor",
    "resnet": "ConvNextImageProcessor",
    "siglip": "SiglipImageProcessor",
    "swin": "ViTImageProcessor",
    "swinv2": "ViTImageProcessor",
    "vit": "ViTImageProcessor",
}
