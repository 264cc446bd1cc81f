"""An image file is decoded as transformers' pipelines decode it, and every bad one is refused with the reason."""

from __future__ import annotations

import base64
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.image_utils import load_image

from rootstock.service.engine.core.errors import InvalidInput, TooLarge
from rootstock.service.engine.encode.modalities.image.image_decoder import MAX_FILE_BYTES, MAX_PIXELS, decode
from tests.service.engine.modalities.image_files import (
    bmp_in_runs,
    encode,
    exif_of_rationals,
    good_files,
    jpeg,
    jpeg_of_scans,
    jpeg_segment,
    noise,
    png,
    png_end,
    png_header,
    tiff,
    tiff_of_exif_numbers,
    webp_of_canvas,
)

FILES = good_files()
SIGN_DIGITS = Path("../shared/data/sign_digits")
ZIP = b"PK\x03\x04" + bytes(60)


def loaded(data: bytes) -> npt.NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(load_image(base64.b64encode(data).decode()))


def decoded(data: bytes) -> npt.NDArray[np.uint8]:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def run(code: str) -> str:
    """Run code in a fresh process, and return what it printed."""
    root = Path(__file__).parents[4]
    return subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=root, stdout=subprocess.PIPE, text=True
    ).stdout


@pytest.mark.parametrize("name", FILES)
def test_an_image_has_the_pixels_that_transformers_loads(name: str) -> None:
    np.testing.assert_array_equal(decoded(FILES[name]), loaded(FILES[name]))


def test_an_image_is_turned_as_its_metadata_says() -> None:
    upright = decoded(FILES["png turned 1"])
    np.testing.assert_array_equal(decoded(FILES["png turned 6"]), np.rot90(upright, -1))
    np.testing.assert_array_equal(decoded(FILES["tiff turned 3"]), np.rot90(upright, 2))
    np.testing.assert_array_equal(decoded(FILES["png turned by xmp"]), np.rot90(upright, -1))


@pytest.mark.parametrize("name", ["gif animated", "webp animated", "png animated", "tiff of two pages"])
def test_the_first_frame_of_an_animation_is_read(name: str) -> None:
    first, second = (np.asarray(noise(37, 23, 3, seed)).astype(float) for seed in (8, 9))
    read = decoded(FILES[name])
    assert np.abs(read - first).mean() < 20 < np.abs(read - second).mean()


@pytest.mark.parametrize("name", ["gif palette", "jpeg rgb", "png rgb", "webp rgb", "bmp rgb"])
def test_a_file_with_another_behind_it_is_the_image_that_it_begins_as(name: str) -> None:
    np.testing.assert_array_equal(decoded(FILES[name] + ZIP), decoded(FILES[name]))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_metadata_does_not_hide_the_image() -> None:
    damaged = jpeg(jpeg_segment(0xE1, b"Exif\0\0" + exif_of_rationals(3, 10**6)))
    np.testing.assert_array_equal(decoded(damaged), loaded(damaged))


@pytest.mark.skipif(not SIGN_DIGITS.is_dir(), reason="the photos of sign digits are not on this machine")
def test_photos_have_the_pixels_that_transformers_loads() -> None:
    for path in sorted(SIGN_DIGITS.rglob("*.jpg"))[::40]:
        np.testing.assert_array_equal(decoded(path.read_bytes()), loaded(path.read_bytes()))


NO_IMAGES = {
    "an empty file": b"",
    "a text": b"a photo of a cat",
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9"/></svg>',
    "an SVG with a declaration": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "a PDF": b"%PDF-1.7\n",
    "a zip": ZIP,
    "a format that is not accepted": encode(noise(9, 9), "PPM"),
    "an icon": encode(noise(16, 16), "ICO"),
    "a page of PostScript": encode(noise(9, 9), "EPS"),
    "a text that begins like a TIFF": b"MMmm, a photo of a cat",
    "a PNG without chunks": png(),
    "a PNG without rows": png(png_header(4, 4)),
    "zeros": bytes(100),
}


