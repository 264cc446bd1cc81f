"""The grammar of references, names, tenants, aliases and digests."""

import re
from dataclasses import dataclass

from rootstock.adapters.errors import InvalidDigest, InvalidName, InvalidReference

FOUNDATION = "foundation"
LIVE = "live"
# The name under which requests ask for the router. With a colon and a reference it names the selector, too.
AUTO = "auto"
# The tenant of the operator, and of every request on a server without keys.
DEFAULT_TENANT = "default"
MAX_VERSION = 999_999_999

# The longest name with its tenant: a tenant, a slash and a name.
MAX_STORED_NAME = 32 + 1 + 128
# The longest reference: such a name, "@sha256:" and a whole digest.
_MAX_LENGTH = MAX_STORED_NAME + 8 + 64
_SHOWN = 80

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}", re.ASCII)
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_PART_OF_NAME = re.compile(r"[a-z0-9._-]{0,128}", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_PREFIX = re.compile(r"[0-9a-f]{12,64}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """A valid reference: a name, and at most one of a version, an alias and the first digits of a digest.

    `owner` is the tenant before the name, if the reference states one.
    """

    name: str
    version: int | None = None
    alias: str | None = None
    digest_prefix: str | None = None
    owner: str | None = None

    def __post_init__(self) -> None:
        selectors = [self.version, self.alias, self.digest_prefix]
        if not is_name(self.name):
            raise InvalidReference(f"{shown(self.name)} is not a name; use {_NAME_RULE}")
        if self.owner is not None and not is_tenant(self.owner):
            raise InvalidReference(f"{shown(self.owner)} is not a tenant; use {TENANT_RULE}")
        if len(selectors) - selectors.count(None) > 1:
            raise InvalidReference(f"a reference to {self.name!r} takes only one of version, alias and digest")
        if self.name == FOUNDATION and any(part is not None for part in (*selectors, self.owner)):
            raise InvalidReference(
                f"{FOUNDATION!r} has no tenant, versions, aliases or digests; write {FOUNDATION!r} alone"
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
        """Return the reference that `text` writes: `name`, `name@3`, `name@prod` or `name@sha256:<12+ hex>`.

        A tenant and a slash may stand before the name.
        """
        if not isinstance(text, str) or len(text) > _MAX_LENGTH:
            raise InvalidReference(
                f"{shown(text)} is not a reference; give text of at most {_MAX_LENGTH} characters"
            )
        path, at, selector = text.partition("@")
        before, slash, rest = path.partition("/")
        owner, name = (before, rest) if slash else (None, path)
        if not at:
            return cls(name, owner=owner)
        if selector.startswith("sha256:"):
            return cls(name, digest_prefix=selector.removeprefix("sha256:"), owner=owner)
        if _VERSION.fullmatch(selector):
            return cls(name, version=int(selector), owner=owner)
        if not is_alias(selector):
            raise InvalidReference(
                f"{shown(selector)} in {shown(text)} is neither a version (1, 2, 3 …), an alias ({_ALIAS_RULE}) "
                "nor the start of a digest (sha256: and 12 to 64 lower-case hex digits)"
            )
        return cls(name, alias=selector, owner=owner)

    @property
    def path(self) -> str:
        """Return the name, after its tenant and a slash if the reference states one."""
        return self.name if self.owner is None else f"{self.owner}/{self.name}"

    def at(self, digest: str) -> "Reference":
        """Return the reference to the version of the same adapter that has this whole digest."""
        return Reference(self.name, digest_prefix=check_digest(digest).removeprefix("sha256:"), owner=self.owner)

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.path}@{self.version}"
        if self.alias is not None:
            return f"{self.path}@{self.alias}"
        if self.digest_prefix is not None:
            return f"{self.path}@sha256:{self.digest_prefix}"
        return self.path


_NAME_RULE = "1 to 128 characters of a-z 0-9 . _ - that begin with a letter or digit"
TENANT_RULE = "1 to 32 characters of a-z 0-9 - that begin with a letter or digit"
_ALIAS_RULE = "1 to 64 characters of A-Z a-z 0-9 . _ - with at least one letter"


def is_name(text: object) -> bool:
    """Return whether `text` has the form of an adapter's name; the reserved name has that form too."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def is_auto(text: str) -> bool:
    """Return whether a request that names this model asks for the router."""
    return text.partition(":")[0].lower() == AUTO


def is_tenant(text: object) -> bool:
    """Return whether `text` has the form of a tenant's name."""
    return isinstance(text, str) and _TENANT.fullmatch(text) is not None


def split_path(path: str) -> tuple[str | None, str] | None:
    """Return the tenant, None if there is none, and the name of `tenant/name` or `name`; None for other text."""
    before, slash, rest = path.partition("/") if isinstance(path, str) else ("", "", "")
    owner, name = (before, rest) if slash else (None, before)
    return (owner, name) if is_name(name) and (owner is None or is_tenant(owner)) else None


def stored_name(tenant: str, name: str) -> str:
    """Return the name under which a registry keeps a tenant's adapter: alone for the default tenant."""
    return name if tenant == DEFAULT_TENANT else f"{tenant}/{name}"


def split_stored(stored: str) -> tuple[str, str]:
    """Return the tenant and the name of a name in the registry."""
    tenant, slash, name = stored.rpartition("/")
    return (tenant, name) if slash else (DEFAULT_TENANT, name)


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


def check_tenant(text: str) -> str:
    """Return `text` if it can name a tenant; else raise InvalidName."""
    if not is_tenant(text):
        raise InvalidName(f"{shown(text)} cannot name a tenant; use {TENANT_RULE}", param="tenant")
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
