"""The statement that is signed: the digest of a bundle, or of a plain PEFT folder with its form fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.bundle.archive import MANIFEST, TOKENIZER_FILE, Archive
from rootstock.adapters.bundle.manifest import read_manifest
from rootstock.adapters.strict_json.canonical import digest_of, sha256

# A key that also signs other things must not sign one of ours by accident, so every message begins with this.
_DOMAIN = b"rootstock adapter signature v1\0"

Kind = Literal["bundle", "folder"]
KINDS: tuple[Kind, ...] = ("bundle", "folder")


@dataclass(frozen=True, slots=True)
class Statement:
    """The digest that is signed. `of` tells whether it is a bundle's digest or that of a plain PEFT folder."""

    of: Kind
    digest: str

    @property
    def message(self) -> bytes:
        """Return the bytes to sign: a domain separator, the kind and the digest, with zero bytes between."""
        return _DOMAIN + self.of.encode("ascii") + b"\0" + self.digest.encode("ascii")


def statement_of(archive: Archive, plain: PlainFields) -> Statement:
    """Return the statement to sign for an upload.

    A bundle has the digest of its manifest, which holds the hashes of all other members. A plain PEFT folder has
    none, and the server makes its manifest from the files and the form fields. So its digest covers both. Raise
    Rejected (check "schema") for a manifest that cannot be read.
    """
    if MANIFEST in archive.members:
        return Statement("bundle", read_manifest(archive.members[MANIFEST]).digest)
    tokenizer = archive.tokenizer()
    beside = {} if tokenizer is None else {TOKENIZER_FILE: tokenizer}
    contents = {**archive.members, **archive.descriptions, **beside}
    files = {path: sha256(data) for path, data in contents.items()}
    fields = {name: value for name, value in vars(plain).items() if value is not None}
    return Statement("folder", digest_of({"files": files, "fields": fields}))
