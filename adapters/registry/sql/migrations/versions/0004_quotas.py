"""Adds the quotas of keys and tenants."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of quotas."""
    op.create_table(
        "quotas",
        sa.Column("holder", sa.String(40), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("stored_mb", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("holder", name="pk_quotas"),
    )


def downgrade() -> None:
    """Refuse, because an older program would serve without the quotas."""
    raise NotImplementedError("restore the backup that was made before upgrading")
