"""The text of a key, which clients send as a bearer token: `rsk_<id>_<secret>`."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Self

# A program that looks for leaked secrets can find this form: 16, then 64 lower-case hex digits.
_FORM = re.compile(r"rsk_([0-9a-f]{16})_([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class BearerKey:
    """A key as its holder has it: the id by which it is looked up, and a secret of 256 random bits."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Return a new random key."""
        return cls(secrets.token_hex(8), secrets.token_hex(32))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the key that a text writes; None if the text has another form."""
        match = _FORM.fullmatch(text)
        return None if match is None else cls(match[1], match[2])

    @property
    def text(self) -> str:
        """Return the text that the holder sends."""
        return f"rsk_{self.id}_{self.secret}"

    @property
    def hash(self) -> str:
        """Return the sha256 of the secret, in hex. A secret of 256 random bits needs no salt and no slow hash."""
        return hashlib.sha256(self.secret.encode("ascii")).hexdigest()

    def matches(self, stored: str) -> bool:
        """Tell whether a stored hash is that of this key, in a time that does not depend on where they differ."""
        return hmac.compare_digest(self.hash, stored)