@pytest.mark.parametrize("data", NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_image_is_refused_with_the_accepted_formats(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="PNG, JPEG, WebP, GIF, BMP or TIFF") as caught:
        decode(data)
    assert caught.value.param == "inputs"


@settings(max_examples=400)
@given(st.sampled_from(sorted(FILES)), st.floats(0, 1))
def test_a_file_that_is_cut_off_is_refused_unless_only_its_metadata_is_missing(name: str, share: float) -> None:
    whole = FILES[name]
    part = whole[: int(share * len(whole))]
    try:
        image = decoded(part)
    except InvalidInput:
        return
    assert sorted(image.shape) == sorted(decoded(whole).shape)
    turned = [np.rot90(image, turn) for turn in range(4)]
    shapes = [np.array_equal(one, other) for one in turned for other in (decoded(whole), decoded(whole)[:, ::-1])]
    assert any(shapes)


TOO_LARGE = {
    "bytes": (png(png_header(1, 1), *png_end()) + bytes(MAX_FILE_BYTES), "33554432"),
    "pixels of a PNG": (png(png_header(2**13, 2**13), *png_end()), "8192 × 8192"),
    "pixels far above": (png(png_header(2**31 - 1, 2**31 - 1), *png_end()), str(MAX_PIXELS)),
    "pixels of a canvas": (webp_of_canvas(2**13, 2**13), "8192 × 8192"),
    "pixels of a canvas far above": (webp_of_canvas(2**16 - 1, 2**16), str(MAX_PIXELS)),
    "pixels of a TIFF": (tiff(2**15, 2**15, b"\0"), str(MAX_PIXELS)),
    "pixels of a BMP in runs": (bmp_in_runs(2**12, 2**11, b"\0\1"), "4194304"),
    "pixels of a GIF's frame": (
        b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0" + b"\xff\xff" * 2 + b"\0\2\1\0\0;",
        str(MAX_PIXELS),
    ),
    "pixels of a tile": (
        tiff(8, 8, bytes(64), (322, 4, b"\0\0\1\0"), (323, 4, b"\0\0\1\0"), (324, 4, bytes(4)), compression=8),
        "65536 × 65536",
    ),
    "numbers in tags": (tiff(8, 8, bytes(64), (282, 5, bytes(2**21))), "1048576"),
    "numbers in tags of a further directory": (tiff_of_exif_numbers(2**18), "1048576"),
    "metadata of a PNG": (png(png_header(1, 1), (b"eXIf", bytes(2**19)), *png_end()), "262144"),
    "segments of EXIF data": (jpeg(*[jpeg_segment(0xE1, b"Exif\0\0" + bytes(99))] * 20), "16 EXIF segments"),
    "segments of a JPEG": (jpeg(*[jpeg_segment(0xE3, b"")] * 2**18), "262144 steps"),
    "chunks of a PNG": (png(png_header(1, 1), *[(b"tIME", b"")] * 2**17, *png_end()), "262144 steps"),
    "blocks of a GIF": (b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1a" * 2**18 + b"\0", "262144 steps"),
    "scans": (jpeg_of_scans(60), "50 JPEG scans"),
}


@pytest.mark.parametrize(("data", "limit"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_file_with_too_many_is_refused_before_it_is_decoded(data: bytes, limit: str) -> None:
    with pytest.raises(TooLarge, match=limit) as caught:
        decode(data)
    assert caught.value.param == "inputs"


def test_metadata_that_grows_when_it_is_decompressed_is_refused() -> None:
    bomb = (b"zTXt", b"a\0\0" + zlib.compress(b"x" * 10**6))
    for chunks in ([(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 10**8))], [bomb] * 70):
        with pytest.raises(InvalidInput, match=r"too large|Too much memory"):
            decode(png(png_header(1, 1), *chunks, *png_end()))


def test_an_image_that_takes_more_memory_than_there_is_is_refused() -> None:
    code = (
        "import resource;"
        "from rootstock.service.engine.core.errors import TooLarge;"
        "from rootstock.service.engine.encode.modalities.image.image_decoder import decode;"
        "from tests.service.engine.modalities.image_files import png, png_end, png_header;"
        "data = png(png_header(7000, 7000), *png_end());"
        "pages = int(open('/proc/self/statm').read().split()[0]) + 2**14;"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(),) * 2)\n"
        "try: decode(data)\n"
        "except TooLarge as error: print(error)"
    )
    assert "takes more memory than there is" in run(code)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_refused(size: tuple[int, int]) -> None:
    width, height = size
    forged = [
        png(png_header(width, height), *png_end()),
        tiff(width, height, b"\0"),
        bmp_in_runs(width, height, b"\0\1"),
        b"GIF89a" + bytes([width, 0, height, 0, 0, 0, 0]) + b",\0\0\0\0\0\0\0\0\0\2\1\0\0;",
    ]
    for data in forged:
        with pytest.raises(InvalidInput):
            decode(data)


def test_many_threads_decode_at_once() -> None:
    expected = {name: decoded(data) for name, data in FILES.items()}
    with ThreadPoolExecutor(8) as pool:
        for name, image in pool.map(lambda name: (name, decoded(FILES[name])), [*FILES] * 4):
            np.testing.assert_array_equal(image, expected[name])


def test_the_module_leaves_pillow_s_settings_as_they_are() -> None:
    code = (
        "from PIL import Image, ImageFile, PngImagePlugin;"
        "state = lambda: "
        "(Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, PngImagePlugin.MAX_TEXT_CHUNK);"
        "before = state();"
        "from rootstock.service.engine.encode.modalities.image import image_decoder;"
        "from tests.service.engine.modalities.image_files import encode, noise;"
        "image_decoder.decode(encode(noise(9, 9), 'WEBP'));"
        "assert state() == before"
    )
    run(code)
