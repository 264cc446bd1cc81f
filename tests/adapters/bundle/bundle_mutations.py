"""Uploads made from good ones by a seed: damaged bytes, and forged zips, tensors and JSON."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.adapters.bundle.archive import CARD, CONFIG, GOLDEN, MANIFEST, SIGNATURE, WEIGHTS, pack
from rootstock.adapters.strict_json.canonical import sha256
from tests.attacks.forge import raw_safetensors

# Values that a length, a count, an offset or a size is likely to break at.
EXTREMES = (
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    4095,
    32767,
    32768,
    65535,
    2**16,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**64 - 1,
)
# Values that a reader of JSON may not expect in a field.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 0.5, 1e308, 2**63, 10**30, -(2**64), "", "a", "\0", "é" * 9, "../x", "*",
    "(a+)+$", "lora", "query", [], {}, [None], [[]], {"": None}, ["query", "query"], {"a": {"a": {"a": 1}}},
    "a" * 5000, list(range(3000)),
)  # fmt: skip
# Texts that are no JSON, or JSON of a form that readers differ on.
TEXTS = (
    b"", b"{", b"null", b"[]", b"{}", b"\xff", b"\xef\xbb\xbf{}", b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a":1e999}',
    b'{"a":"\\ud800"}', b"[" * 3000, b'{"a":' * 3000, b'{"a":-0}', b'{"a":1e-400}', b'{"a":' + b"9" * 5000 + b"}",
    b" " * 5000 + b"{}", "{}".encode("utf-16"), b'{"\\u0000":0}', b"{}\0", b"//x\n{}",
)  # fmt: skip
NAMES = (
    "", "a", "/", "../x", "a/", "a/b", ".DS_Store", "__MACOSX/._x", "checkpoint-1/x", "config.json",
    "modules.json", "tokenizer_config.json", "chat_template.jinja", "1_Pooling/config.json", "x.bin",
    "sentence_bert_config.json", "\0", "é" * 300, "a" * 60000, "con:", "\\x", ".", "..", "./x", "//",
)  # fmt: skip
DTYPES = ("F32", "F16", "BF16", "F64", "I64", "BOOL", "U8", "F8_E4M3", "F4", "C64", "", "f32", None, 3)
MEMBERS = (CONFIG, WEIGHTS, MANIFEST, GOLDEN, CARD)
SIGNATURES = (
    b"{}",
    b"",
    b"\xff" * 5000,
    b'{"schema":1}',
    json.dumps({"schema": 1, "algorithm": "ed25519"}).encode(),
)


class BundleMutations:
    """Uploads by a seed. `good` are the members of sound uploads, bundles and plain folders alike."""

    def __init__(self, seed: int, good: Sequence[Mapping[str, bytes]]) -> None:
        self._random = random.Random(seed)
        self._good = good
        self._zips = [pack(files) for files in good]
        # The kinds that give large files are rare: they take as long as a hundred others.
        self._kinds = (
            *[self._zip_damaged] * 90,
            *[self._directory_forged] * 90,
            *[self._member_damaged] * 60,
            *[self._header_forged] * 90,
            *[self._json_forged] * 120,
            *[self._text_replaced] * 30,
            *[self._extras_added] * 45,
            *[self._random_bytes] * 15,
            self._large_member,
        )

    def next(self) -> bytes:
        """Return the next upload."""
        return self._random.choice(self._kinds)()

    def _files(self) -> dict[str, bytes]:
        return dict(self._random.choice(self._good))

    def _number(self, size: int) -> int:
        return self._random.choice((*EXTREMES, self._random.getrandbits(8 * size))) % 2 ** (8 * size)

    def _place(self, data: bytes) -> int:
        """Return a place in a file, more often near its ends, where headers and directories are."""
        if not data:
            return 0
        reach = min(len(data), self._random.choice((8, 64, 512, len(data))))
        at = self._random.randrange(reach)
        return at if self._random.random() < 0.5 else len(data) - 1 - at

    def _damaged(self, data: bytes) -> bytes:
        """Return a file with changed, missing, repeated or foreign bytes."""
        at, kind = self._place(data), self._random.randrange(6)
        if kind == 0:
            changed = bytearray(data)
            for _ in range(self._random.choice((1, 1, 2, 5, 30)) if data else 0):
                changed[self._place(data)] = self._random.choice((self._random.randrange(256), 0, 255))
            return bytes(changed)
        if kind == 1:
            size = self._random.choice((1, 2, 4, 8))
            number = self._number(size).to_bytes(size, self._random.choice(("little", "little", "big")))
            return data[:at] + number + data[at + size :]
        if kind == 2:
            return data[:at] if self._random.random() < 0.5 else data[at:]
        if kind == 3:
            part = data[at : at + self._random.choice((1, 30, 1000))]
            return data[:at] + part * self._random.choice((2, 20, 500)) + data[at:]
        if kind == 4:
            other = self._random.choice(self._zips)
            return data[:at] + other[self._place(other) :]
        return data[:at] + self._random.randbytes(self._random.choice((1, 8, 100))) + data[at:]

    def _zip_damaged(self) -> bytes:
        return self._damaged(self._random.choice(self._zips))

    def _random_bytes(self) -> bytes:
        start = self._random.choice((b"", b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"\x80\4", b"\x1f\x8b"))
        return start + self._random.randbytes(self._random.choice((0, 1, 8, 18, 22, 60, 2000)))

    def _packed(self, files: Mapping[str, bytes]) -> bytes:
        """Return the zip of members. Mostly the manifest states their hashes, so that they are read at all."""
        files = dict(files)
        if MANIFEST in files and self._random.random() < 0.9:
            try:
                manifest = json.loads(files[MANIFEST])
                others = {name: sha256(data) for name, data in files.items() if name not in (MANIFEST, SIGNATURE)}
                files[MANIFEST] = json.dumps({**manifest, "files": others}).encode()
            except (ValueError, TypeError, RecursionError):
                pass  # The manifest itself is the damaged member.
        return self._zip(files)

    def _zip(self, files: Mapping[str, bytes]) -> bytes:
        """Return a zip. A stored one is made faster, and so is more frequent."""
        if self._random.random() < 0.1 or any(len(data) > 10**6 for data in files.values()):
            return pack(files)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return out.getvalue()

    def _member_damaged(self) -> bytes:
        files = self._files()
        name = self._random.choice(list(files))
        return self._packed({**files, name: self._damaged(files[name])})

    def _text_replaced(self) -> bytes:
        files = self._files()
        name = self._random.choice((*files, *MEMBERS))
        return self._packed({**files, name: self._random.choice(TEXTS)})

    def _extras_added(self) -> bytes:
        """Return an upload with files beside its members: those that other programs write, and a signature."""
        files = self._files()
        for _ in range(self._random.choice((1, 2, 14))):
            name = self._random.choice((*NAMES, *MEMBERS, SIGNATURE))
            value = json.dumps(self._random.choice(VALUES)).encode()
            files[name] = self._random.choice((value, *TEXTS, *SIGNATURES, b"{{ messages }}"))
        if self._random.random() < 0.3:
            files = {f"{self._random.choice(NAMES)}/{name}": data for name, data in files.items()}
        try:
            return self._zip(files)
        except (ValueError, IndexError, struct.error):
            return self._zip(self._files())  # No zip has such a name.

    def _json_forged(self) -> bytes:
        """Return an upload in which some values of one JSON member are others."""
        files = self._files()
        name = self._random.choice([n for n in (CONFIG, CONFIG, MANIFEST, MANIFEST, GOLDEN) if n in files])
        value = json.loads(files[name])
        for _ in range(self._random.choice((1, 1, 2, 4))):
            self._change(value)
        files[name] = json.dumps(value, ensure_ascii=self._random.random() < 0.9).encode("utf-8", "surrogatepass")
        if self._random.random() < 0.1:
            files[name] = files[name].replace(b"{", b'{"r":1,"r":2,', 1)
        return self._packed(files)

    def _change(self, value: Any) -> None:
        """Change one place in a JSON value: set, remove or add a key or an item, at a random depth."""
        while True:
            places = list(value) if isinstance(value, dict) else list(range(len(value)))
            deeper = [at for at in places if isinstance(value[at], dict | list) and value[at]]
            if not deeper or self._random.random() < 0.5:
                break
            value = value[self._random.choice(deeper)]
        new = copy.deepcopy(self._random.choice(VALUES))
        kind = self._random.random()
        if kind < 0.2 and places:
            del value[self._random.choice(places)]
        elif kind < 0.35 or not places:
            if isinstance(value, dict):
                value[
                    self._random.choice(("", "x", "r", "peft_type", "labels", "head", "modules_to_save", "é"))
                ] = new
            else:
                value.append(new)
        else:
            value[self._random.choice(places)] = new

    def _header_forged(self) -> bytes:
        """Return an upload whose safetensors header states other tensors than its bytes hold."""
        files = self._files()
        weights = files[WEIGHTS]
        (length,) = struct.unpack_from("<Q", weights)
        header, data = json.loads(weights[8 : 8 + length]), weights[8 + length :]
        for _ in range(self._random.choice((1, 1, 3))):
            name = self._random.choice(list(header) or [""])
            entry = header.get(name)
            if not isinstance(entry, dict) or self._random.random() < 0.2:
                header[self._random.choice((name, "__metadata__", "", "x" * 3000))] = self._random.choice(
                    (*VALUES, {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
                )
                continue
            numbers = self._random.choice((EXTREMES, (-1, 0.5, "1", None, [1]), range(40)))
            entry[self._random.choice(("shape", "data_offsets", "dtype", "x"))] = self._random.choice(
                (
                    [self._random.choice(numbers) for _ in range(self._random.choice((0, 1, 2, 2, 3, 9)))],
                    self._random.choice(DTYPES),
                    self._random.choice(VALUES),
                )
            )
            if self._random.random() < 0.2:
                header[name + ".lora_A.weight"] = header.pop(name)
        stated = None if self._random.random() < 0.8 else self._number(8)
        data = self._damaged(data) if self._random.random() < 0.2 else data
        return self._packed({**files, WEIGHTS: raw_safetensors(header, data, stated)})

    def _directory_forged(self) -> bytes:
        """Return a zip with forged headers: names, sizes, offsets, methods, flags, counts, zip64 records."""
        entries = [
            (name, data, self._random.choice((0, 8)))
            for name, data in self._files().items()
            if self._random.random() < 0.95
        ]
        if self._random.random() < 0.2 and entries:
            entries.append(self._random.choice(entries))
        out, directory = io.BytesIO(), b""
        for name, data, method in entries:
            forged = self._random.random() < 0.3
            raw = (self._random.choice(NAMES) if forged and self._random.random() < 0.3 else name).encode()[
                :60000
            ]
            packed = data if method == 0 else zlib.compress(data, 1)[2:-4]
            fields = {
                "version": 20, "flags": 0, "method": method, "crc": zlib.crc32(data), "packed": len(packed),
                "size": len(data), "extra": b"", "attributes": 0o644 << 16, "offset": out.tell(),
            }  # fmt: skip
            local = dict(fields)
            if forged:
                for _ in range(self._random.choice((1, 1, 3))):
                    self._forge(self._random.choice((fields, local, fields)))
            out.write(_local_header(raw, local) + packed)
            directory += _directory_entry(raw, fields)
        begin, count = out.tell(), len(entries)
        end = [0, 0, count, count, len(directory), begin, 0]
        if self._random.random() < 0.3:
            at = self._random.randrange(len(end))
            end[at] = self._random.choice((self._number(4), max(0, end[at] - 1), end[at] + 1)) % (
                2**16 if at not in (4, 5) else 2**32
            )
        wide = b""
        if self._random.random() < 0.2:
            numbers = [
                self._random.choice((n, n, self._number(8))) for n in (44, count, count, len(directory), begin)
            ]
            wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", numbers[0], 45, 45, 0, 0, *numbers[1:])
            wide += struct.pack(
                "<4sLQL", b"PK\6\7", 0, self._random.choice((begin + len(directory), self._number(8))), 1
            )
        return out.getvalue() + directory + wide + struct.pack("<4s4H2LH", b"PK\5\6", *end)

    def _forge(self, fields: dict[str, Any]) -> None:
        name = self._random.choice(list(fields))
        if name == "extra":
            inside = b"".join(struct.pack("<Q", self._number(8)) for _ in range(self._random.randrange(5)))
            tag = self._random.choice((1, 1, 1, 0x7075, 0x9901, 0xFFFF))
            size = self._random.choice((len(inside), len(inside), self._number(2)))
            fields[name] = struct.pack("<2H", tag, size) + inside
        elif name == "method":
            fields[name] = self._random.choice((0, 1, 8, 9, 12, 14, 93, 95, 99, 65535))
        elif name == "flags":
            fields[name] = self._random.choice((1, 2, 8, 64, 2048, 8192, 65535))
        elif name in ("packed", "size", "offset", "crc"):
            near = fields[name] + self._random.choice((-1, 1, 30, 1000))
            fields[name] = self._random.choice((self._number(4), near)) % 2**32
        else:
            fields[name] = self._number(4 if name == "attributes" else 2)

    def _large_member(self) -> bytes:
        """Return a small zip with a member that unpacks to megabytes: a text just under its limit, or zeros."""
        files = self._files()
        fill = self._random.choice(
            (
                b"[" * 9,
                b"0,",
                b'"a",',
                b"{},",
                b'"a":[],',
                b"1e9,",
                b'"\\u0041",',
                b" ",
                b"\0",
                b"\xc3\xa9",
                b"x.",
            )
        )
        name = self._random.choice(
            (*MEMBERS, "tokenizer_config.json", "config.json", "chat_template.jinja", SIGNATURE)
        )
        size = self._random.choice((10**5, 10**6, 4 * 2**20 - 100))
        text = fill * (size // len(fill))
        kind = self._random.randrange(4)
        if kind == 0:
            files[name] = text
        elif kind == 1:
            files[name] = b"[" + text.rstrip(b",") + b"]"
        elif kind == 2 and name in (CONFIG, MANIFEST, GOLDEN) and name in files:
            value = json.loads(files[name])
            key = self._random.choice(list(value))
            value[key] = self._random.choice(
                (
                    [str(i) for i in range(size // 8)],
                    {str(i): 0 for i in range(size // 12)},
                    "a" * size,
                    [[0]] * (size // 5),
                )
            )
            files[name] = json.dumps(value).encode()
        else:
            files[WEIGHTS] = self._random.choice(
                (
                    bytes(30 * size),
                    struct.pack("<Q", 2**20 - 8) + b" " * (2**20 - 8),
                    raw_safetensors(
                        {
                            f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                            for i in range(size // 100)
                        }
                    ),
                    raw_safetensors(
                        {"t": {"dtype": "F16", "shape": [size], "data_offsets": [0, 2 * size]}}, bytes(2 * size)
                    ),
                )
            )
        return self._packed(files)


def _local_header(name: bytes, f: Mapping[str, Any]) -> bytes:
    start = struct.pack("<4s5H", b"PK\3\4", f["version"], f["flags"], f["method"], 0, 33)
    sizes = struct.pack("<3L2H", f["crc"], f["packed"], f["size"], len(name), len(f["extra"]))
    return bytes(start + sizes + name + f["extra"])


def _directory_entry(name: bytes, f: Mapping[str, Any]) -> bytes:
    start = struct.pack("<4s6H", b"PK\1\2", 20, f["version"], f["flags"], f["method"], 0, 33)
    sizes = struct.pack("<3L2H", f["crc"], f["packed"], f["size"], len(name), len(f["extra"]))
    place = struct.pack("<3H2L", 0, 0, 0, f["attributes"], f["offset"])
    return bytes(start + sizes + place + name + f["extra"])


def members_of(data: bytes) -> dict[str, bytes]:
    """Return the files in a sound zip by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
