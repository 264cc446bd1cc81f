"""The signature of an adapter: the file that holds it, and its check."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from rootstock.adapters.bundle.archive import SIGNATURE
from rootstock.adapters.signing.statement import KINDS, Statement
from rootstock.adapters.spec import Rejected
from rootstock.adapters.strict_json.canonical import canonical
from rootstock.adapters.strict_json.json_member import read_json

CHECK = "signature"
ALGORITHM = "ed25519"
KEY_BYTES, SIGNATURE_BYTES = 32, 64
_SCHEMA = 1
_KEYS = {"schema", "algorithm", "of", "digest", "key", "signature"}
_MAX_BYTES = 2**12
_AGAIN = "sign it again: rootstock adapters sign PATH --key FILE"


@dataclass(frozen=True, slots=True)
class Signature:
    """A statement with the public key that signed it and the signature, both in base64."""

    statement: Statement
    key: str
    value: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON value of the signature's file."""
        of, digest = self.statement.of, self.statement.digest
        return {
            "schema": _SCHEMA, "algorithm": ALGORITHM, "of": of, "digest": digest,
            "key": self.key, "signature": self.value,
        }  # fmt: skip

    def to_bytes(self) -> bytes:
        """Return the content of the signature's file."""
        return canonical(self.to_json())

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Return the signature in a file. Raise Rejected (check "signature") if it is not in the one form."""
        if len(data) > _MAX_BYTES:
            raise _refused(f"has {len(data)} bytes and the limit is {_MAX_BYTES}; {_AGAIN}")
        try:
            value = read_json(data, SIGNATURE)
        except Rejected as error:
            raise _refused(f"{error.message}; {_AGAIN}") from None
        return cls.from_json(value)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the signature of a JSON value. Raise Rejected (check "signature") as `read` does."""
        if set(value) != _KEYS:
            raise _refused(f"holds other keys than {', '.join(sorted(_KEYS))}; {_AGAIN}")
        if value["schema"] != _SCHEMA or isinstance(value["schema"], bool) or value["algorithm"] != ALGORITHM:
            raise _refused(f"is not schema {_SCHEMA} with {ALGORITHM}, the one that this program reads; {_AGAIN}")
        if value["of"] not in KINDS or not isinstance(value["digest"], str):
            raise _refused(f"signs neither a bundle nor a folder; {_AGAIN}")
        for name, size in (("key", KEY_BYTES), ("signature", SIGNATURE_BYTES)):
            if decoded(value[name], size) is None:
                raise _refused(f"{name} is not {size} bytes in base64; {_AGAIN}")
        return cls(Statement(value["of"], value["digest"]), value["key"], value["signature"])

    def check(self, statement: Statement) -> None:
        """Raise Rejected (check "signature") unless the key has signed this statement."""
        if self.statement != statement:
            raise _refused(
                f"signs the {self.statement.of} {self.statement.digest[:80]}, and the upload is the "
                f"{statement.of} {statement.digest}; {_AGAIN}"
            )
        key, value = decoded(self.key, KEY_BYTES), decoded(self.value, SIGNATURE_BYTES)
        try:
            if key is None or value is None:
                raise InvalidSignature
            Ed25519PublicKey.from_public_bytes(key).verify(value, statement.message)
        except (InvalidSignature, ValueError):
            raise _refused(f"the key {self.key[:64]} did not make this signature; {_AGAIN}") from None


def decoded(text: Any, size: int) -> bytes | None:
    """Return the bytes of a base64 text; None unless it is the one text of so many bytes."""
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return None
    return data if len(data) == size and base64.b64encode(data).decode("ascii") == text else None


def _refused(message: str) -> Rejected:
    return Rejected(CHECK, SIGNATURE, message)
