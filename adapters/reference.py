"""The grammar of references, names, aliases and digests."""

import re
from dataclasses import dataclass

from rootstock.adapters.errors import InvalidDigest, InvalidName, InvalidReference

FOUNDATION = "foundation"
LIVE = "live"
# The operator's own tenant.
DEFAULT_TENANT = "default"
MAX_VERSION = 999_999_999

# The longest reference: a name, "@sha256:" and a whole digest.
_MAX_LENGTH = 128 + 8 + 64
_SHOWN = 80

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}", re.ASCII)
_PART_OF_NAME = re.compile(r"[a-z0-9._-]{0,128}", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_PREFIX = re.compile(r"[0-9a-f]{12,64}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """A valid reference: a name, and at most one of a version, an alias and the first digits of a digest."""

    name: str
    version: int | None = None
    alias: str | None = None
    digest_prefix: str | None = None

    def __post_init__(self) -> None:
        selectors = [self.version, self.alias, self.digest_prefix]
        if not is_name(self.name):
            raise InvalidReference(f"{shown(self.name)} is not a name; use {_NAME_RULE}")
        if len(selectors) - selectors.count(None) > 1:
            raise InvalidReference(f"a reference to {self.name!r} takes only one of version, alias and digest")
        if self.name == FOUNDATION and any(selector is not None for selector in selectors):
            raise InvalidReference(
                f"{FOUNDATION!r} has no versions, aliases or digests; write {FOUNDATION!r} alone"
            )
        if self.version is not None and not is_version(self.version):
            raise InvalidReference(
                f"version {shown(self.version)} is not a whole number between 1 and {MAX_VERSION}"
            )
        if self.alias is not None and not is_alias(self.alias):
            raise InvalidReference(f"{shown(self.alias)} is not an alias; use {_ALIAS_RULE}")
        if self.digest_prefix is not None and not _PREFIX.fullmatch(self.digest_prefix):
            raise InvalidReference(
                f"{shown(self.digest_prefix)} is not the start of a digest; give 12 to 64 lower-case hex digits"
            )

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Return the reference that `text` writes: `name`, `name@3`, `name@prod` or `name@sha256:<12+ hex>`."""
        if not isinstance(text, str) or len(text) > _MAX_LENGTH:
            raise InvalidReference(
                f"{shown(text)} is not a reference; give text of at most {_MAX_LENGTH} characters"
            )
        name, at, selector = text.partition("@")
        if not at:
            return cls(name)
        if selector.startswith("sha256:"):
            return cls(name, digest_prefix=selector.removeprefix("sha256:"))
        if _VERSION.fullmatch(selector):
            return cls(name, version=int(selector))
        if not is_alias(selector):
            raise InvalidReference(
                f"{shown(selector)} in {shown(text)} is neither a version (1, 2, 3 …), an alias ({_ALIAS_RULE}) "
                "nor the start of a digest (sha256: and 12 to 64 lower-case hex digits)"
            )
        return cls(name, alias=selector)

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}@{self.version}"
        if self.alias is not None:
            return f"{self.name}@{self.alias}"
        if self.digest_prefix is not None:
            return f"{self.name}@sha256:{self.digest_prefix}"
        return self.name


_NAME_RULE = "1 to 128 characters of a-z 0-9 . _ - that begin with a letter or digit"
_ALIAS_RULE = "1 to 64 characters of A-Z a-z 0-9 . _ - with at least one letter"


def is_name(text: object) -> bool:
    """Return whether `text` has the form of an adapter's name; the reserved name has that form too."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def is_part_of_name(text: str) -> bool:
    """Return whether an adapter's name can contain `text`."""
    return _PART_OF_NAME.fullmatch(text) is not None


def is_alias(text: object) -> bool:
    """Return whether `text` has the form of an alias."""
    return (
        isinstance(text, str)
        and _ALIAS.fullmatch(text) is not None
        and any(character.isalpha() for character in text)
    )


def is_version(number: object) -> bool:
    """Return whether `number` can be a version's number."""
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MAX_VERSION


def check_name(text: str) -> str:
    """Return `text` if it can be the name of a published adapter; else raise InvalidName."""
    if not is_name(text):
        raise InvalidName(f"{shown(text)} cannot name an adapter; use {_NAME_RULE}", param="name")
    if text == FOUNDATION:
        raise InvalidName(
            f"{FOUNDATION!r} is reserved for the foundation itself; give the adapter another name", param="name"
        )
    return text


def check_alias(text: str) -> str:
    """Return `text` if it can name an alias; else raise InvalidName."""
    if not is_alias(text):
        raise InvalidName(f"{shown(text)} cannot name an alias; use {_ALIAS_RULE}", param="alias")
    return text


def check_digest(text: str) -> str:
    """Return `text` if it is a whole digest; else raise InvalidDigest."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise InvalidDigest(
            f"{shown(text)} is not a digest; give sha256: followed by 64 lower-case hex digits", param="digest"
        )
    return text


def shown(value: object) -> str:
    """Return `value` as text for a message: quoted, escaped and cut to a short length."""
    if isinstance(value, str) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]!a}… ({len(value)} characters)"
    if isinstance(value, int) and abs(value) > 10**18:
        return "a number of more than 18 digits"
    text = ascii(value)
    return text if len(text) <= 10 * _SHOWN else f"a {type(value).__name__}"
