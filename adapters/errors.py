"""The errors of naming, finding, storing and reading adapters, each with a stable code."""

from typing import ClassVar


class AdapterError(Exception):
    """A failure to report to the caller: `code` is stable for programs, and the message is for people."""

    code: ClassVar[str] = "adapter_error"

    def __init__(self, message: str, *, param: str | None = None, place: object = None) -> None:
        """Keep `place`, where on the server the failure lies, as a note: answers over HTTP hold messages alone.

        A log and a command show it; see `explained`.
        """
        super().__init__(message)
        self.param = param
        if place is not None:
            self.add_note(f"at {place}")


def explained(error: BaseException) -> str:
    """Return an error's message with its notes, for someone who may see the server's paths."""
    notes = "; ".join(getattr(error, "__notes__", ()))
    return f"{error} ({notes})" if notes else str(error)


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
    """An alias, a split or a shadow sends requests to the version."""

    code = "version_in_use"


class AlreadyPublished(AdapterError):
    """A later version of the adapter has the content of the deleted one."""

    code = "already_published"


class InvalidShadow(AdapterError):
    """The version cannot be the adapter's shadow, or not with this share."""

    code = "invalid_shadow"


class NoShadow(AdapterError):
    """The adapter has no shadow to end."""

    code = "no_shadow"


class InvalidRule(AdapterError):
    """A limit of the rollback rule has no such value."""

    code = "invalid_rule"


class NoRule(AdapterError):
    """The adapter has no rollback rule."""

    code = "no_rule"


class InvalidSplit(AdapterError):
    """The shares of an alias's requests are not ones that versions of its adapter can have."""

    code = "invalid_split"


class NoSplit(AdapterError):
    """The alias has no split to end."""

    code = "no_split"


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
    """The server's disk has no room for the change, and the server kept no part of it."""

    code = "store_full"


class StoreUnavailable(AdapterError):
    """The store cannot be reached or used now."""

    code = "store_unavailable"


class HomeInUse(AdapterError):
    """Another program holds the home folder."""

    code = "home_in_use"


class UnsafeRegistry(AdapterError):
    """A newer program changed the database so that this one must not use it."""

    code = "unsafe_registry"


class RegistryLost(AdapterError):
    """The registry was never used, and the store beside it holds bundles."""

    code = "registry_lost"


class RegistryUnavailable(AdapterError):
    """The database cannot be opened, read or written now."""

    code = "registry_unavailable"


class UnknownKey(AdapterError):
    """No key of the tenant has this id."""

    code = "unknown_key"


class InvalidKey(AdapterError):
    """A property of a key or a quota has no such value."""

    code = "invalid_key"


class EndedKey(AdapterError):
    """The key has expired or is revoked, so it cannot be rotated."""

    code = "ended_key"


class UnusableBackup(AdapterError):
    """The folder is no backup, is not empty, or its files are damaged."""

    code = "unusable_backup"


class SourceError(AdapterError):
    """A saved model or head cannot become an adapter; the message names the file or part, and the remedy."""

    code = "unusable_source"
