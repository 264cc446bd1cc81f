"""The registry: adapters' names, versions, aliases and events, in a database."""

from rootstock.adapters.registry.records import (
    AdapterDetail,
    AdapterSummary,
    AliasPointer,
    AliasSplit,
    DeletedVersion,
    Event,
    IndexedVersion,
    NewVersion,
    Page,
    Published,
    Resolution,
    Sharing,
    SplitCandidate,
    Undeleted,
    VersionDetail,
    Viewer,
)
from rootstock.adapters.registry.sql.registry import SqlRegistry
from rootstock.adapters.registry.tenant_registry import TenantRegistry

__all__ = [
    "AdapterDetail",
    "AdapterSummary",
    "AliasPointer",
    "AliasSplit",
    "DeletedVersion",
    "Event",
    "IndexedVersion",
    "NewVersion",
    "Page",
    "Published",
    "Resolution",
    "Sharing",
    "SplitCandidate",
    "SqlRegistry",
    "TenantRegistry",
    "Undeleted",
    "VersionDetail",
    "Viewer",
]
