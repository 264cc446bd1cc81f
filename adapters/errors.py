"""The errors of naming, finding, storing and reading adapters, each with a stable code."""

from typing import ClassVar


class AdapterError(Exception):
    """A failure to report to the caller: `code` is stable for programs, and the message is for people."""

    code: ClassVar[str] = "adapter_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownAdapter(AdapterError):
    """No adapter has this name."""

    code = "unknown_adapter"


class NotOwner(AdapterError):
    """The adapter is shared by another tenant, and only that tenant changes it."""

    code = "not_owner"


class UnknownVersion(AdapterError):
    """The adapter exists, but has no version of that number or digest."""

    code = "unknown_version"


class UnknownAlias(AdapterError):
    """The adapter exists, but has no alias of that name."""

    code = "unknown_alias"


class NoLiveVersion(AdapterError):
    """The adapter exists, but its alias `live` points at no version."""

    code = "no_live_version"


class NoPreviousVersion(AdapterError):
    """The history of `live` holds no earlier version to go back to."""

    code = "no_previous_version"


class VersionInUse(AdapterError):
    """At least one alias points at the version."""

    code = "version_in_use"


class InvalidReference(AdapterError):
    """The text is not a reference."""

    code = "invalid_reference"


class InvalidName(AdapterError):
    """The text cannot name an adapter or an alias."""

    code = "invalid_name"


class InvalidDigest(AdapterError):
    """The text is not a digest."""

    code = "invalid_digest"


class AmbiguousDigest(AdapterError):
    """The digits begin the digests of more than one version of the adapter."""

    code = "ambiguous_digest"


class FoundationNotHosted(AdapterError):
    """The version was made for a foundation that the server does not host."""

    code = "foundation_not_hosted"


class MissingBundle(AdapterError):
    """The store has no bundle under the digest, or cannot read it."""

    code = "missing_bundle"


class CorruptBundle(AdapterError):
    """The bytes that are stored under a digest are not that digest's bundle."""

    code = "corrupt_bundle"


class NoCard(AdapterError):
    """The version's bundle holds no model card."""

    code = "no_card"


class StoreFull(AdapterError):
    """The store has no room for the bundle, and kept no part of it."""

    code = "store_full"


class HomeInUse(AdapterError):
    """Another program holds the home folder."""

    code = "home_in_use"


class UnsafeRegistry(AdapterError):
    """A newer program wrote the database, so this one must not change it."""

    code = "unsafe_registry"


class RegistryUnavailable(AdapterError):
    """The database cannot be opened, read or written now."""

    code = "registry_unavailable"


class SourceError(AdapterError):
    """A saved model or head cannot become an adapter; the message names the file or part, and the remedy."""

    code = "unusable_source"
