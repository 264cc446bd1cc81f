"""Image files for tests: of every format and mode that is read, and forged ones."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

ORIENTATION = 274


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> Image.Image:
    """Return an image of smooth shapes and noise, in mode L, LA, RGB or RGBA."""
    generator = np.random.default_rng(seed)
    shape = (height, width, channels)
    ramp = np.linspace(0, 160, height * width * channels).reshape(shape)
    pixels = (ramp + generator.integers(0, 96, shape)).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    """Return the image as the bytes of a file."""
    file = io.BytesIO()
    # A saved image keeps settings of its encoder, which another format does not understand.
    further = [frame.copy() for frame in options.pop("append_images", ())]
    image.copy().save(file, format, **options, **({"append_images": further} if further else {}))
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    """Return EXIF data that says how to turn the image."""
    data = Image.Exif()
    data[ORIENTATION] = orientation
    return data


def good_files() -> dict[str, bytes]:
    """Return a file of each format in each mode."""
    rgb, rgba, grey, grey_alpha = (noise(37, 23, n, n) for n in (3, 4, 1, 2))
    palette = rgb.quantize(40)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 251)
    deeper = Image.fromarray(np.asarray(grey).astype(np.int32) * 70000)
    real = Image.fromarray(np.asarray(grey).astype(np.float32) * 1.7 - 30)
    bits, cmyk = grey.convert("1"), rgb.convert("CMYK")
    frames = [noise(37, 23, 3, seed) for seed in (8, 9)]
    xmp = PngImagePlugin.PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    profile = PngImagePlugin.PngInfo()
    raw = exif(8).tobytes()
    profile.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n")
    return {
        "png rgb": encode(rgb, "PNG"),
        "png rgba": encode(rgba, "PNG"),
        "png grey": encode(grey, "PNG"),
        "png grey with alpha": encode(grey_alpha, "PNG"),
        "png grey with a transparent value": encode(grey, "PNG", transparency=100),
        "png rgb with a transparent colour": encode(rgb, "PNG", transparency=(1, 2, 3)),
        "png palette": encode(palette, "PNG"),
        "png palette with a transparent colour": encode(palette, "PNG", transparency=3),
        "png palette with alphas": encode(palette, "PNG", transparency=bytes(range(0, 240, 6))),
        "png 1 bit": encode(bits, "PNG"),
        "png 1 bit with a transparent value": encode(bits, "PNG", transparency=0),
        "png 16 bits": encode(deep, "PNG"),
        "png 16 bits with a transparent value": encode(deep, "PNG", transparency=0),
        "png 16 bits rgb": _png_16(rgb),
        "png animated": encode(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "png turned by xmp": encode(rgb, "PNG", pnginfo=xmp),
        "png turned by a raw profile": encode(rgb, "PNG", pnginfo=profile),
        "jpeg rgb": encode(rgb, "JPEG"),
        "jpeg grey": encode(grey, "JPEG"),
        "jpeg cmyk": encode(cmyk, "JPEG"),
        "jpeg progressive": encode(rgb, "JPEG", progressive=True, quality=90),
        "jpeg of two pictures": encode(frames[0], "MPO", save_all=True, append_images=frames[1:]),
        "webp rgb": encode(rgb, "WEBP"),
        "webp rgba lossless": encode(rgba, "WEBP", lossless=True),
        "webp animated": encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "gif palette": encode(palette, "GIF"),
        "gif grey": encode(grey, "GIF"),
        "gif with a transparent colour": encode(palette, "GIF", transparency=3),
        "gif animated": encode(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"two"),
        "bmp rgb": encode(rgb, "BMP"),
        "bmp rgba": encode(rgba, "BMP"),
        "bmp grey": encode(grey, "BMP"),
        "bmp palette": encode(palette, "BMP"),
        "bmp 1 bit": encode(bits, "BMP"),
        "bmp in runs": bmp_in_runs(5, 2, b"\x05\x01\x00\x00\x02\x02\x03\x00\x00\x01"),
        "tiff rgb": encode(rgb, "TIFF"),
        "tiff rgba": encode(rgba, "TIFF"),
        "tiff 1 bit": encode(bits, "TIFF", compression="group4"),
        "tiff 16 bits": encode(deep, "TIFF", compression="tiff_lzw"),
        "tiff 32 bits": encode(deeper, "TIFF"),
        "tiff of reals": encode(real, "TIFF"),
        "tiff cmyk": encode(cmyk, "TIFF", compression="tiff_deflate"),
        "tiff lab": encode(_lab(rgb), "TIFF"),
        "tiff palette": encode(palette, "TIFF", compression="packbits"),
        "tiff jpeg": encode(rgb, "TIFF", compression="jpeg"),
        "tiff of two pages": encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "bigtiff": encode(rgb, "TIFF", big_tiff=True),
        **{
            f"{format.lower()} turned {turn}": encode(rgb, format, exif=exif(turn))
            for format in ("PNG", "JPEG", "WEBP", "TIFF")
            for turn in range(1, 9)
        },
    }


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of these chunks, each a type and its data."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def png_header(width: int, height: int, bits: int = 8, colours: int = 2) -> tuple[bytes, bytes]:
    """Return a PNG's first chunk."""
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)


