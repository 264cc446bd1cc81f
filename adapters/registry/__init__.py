"""The registry: adapters' names, versions, aliases and events, in a database."""

from adapters.registry.records import (
    AdapterDetail,
    AdapterSummary,
    AliasPointer,
    Event,
    NewVersion,
    Page,
    Published,
    Resolved,
    VersionDetail,
)
from adapters.registry.registry import Registry

__all__ = [
    "AdapterDetail",
    "AdapterSummary",
    "AliasPointer",
    "Event",
    "NewVersion",
    "Page",
    "Published",
    "Registry",
    "Resolved",
    "VersionDetail",
]
