"""Adds splits, shadows, rollback rules, deleted versions, webhooks, and who published a version.

A server of the release before knows none of them, and goes on until it is replaced. It neither heeds a split nor
keeps what it deletes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ALIAS = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
_DIGEST = sa.String(71).with_variant(sa.String(71, collation="C"), "postgresql")
_NAME = (
    sa.String(161)
    .with_variant(sa.String(161, collation="C"), "postgresql")
    .with_variant(sa.String(128), "sqlite")
)


def upgrade() -> None:
    """Add the column and the tables."""
    op.add_column("versions", sa.Column("published_by", sa.String(64), nullable=True))
    op.create_table(
        "splits",
        sa.Column("adapter", _NAME, nullable=False),
        sa.Column("alias", _ALIAS, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("percent", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("adapter", "alias", "version", name="pk_splits"),
    )
    op.create_table(
        "shadows",
        sa.Column("adapter", _NAME, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("percent", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("adapter", name="pk_shadows"),
    )
    op.create_table(
        "rollback_rules",
        sa.Column("adapter", _NAME, nullable=False),
        sa.Column("window_seconds", sa.Double(), nullable=False),
        sa.Column("min_requests", sa.Integer(), nullable=False),
        sa.Column("max_error_rate", sa.Double(), nullable=True),
        sa.Column("max_disagreement", sa.Double(), nullable=True),
        sa.Column("max_p95_ratio", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("adapter", name="pk_rollback_rules"),
    )
    op.create_table(
        "deleted_versions",
        sa.Column("adapter", _NAME, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("verification", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("foundation", sa.String(71), nullable=True),
        sa.Column("published_by", sa.String(64), nullable=True),
        sa.Column("aliases", sa.JSON(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("adapter", "number", name="pk_deleted_versions"),
    )
    op.create_index("ix_deleted_versions_digest", "deleted_versions", ["digest"])
    op.create_index("ix_deleted_versions_deleted_at", "deleted_versions", ["deleted_at"])
    op.create_table(
        "webhooks",
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("event", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(36), nullable=True),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("address", name="pk_webhooks"),
    )


def downgrade() -> None:
    """Refuse, because an older program would lose the deleted versions that can still come back."""
    raise NotImplementedError("restore the backup that was made before upgrading")
