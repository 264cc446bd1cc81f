"""The approval of versions: who may let the requests for a name reach a version."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from rootstock.adapters.reference import LIVE
from rootstock.adapters.registry import VersionDetail
from rootstock.adapters.registry.port import Registry
from rootstock.service.tenancy.errors import AccessError
from rootstock.service.tenancy.principal import Principal

# Nobody has to approve; an admin has to; a principal other than the publisher has to.
ApprovalRule = Literal["none", "admin", "second"]


class ApprovalNeeded(AccessError):
    """Somebody else has to approve the version before requests for the name reach it."""

    code = "approval_needed"


class Approval:
    """The rule of a server about who may activate a version: let requests for `live` reach it.

    A rollback needs no approval: a version that was live was approved, and a rollback is an emergency brake.
    """

    def __init__(self, rule: ApprovalRule = "none") -> None:
        self._rule = rule

    def is_free(self, principal: Principal) -> bool:
        """Tell whether a principal may activate every version."""
        return self._rule == "none" or (self._rule == "admin" and principal.role == "admin")

    def activation_by(self, principal: Principal) -> Callable[[VersionDetail], bool] | None:
        """Return the test of versions that a principal may activate, or None if these are all."""
        return None if self.is_free(principal) else partial(self.allows, principal)

    def allows(self, principal: Principal, version: VersionDetail) -> bool:
        """Tell whether a principal may activate a version."""
        if self._rule != "second":
            return self.is_free(principal)
        if version.published_by is None:
            # Whoever published it before the registry recorded that may be this principal.
            return principal.role == "admin"
        return principal.who != version.published_by

    def check(self, principal: Principal, registry: Registry, name: str, alias: str, *versions: int) -> None:
        """Raise ApprovalNeeded if a principal may not let requests for an alias reach these versions.

        Aliases other than `live` are free. So are adapters of other tenants: nobody's approval lets a principal
        change them, and the registry says why. This reads the registry: call it in a thread.
        """
        if alias != LIVE or self.is_free(principal):
            return
        for number in versions:
            detail = registry.version(name, number)
            # A tenant calls an adapter of another one by its owner and its name.
            if "/" not in detail.name and not self.allows(principal, detail):
                raise ApprovalNeeded(
                    f"version {number} of adapter {name!r} awaits approval; {self._remedy(name, number)}"
                )

    def _remedy(self, name: str, number: int) -> str:
        command = f"rootstock adapters promote {name} {number}"
        if self._rule == "admin":
            return f"let an admin key make it live: {command}"
        return f"let a key other than the one that published it make it live: {command}"
