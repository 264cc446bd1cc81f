"""Read the steps of preprocessing from a foundation's `preprocessor_config.json`, as transformers 5 reads it."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL.Image import Resampling

from rootstock.service.engine.encode.modalities.image.processor_defaults import DEFAULTS, OF_MODEL
from rootstock.service.engine.encode.modalities.reader import UnservedPreprocessing

# A height and a width, in pixels.
Size = tuple[int, int]
# ConvNeXT's processor does not crop images of this size or larger.
_CONVNEXT_UNCROPPED = 384


class UnservedProcessor(UnservedPreprocessing):
    """A processor, or a setting of one, that the server does not compute."""


@dataclass(frozen=True, slots=True)
class ProcessorConfig:
    """The steps from an RGB image to a trunk's input, in their order.

    With `whitens`, the colour that a file declares transparent becomes white. The image is resized to `size`, or
    until its shorter side is `shortest_edge`, with the filter `resample`. It is cropped at its centre to each of
    `crops`, and padded with zeros where it is smaller. Its values are multiplied by `scale`, and 1 is subtracted
    if `offset`. Each of `normalizations` is a mean and a deviation of three channels: the mean is subtracted, and
    the result divided by the deviation. With `floats`, values are not rounded when the image is resized.
    """

    name: str
    whitens: bool
    size: Size | None
    shortest_edge: int | None
    resample: Resampling
    crops: tuple[Size, ...]
    scale: float | None
    offset: bool
    normalizations: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    floats: bool

    @property
    def output(self) -> Size:
        """Return the height and width of every processed image."""
        size = self.crops[-1] if self.crops else self.size
        if size is None:
            reason = "it does not crop" if self.shortest_edge else "it neither resizes nor crops"
            raise UnservedProcessor(
                f"{self.name} leaves images at different sizes, because {reason}, and a batch needs one size; "
                'set "do_center_crop" with a "crop_size", or a "size" with "height" and "width"'
            )
        return size


def read_config(config: Mapping[str, Any], model_type: str | None = None) -> ProcessorConfig:
    """Return the steps that a processor's config describes.

    Args:
        config: the content of `preprocessor_config.json`, or of `processor_config.json`, which goes first.
        model_type: the foundation's `model_type`, which names the processor if the config does not.

    Raises:
        UnservedProcessor: for another processor, a step that is not computed, or a wrong value. It names the key.
    """
    nested = config.get("image_processor")
    if isinstance(nested, Mapping):
        config = nested
    name = _processor(config, model_type)
    # A key that is null stays null: transformers takes its own default only for a key that is absent.
    return _ProcessorSettings(name, {**DEFAULTS[name], **config}).steps()


def _processor(config: Mapping[str, Any], model_type: str | None) -> str:
    name = config.get("image_processor_type") or config.get("feature_extractor_type")
    if name is None:
        name = OF_MODEL.get(model_type or "")
    if name is None:
        raise UnservedProcessor(
            f"the preprocessor config names no image processor, and none is known for the model type "
            f"{model_type!r}; set image_processor_type to one of {', '.join(DEFAULTS)}"
        )
    base = str(name).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    if base not in DEFAULTS:
        raise UnservedProcessor(
            f"the image processor {name!r} is not served; the server computes {', '.join(DEFAULTS)}"
        )
    return base


class _ProcessorSettings:
    """The settings of one processor, which it checks as it reads them."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self._name = name
        self._values = values

    def steps(self) -> ProcessorConfig:
        for key in ("do_pad", "use_square_size"):
            if self._values.get(key):
                raise self._refusal(key, "the server does not compute this step; remove it")
        size: Size | None = None
        shortest_edge, crops = None, list[Size]()
        resample = Resampling.BILINEAR
        if self._values.get("do_resize"):
            size, shortest_edge = self._size()
            resample = self._resample()
            if self._name == "ConvNextImageProcessor":
                size, shortest_edge, crops = self._convnext(shortest_edge)
        if self._values.get("do_center_crop"):
            crops.append(self._crop())
        steps = ProcessorConfig(
            name=self._name,
            whitens=bool(self._values.get("do_convert_rgb")),
            size=size,
            shortest_edge=shortest_edge,
            resample=resample,
            crops=tuple(crops),
            scale=self._number("rescale_factor") if self._values.get("do_rescale") else None,
            offset=bool(self._values.get("do_rescale") and self._values.get("rescale_offset")),
            normalizations=self._normalizations(),
            floats=self._name == "DINOv3ViTImageProcessor",
        )
        if steps.floats:
            self._check_floats(steps)
        return steps

    def _size(self) -> tuple[Size | None, int | None]:
        value = self._values.get("size")
        if isinstance(value, int) and not self._values.get("default_to_square"):
            value = {"shortest_edge": value}
        if isinstance(value, Mapping) and set(value) == {"shortest_edge"}:
            return None, self._side("size", value["shortest_edge"])
        return self._height_width("size", value), None

    def _crop(self) -> Size:
        return self._height_width("crop_size", self._values.get("crop_size"))

    def _height_width(self, key: str, value: object) -> Size:
        if isinstance(value, int):
            value = (value, value)
        elif isinstance(value, Mapping) and set(value) == {"height", "width"}:
            value = (value["height"], value["width"])
        if not isinstance(value, list | tuple) or len(value) < 2:
            raise self._refusal(key, 'the server computes a size with "height" and "width", or a "shortest_edge"')
        return self._side(key, value[0]), self._side(key, value[1])

    def _convnext(self, shortest_edge: int | None) -> tuple[Size | None, int | None, list[Size]]:
        if shortest_edge is None:
            raise self._refusal("size", 'this processor takes a "shortest_edge"')
        square = (shortest_edge, shortest_edge)
        if shortest_edge >= _CONVNEXT_UNCROPPED:
            return square, None, []
        share = self._number("crop_pct")
        if not 0 < share <= 1:
            raise self._refusal("crop_pct", "it is a share above 0 and at most 1")
        return None, int(shortest_edge / share), [square]

    def _resample(self) -> Resampling:
        value = self._values.get("resample")
        if not isinstance(value, int) or value not in list(Resampling):
            raise self._refusal("resample", f"it is a filter of Pillow, a number from 0 to {max(Resampling)}")
        return Resampling(value)

    def _normalizations(self) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
        pairs = []
        if self._values.get("do_normalize"):
            pairs.append((self._channels("image_mean"), self._channels("image_std")))
        # EfficientNet's processor divides by the deviation once more, for the classifier of the original model.
        if self._values.get("include_top") and self._name == "EfficientNetImageProcessor":
            pairs.append(((0.0,) * 3, self._channels("image_std")))
        return tuple(pairs)

    def _check_floats(self, steps: ProcessorConfig) -> None:
        if steps.scale is None:
            raise self._refusal("do_rescale", "this processor is served only if it rescales")
        if self._values.get("do_center_crop"):
            raise self._refusal("do_center_crop", "this processor is served only if it does not crop")
        if steps.resample not in (Resampling.BILINEAR, Resampling.BICUBIC):
            raise self._refusal("resample", "this processor is served only with 2 (bilinear) or 3 (bicubic)")

    def _side(self, key: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._refusal(key, "a side is a whole number of pixels, at least 1")
        return value

    def _number(self, key: str, value: object = None) -> float:
        value = self._values.get(key) if value is None else value
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise self._refusal(key, "it is a number")
        return float(value)

    def _channels(self, key: str) -> tuple[float, ...]:
        value = self._values.get(key)
        if not isinstance(value, list | tuple):
            return (self._number(key),) * 3
        channels = tuple(self._number(key, channel) for channel in value)
        if len(channels) != 3 or (key == "image_std" and 0 in channels):
            raise self._refusal(key, "it has one number for each of three channels, and no deviation of 0")
        return channels

    def _refusal(self, key: str, reason: str) -> UnservedProcessor:
        return UnservedProcessor(f"{self._name} has {key}={self._values.get(key)!r}: {reason}")
