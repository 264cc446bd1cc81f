"""The registry on SQLAlchemy."""
