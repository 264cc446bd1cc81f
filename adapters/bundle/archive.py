"""Packs and unpacks a bundle's zip: at most five members, no links, no paths, and limits on every size.

A signature may lie beside the members. Known extras, which other programs write beside an adapter (`extras`), are
left out. Any other file is refused.
"""

from __future__ import annotations

import copy
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import IO, BinaryIO

from rootstock.adapters.bundle.plain.extras import extra_of, is_description, system_file, why_unknown
from rootstock.adapters.spec import Rejected

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MANIFEST = "bundle.json"
GOLDEN = "golden.json"
# No member: the tokens that it adds go into the manifest.
TOKENIZER_FILE = "tokenizer.json"
CARD = "README.md"
MEMBERS = (CONFIG, WEIGHTS, MANIFEST, GOLDEN, CARD)
# It is no member, because it signs the digest that the members have.
SIGNATURE = "signature.json"

# A bundle's directory takes some 400 bytes. A list of the members in a huge one would take much memory.
_MAX_DIRECTORY_BYTES = 64 * 2**10
# The last two are for zip64, which has room for numbers that are too large for a file position or slice.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError,
    OverflowError, struct.error,
)  # fmt: skip
# The tokenizer of 250,000 pieces of XLM-R takes 17 MB.
_MAX_TOKENIZER_BYTES = 32 * 2**20
_EPOCH = (1980, 1, 1, 0, 0, 0)
# sentence-transformers writes four, and one for each of the model's few modules. A chat template is one more.
_MAX_DESCRIPTIONS = 13


@dataclass(frozen=True)
class Limits:
    """The limits of an upload: bytes of the zip, of its members unpacked, of each text member; and the rank."""

    max_bundle_bytes: int = 64 * 2**20
    max_unpacked_bytes: int = 128 * 2**20
    max_text_bytes: int = 4 * 2**20
    max_rank: int = 64


@dataclass(frozen=True)
class Archive:
    """An uploaded zip: its members by name, and the names of the known extras in it (`ignored`).

    `descriptions` holds, by path, the extras that describe a model (`is_description`). `signature` is the content
    of the signature's file, None without one. `tokenizer` unpacks tokenizer.json, which few adapters need; it
    returns None without one or if it is too large to be read, and raises Rejected for a damaged one.
    """

    members: Mapping[str, bytes]
    ignored: tuple[str, ...] = ()
    descriptions: Mapping[str, bytes] = field(default_factory=dict)
    signature: bytes | None = None
    tokenizer: Callable[[], bytes | None] = lambda: None


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the zip of a bundle's files; the same files give the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name])
    return out.getvalue()


def unpack(data: bytes, limits: Limits) -> dict[str, bytes]:
    """Return the members of an uploaded zip by name; raise Rejected as `open_archive` does."""
    return dict(open_archive(data, limits).members)


def open_archive(data: bytes, limits: Limits) -> Archive:
    """Read an uploaded zip; raise Rejected (check "size" or "members") if it is not a bundle's zip."""
    if len(data) > limits.max_bundle_bytes:
        raise Rejected(
            "size", "bundle", f"the zip has {len(data)} bytes and the limit is {limits.max_bundle_bytes} bytes"
        )
    try:
        count = _check_directory(data)
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Rejected:
        raise
    except _UNREADABLE as error:
        raise Rejected("members", "bundle", f"not a zip archive ({error}); zip the adapter's folder") from None
    with archive:
        if (listed := len(archive.infolist())) != count:
            # A damaged directory can hide an entry. A bundle without its manifest would pass as a plain folder.
            raise Rejected(
                "members",
                "bundle",
                f"{listed} members are listed and the archive counts {count}; zip the adapter's folder again",
            )
        entries, extras, ignored = _sorted_out(archive.infolist())
        described = {path: info for path, info in extras.items() if is_description(path)}
        infos = _members(entries, described, limits)
        members = {name: _read(archive, info) for name, info in infos.items()}
        signature = members.pop(SIGNATURE, None)
        return Archive(
            members,
            tuple(sorted(ignored)),
            {path: _read(archive, info) for path, info in described.items()},
            signature,
            partial(_tokenizer, data, extras.get(TOKENIZER_FILE)),
        )


