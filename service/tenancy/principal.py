"""Who a request is from, as the gate found it in the request's key."""

from __future__ import annotations

from dataclasses import dataclass

from rootstock.adapters.reference import DEFAULT_TENANT
from rootstock.adapters.registry.key_records import Role


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request is from: its tenant, its role, and the id of its key (empty without one)."""

    tenant: str = DEFAULT_TENANT
    role: Role = "admin"
    key: str = ""
