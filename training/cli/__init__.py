"""The `rootstock train` commands."""
