"""Studies around a run: cross-validation, search, federation, comparison, explanation."""