@contextmanager
def open_stored(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Yield the zip of a stored bundle, which `pack` wrote, without reading its members.

    Raise Rejected (check "members") if the file is not a zip.
    """
    try:
        archive = zipfile.ZipFile(file)
    except _UNREADABLE as error:
        raise Rejected("members", "bundle", f"not a zip archive ({error})") from None
    with archive:
        yield archive


@contextmanager
def open_member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    """Yield a member of a stored bundle as a file, which is unpacked only as far as it is read.

    Raise Rejected (check "members") if the member is missing or damaged.
    """
    try:
        info = archive.getinfo(name)
        _check_compression(info)
        with archive.open(info) as member:
            yield member
    except Rejected:
        raise
    except (KeyError, *_UNREADABLE) as error:
        raise Rejected("members", name, f"cannot be read from the archive: {error}") from None


def _check_directory(data: bytes) -> int:
    """Return the number of members that the archive states; refuse a huge directory before ZipFile lists it.

    This finds the end of the directory by ZipFile's own function, so that the two cannot disagree.
    """
    end = zipfile._EndRecData(io.BytesIO(data))  # type: ignore[attr-defined]
    count, size = (0, 0) if end is None else (int(end[4]), int(end[5]))
    if size > _MAX_DIRECTORY_BYTES:
        raise Rejected(
            "members",
            "bundle",
            f"the directory of members takes {size} bytes and the limit is {_MAX_DIRECTORY_BYTES}; a bundle has "
            f"at most {len(MEMBERS)} files",
        )
    return count


def _sorted_out(
    infos: Iterable[zipfile.ZipInfo],
) -> tuple[list[zipfile.ZipInfo], dict[str, zipfile.ZipInfo], set[str]]:
    """Return the entries that may be members, the files of known extras by path, and the names of the extras."""
    rest: list[zipfile.ZipInfo] = []
    ignored = set()
    for info in infos:
        _check_name(info)
        if (added := system_file(info.filename)) is None:
            rest.append(info)
        else:
            ignored.add(added)
    entries: list[zipfile.ZipInfo] = []
    extras: dict[str, zipfile.ZipInfo] = {}
    root = _root(rest)
    for info in rest:
        path = info.filename.removeprefix(root)
        extra = extra_of(path) if info.filename.startswith(root) else None
        if extra is None:
            entries.append(info)
        elif not info.is_dir():
            ignored.add(extra)
            extras[path] = info
    return entries, extras, ignored


def _root(infos: Iterable[zipfile.ZipInfo]) -> str:
    """Return the folder that holds the bundle's members, with a slash; "" for the archive's own root."""
    parts = [info.filename.split("/") for info in infos]
    tops = {p[0] for p in parts if len(p) == 2 and p[1] in MEMBERS}
    # Someone may zip a checkpoint's folder by itself. Beside another folder, a checkpoint's folder is an extra.
    tops = {top for top in tops if extra_of(f"{top}/") is None} or tops
    if any(len(p) == 1 and p[0] in MEMBERS for p in parts) or len(tops) != 1:
        return ""
    return f"{tops.pop()}/"


def _members(
    infos: list[zipfile.ZipInfo], described: Mapping[str, zipfile.ZipInfo], limits: Limits
) -> dict[str, zipfile.ZipInfo]:
    if len(infos) > 2 * len(MEMBERS):
        raise Rejected(
            "members",
            "bundle",
            f"the archive has {len(infos)} members; a bundle has at most {len(MEMBERS)} files",
        )
    if len(described) > _MAX_DESCRIPTIONS:
        raise Rejected(
            "members",
            "bundle",
            f"{len(described)} files describe sentence-transformers modules and the limit is {_MAX_DESCRIPTIONS}",
        )
    members: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    for info in infos:
        folder, name = _place(info)
        if name == "":
            continue
        if name in members:
            raise Rejected("members", info.filename, "the archive holds this member twice")
        if name not in (*MEMBERS, SIGNATURE):
            raise Rejected(
                "members", info.filename, f"{why_unknown(name)}; a bundle holds only {', '.join(MEMBERS)}"
            )
        _check_member(info, name, limits)
        members[name] = info
        folders.add(folder)
    if len(folders) > 1:
        raise Rejected("members", "bundle", f"the members lie in {len(folders)} folders; put all of them in one")
    for path, info in described.items():
        _check_member(info, path, limits)
    total = sum(info.file_size for info in (*members.values(), *described.values()))
    if total > limits.max_unpacked_bytes:
        raise Rejected(
            "size", "bundle", f"the zip unpacks to {total} bytes and the limit is {limits.max_unpacked_bytes}"
        )
    for required in (CONFIG, WEIGHTS):
        if required not in members:
            present = ", ".join(sorted(members)) or "nothing"
            raise Rejected("members", required, f"this required member is missing; the archive holds: {present}")
    return members


def _tokenizer(data: bytes, info: zipfile.ZipInfo | None) -> bytes | None:
    """Return the content of a tokenizer's file in a zip, if it may be read."""
    if info is None or info.flag_bits & 0x1 or info.file_size > _MAX_TOKENIZER_BYTES:
        return None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return _read(archive, info)


def _check_name(info: zipfile.ZipInfo) -> None:
    raw = info.filename
    if raw.startswith("/") or "\\" in raw or ":" in raw or ".." in raw.split("/"):
        raise Rejected("members", raw, "the path leaves the bundle's folder")
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Rejected("members", raw, "this is a link or special file; a bundle holds only plain files")


def _place(info: zipfile.ZipInfo) -> tuple[str, str]:
    """Return the folder and the name of an entry."""
    parts = info.filename.split("/")
    if len(parts) > 2:
        raise Rejected(
            "members",
            info.filename,
            "the path leaves the bundle's folder or lies in a folder inside it; put all members into one folder",
        )
    return (parts[0], parts[1]) if len(parts) == 2 else ("", info.filename)


def _check_member(info: zipfile.ZipInfo, name: str, limits: Limits) -> None:
    if info.flag_bits & 0x1:
        raise Rejected("members", info.filename, "the member is encrypted; upload it unencrypted")
    _check_compression(info)
    if name != WEIGHTS and info.file_size > limits.max_text_bytes:
        raise Rejected(
            "size",
            info.filename,
            f"the file has {info.file_size} bytes and the limit is {limits.max_text_bytes}; shorten it",
        )


def _check_compression(info: zipfile.ZipInfo) -> None:
    """Raise Rejected for a method that no bundle has. Python's other ones may take much memory."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Rejected(
            "members",
            info.filename,
            f"compression method {info.compress_type} is not supported; use stored (0) or deflated (8)",
        )


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return a member's bytes; raise Rejected, without unpacking more, if its header declares a wrong size."""
    # ZipFile stops at the declared size, so this asks for one byte more, to see whether there is one.
    wider = copy.copy(info)
    wider.file_size += 1
    try:
        with archive.open(wider) as member:
            data = member.read(wider.file_size)
    except _UNREADABLE as error:
        raise Rejected("members", info.filename, f"cannot be read from the archive: {error}") from None
    if len(data) != info.file_size:
        size = f"more than {info.file_size}" if len(data) > info.file_size else f"{len(data)}"
        raise Rejected("size", info.filename, f"unpacks to {size} bytes; its header declares {info.file_size}")
    return data
