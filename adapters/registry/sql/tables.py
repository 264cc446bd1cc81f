"""The registry's tables."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from rootstock.adapters.reference import DEFAULT_TENANT, MAX_STORED_NAME

Alias = String(64).with_variant(String(64, collation="C"), "postgresql")
Digest = String(71).with_variant(String(71, collation="C"), "postgresql")

# An adapter's name, with its tenant before it unless that is the default one. The order of names must be the same
# on every database, because a page of a list begins after a name. SQLite heeds no lengths, and cannot change one.
StoredName = (
    String(MAX_STORED_NAME)
    .with_variant(String(MAX_STORED_NAME, collation="C"), "postgresql")
    .with_variant(String(128), "sqlite")
)


class UtcTime(TypeDecorator[datetime]):
    """A column type for times that are aware and in UTC when read, even if the database keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The base class of the tables, which gives constraints the same names on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, datetime: UtcTime, str: Text, float: Double}  # noqa: RUF012


class RevisionRow(Base):
    """The single row whose number every write increments first, to order writers and tell readers of changes."""

    __tablename__ = "revision"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger)


class AdapterRow(Base):
    """An adapter's name and next version number; the row stays when the adapter is deleted.

    `tenant` repeats the tenant of the name, so that an index finds a tenant's adapters. All tenants can use a
    `shared` adapter.
    """

    __tablename__ = "adapters"
    __table_args__ = (Index(None, "tenant", "name"), Index(None, "shared", "name"))
    name: Mapped[str] = mapped_column(StoredName, primary_key=True)
    next_version: Mapped[int]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    tenant: Mapped[str] = mapped_column(String(32), server_default=DEFAULT_TENANT)
    shared: Mapped[bool] = mapped_column(Boolean, server_default=false())


class VersionRow(Base):
    """A version of an adapter: its number, its digest and the principal that published it."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("adapter", "digest"), Index(None, "digest"))
    adapter: Mapped[str] = mapped_column(StoredName, ForeignKey("adapters.name"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(Digest)
    task: Mapped[str]
    status: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    verification: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    foundation: Mapped[str | None] = mapped_column(String(71))
    published_by: Mapped[str | None] = mapped_column(String(64))


class AliasRow(Base):
    """The version that an alias points at now; `live` is one of the aliases."""

    __tablename__ = "aliases"
    __table_args__ = (
        ForeignKeyConstraint(["adapter", "version"], ["versions.adapter", "versions.number"]),
        Index(None, "adapter", "version"),
    )
    adapter: Mapped[str] = mapped_column(StoredName, primary_key=True)
    alias: Mapped[str] = mapped_column(Alias, primary_key=True)
    version: Mapped[int]


class LiveRow(Base):
    """One entry in the history of `live`, newest last; a rollback removes entries from the end."""

    __tablename__ = "live_history"
    __table_args__ = (
        ForeignKeyConstraint(["adapter", "version"], ["versions.adapter", "versions.number"]),
        Index(None, "adapter", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    adapter: Mapped[str] = mapped_column(StoredName)
    version: Mapped[int]


class SplitRow(Base):
    """A version that answers a share of an alias's requests, in percent; the alias's own one answers the rest.

    No foreign key ties it to its version, because a server of the release before deletes versions without it. A
    row whose version is gone has no effect. The same holds for the tables of shadows and of rollback rules.
    """

    __tablename__ = "splits"
    adapter: Mapped[str] = mapped_column(StoredName, primary_key=True)
    alias: Mapped[str] = mapped_column(Alias, primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    percent: Mapped[float]


class ShadowRow(Base):
    """The version that also computes a share of an adapter's requests, in percent, without answering them."""

    __tablename__ = "shadows"
    adapter: Mapped[str] = mapped_column(StoredName, primary_key=True)
    version: Mapped[int]
    percent: Mapped[float]


class RollbackRuleRow(Base):
    """The rule by which a new version of an adapter is taken back; a limit that is null does not hold.

    The rule judges requests of the last `window_seconds`, once there are `min_requests` of them.
    """

    __tablename__ = "rollback_rules"
    adapter: Mapped[str] = mapped_column(StoredName, primary_key=True)
    window_seconds: Mapped[float]
    min_requests: Mapped[int]
    max_error_rate: Mapped[float | None]
    max_disagreement: Mapped[float | None]
    max_p95_ratio: Mapped[float | None]


class DeletedVersionRow(Base):
    """A deleted version, which can come back until its bytes are removed.

    `aliases` are those that were removed with it.
    """

    __tablename__ = "deleted_versions"
    __table_args__ = (Index(None, "digest"), Index(None, "deleted_at"))
    adapter: Mapped[str] = mapped_column(StoredName, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(Digest)
    task: Mapped[str]
    status: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    verification: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    foundation: Mapped[str | None] = mapped_column(String(71))
    published_by: Mapped[str | None] = mapped_column(String(64))
    aliases: Mapped[list[str]] = mapped_column(JSON)
    deleted_at: Mapped[datetime]


class WebhookRow(Base):
    """The last event that a webhook has received, and the server that sends to it until `held_until`.

    `address` is the SHA-256 of the webhook's URL, which may hold a secret.
    """

    __tablename__ = "webhooks"
    address: Mapped[str] = mapped_column(String(64), primary_key=True)
    event: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str | None] = mapped_column(String(36))
    held_until: Mapped[datetime | None]


class EventRow(Base):
    """A change that was made; rows are only added, and they stay when the adapter is deleted.

    `number` counts a tenant's events, because the gaps between its ids would tell how many others there are. It
    is null in rows of a program that had no tenants, and then equals `id`. `who` is the principal.
    """

    __tablename__ = "events"
    __table_args__ = (Index(None, "name", "id"), Index(None, "tenant", "id"))
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    what: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(StoredName)
    version: Mapped[int | None]
    alias: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]]
    tenant: Mapped[str] = mapped_column(String(32), server_default=DEFAULT_TENANT)
    number: Mapped[int | None] = mapped_column(BigInteger)
    who: Mapped[str | None] = mapped_column(String(64))


class KeyRow(Base):
    """A key of a tenant; the row stays when the key has expired or is revoked."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(32))
    role: Mapped[str] = mapped_column(String(16))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    label: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class QuotaRow(Base):
    """The limits of one key or one tenant: `holder` is `key/` and an id, or `tenant/` and a name."""

    __tablename__ = "quotas"
    holder: Mapped[str] = mapped_column(String(40), primary_key=True)
    requests_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    tokens_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    stored_mb: Mapped[int | None] = mapped_column(BigInteger)


class QuotaUseRow(Base):
    """The use of a quota by all servers in one minute of the epoch; the unit is requests or tokens."""

    __tablename__ = "quota_uses"
    holder: Mapped[str] = mapped_column(String(40), primary_key=True)
    unit: Mapped[str] = mapped_column(String(16), primary_key=True)
    minute: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    amount: Mapped[int] = mapped_column(BigInteger)
