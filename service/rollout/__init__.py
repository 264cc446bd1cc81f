"""Shadows of requests, and the rollback rules by which a server takes back versions that fail or differ."""
