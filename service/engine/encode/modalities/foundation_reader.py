"""Open what reads the inputs of a foundation, by its modality. A server of texts imports no decoder of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rootstock.adapters.spec import FoundationSpec
from rootstock.service.engine.encode.modalities.reader import Reader, UnservedPreprocessing

# The config of a processor, and the one of all parts of a processor, which transformers prefers.
_CONFIG, _PARTS = "preprocessor_config.json", "processor_config.json"


def open_reader(spec: FoundationSpec, folder: Path) -> Reader:
    """Return the reader of a foundation, from the files in `folder`: its tokenizer, or its processor's config.

    Raise UnservedPreprocessing for a processor whose numbers the reader would not reproduce.
    """
    if spec.modality == "image":
        from rootstock.service.engine.encode.modalities.image.image_processor import ImageProcessor
        from rootstock.service.engine.encode.modalities.image.image_reader import ImageReader

        processor = ImageProcessor.from_config(_config(folder, "image_processor"), spec.model_type)
        _check_shape(processor.shape, spec)
        return ImageReader(processor, spec.max_tokens)
    if spec.modality == "audio":
        from rootstock.service.engine.encode.modalities.audio.audio_processor import AudioProcessor
        from rootstock.service.engine.encode.modalities.audio.audio_reader import AudioReader

        features = AudioProcessor.from_config(_config(folder, "feature_extractor"), spec.model_type)
        _check_shape(features.shape, spec)
        return AudioReader(features, spec.max_tokens, spec.inputs[0], _receptive_field(spec))
    from rootstock.service.engine.encode.modalities.text import Tokenizer

    mask_id = None if spec.masked_lm is None else spec.masked_lm.mask_id
    return Tokenizer(folder / "tokenizer.json", mask_id, spec.max_tokens, spec.pad_id)


def _check_shape(shape: tuple[int | None, ...], spec: FoundationSpec) -> None:
    if shape != spec.input_shape:
        raise UnservedPreprocessing(
            f"the processor makes inputs of shape {shape}, and the foundation takes {spec.input_shape}; state "
            f"the sizes in full in {_CONFIG}"
        )


def _config(folder: Path, part: str) -> dict[str, Any]:
    if (folder / _PARTS).is_file():
        parts: dict[str, Any] = json.loads((folder / _PARTS).read_text(encoding="utf-8"))
        if isinstance(nested := parts.get(part), dict):
            return nested
    config: dict[str, Any] = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    return config


def _receptive_field(spec: FoundationSpec) -> int:
    """Return how many samples of a wave form the trunk's first output takes; 1 for inputs of one shape."""
    field = 1
    if None in spec.input_shape:
        layers = [one for name, one in spec.convolutions.items() if name.startswith("feature_extractor.")]
        for layer in reversed(layers):
            field = (field - 1) * layer.stride[0] + layer.kernel[0]
    return field
