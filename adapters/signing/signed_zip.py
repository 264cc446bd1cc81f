"""The signing of a zip or a folder, and the signature's place in them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from rootstock.adapters.bundle import Limits, PlainFields
from rootstock.adapters.bundle.archive import MEMBERS, SIGNATURE, open_archive, open_stored
from rootstock.adapters.signing.signature import Signature
from rootstock.adapters.signing.signing_key import SigningKey
from rootstock.adapters.signing.statement import statement_of

# A server has its own limits. Who signs has the files already.
_ANY_SIZE = Limits(max_bundle_bytes=2**40, max_unpacked_bytes=2**40)
_EPOCH = (1980, 1, 1, 0, 0, 0)


def signed_zip(data: bytes, key: SigningKey, plain: PlainFields) -> tuple[bytes, Signature]:
    """Return a zip of the signer's own with a signature, and the signature. An earlier one in it is replaced.

    All other entries stay as they are, so the digest does too. Raise Rejected if the zip is not an adapter's.
    """
    signature = key.sign(statement_of(open_archive(data, _ANY_SIZE), plain))
    return with_signature(data, signature), signature


def with_signature(data: bytes, signature: Signature) -> bytes:
    """Return a zip that `open_archive` reads with a signature beside its members, instead of an earlier one."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as after:
        folder = ""
        for info in before.infolist():
            folder_of, _, name = info.filename.rpartition("/")
            if name in MEMBERS and folder_of.count("/") == 0:
                folder = f"{folder_of}/" if folder_of else ""
            if name != SIGNATURE:
                after.writestr(info, before.read(info))
        after.writestr(_entry(folder), signature.to_bytes())
    return out.getvalue()


def signed_tail(file: BinaryIO, signature: Signature) -> tuple[int, bytes]:
    """Return how a stored bundle becomes a signed one: the number of its bytes to keep, and what follows them.

    The entries of the bundle keep their places, so a download can be sent from the file without reading it whole.
    Raise Rejected (check "members") if the file is not a zip.
    """
    with open_stored(file) as stored:
        entries, start = list(stored.infolist()), stored.start_dir
        if any(info.filename == SIGNATURE for info in entries):
            return file.seek(0, io.SEEK_END), b""
        # A file with a hole takes no room for the bytes before `start`.
        with TemporaryFile() as sparse:
            sparse.seek(start)
            with zipfile.ZipFile(sparse, "w", zipfile.ZIP_DEFLATED) as tail:
                tail.writestr(_entry(""), signature.to_bytes())
                tail.filelist[:0] = entries
            sparse.seek(start)
            return start, sparse.read()


def sign_folder(folder: Path, signature: Signature) -> Path:
    """Write a signature beside the files of an adapter's folder, and return its path."""
    path = folder / SIGNATURE
    path.write_bytes(signature.to_bytes())
    return path


def _entry(folder: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(folder + SIGNATURE, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info
