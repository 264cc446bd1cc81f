"""Turn an image into a trunk's input, as the image processors of transformers with the PIL backend do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from rootstock.service.engine.core.errors import TooLarge
from rootstock.service.engine.encode.modalities.image.image_decoder import MAX_PIXELS
from rootstock.service.engine.encode.modalities.image.processor_config import (
    ProcessorConfig,
    UnservedProcessor,
    read_config,
)

Pixels = npt.NDArray[np.float32]


class ImageProcessor:
    """The preprocessing of one foundation. `shape` is that of every processed image. Thread-safe."""

    def __init__(self, config: ProcessorConfig) -> None:
        """Raise UnservedProcessor if the steps give images of different sizes, or values that are not finite."""
        self._config = config
        self.shape = (3, *config.output)
        # A pixel has one of 256 values in each channel, so the steps after resizing are a table, (3, 256).
        with np.errstate(all="ignore"):
            self._values = _normalized(_rescaled(np.tile(np.arange(256.0), (3, 1)), config), config)
        if not np.isfinite(self._values).all():
            raise UnservedProcessor(f"{config.name} gives values that are not finite; check its numbers")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], model_type: str | None = None) -> Self:
        """Return the processor that a foundation's `preprocessor_config.json` describes.

        Args and errors are those of `read_config`.
        """
        return cls(read_config(config, model_type))

    def __call__(self, image: Image.Image) -> Pixels:
        """Return the input of shape (3, height, width) for an image in mode RGB.

        Raise TooLarge for an image so narrow that it would have too many pixels when resized.
        """
        if self._config.whitens and "transparency" in image.info:
            white = Image.new("RGB", image.size, "white")
            white.paste(image, mask=image.convert("RGBA").getchannel("A"))
            image = white
        if self._config.floats:
            return self._processed_as_floats(image)
        if (size := self._resized_size(image)) is not None:
            image = image.resize(size, self._config.resample)
        for height, width in self._config.crops:
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image)
        values = np.empty(self.shape, np.float32)
        for channel in range(3):
            values[channel] = self._values[channel][pixels[..., channel]]
        return values

    def _processed_as_floats(self, image: Image.Image) -> Pixels:
        height, width = self.shape[1:]
        # One channel at a time, because a large image takes four times its bytes as floats.
        channels = [
            np.asarray(image.getchannel(i).convert("F").resize((width, height), self._config.resample))
            for i in range(3)
        ]
        return _normalized(_rescaled(np.stack(channels), self._config), self._config)

    def _resized_size(self, image: Image.Image) -> tuple[int, int] | None:
        """Return the width and height to resize an image to."""
        if self._config.size is not None:
            height, width = self._config.size
            return width, height
        edge = self._config.shortest_edge
        if edge is None:
            return None
        short, long = sorted(image.size)
        longest = int(edge * long / short)
        if edge * longest > MAX_PIXELS:
            raise TooLarge(
                f"the image is {image.width} × {image.height} pixels; with a shorter side of {edge} it would be "
                f"{longest} long, and the limit is {MAX_PIXELS} pixels; send an image that is less narrow",
                "inputs",
            )
        return (edge, longest) if image.width <= image.height else (longest, edge)


def _rescaled(values: npt.NDArray[Any], config: ProcessorConfig) -> Pixels:
    """Return values times the scale, computed in 64 bits as transformers does, and less the offset."""
    if config.scale is not None:
        values = values.astype(np.float64) * config.scale
    rescaled = values.astype(np.float32)
    return rescaled - np.float32(1) if config.offset else rescaled


def _normalized(values: Pixels, config: ProcessorConfig) -> Pixels:
    """Return values less their channel's mean and divided by its deviation. Channels are on the first axis."""
    by_channel = (3,) + (1,) * (values.ndim - 1)
    for mean, deviation in config.normalizations:
        values = (values - np.array(mean, np.float32).reshape(by_channel)) / np.array(
            deviation, np.float32
        ).reshape(by_channel)
    return values
