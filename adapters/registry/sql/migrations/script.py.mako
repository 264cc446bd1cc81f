"""${message}."""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Take the database one step forward."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Refuse: going back would lose what the step added."""
    raise NotImplementedError("restore the backup that was made before upgrading")
