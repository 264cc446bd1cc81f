"""A reader turns image files into samples of one shape, which are stacked for a forward pass."""

from __future__ import annotations

import numpy as np
import pytest

from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.service.engine.core.errors import Expired, InvalidInput, TooLarge
from rootstock.service.engine.encode.modalities.image.image_decoder import MAX_FILE_BYTES
from rootstock.service.engine.encode.modalities.image.image_processor import ImageProcessor
from rootstock.service.engine.encode.modalities.image.image_reader import ImageReader
from tests.service.engine.modalities.image_files import encode, noise

READER = ImageReader(
    ImageProcessor.from_config({"image_processor_type": "ViTImageProcessor", "size": [32, 48]}), max_tokens=7
)
PNG = ImageFile(encode(noise(20, 30), "PNG"))
JPEG = ImageFile(encode(noise(50, 10), "JPEG"))


def test_samples_of_any_size_are_stacked_to_one_array() -> None:
    samples = [READER.read(file) for file in (PNG, JPEG, PNG)]
    arrays = READER.collate(samples)
    pixels = arrays.arrays["pixel_values"]
    assert (pixels.shape, pixels.dtype) == ((3, 3, 32, 48), np.float32)
    assert (arrays.lengths, arrays.ragged) == ((7, 7, 7), frozenset())
    np.testing.assert_array_equal(pixels[0], pixels[2])
    np.testing.assert_array_equal(pixels[1], samples[1].arrays["pixel_values"])
    # As in every batch, inputs can be chosen and padding cut off.
    np.testing.assert_array_equal(arrays.only([1]).trimmed().arrays["pixel_values"][0], pixels[1])


def test_equal_files_have_equal_keys() -> None:
    again = ImageFile(bytes(bytearray(PNG.data)))
    assert READER.read(PNG).key == READER.read(again).key != READER.read(JPEG).key


def test_each_image_costs_the_same() -> None:
    sample = READER.read(PNG)
    assert (sample.cost, sample.outputs, sample.group, READER.tokens([PNG, JPEG])) == (7, 1, None, 14)


@pytest.mark.parametrize("value", ["a text", ("two", "texts"), AudioFile(b"RIFF"), PNG.data, None])
def test_an_input_of_another_modality_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="modality image") as caught:
        READER.check([PNG, value])
    assert caught.value.param == "inputs[1]"


def test_a_file_that_is_empty_or_too_long_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(InvalidInput, match="empty"):
        READER.check([ImageFile(b"")])
    with pytest.raises(TooLarge, match=str(MAX_FILE_BYTES)) as caught:
        READER.check([PNG, JPEG, ImageFile(bytes(MAX_FILE_BYTES + 1))])
    assert caught.value.param == "inputs[2]"
    READER.check([PNG, JPEG])


def test_a_read_that_nobody_waits_for_ends() -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Expired("the deadline passed")

    with pytest.raises(Expired):
        READER.checked(check).read(PNG)
    assert calls == 2
    READER.read(PNG)
    assert calls == 2
