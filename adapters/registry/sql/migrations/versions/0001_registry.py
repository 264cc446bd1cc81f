"""Creates the tables of adapters, versions, aliases, the history of `live`, events and the revision."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _text(length: int) -> sa.types.TypeEngine[str]:
    """Return the type of names: their order is that of their bytes on every database."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    """Create the registry's tables."""
    _names_and_versions()
    _pointers()
    _records()


def downgrade() -> None:
    """Refuse, because a downgrade would lose the registry."""
    raise NotImplementedError("restore the backup that was made before upgrading")


def _names_and_versions() -> None:
    op.create_table(
        "adapters",
        sa.Column("name", _text(128), nullable=False),
        sa.Column("next_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_adapters"),
    )
    op.create_table(
        "versions",
        sa.Column("adapter", _text(128), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", _text(71), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("verification", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("adapter", "number", name="pk_versions"),
        sa.ForeignKeyConstraint(["adapter"], ["adapters.name"], name="fk_versions_adapter"),
        sa.UniqueConstraint("adapter", "digest", name="uq_versions_adapter_digest"),
    )
    op.create_index("ix_versions_digest", "versions", ["digest"])


def _pointers() -> None:
    for table, own, key in (
        ("aliases", sa.Column("alias", _text(64), nullable=False), ["adapter", "alias"]),
        ("live_history", sa.Column("id", sa.Integer(), nullable=False), ["id"]),
    ):
        op.create_table(
            table,
            own,
            sa.Column("adapter", _text(128), nullable=False),
            sa.Column("version", sa.Integer(), nullable=False),
            sa.PrimaryKeyConstraint(*key, name=f"pk_{table}"),
            sa.ForeignKeyConstraint(
                ["adapter", "version"],
                ["versions.adapter", "versions.number"],
                name=f"fk_{table}_adapter_version",
            ),
        )
    op.create_index("ix_aliases_adapter_version", "aliases", ["adapter", "version"])
    op.create_index("ix_live_history_adapter_id", "live_history", ["adapter", "id"])


def _records() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("name", _text(128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("alias", sa.String(64), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_name_id", "events", ["name", "id"])
    counter = op.create_table(
        "revision",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revision"),
    )
    op.bulk_insert(counter, [{"id": 1, "number": 0}])