def png_end(data: bytes = b"\0\1\2\3") -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """Return a PNG's last chunks, for these rows, which by default are those of an image of one pixel."""
    return (b"IDAT", zlib.compress(data)), (b"IEND", b"")


def jpeg_segment(marker: int, data: bytes) -> bytes:
    """Return a segment of a JPEG."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(*segments: bytes) -> bytes:
    """Return a JPEG with further segments at its start."""
    whole = encode(noise(8, 8), "JPEG")
    return whole[:2] + b"".join(segments) + whole[2:]


def jpeg_of_scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    whole = encode(noise(8, 8), "JPEG", progressive=True)
    scan = whole.rindex(b"\xff\xda")
    tables = whole.rindex(b"\xff\xc4", 0, scan)
    return whole[:-2] + whole[tables:-2] * count + b"\xff\xd9"


def exif_of_rationals(tags: int, count: int) -> bytes:
    """Return EXIF data of many tags, each a row of fractions, over the same bytes."""
    entries = b"".join(struct.pack("<HHLL", 0x8000 + i, 5, count, 8) for i in range(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries + b"\0\0\0\0"


def bmp_in_runs(width: int, height: int, runs: bytes) -> bytes:
    """Return a BMP of 8 bits with run lengths."""
    palette = b"".join(bytes([i, 255 - i, i // 2, 0]) for i in range(256))
    start = 14 + 40 + len(palette)
    header = struct.pack("<IHHI", start + len(runs), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 1, 1, 0, 0)
    return b"BM" + header + info + palette + runs


# A tag of a TIFF, the number of its type, and its values as bytes.
Tag = tuple[int, int, bytes]
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}


def tiff(width: int, height: int, pixels: bytes, *more: Tag, compression: int = 1) -> bytes:
    """Return a grey TIFF of one strip, with further tags."""

    def number(value: int) -> bytes:
        return struct.pack("<L", value)

    def whole(start: int) -> bytes:
        tags: Sequence[Tag] = [
            (256, 4, number(width)),
            (257, 4, number(height)),
            (258, 3, b"\x08\0"),
            (259, 3, struct.pack("<H", compression)),
            (262, 3, b"\1\0"),
            (273, 4, number(start)),
            (277, 3, b"\1\0"),
            (278, 4, number(height)),
            (279, 4, number(len(pixels))),
            *more,
        ]
        place = 8 + 2 + 12 * len(tags) + 4
        entries, values = b"", b""
        for tag, kind, value in sorted(tags):
            count = len(value) // _TYPE_BYTES[kind]
            if len(value) <= 4:
                entries += struct.pack("<HHL", tag, kind, count) + value.ljust(4, b"\0")
            else:
                entries += struct.pack("<HHLL", tag, kind, count, place + len(values))
                values += value
        return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + values

    return whole(len(whole(0))) + pixels


def tiff_of_exif_numbers(count: int) -> bytes:
    """Return a TIFF whose EXIF directory holds a row of fractions."""
    place = len(tiff(8, 8, bytes(64), (34665, 4, bytes(4))))
    numbers = struct.pack("<HHHLL", 1, 0x829A, 5, count, place + 18) + bytes(4 + 8 * count)
    return tiff(8, 8, bytes(64) + numbers, (34665, 4, struct.pack("<L", place)))


def webp_of_canvas(width: int, height: int) -> bytes:
    """Return an animated WebP of small frames on a canvas of any size."""
    whole = encode(noise(8, 8), "WEBP", save_all=True, append_images=[noise(8, 8, 3, 1)], lossless=True)
    return whole[:24] + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3] + whole[30:]


def _png_16(image: Image.Image) -> bytes:
    values = np.asarray(image).astype(">u2") * 256 + 17
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    return png(png_header(image.width, image.height, 16), *png_end(rows))


def _lab(image: Image.Image) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return image.convert("LAB")
