"""The public keys that a server trusts, and the check of an upload against them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.bundle.archive import SIGNATURE, Archive
from rootstock.adapters.signing.signature import CHECK, KEY_BYTES, Signature, decoded
from rootstock.adapters.signing.statement import statement_of
from rootstock.adapters.spec import Rejected

SETTING = "ROOTSTOCK_TRUSTED_KEYS"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)


class TrustedKeys:
    """The public keys of signers by name. Without any, an upload needs no signature.

    A signer may have several keys, each with a name: an old one and its successor, while both are in use.
    """

    def __init__(self, keys: Mapping[str, str] | None = None) -> None:
        """Trust `keys`, which maps the name of each signer to a public key in base64."""
        self._signers = {key: name for name, key in (keys or {}).items()}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the keys in `name=base64,name=base64`, or in the file that the text names.

        A text without `=` is a path. The file has a key in each line; empty lines and those that begin with `#`
        are left out. Raise ValueError with the remedy for anything else.
        """
        if not text.strip():
            return cls()
        if "=" in text:
            return cls(_keys(text.split(",")))
        path = Path(text.strip()).expanduser()
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"the file {path} cannot be read ({reason}); give name=base64, or the path of a file with one "
                "name=base64 in each line"
            ) from None
        if not (keys := _keys(line for line in lines if not line.lstrip().startswith("#"))):
            raise ValueError(f"the file {path} names no key; put one name=base64 in each line")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._signers)

    def check(self, archive: Archive, plain: PlainFields) -> dict[str, Any] | None:
        """Return the entry on an upload's signature for the version's record; None for an upload without one.

        `signer` in it is the name of the trusted key, or None on a server that trusts no key. Raise Rejected
        (check "signature") for a signature that is not of this upload. If there are trusted keys, raise it too
        without a signature, or for one by a key that is not among them.
        """
        if archive.signature is None:
            if self:
                raise Rejected(
                    CHECK,
                    SIGNATURE,
                    f"the upload has no signature, and this server takes only what a key in {SETTING} has "
                    "signed; sign it: rootstock adapters sign PATH --key FILE",
                )
            return None
        signature = Signature.read(archive.signature)
        signer = self._signers.get(signature.key)
        if self and signer is None:
            raise Rejected(
                CHECK,
                SIGNATURE,
                f"the key {signature.key} is not in {SETTING}; sign with a key that is, or let the operator add "
                "this one there",
            )
        signature.check(statement_of(archive, plain))
        return {"signer": signer, **signature.to_json()}


def _keys(entries: Iterable[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for entry in filter(None, map(str.strip, entries)):
        name, _, key = (part.strip() for part in entry.partition("="))
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name[:64]!r} is no name of a signer; give name=base64, and as the name at most 64 letters, "
                "digits and . _ @ -"
            )
        if decoded(key, KEY_BYTES) is None:
            raise ValueError(
                f"the key of {name} is not {KEY_BYTES} bytes in base64; give the public key that `rootstock "
                "adapters keygen` printed"
            )
        if name in keys or key in keys.values():
            raise ValueError(f"{name} has a name or a key that occurs twice; give each key one name")
        keys[name] = key
    return keys
