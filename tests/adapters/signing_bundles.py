"""Adapters and keys for the tests of signatures, without a foundation."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from rootstock.adapters.bundle import PlainFields, pack
from rootstock.adapters.bundle.archive import SIGNATURE, Limits, open_archive
from rootstock.adapters.signing.signature import Signature
from rootstock.adapters.signing.signing_key import SigningKey
from rootstock.adapters.signing.statement import Statement, statement_of
from tests.attacks.forge import good_files, good_tensors, plain_files

LIMITS = Limits()
_NO_FIELDS = PlainFields()
_SPEC: Any = SimpleNamespace(fingerprint=f"sha256:{0:064x}", name="tiny/bert")


def bundle_files(**changes: Any) -> dict[str, bytes]:
    """Return the members of a bundle, whose manifest has these changes."""
    return good_files(_SPEC, **changes)


def folder_files(labels: int = 3) -> dict[str, bytes]:
    """Return the files of a plain PEFT folder."""
    return plain_files(good_tensors(labels=labels))


def statement(files: Mapping[str, bytes], plain: PlainFields = _NO_FIELDS) -> Statement:
    """Return the statement to sign for these files."""
    return statement_of(open_archive(pack(files), LIMITS), plain)


def signed(files: Mapping[str, bytes], key: SigningKey, plain: PlainFields = _NO_FIELDS) -> dict[str, bytes]:
    """Return the files with the key's signature beside them."""
    return {**files, SIGNATURE: key.sign(statement(files, plain)).to_bytes()}


def trusted_text(**keys: SigningKey) -> str:
    """Return the setting that trusts these keys."""
    return ",".join(f"{name}={key.public}" for name, key in keys.items())


def read_signature(files: Mapping[str, bytes]) -> Signature:
    """Return the signature among the files."""
    return Signature.read(files[SIGNATURE])
