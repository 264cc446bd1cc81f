"""Kinds of databases that a registry can be in."""
