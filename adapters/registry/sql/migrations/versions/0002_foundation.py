"""Adds the foundation of each version, which a server of several foundations needs to choose one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; null stands for a version that a server of one foundation published, so the first one."""
    op.add_column("versions", sa.Column("foundation", sa.String(71), nullable=True))


def downgrade() -> None:
    """Refuse, because an older program would answer with the wrong foundation."""
    raise NotImplementedError("restore the backup that was made before upgrading")
