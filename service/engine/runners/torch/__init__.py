"""Serve on torch."""
