"""Adds the use of quotas, which the servers of one registry tell each other.

A server of the release before counts its own use alone, until it is replaced.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "quota_uses",
        sa.Column("holder", sa.String(40), nullable=False),
        sa.Column("unit", sa.String(16), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("holder", "unit", "minute", name="pk_quota_uses"),
    )


def downgrade() -> None:
    """Remove the table, which holds nothing that lasts longer than minutes."""
    op.drop_table("quota_uses")
