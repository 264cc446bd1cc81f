"""Figures of rows whose answers are values: 0 or 1 for each label, or a number."""
