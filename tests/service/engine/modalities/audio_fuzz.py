"""A program that reads damaged recordings, and prints what became of them: `audio_fuzz.py COUNT SEED`.

It is a process of its own, because libsndfile is written in C: a crash ends the process and not the tests.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from rootstock.adapters.media import AudioFile
from rootstock.service.engine.core.errors import InvalidInput, TooLarge
from rootstock.service.engine.encode.modalities.audio.audio_processor import AudioProcessor
from rootstock.service.engine.encode.modalities.audio.audio_reader import AudioReader
from tests.service.engine.modalities.audio_files import CODINGS, recording, tone

EXTREMES = [0, 1, 2, 3, 6, 255, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
MAGIC = [b"RIFF\xff\xff\xff\xffWAVE", b"fLaC", b"OggS", b"\xff\xfb\x90", b"ID3\x04\x00\x00\x00\x00\x00\x10", b""]
# The checksum of an Ogg page, by the byte that leaves it (RFC 3533).
CRC = []
for _byte in range(256):
    _crc = _byte << 24
    for _ in range(8):
        _crc = (_crc << 1 ^ (0x04C11DB7 if _crc & 0x80000000 else 0)) & 0xFFFFFFFF
    CRC.append(_crc)


def with_checksums(ogg: bytes) -> bytes:
    """An Ogg file whose pages are valid again, so that their damage reaches the decoder."""
    file, place = bytearray(ogg), ogg.find(b"OggS")
    while 0 <= place <= len(file) - 27:
        sizes = file[place + 27 : place + 27 + file[place + 26]]
        end = place + 27 + len(sizes) + sum(sizes)
        file[place + 22 : place + 26] = bytes(4)
        crc = 0
        for byte in file[place:end]:
            crc = crc << 8 & 0xFFFFFFFF ^ CRC[crc >> 24 ^ byte]
        file[place + 22 : place + 26] = crc.to_bytes(4, "little")
        place = file.find(b"OggS", end)
    return bytes(file)


def changed(data: bytes, random: Random) -> bytes:
    """Some bytes of the header, or of all, are others."""
    file = bytearray(data)
    most = random.choice([64, 256, len(file)])
    for _ in range(random.choice([1, 1, 3, 20])):
        file[random.randrange(min(most, len(file)))] = random.randrange(256)
    return bytes(file)


def forged(data: bytes, random: Random) -> bytes:
    """Some numbers of the header are extreme."""
    file = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 4])):
        size = random.choice([2, 4, 8])
        place = random.randrange(min(128, len(file) - 8))
        number = random.choice(EXTREMES) * (1 if size < 8 else random.choice([1, 2**32])) % 256**size
        file[place : place + size] = number.to_bytes(size, random.choice(["little", "big"]))
    return bytes(file)


def cut(data: bytes, random: Random) -> bytes:
    begin, end = sorted(random.randrange(len(data)) for _ in range(2))
    return random.choice([data[:end], data[begin:], data[:begin] + data[end:], data[:end] + data[begin:]])


def scattered(data: bytes, random: Random) -> bytes:
    """Random bytes, most of them behind the first bytes of a format."""
    return random.choice(MAGIC) + random.randbytes(random.choice([0, 8, 100, 5000]))


DAMAGES: Sequence[Callable[[bytes, Random], bytes]] = [changed, changed, forged, forged, cut, scattered]


def seeds() -> list[bytes]:
    """Short recordings of each format, with one channel and with two, and of one that is refused."""
    files = []
    for container, coding in (*CODINGS, ("OGG", "VORBIS")):
        for channels, rate in ((1, 16000), (2, 48000)):
            samples = np.stack([tone(rate // 10, rate, 440.0 * (c + 1)) for c in range(channels)], 1)
            files.append(recording(samples, rate, container, coding))
    return files


def main(count: int, seed: int) -> None:
    random, outcomes, slowest = Random(seed), Counter[str](), 0.0
    files = seeds()
    config = {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}
    reader = AudioReader(AudioProcessor.from_config(config), 1499, "input_values", 400)
    reader.read(AudioFile(files[0]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        data = random.choice(files)
        for _ in range(random.choice([1, 1, 2])):
            data = random.choice(DAMAGES)(data, random) if len(data) > 8 else data
        if random.random() < 0.8:
            data = with_checksums(data)
        started = time.perf_counter()
        try:
            reader.tokens([AudioFile(data)])
            sample = reader.read(AudioFile(data))
            assert np.isfinite(sample.arrays["input_values"]).all()
            assert 1 <= sample.cost <= 1499
            outcomes["read"] += 1
        except (InvalidInput, TooLarge) as error:
            outcomes[type(error).__name__] += 1
        slowest = max(slowest, time.perf_counter() - started)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(json.dumps({"outcomes": outcomes, "growth_mib": growth, "slowest_s": round(slowest, 3)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
