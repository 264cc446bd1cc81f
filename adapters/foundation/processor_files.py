"""Reads how a foundation prepares images or recordings: the config of its image processor or feature extractor.

The server prepares inputs by this config alone, so the fingerprint covers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from rootstock.adapters.foundation.files import FoundationError, read_json
from rootstock.adapters.tasks import Modality

CONFIG = "preprocessor_config.json"
# This file holds the configs of all parts of a processor. Like transformers, prefer the part in it.
_PARTS = "processor_config.json"
_PART = {"image": "image_processor", "audio": "feature_extractor"}
# Keys that name classes of transformers or forms of its outputs, and a table that other keys imply.
_UNREAD = {
    "processor_class", "auto_map", "_valid_processor_keys", "return_attention_mask", "return_tensors",
    "data_format", "input_data_format", "device", "disable_grouping", "use_fast", "mel_filters",
    "image_processor_type", "feature_extractor_type",
}  # fmt: skip
_TYPES = ("image_processor_type", "feature_extractor_type")
# The same class has had several names.
_ENDINGS = ("Fast", "Pil", "ImageProcessor", "FeatureExtractor")
# Architectures that read the samples of a recording as they are.
_WAVES = ("wav2vec2", "hubert", "wavlm")
# The length of the longest recording for them.
_LONGEST_SECONDS = 30
_CHANNELS = 3
# Image processors that crop unless their config says otherwise, by default to this size.
_CROPPING = ("Bit", "CLIP", "DeiT", "MobileNetV2")
_CROP = 224


def processor_config(folder: Path, modality: Modality) -> dict[str, Any]:
    """Return the config of the image processor or feature extractor in a folder.

    Raise FoundationError if there is none.
    """
    part = _PART[modality]
    if (folder / _PARTS).is_file() and isinstance(nested := read_json(folder / _PARTS).get(part), dict):
        return nested
    if not (folder / CONFIG).is_file():
        raise FoundationError(
            f"{folder} holds no {CONFIG}, and no {_PARTS} with {part}; save the processor of the model there"
        )
    return read_json(folder / CONFIG)


def canonical_processor(processor: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a processor's config that decides what it makes of an input."""
    return {"type": _kind(processor), **{key: processor[key] for key in processor if key not in _UNREAD}}


def input_shape(
    folder: Path, config: Mapping[str, Any], processor: Mapping[str, Any], modality: Modality
) -> tuple[int | None, ...]:
    """Return the shape of one prepared input; None is a length that differs between inputs.

    `config` is the content of config.json. Raise FoundationError if inputs have no such shape.
    """
    if modality == "audio":
        return _audio_shape(folder, config, processor)
    tower = config.get("vision_config")
    stated = tower if isinstance(tower, dict) else config
    if (channels := stated.get("num_channels", _CHANNELS)) != _CHANNELS:
        raise FoundationError(
            f"{folder}: the model reads images of {channels!r} channels; choose a model for RGB, which has "
            f"{_CHANNELS}"
        )
    return (_CHANNELS, *_image_size(folder, processor))


def longest_input(shape: tuple[int | None, ...], processor: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of the longest input of a shape: 30 s of a wave form."""
    rate = int(processor.get("sampling_rate", 16000))
    return tuple(_LONGEST_SECONDS * rate if length is None else length for length in shape)


def _kind(processor: Mapping[str, Any]) -> str:
    name = next((str(processor[key]) for key in _TYPES if processor.get(key)), "")
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name


def _image_size(folder: Path, processor: Mapping[str, Any]) -> tuple[int, int]:
    """Return the height and width that an image processor makes of every image."""
    crop, size = _sides(processor.get("crop_size", _CROP)), _sides(processor.get("size"))
    if processor.get("do_center_crop", _kind(processor) in _CROPPING) and crop is not None:
        return crop
    if processor.get("do_resize", True):
        if size is not None:
            return size
        stated = processor.get("size")
        edge = stated.get("shortest_edge") if isinstance(stated, dict) else None
        # This class makes a square whose side is the shortest edge.
        if _kind(processor) == "ConvNext" and _is_length(edge):
            return (edge, edge)
    raise FoundationError(
        f"{folder}: {CONFIG} gives images no fixed size, which a server of batches needs; set do_center_crop and "
        "crop_size, or do_resize and size with height and width"
    )


def _sides(size: Any) -> tuple[int, int] | None:
    """Return the height and width that a size states, if it states both."""
    height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    return (height, width) if _is_length(height) and _is_length(width) else None


def _is_length(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _audio_shape(folder: Path, config: Mapping[str, Any], processor: Mapping[str, Any]) -> tuple[int | None, ...]:
    # The defaults of transformers' feature extractors.
    if config.get("model_type") in _WAVES:
        keys = {"sampling_rate": 16000}
    elif config.get("model_type") == "whisper":
        keys = {"feature_size": 80, "chunk_length": 30, "sampling_rate": 16000, "hop_length": 160}
    else:
        keys = {"max_length": 1024, "num_mel_bins": 128}
    numbers = [processor.get(key, default) for key, default in keys.items()]
    for key, number in zip(keys, numbers, strict=True):
        if not _is_length(number):
            raise FoundationError(f"{folder}: {CONFIG} says {key} {number!r}; expected a whole number over 0")
    if config.get("model_type") in _WAVES:
        return (None,)
    if config.get("model_type") == "whisper":
        mels, seconds, rate, hop = numbers
        return (mels, seconds * rate // hop)
    return tuple(numbers)
