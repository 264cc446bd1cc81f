"""Who a request is from, as the gate found it in the request's key."""

from __future__ import annotations

from dataclasses import dataclass

from rootstock.adapters.reference import DEFAULT_TENANT
from rootstock.adapters.registry.key_records import Role

# The longest principal that the registry has room for.
_MOST_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request is from: its tenant, its role, and the id of its key (empty without one)."""

    tenant: str = DEFAULT_TENANT
    role: Role = "admin"
    key: str = ""

    @property
    def who(self) -> str:
        """Return the principal as the registry records it: its tenant, and after a slash its key."""
        return (f"{self.tenant}/{self.key}" if self.key else self.tenant)[:_MOST_CHARACTERS]
