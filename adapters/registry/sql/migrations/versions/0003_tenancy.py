"""Adds tenants: who has and who shares an adapter, who changed it, and the keys and quotas of tenants.

Each new column has a default, so that a server of the release before can go on writing until it is replaced. Its
adapters and events belong to the default tenant.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NAMES = (("adapters", "name"), ("versions", "adapter"), ("aliases", "adapter"), ("live_history", "adapter"))


def upgrade() -> None:
    """Add the columns and the tables of keys and quotas, and widen the names."""
    if op.get_context().dialect.name != "sqlite":  # SQLite knows no lengths, and orders text by its bytes.
        _widen_names()
    for table in ("adapters", "events"):
        tenant = sa.Column("tenant", sa.String(32), nullable=False, server_default="default")
        op.add_column(table, tenant)
    op.add_column("adapters", sa.Column("shared", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("ix_adapters_tenant_name", "adapters", ["tenant", "name"])
    op.create_index("ix_adapters_shared_name", "adapters", ["shared", "name"])
    op.add_column("events", sa.Column("number", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("who", sa.String(64), nullable=True))
    op.create_index("ix_events_tenant_id", "events", ["tenant", "id"])
    op.create_table(
        "keys",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("tenant", sa.String(32), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("hash", name="uq_keys_hash"),
    )
    op.create_table(
        "quotas",
        sa.Column("holder", sa.String(40), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("stored_mb", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("holder", name="pk_quotas"),
    )


def downgrade() -> None:
    """Refuse, because an older program would show every tenant's adapters to all, and serve without the keys."""
    raise NotImplementedError("restore the backup that was made before upgrading")


def _widen_names() -> None:
    name = sa.String(161, collation="C")
    for table, column in (*_NAMES, ("events", "name")):
        op.alter_column(table, column, type_=name, existing_nullable=False)
