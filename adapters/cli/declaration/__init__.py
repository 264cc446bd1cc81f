"""Adapters as a file declares them, and the command that publishes them."""
