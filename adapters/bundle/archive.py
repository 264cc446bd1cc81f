"""A bundle's zip: only the five known members, no links, no paths, nothing that unpacks beyond the limits."""

from __future__ import annotations

import copy
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from rootstock.adapters.spec import Rejected

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MANIFEST = "bundle.json"
GOLDEN = "golden.json"
CARD = "README.md"
MEMBERS = (CONFIG, WEIGHTS, MANIFEST, GOLDEN, CARD)

# A bundle's directory takes some 400 bytes; beyond this, listing the members alone would cost much memory.
_MAX_DIRECTORY_BYTES = 64 * 2**10
# The last two: zip64 has room for numbers that no file position or slice takes.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError,
    OverflowError, struct.error,
)  # fmt: skip
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Limits:
    """What an upload may be: bytes of the zip, bytes of all members unpacked, and of each text member."""

    max_bundle_bytes: int = 64 * 2**20
    max_unpacked_bytes: int = 128 * 2**20
    max_text_bytes: int = 4 * 2**20
    max_rank: int = 64


def pack(files: Mapping[str, bytes]) -> bytes:
    """The zip of a bundle's files; the same files give the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name])
    return out.getvalue()


def unpack(data: bytes, limits: Limits) -> dict[str, bytes]:
    """The members of an uploaded zip by name; Rejected (check "size" or "members") for anything else."""
    if len(data) > limits.max_bundle_bytes:
        raise Rejected(
            "size", "bundle", f"{len(data)} bytes; at most {limits.max_bundle_bytes} bytes are accepted"
        )
    try:
        counted = _check_directory(data)
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Rejected:
        raise
    except _UNREADABLE as error:
        raise Rejected("members", "bundle", f"not a zip archive ({error}); zip the adapter's folder") from None
    with archive:
        if (listed := len(archive.infolist())) != counted:
            # A damaged directory can swallow an entry, and a bundle without its manifest is a plain folder.
            raise Rejected("members", "bundle", f"{listed} members are listed; the archive counts {counted}")
        infos = _members(archive, limits)
        return {name: _read(archive, info) for name, info in infos.items()}


def _check_directory(data: bytes) -> int:
    """The number of members that the archive counts; refuses a huge directory before ZipFile lists it.

    Reads where the directory ends as ZipFile itself does.
    """
    end = zipfile._EndRecData(io.BytesIO(data))  # type: ignore[attr-defined]
    count, size = (0, 0) if end is None else (int(end[4]), int(end[5]))
    if size > _MAX_DIRECTORY_BYTES:
        raise Rejected(
            "members",
            "bundle",
            f"its directory of members takes {size} bytes; at most {_MAX_DIRECTORY_BYTES}: a bundle has at most "
            f"{len(MEMBERS)} files",
        )
    return count


def _members(archive: zipfile.ZipFile, limits: Limits) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > 2 * len(MEMBERS):
        raise Rejected("members", "bundle", f"{len(infos)} members; a bundle has at most {len(MEMBERS)} files")
    found: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    for info in infos:
        folder, name = _safe_name(info)
        if name == "":
            continue
        if name in found:
            raise Rejected("members", info.filename, "this member is in the archive twice")
        _check_member(info, name, limits)
        found[name] = info
        folders.add(folder)
    if len(folders) > 1:
        raise Rejected("members", "bundle", f"members lie in {len(folders)} folders; put all in one")
    total = sum(info.file_size for info in found.values())
    if total > limits.max_unpacked_bytes:
        raise Rejected("size", "bundle", f"unpacks to {total} bytes; at most {limits.max_unpacked_bytes}")
    for required in (CONFIG, WEIGHTS):
        if required not in found:
            raise Rejected("members", required, f"missing; found: {', '.join(sorted(found)) or 'nothing'}")
    return found


def _safe_name(info: zipfile.ZipInfo) -> tuple[str, str]:
    raw = info.filename
    parts = raw.split("/")
    if raw.startswith("/") or "\\" in raw or ":" in raw or ".." in parts or len(parts) > 2:
        raise Rejected("members", raw, "a path that leaves the bundle's folder")
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Rejected("members", raw, "a link or special file; a bundle holds plain files only")
    return (parts[0], parts[1]) if len(parts) == 2 else ("", raw)


def _check_member(info: zipfile.ZipInfo, name: str, limits: Limits) -> None:
    if name not in MEMBERS:
        reason = "pickled weights are never read; save as safetensors" if name.endswith(".bin") else "unknown"
        raise Rejected("members", info.filename, f"{reason}; a bundle holds only {', '.join(MEMBERS)}")
    if info.flag_bits & 0x1:
        raise Rejected("members", info.filename, "encrypted; upload it plain")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Rejected(
            "members", info.filename, f"compression method {info.compress_type}; stored or deflated (8) are read"
        )
    if name != WEIGHTS and info.file_size > limits.max_text_bytes:
        raise Rejected("size", info.filename, f"{info.file_size} bytes; at most {limits.max_text_bytes}")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The member's bytes, never more than its header declares: a lying header is caught, not expanded."""
    # ZipFile stops at the declared size, so one byte more is allowed for, to see whether there is one.
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
