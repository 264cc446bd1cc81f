"""Types, with stable codes, for the errors when adapters are named, looked up, stored or read."""

from typing import ClassVar


class AdapterError(Exception):
    """A failure that the caller can be told about: `code` is stable, the message is for people."""

    code: ClassVar[str] = "adapter_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownAdapter(AdapterError):
    """No adapter has this name."""

    code = "unknown_adapter"


class UnknownVersion(AdapterError):
    """The adapter exists and has no such version, or none with that digest."""

    code = "unknown_version"


class UnknownAlias(AdapterError):
    """The adapter exists and has no such alias."""

    code = "unknown_alias"


class NoLiveVersion(AdapterError):
    """The adapter exists, and its bare name points at no version."""

    code = "no_live_version"


class NoPreviousVersion(AdapterError):
    """The history of `live` holds nothing to go back to."""

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
    """More than one version of the adapter has a digest that begins like this."""

    code = "ambiguous_digest"


class FoundationNotHosted(AdapterError):
    """The version is made for a foundation that the server does not host."""

    code = "foundation_not_hosted"


class MissingBundle(AdapterError):
    """The store has no bytes for a digest."""

    code = "missing_bundle"


class CorruptBundle(AdapterError):
    """The stored bytes are not the bundle that their digest names."""

    code = "corrupt_bundle"


class StoreFull(AdapterError):
    """There is no room for the bundle; nothing of it was kept."""

    code = "store_full"


class HomeInUse(AdapterError):
    """Another program holds the home folder."""

    code = "home_in_use"


class UnsafeRegistry(AdapterError):
    """The database was written by a newer program, so this one must not touch it."""

    code = "unsafe_registry"


class RegistryUnavailable(AdapterError):
    """The database cannot be opened, read or written now."""

    code = "registry_unavailable"
