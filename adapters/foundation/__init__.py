"""Foundations: how their files are found, identified, described and read."""
