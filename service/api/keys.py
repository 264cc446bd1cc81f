"""The routes of keys and of the quotas of tenants."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import AwareDatetime, BaseModel, Field, StrictStr

from rootstock.adapters.errors import InvalidKey
from rootstock.adapters.reference import DEFAULT_TENANT
from rootstock.adapters.registry.key_issue import DEFAULT_OVERLAP, IssuedKey, issue_key, rotate_key
from rootstock.adapters.registry.key_records import KeyRecord, Quota, Role, check_tenant, key_fields, unknown_key
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.document.error_codes import KEY, NEW_KEY, raises
from rootstock.service.api.server import Server, principal_of, server_of
from rootstock.service.api.strict import Strict
from rootstock.service.tenancy.errors import FirstKey, ForeignTenant
from rootstock.service.tenancy.key_ring import utc_now
from rootstock.service.tenancy.principal import Principal

router = APIRouter(route_class=BodyRoute)
Limit = Annotated[int, Field(ge=1, le=10**12, strict=True)] | None
# A key is in these answers, and no cache on the way may keep it.
_NOT_KEPT = {"Cache-Control": "no-store"}


class QuotaBody(Strict):
    """The most that a key or a tenant may use; a limit that is left out or null does not exist."""

    requests_per_minute: Limit = None
    tokens_per_minute: Limit = None
    stored_mb: Limit = None


class NewKeyBody(QuotaBody):
    """The properties of a new key. Without `tenant`, it is of the caller's own tenant."""

    tenant: StrictStr | None = None
    role: Role
    label: StrictStr = ""
    expires_at: AwareDatetime | None = None


class RotationBody(Strict):
    """How long the old key stays good, in seconds, and when the new one expires."""

    overlap_seconds: Annotated[int, Field(ge=0, le=365 * 86_400, strict=True)] = int(
        DEFAULT_OVERLAP.total_seconds()
    )
    expires_at: AwareDatetime | None = None


class QuotaAnswer(BaseModel):
    """The limits of a key or a tenant; null is no limit. `stored_mb` is in MiB."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    stored_mb: int | None


class TenantQuota(QuotaAnswer):
    """The limits of a tenant, and the bytes of the bundles that it stores."""

    tenant: str
    stored_bytes: int


class ListedKey(QuotaAnswer):
    """A key without its secret; times are UTC. `state` is "good", "expired" or "revoked"."""

    id: str
    tenant: str
    role: Role
    label: str
    state: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class CreatedKey(ListedKey):
    """A new key. `key` is its text, which no other answer holds."""

    key: str


class KeyList(BaseModel):
    """The keys that the caller administers, oldest first."""

    keys: list[ListedKey]


@router.post("/v1/keys", status_code=201, openapi_extra=raises(*NEW_KEY, "first_key"))
async def create_key(request: Request, body: NewKeyBody, response: Response) -> CreatedKey:
    """Create a key, and return its text, which is shown only here."""
    server = server_of(request)
    issued = await asyncio.to_thread(_create, server, principal_of(request), body)
    response.headers.update(_NOT_KEPT)
    return _created(issued)


@router.get("/v1/keys", openapi_extra=raises("foreign_tenant", "invalid_key"))
async def list_keys(
    request: Request,
    tenant: Annotated[str | None, Query(description="The tenant whose keys are listed.")] = None,
) -> KeyList:
    """List the keys of all tenants that the caller administers, without their secrets."""
    principal = principal_of(request)
    chosen = None if tenant is None else _administered(principal, tenant)
    ring, now = server_of(request).access.ring, utc_now()
    return KeyList(
        keys=[
            ListedKey(**key_fields(record, now))
            for record in ring.records()
            if _administers(principal, record.tenant) and chosen in (None, record.tenant)
        ]
    )


@router.post("/v1/keys/{id}/rotation", status_code=201, openapi_extra=raises(*KEY, "invalid_key", "ended_key"))
async def rotate(request: Request, id: str, body: RotationBody, response: Response) -> CreatedKey:
    """Create a key with the properties of an old one, which stays good for a while."""
    server = server_of(request)
    issued = await asyncio.to_thread(_rotate, server, principal_of(request), id, body)
    response.headers.update(_NOT_KEPT)
    return _created(issued)


@router.delete("/v1/keys/{id}", status_code=204, openapi_extra=raises(*KEY))
async def revoke(request: Request, id: str) -> Response:
    """Revoke a key: this server refuses it at once, and every other replica within a second."""
    await asyncio.to_thread(_revoke, server_of(request), principal_of(request), id)
    return Response(status_code=204)


@router.get(
    "/v1/tenants/{tenant}/quota", openapi_extra=raises("foreign_tenant", "invalid_key", "registry_unavailable")
)
async def show_quota(request: Request, tenant: str) -> TenantQuota:
    """Show the quota of a tenant and what it stores."""
    principal = principal_of(request)
    return await asyncio.to_thread(_tenant_quota, server_of(request), _administered(principal, tenant))


@router.put(
    "/v1/tenants/{tenant}/quota", openapi_extra=raises("foreign_tenant", "invalid_key", "registry_unavailable")
)
async def set_quota(request: Request, tenant: str, body: QuotaBody) -> TenantQuota:
    """Set the quota of a tenant, which all its keys share. Only an admin of the tenant `default` may."""
    principal = principal_of(request)
    if principal.tenant != DEFAULT_TENANT:
        raise ForeignTenant(
            "only an admin of the tenant default sets quotas of tenants; ask the operator", param="tenant"
        )
    return await asyncio.to_thread(_set_quota, server_of(request), check_tenant(tenant), body)


def _administers(principal: Principal, tenant: str) -> bool:
    return principal.tenant in (DEFAULT_TENANT, tenant)


def _administered(principal: Principal, tenant: str) -> str:
    """Return a tenant's name if the principal administers it; else raise ForeignTenant."""
    if not _administers(principal, tenant):
        raise ForeignTenant(
            f"this key administers the tenant {principal.tenant} alone; leave `tenant` out, or use a key of the "
            "tenant default",
            param="tenant",
        )
    return check_tenant(tenant)


