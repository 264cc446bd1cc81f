"""The registry: adapters' names, versions, aliases and events, in a database."""

from rootstock.adapters.registry.records import (
    AdapterDetail,
    AdapterSummary,
    AliasPointer,
    Event,
    IndexedVersion,
    NewVersion,
    Page,
    Published,
    Resolution,
    VersionDetail,
)
from rootstock.adapters.registry.sql.registry import SqlRegistry

__all__ = [
    "AdapterDetail",
    "AdapterSummary",
    "AliasPointer",
    "Event",
    "IndexedVersion",
    "NewVersion",
    "Page",
    "Published",
    "Resolution",
    "SqlRegistry",
    "VersionDetail",
]
