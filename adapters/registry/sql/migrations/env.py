"""The script that Alembic runs: it applies the steps on the connection that the registry opened."""

from alembic import context

from rootstock.adapters.registry.sql.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
