"""Decode the bytes of an image file as `load_image` of transformers does, within limits set beforehand."""

from __future__ import annotations

import io
import re
import warnings

# The imports register the formats: Pillow then imports none of its other plugins.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from rootstock.service.engine.core.errors import EngineError, InvalidInput, TooLarge
from rootstock.service.engine.encode.modalities.image.tiff_tags import check_tags

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# The most bytes of one file, 32 MiB.
MAX_FILE_BYTES = 2**25
# The most pixels of one image, about what a camera of 50 megapixels takes.
MAX_PIXELS = 50_000_000
# The most pixels of a BMP with run lengths, which Pillow decodes in Python: a second and a half.
_MAX_RUN_LENGTH_PIXELS = 2**22
# The most bytes of EXIF data. A number in it takes fifty times its bytes as an object.
_MAX_EXIF_BYTES = 2**18
# The most reads of the file by Pillow, which reads the parts of a container one by one: chunks, segments, tags.
_MAX_READS = 2**18
# The most segments with EXIF data in a JPEG, those of thumbnails included. Pillow joins them: 1 MiB.
_MAX_EXIF_SEGMENTS = 16
# The most scans of a JPEG. However short it is, a scan takes time for the whole image. Encoders write 10 to 20.
_MAX_SCANS = 50

_ACCEPTED = "PNG, JPEG, WebP, GIF, BMP or TIFF"
_EXIF_SEGMENT = re.compile(rb"\xff\xe1..Exif\x00\x00", re.DOTALL)
# The start of a scan, its length and its number of components, which determine each other.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")

# Pillow warns of damaged metadata in words that the file's sender chooses, and Python keeps each text for good.
# The pixels are not affected, and `load_image` reads them too. Pillow's limit of pixels is above ours.
warnings.filterwarnings("ignore", module=r"PIL\.")


class _CountedReads(io.BytesIO):
    """A file in memory that can be read from only so many times."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise TooLarge(
                f"the image file has too many parts: reading it takes more than {_MAX_READS} steps; "
                "save the image again, as a PNG or a JPEG",
                "inputs",
            )
        return super().read(size)


def check_file(data: bytes, param: str = "inputs") -> None:
    """Raise InvalidInput for an empty file, and TooLarge for one of too many bytes."""
    if not data:
        raise InvalidInput(f"the image file is empty; send a {_ACCEPTED} file", param)
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(
            f"the image file has {len(data)} bytes and the limit is {MAX_FILE_BYTES}; send a smaller file", param
        )


def decode(data: bytes) -> Image.Image:
    """Return the image in a file, upright and in mode RGB. Thread-safe.

    Of an animation, return the first frame. A file that begins as one format is read as that format, whatever
    follows. Alpha is dropped, and values above 255 are clipped, as Pillow's `convert("RGB")` does. If a file
    declares one colour transparent, `info["transparency"]` states it, as Pillow keeps it.

    Raise InvalidInput for anything but a whole image in one of FORMATS, and TooLarge above a limit.
    """
    check_file(data)
    try:
        _check_structure(data)
        with _CountedReads(data) as file, Image.open(file, formats=FORMATS) as image:
            _check_size(image)
            image.load()
            _check_exif(image)
            ImageOps.exif_transpose(image, in_place=True)
            # Alphas of a palette cannot be kept in mode RGB. Pillow drops them too, and warns.
            if isinstance(image.info.get("transparency"), bytes):
                del image.info["transparency"]
            return image if image.mode == "RGB" else image.convert("RGB")
    except EngineError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooLarge(
            f"the image has many more pixels than the limit, {MAX_PIXELS}; send a smaller image", "inputs"
        ) from None
    except MemoryError:
        raise TooLarge(
            "decoding the image takes more memory than there is; send an image of fewer pixels", "inputs"
        ) from None
    except UnidentifiedImageError:
        raise InvalidInput(
            f"the file is not an image that can be read; send a {_ACCEPTED} file", "inputs"
        ) from None
    # Pillow's plugins raise errors of any type on damaged files.
    except Exception as error:
        raise InvalidInput(
            f"the image file is damaged or incomplete ({error}); send a whole {_ACCEPTED} file", "inputs"
        ) from None


def _check_structure(data: bytes) -> None:
    """Raise TooLarge for what Pillow does not limit, and would read before its size is known."""
    if data.startswith((b"II", b"MM")):
        check_tags(data, MAX_PIXELS)
    _check_count(data, _EXIF_SEGMENT, _MAX_EXIF_SEGMENTS, "EXIF segments")
    # TIFF files hold JPEG scans too.
    _check_count(data, _SCAN, _MAX_SCANS, "JPEG scans")


def _check_count(data: bytes, pattern: re.Pattern[bytes], most: int, what: str) -> None:
    if sum(1 for _, _ in zip(pattern.finditer(data), range(most + 1), strict=False)) > most:
        raise TooLarge(
            f"the image file has more than {most} {what}; save the image again, as a PNG or a JPEG", "inputs"
        )


def _check_size(image: ImageFile.ImageFile) -> None:
    width, height = image.size
    in_runs = any(tile.codec_name == "bmp_rle" for tile in image.tile)
    most = _MAX_RUN_LENGTH_PIXELS if in_runs else MAX_PIXELS
    if width * height > most:
        kind = "BMP with run lengths" if in_runs else "image"
        raise TooLarge(
            f"the {kind} has {width} × {height} pixels and the limit is {most}; send a smaller image", "inputs"
        )


def _check_exif(image: Image.Image) -> None:
    size = len(image.info.get("exif") or b"")
    if size > _MAX_EXIF_BYTES:
        raise TooLarge(
            f"the image's EXIF data has {size} bytes and the limit is {_MAX_EXIF_BYTES}; remove it from the file",
            "inputs",
        )
