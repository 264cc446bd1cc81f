"""The records that a registry takes and returns."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from rootstock.adapters.reference import split_stored
from rootstock.adapters.registry.rollout_records import RollbackRule, Shadow

# A version is ready from its publication on, because one that fails verification is not recorded.
READY = "ready"
# `rootstock adapters fsck --repair` found that the store lacks the version's bytes, or has others in their place.
DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Viewer:
    """A tenant that uses a registry, and the principal that its changes are recorded under.

    Its adapters have their names alone. Those that other tenants share have `tenant/name`; for one of the default
    tenant the name alone will do, if the viewer has no adapter of that name.
    """

    tenant: str
    who: str | None = None

    def named(self, stored: str) -> str:
        """Return the name by which the viewer calls an adapter that the registry keeps as `stored`."""
        tenant, name = split_stored(stored)
        return name if tenant == self.tenant else f"{tenant}/{name}"


@dataclass(frozen=True, slots=True)
class SplitCandidate:
    """A version that answers a share, in percent, of the requests that name an alias (a split).

    `foundation` is its foundation's fingerprint, or None as for a Resolution.
    """

    version: int
    digest: str
    foundation: str | None
    task: str
    percent: float


@dataclass(frozen=True, slots=True)
class Resolution:
    """The one version that a reference meant when it was resolved.

    `foundation` is the fingerprint of its foundation. It is None if a server of one foundation published the
    version before the registry recorded fingerprints. The version decides `task`, so it is not compared.
    `stored` is the name in the registry, which no two tenants share; empty if it is `name`. `alias` is the alias
    that the reference named; None for one with a version's number or a digest. `candidates` are the other
    versions that answer shares of the alias's requests, in order of version number.
    """

    name: str
    version: int
    digest: str
    foundation: str | None = None
    task: str | None = field(default=None, compare=False)
    stored: str = field(default="", compare=False)
    alias: str | None = field(default=None, compare=False)
    candidates: tuple[SplitCandidate, ...] = ()

    def as_candidate(self, candidate: SplitCandidate) -> "Resolution":
        """Return the resolution with a candidate's version in place of the one that the alias points at."""
        return replace(
            self,
            version=candidate.version,
            digest=candidate.digest,
            foundation=candidate.foundation,
            task=candidate.task,
        )


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to publish under a name: `size` is in bytes, `foundation` is its foundation's fingerprint."""

    name: str
    digest: str
    task: str
    verification: dict[str, Any]
    size: int
    foundation: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """The result of publishing: `created` is false if the name held the digest already.

    `live` is the live version after the call.
    """

    name: str
    version: int
    digest: str
    created: bool
    live: int | None


@dataclass(frozen=True, slots=True)
class AliasPointer:
    """The version that an alias points at."""

    name: str
    alias: str
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class AliasSplit:
    """The split of an alias: the percent of its requests that each candidate answers.

    `version` is the one that the alias points at. It answers the rest.
    """

    name: str
    alias: str
    version: int
    candidates: dict[int, float]


@dataclass(frozen=True, slots=True)
class AdapterSummary:
    """An adapter in a list.

    `task`, `foundation` and `published_at` (UTC) come from the live version, else from the newest one; they are
    None without versions. `shared` tells whether all tenants can use it.
    """

    name: str
    live: int | None
    versions: list[int]
    task: str | None
    aliases: dict[str, int]
    foundation: str | None = None
    published_at: datetime | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A page of adapters in order of name; pass `next` as `after` for the next page. It is None at the end."""

    adapters: list[AdapterSummary]
    next: str | None


@dataclass(frozen=True, slots=True)
class VersionDetail:
    """Everything recorded about a version; times are UTC, sizes are bytes.

    `published_by` is the principal that published it. It is None if no request did, if the version is older than
    its record, and for another tenant.
    """

    name: str
    version: int
    digest: str
    task: str
    status: str
    created_at: datetime
    size: int
    verification: dict[str, Any]
    foundation: str | None = None
    published_by: str | None = None


@dataclass(frozen=True, slots=True)
class DeletedVersion:
    """A deleted version that can come back, with the aliases that were removed with it; times are UTC."""

    name: str
    version: int
    digest: str
    task: str
    size: int
    created_at: datetime
    deleted_at: datetime
    aliases: list[str]


@dataclass(frozen=True, slots=True)
class Undeleted:
    """The versions of an adapter that came back, and the aliases that came back with them."""

    name: str
    versions: list[int]
    aliases: dict[str, int]


@dataclass(frozen=True, slots=True)
class IndexedVersion:
    """A version in the list of all versions: its digest and its status, `READY` or `DAMAGED`.

    A `deleted` one can still come back.
    """

    name: str
    version: int
    digest: str
    status: str
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class AdapterDetail:
    """Everything recorded about an adapter; versions are in ascending order.

    `splits` has the percents of candidates by alias and version.
    """

    name: str
    live: int | None
    task: str | None
    aliases: dict[str, int]
    created_at: datetime
    versions: list[VersionDetail]
    shared: bool = False
    shadow: Shadow | None = None
    rule: RollbackRule | None = None
    splits: dict[str, dict[int, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sharing:
    """States that all tenants can use an adapter, or that its own tenant alone can."""

    name: str
    shared: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One change to the registry; the content of `detail` depends on `what`.

    `who` is the tenant of the principal that made it, then a slash and the id of its key if it had one. It is
    None for a change that no request made, and for one from before the registry recorded principals.
    """

    id: int
    at: datetime
    what: str
    name: str
    version: int | None
    alias: str | None
    detail: dict[str, Any]
    who: str | None = None
