"""Turn image files into samples for a trunk."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rootstock.adapters.media import ImageFile
from rootstock.adapters.tasks import Modality
from rootstock.service.engine.encode.modalities.image.image_decoder import check_file, decode
from rootstock.service.engine.encode.modalities.image.image_processor import ImageProcessor
from rootstock.service.engine.encode.modalities.reader import other_modality
from rootstock.service.engine.encode.sample import InputArray, SampleArrays

_INPUT = "pixel_values"


@dataclass(frozen=True, slots=True, eq=False)
class ImageSample:
    """One image. `arrays` holds its pixels, float32 of shape (3, height, width). `key` is a hash of its file."""

    arrays: Mapping[str, InputArray]
    cost: int
    key: bytes
    outputs: int = 1
    # All images of a foundation have one shape.
    group: None = None


class ImageReader:
    """A reader of the image files of one foundation. Thread-safe."""

    modality: Modality = "image"

    def __init__(self, processor: ImageProcessor, max_tokens: int) -> None:
        """Take the cost of one image, in tokens of the trunk: every image has the same size."""
        self._processor = processor
        self._max_tokens = max_tokens
        self._check: Callable[[], None] = lambda: None

    def check(self, inputs: Sequence[object]) -> None:
        """Raise InvalidInput for an input that is no image, and TooLarge for a file of too many bytes."""
        for i, value in enumerate(inputs):
            if not isinstance(value, ImageFile):
                raise other_modality(self.modality, value, f"inputs[{i}]")
            check_file(value.data, f"inputs[{i}]")

    def tokens(self, inputs: Sequence[object]) -> int:
        """Return the cost of a call's inputs."""
        return len(inputs) * self._max_tokens

    def checked(self, check: Callable[[], None]) -> ImageReader:
        """Return a copy that calls `check` before it decodes and before it resizes. Its error ends the work."""
        reader = copy.copy(self)
        reader._check = check
        return reader

    def read(self, value: ImageFile) -> ImageSample:
        """Return the sample of a file. Raise InvalidInput if it is no image, and TooLarge above a limit."""
        self._check()
        image = decode(value.data)
        self._check()
        pixels = self._processor(image)
        key = hashlib.blake2b(value.data, digest_size=32).digest()
        return ImageSample({_INPUT: pixels}, self._max_tokens, key)

    def collate(self, samples: Sequence[ImageSample]) -> SampleArrays:
        """Return the samples as one array of shape (inputs, 3, height, width)."""
        pixels = np.stack([sample.arrays[_INPUT] for sample in samples])
        return SampleArrays({_INPUT: pixels}, tuple(sample.cost for sample in samples), frozenset())
