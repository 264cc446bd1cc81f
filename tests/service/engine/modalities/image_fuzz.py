"""Read mutated and forged image files, in a process with a limit on its memory. Print the outcome as JSON.

`python image_fuzz.py COUNT SEED`
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import random
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

from rootstock.adapters.media import ImageFile
from rootstock.service.engine.core.errors import InvalidInput, TooLarge
from rootstock.service.engine.encode.modalities.image.image_processor import ImageProcessor
from rootstock.service.engine.encode.modalities.image.image_reader import ImageReader
from tests.service.engine.modalities import image_files as files

# The most bytes of addresses. Libraries reserve more than they use.
ADDRESSES = 3 * 2**30
# Values that a length, a count, an offset or a size is likely to break at.
EXTREMES = (0, 1, 2, 7, 127, 128, 255, 256, 4095, 32767, 32768, 65535, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
MAGIC = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"RIFF\xff\0\0\0WEBPVP8X",
    b"RIFF\xff\0\0\0WEBPVP8 ",
    b"RIFF\xff\0\0\0WEBPVP8L",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0\x08\0\0\0",
    b"<svg ",
)


class ImageMutations:
    """Files made from good ones, by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._good = list(files.good_files().values())
        self._kinds = (
            self._bytes_changed,
            self._number_changed,
            self._cut,
            self._spliced,
            self._repeated,
            self._random_bytes,
            self._chunk_changed,
            self._size_forged,
            self._directory_forged,
            self._metadata_forged,
        )

    def next(self) -> bytes:
        data = self._random.choice(self._kinds)()
        # Some files are changed in more than one way.
        if self._random.random() < 0.2:
            data = self._with_number(data)
        return data

    def _file(self) -> bytes:
        return self._random.choice(self._good)

    def _place(self, data: bytes) -> int:
        """Return a place in a file, more often near its start, where headers are."""
        end = min(len(data), self._random.choice((16, 64, 256, len(data))))
        return self._random.randrange(end) if end else 0

    def _bytes_changed(self) -> bytes:
        data = bytearray(self._file())
        for _ in range(self._random.choice((1, 1, 2, 5, 30))):
            data[self._place(data)] = self._random.choice((self._random.randrange(256), 0, 255))
        return bytes(data)

    def _with_number(self, data: bytes) -> bytes:
        size = self._random.choice("HHIIQ")
        number = self._random.choice(EXTREMES) % 2 ** (8 * struct.calcsize("<" + size))
        place = self._place(data)
        return (
            data[:place]
            + struct.pack(self._random.choice("<>") + size, number)
            + data[place + struct.calcsize("<" + size) :]
        )

    def _number_changed(self) -> bytes:
        return self._with_number(self._file())

    def _cut(self) -> bytes:
        data = self._file()
        return data[: self._place(data)] + (self._file() if self._random.random() < 0.3 else b"")

    def _spliced(self) -> bytes:
        one, other = self._file(), self._file()
        return one[: self._place(one)] + other[self._place(other) :]

    def _repeated(self) -> bytes:
        data = self._file()
        begin = self._place(data)
        part = data[begin : begin + self._random.choice((1, 12, 100, 1000))]
        return data[:begin] + part * self._random.choice((2, 20, 500)) + data[begin:]

    def _random_bytes(self) -> bytes:
        length = self._random.choice((0, 1, 8, 30, 100, 2000))
        return self._random.choice((b"", *MAGIC)) + self._random.randbytes(length)

    def _chunk_changed(self) -> bytes:
        """Return a PNG with a changed or a new chunk whose checksum is right."""
        data = self._file()
        while not data.startswith(MAGIC[0]):
            data = self._file()
        chunks, place = [], 8
        while place < len(data):
            (length,) = struct.unpack_from(">I", data, place)
            chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
            place += 12 + length
        i = self._random.randrange(len(chunks))
        if self._random.random() < 0.5:
            chunks[i] = (chunks[i][0], self._with_number(chunks[i][1] + bytes(8)))
        else:
            kind = self._random.choice(
                (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"IHDR")
            )
            value = b"name\0\0" + zlib.compress(bytes(self._random.choice((0, 100, 10**5, 3 * 10**6))))
            chunks.insert(i, (kind, self._random.choice((value, self._random.randbytes(26), b"", value[:9]))))
        return files.png(*chunks)

    def _size_forged(self) -> bytes:
        """Return a small file that claims a size, often an enormous one."""
        width, height = (self._random.choice((0, 1, 5000, 9999, *EXTREMES)) for _ in range(2))
        bits, colours = self._random.choice((1, 8, 16)), self._random.choice((0, 2, 3, 4, 6))
        rows = bytes(self._random.choice((10, 10**5)))
        short = struct.pack("<HH", width % 2**16, height % 2**16)
        whole = struct.pack("<II", width % 2**32, height % 2**32)
        jpeg = files.jpeg()
        frame = jpeg.index(b"\xff\xc0") + 5
        bmp = files.encode(files.noise(9, 9), "BMP")
        return self._random.choice(
            (
                lambda: files.png(
                    files.png_header(width % 2**32, height % 2**32, bits, colours), *files.png_end(rows)
                ),
                lambda: jpeg[:frame] + short + jpeg[frame + 4 :],
                lambda: files.webp_of_canvas(max(1, width) % 2**24 + 1, max(1, height) % 2**24 + 1),
                lambda: files.tiff(
                    width % 2**32,
                    height % 2**32,
                    zlib.compress(rows),
                    compression=self._random.choice((1, 5, 7, 8, 32773)),
                ),
                lambda: b"GIF89a" + short + b"\0\0\0,\0\0\0\0" + short + b"\0\2" + rows[:300],
                lambda: bmp[:18] + whole + bmp[26:],
                lambda: files.bmp_in_runs(width % 2**31, height % 2**31, self._random.randbytes(200)),
            )
        )()

    def _directory_forged(self) -> bytes:
        """Return a TIFF with further tags, of any type, some of which point to directories."""
        tags = [
            (
                self._random.choice(
                    (
                        254,
                        270,
                        274,
                        277,
                        282,
                        317,
                        320,
                        322,
                        323,
                        324,
                        325,
                        330,
                        338,
                        339,
                        347,
                        700,
                        34665,
                        34853,
                        40965,
                    )
                ),
                self._random.choice((1, 2, 3, 4, 5, 7)),
                self._random.choice(
                    (
                        struct.pack("<L", self._random.choice((0, 4, 8, 22, *EXTREMES))),
                        bytes(8),
                        self._random.randbytes(64),
                    )
                ),
            )
            for _ in range(self._random.randrange(1, 8))
        ]
        data = files.tiff(8, 8, bytes(64), *tags, compression=self._random.choice((1, 1, 5, 7, 8)))
        if self._random.random() < 0.3:
            # The next directory is the first again, or one in its middle.
            place = 8 + 2 + 12 * (9 + len(tags))
            data = data[:place] + struct.pack("<L", self._random.choice((8, 10, place))) + data[place + 4 :]
        return data

    def _metadata_forged(self) -> bytes:
        """Return a JPEG with metadata that refers to itself, or repeats."""
        rationals = files.exif_of_rationals(self._random.choice((1, 50, 5000)), self._random.choice((1, 5000)))
        header = self._random.choice(
            (b"Exif\0\0", b"MPF\0", b"ICC_PROFILE\0\1\1", b"Photoshop 3.0\0", b"http://ns.adobe.com/xap/1.0/\0")
        )
        segment = files.jpeg_segment(
            self._random.choice((0xE1, 0xE2, 0xED)), header + self._with_number(rationals)[:65000]
        )
        return self._random.choice(
            (
                lambda: files.jpeg(*[segment] * self._random.choice((1, 2, 15, 40))),
                lambda: files.jpeg_of_scans(self._random.choice((5, 45, 500))),
                lambda: files.png(
                    files.png_header(1, 1), (b"eXIf", self._with_number(rationals)), *files.png_end()
                ),
                lambda: files.jpeg(files.jpeg_segment(0xFE, b"") * self._random.choice((10, 10**4))),
            )
        )()


