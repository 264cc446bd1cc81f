"""Runners: each runs batches on one foundation."""
