"""The console program and the `rootstock adapters` commands."""