def _create(server: Server, principal: Principal, body: NewKeyBody) -> IssuedKey:
    tenant = _administered(principal, principal.tenant if body.tenant is None else body.tenant)
    if server.access.none and (tenant, body.role) != (DEFAULT_TENANT, "admin"):
        raise FirstKey(
            "the server has no key yet and requires one from then on, so nobody could make another; make a key "
            "of the role admin for the tenant default first",
            param="role",
        )
    issued = issue_key(
        server.access.ring.registry,
        tenant,
        body.role,
        utc_now(),
        label=body.label,
        expires_at=_utc(body.expires_at),
        quota=_quota(body),
    )
    server.access.ring.refresh()
    return issued


def _rotate(server: Server, principal: Principal, id: str, body: RotationBody) -> IssuedKey:
    ring = server.access.ring
    old = _found(server, principal, id)
    overlap = timedelta(seconds=body.overlap_seconds)
    issued = rotate_key(ring.registry, old, utc_now(), overlap, _utc(body.expires_at))
    ring.refresh()
    return issued


def _revoke(server: Server, principal: Principal, id: str) -> None:
    ring = server.access.ring
    ring.registry.revoke(_found(server, principal, id).id, utc_now())
    ring.refresh()


def _found(server: Server, principal: Principal, id: str) -> KeyRecord:
    """Return a key that the principal administers; for any other id raise the same UnknownKey."""
    record = server.access.ring.registry.find(id)
    if not _administers(principal, record.tenant):
        raise unknown_key(id)
    return record


def _tenant_quota(server: Server, tenant: str) -> TenantQuota:
    registry = server.access.ring.registry
    stored = registry.stored_bytes(tenant)
    return TenantQuota(tenant=tenant, stored_bytes=stored, **asdict(registry.tenant_quota(tenant)))


def _set_quota(server: Server, tenant: str, body: QuotaBody) -> TenantQuota:
    server.access.ring.registry.set_tenant_quota(tenant, _quota(body))
    server.access.ring.refresh()
    return _tenant_quota(server, tenant)


def _quota(body: QuotaBody) -> Quota:
    return Quota(body.requests_per_minute, body.tokens_per_minute, body.stored_mb)


def _utc(time: datetime | None) -> datetime | None:
    try:
        return None if time is None else time.astimezone(UTC)
    except OverflowError:
        raise InvalidKey(f"the time {time} is out of range; give a nearer one", param="expires_at") from None


def _created(issued: IssuedKey) -> CreatedKey:
    return CreatedKey(**key_fields(issued.record, utc_now()), key=issued.text)
