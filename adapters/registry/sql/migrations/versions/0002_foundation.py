"""The foundation of each version, so that a server of several knows which one answers."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. Null: published by a server of one foundation, which was the first."""
    op.add_column("versions", sa.Column("foundation", sa.String(71), nullable=True))


def downgrade() -> None:
    """Refuse: an older program would answer with the wrong foundation."""
    raise NotImplementedError("restore the backup that was made before upgrading")