def main(count: int, seed: int) -> None:
    """Read `count` files. Any error but the engine's ends the process with a traceback."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    config = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 64}, "crop_size": 56}
    reader = ImageReader(ImageProcessor.from_config(config), 1)
    mutations = ImageMutations(seed)
    outcomes: Counter[str] = Counter()
    slowest, before = 0.0, _peak()
    for i in range(count):
        data = mutations.next()
        began = time.process_time()
        try:
            pixels = reader.read(ImageFile(data)).arrays["pixel_values"]
            assert pixels.shape == reader._processor.shape
            outcomes["read"] += 1
        except (InvalidInput, TooLarge) as error:
            outcomes[type(error).__name__] += 1
        except BaseException:
            Path(f"image-{seed}-{i}.bin").write_bytes(data)
            raise
        slowest = max(slowest, time.process_time() - began)
        if i == min(count, 1000) // 2:
            gc.collect()
            warm = _now(), len(os.listdir("/proc/self/fd"))
    gc.collect()
    report = {
        "outcomes": outcomes,
        "slowest_seconds": round(slowest, 2),
        "peak_growth_mib": (_peak() - before) // 2**20,
        "kept_mib": (_now() - warm[0]) // 2**20,
        "files_left_open": len(os.listdir("/proc/self/fd")) - warm[1],
    }
    print(json.dumps(report))


def _peak() -> int:
    return _bytes("VmHWM")


def _now() -> int:
    return _bytes("VmRSS")


def _bytes(name: str) -> int:
    """Return a figure of this process's memory. `getrusage` would count its parent's too."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].removesuffix("kB")) * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
