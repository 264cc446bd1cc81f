"""Private keys: a file that only its owner can read, and the signatures that a key makes."""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from rootstock.adapters.errors import AdapterError
from rootstock.adapters.signing.signature import Signature
from rootstock.adapters.signing.statement import Statement

_MODE = 0o600
_MAX_BYTES = 2**14
_MAKE = "make one: rootstock adapters keygen FILE"


class UnusableKey(AdapterError):
    """The file holds no private key that signs adapters, or others can read it."""

    code = "unusable_key"


@dataclass(frozen=True)
class SigningKey:
    """A private ed25519 key."""

    private: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Return a new key from the system's source of randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the key in a PEM file (PKCS 8, not encrypted).

        Raise UnusableKey if the file cannot be read or holds another kind of key. Raise it too if other users of
        this machine may read the file.
        """
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                data = file.read(_MAX_BYTES)
        except OSError as error:
            raise UnusableKey(f"{path} cannot be read ({error.strerror}); {_MAKE}") from None
        if os.name == "posix" and mode & 0o077:
            raise UnusableKey(
                f"{path} has the mode {mode:04o}, so other users can read the private key; allow its owner "
                f"alone: chmod 600 {path}"
            )
        try:
            key = load_pem_private_key(data, password=None)
        # An encrypted key is a TypeError, and other causes are errors of several kinds.
        except Exception:
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise UnusableKey(f"{path} holds no ed25519 private key in PEM without a password; {_MAKE}")
        return cls(key)

    @property
    def public(self) -> str:
        """Return the public key in base64, as ROOTSTOCK_TRUSTED_KEYS takes it."""
        return base64.b64encode(self.private.public_key().public_bytes_raw()).decode("ascii")

    def save(self, path: Path) -> None:
        """Write the key to a new file that only its owner can read. Raise UnusableKey if the file exists."""
        pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            # The mode counts from the file's creation on, so that nobody can open it in between.
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        except FileExistsError:
            raise UnusableKey(f"{path} exists, and a key is never overwritten; name a new file") from None
        with os.fdopen(handle, "wb") as file:
            file.write(pem)

    def sign(self, statement: Statement) -> Signature:
        """Return the signature of a statement; the same key and statement give the same one."""
        value = self.private.sign(statement.message)
        return Signature(statement, self.public, base64.b64encode(value).decode("ascii"))
