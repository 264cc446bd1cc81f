"""Limit the tags of a TIFF file before the file is opened: Pillow limits their bytes, but not their numbers."""

from __future__ import annotations

import io

from PIL.ExifTags import IFD
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, ImageFileDirectory_v2
from PIL.TiffTags import ASCII, BYTE, UNDEFINED

from rootstock.service.engine.core.errors import TooLarge

# The most bytes of numbers in tags. As objects they take fifty times as many. A strip or tile has two numbers.
_MAX_NUMBER_BYTES = 2**20
# Pillow keeps values of these types as bytes.
_BYTES = (BYTE, ASCII, UNDEFINED)
# The tags that hold the place of a further directory, which Pillow reads too.
_DIRECTORIES = (IFD.Exif, IFD.GPSInfo, IFD.Interop)


def check_tags(data: bytes, max_pixels: int) -> None:
    """Raise TooLarge for tags of too many numbers, or tiles of more than `max_pixels` pixels.

    Raise any other error for what is no TIFF file.
    """
    with io.BytesIO(data) as file:
        head = file.read(8)
        if head[2] == 43:
            head += file.read(8)
        waiting, known = [ImageFileDirectory_v2(head).next], set[int]()
        size = 0
        while waiting:
            offset = waiting.pop()
            if offset in known:
                continue
            known.add(offset)
            directory = ImageFileDirectory_v2(head)
            file.seek(offset)
            directory.load(file)
            size += sum(
                len(directory._tagdata[tag]) for tag, kind in directory.tagtype.items() if kind not in _BYTES
            )
            if size > _MAX_NUMBER_BYTES:
                raise TooLarge(
                    f"the image's tags hold more than {_MAX_NUMBER_BYTES} bytes of numbers; "
                    "save it with fewer strips or tiles, or as a PNG",
                    "inputs",
                )
            _check_tile(directory, max_pixels)
            waiting += [place for tag in _DIRECTORIES if isinstance(place := directory.get(tag), int)]


def _check_tile(directory: ImageFileDirectory_v2, max_pixels: int) -> None:
    width, height = directory.get(TILEWIDTH), directory.get(TILELENGTH)
    if isinstance(width, int) and isinstance(height, int) and width * height > max_pixels:
        raise TooLarge(
            f"a tile of the image has {width} × {height} pixels and the limit is {max_pixels}; "
            "save it in smaller tiles, or as a PNG",
            "inputs",
        )
